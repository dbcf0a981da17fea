//! The meaning of enhanced status codes: the registry of RFC 5248, in our own words.

use super::EnhancedCode;

/// A registered pair of subject and detail, which has no class (RFC 3463 section 2).
struct Registered {
    subject: u16,
    detail: u16,
    /// The RFC that defines the pair. 0: the registry names none.
    rfc: u16,
    meaning: &'static str,
}

impl EnhancedCode {
    /// The meaning of subject and detail (RFC 5248): a few words, in lower case. `None`: they are
    /// not registered. The class distinguishes success, delay and failure.
    ///
    /// ```
    /// use posthaste_wire::EnhancedCode;
    /// let full: EnhancedCode = "4.2.2".parse()?;
    /// assert_eq!((full.meaning(), full.subject_meaning(), full.rfc()), (Some("mailbox full"), Some("mailbox"), Some(3463)));
    /// let own: EnhancedCode = "5.7.999".parse()?;
    /// assert_eq!((own.meaning(), own.subject_meaning(), own.rfc()), (None, Some("security or policy"), None));
    /// # Ok::<(), posthaste_wire::reply::ParseEnhancedCodeError>(())
    /// ```
    pub fn meaning(self) -> Option<&'static str> {
        self.registered().map(|row| row.meaning)
    }

    /// The number of the RFC that defines subject and detail. `None`: they are not registered, or
    /// without an RFC.
    pub fn rfc(self) -> Option<u16> {
        self.registered().map(|row| row.rfc).filter(|rfc| *rfc != 0)
    }

    /// The meaning of the subject (RFC 3463 section 3), for details that are not registered.
    /// `None`: the subject is above 7.
    pub const fn subject_meaning(self) -> Option<&'static str> {
        match self.subject() {
            0 => Some("other or undefined"),
            1 => Some("address"),
            2 => Some("mailbox"),
            3 => Some("mail system"),
            4 => Some("network or routing"),
            5 => Some("mail protocol"),
            6 => Some("message content"),
            7 => Some("security or policy"),
            _ => None,
        }
    }

    fn registered(self) -> Option<&'static Registered> {
        let found = REGISTRY.binary_search_by_key(&(self.subject(), self.detail()), |row| (row.subject, row.detail));
        REGISTRY.get(found.ok()?)
    }
}

const fn row(subject: u16, detail: u16, rfc: u16, meaning: &'static str) -> Registered {
    Registered { subject, detail, rfc, meaning }
}

/// In ascending order, for the binary search.
const REGISTRY: &[Registered] = &[
    row(0, 0, 3463, "undefined status"),
    row(1, 0, 3463, "address status"),
    row(1, 1, 3463, "no such mailbox"),
    row(1, 2, 3463, "no such mail system"),
    row(1, 3, 3463, "malformed recipient address"),
    row(1, 4, 3463, "ambiguous recipient address"),
    row(1, 5, 3463, "recipient address valid"),
    row(1, 6, 3463, "mailbox moved without a forwarding address"),
    row(1, 7, 3463, "malformed sender address"),
    row(1, 8, 3463, "no such sender system"),
    row(1, 9, 3886, "relayed to a system that does not track messages"),
    row(1, 10, 7505, "recipient domain accepts no mail"),
    row(2, 0, 3463, "mailbox status"),
    row(2, 1, 3463, "mailbox disabled"),
    row(2, 2, 3463, "mailbox full"),
    row(2, 3, 3463, "message too long for the mailbox"),
    row(2, 4, 3463, "mailing list cannot be expanded"),
    row(3, 0, 3463, "mail system status"),
    row(3, 1, 3463, "mail system full"),
    row(3, 2, 3463, "mail system takes no messages"),
    row(3, 3, 3463, "mail system lacks a requested feature"),
    row(3, 4, 3463, "message too big for the mail system"),
    row(3, 5, 3463, "mail system misconfigured"),
    row(3, 6, 6710, "requested priority was changed"),
    row(4, 0, 3463, "network or routing status"),
    row(4, 1, 3463, "no answer from the host"),
    row(4, 2, 3463, "bad connection"),
    row(4, 3, 3463, "directory server failure"),
    row(4, 4, 3463, "no route"),
    row(4, 5, 3463, "mail system congested"),
    row(4, 6, 3463, "routing loop"),
    row(4, 7, 3463, "delivery time expired"),
    row(5, 0, 3463, "protocol status"),
    row(5, 1, 3463, "invalid command"),
    row(5, 2, 3463, "syntax error"),
    row(5, 3, 3463, "too many recipients"),
    row(5, 4, 3463, "invalid command arguments"),
    row(5, 5, 3463, "wrong protocol version"),
    row(5, 6, 4954, "authentication exchange line too long"),
    row(6, 0, 3463, "content status"),
    row(6, 1, 3463, "content type not supported"),
    row(6, 2, 3463, "conversion required and prohibited"),
    row(6, 3, 3463, "conversion required and not supported"),
    row(6, 4, 3463, "converted with loss"),
    row(6, 5, 3463, "conversion failed"),
    row(6, 6, 4468, "message content not available"),
    row(6, 7, 6531, "non-ASCII address not permitted"),
    row(6, 8, 6531, "UTF-8 reply needed and not permitted"),
    row(6, 9, 6531, "message with a UTF-8 header cannot be passed on"),
    // A duplicate of 6.8, deprecated in the registry.
    row(6, 10, 6531, "UTF-8 reply needed and not permitted"),
    row(7, 0, 3463, "security or policy status"),
    row(7, 1, 3463, "delivery not authorized"),
    row(7, 2, 3463, "mailing list expansion prohibited"),
    row(7, 3, 3463, "security conversion required and not possible"),
    row(7, 4, 3463, "security features not supported"),
    row(7, 5, 3463, "cryptographic failure"),
    row(7, 6, 3463, "cryptographic algorithm not supported"),
    row(7, 7, 3463, "message integrity failure"),
    row(7, 8, 4954, "authentication credentials invalid"),
    row(7, 9, 4954, "authentication mechanism too weak"),
    row(7, 10, 5248, "encryption needed"),
    row(7, 11, 4954, "encryption needed for this authentication mechanism"),
    row(7, 12, 4954, "password transition needed"),
    row(7, 13, 5248, "user account disabled"),
    row(7, 14, 5248, "trust relationship required"),
    row(7, 15, 6710, "priority too low"),
    row(7, 16, 6710, "message too big for its priority"),
    row(7, 17, 7293, "mailbox owner has changed"),
    row(7, 18, 7293, "domain owner has changed"),
    row(7, 19, 7293, "recipient's validity cannot be tested"),
    row(7, 20, 7372, "no passing DKIM signature"),
    row(7, 21, 7372, "no acceptable DKIM signature"),
    row(7, 22, 7372, "no valid DKIM signature of the author"),
    row(7, 23, 7372, "SPF validation failed"),
    row(7, 24, 7372, "SPF validation error"),
    row(7, 25, 7372, "reverse DNS validation failed"),
    row(7, 26, 7372, "several authentication checks failed"),
    row(7, 27, 7505, "sender domain accepts no mail"),
    row(7, 28, 0, "mail flood detected"),
    row(7, 29, 8617, "ARC validation failed"),
    row(7, 30, 8689, "REQUIRETLS support needed"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_in_order_and_each_row_has_a_meaning() {
        assert!(REGISTRY.windows(2).all(|two| (two[0].subject, two[0].detail) < (two[1].subject, two[1].detail)));
        for row in REGISTRY {
            let code = EnhancedCode::new(5, row.subject, row.detail).unwrap();
            assert_eq!(code.meaning(), Some(row.meaning));
            assert!(code.subject_meaning().is_some());
            assert!(!row.meaning.is_empty() && !row.meaning.ends_with('.'));
        }
    }

    #[test]
    fn enhanced_codes_that_this_workspace_emits_are_registered() {
        for code in [
            "2.0.0", "2.1.0", "2.1.5", "2.5.0", "2.7.0", "4.2.0", "4.2.1", "4.3.0", "4.3.1", "4.3.2", "4.4.1", "4.4.2",
            "4.4.3", "4.5.3", "4.7.0", "4.7.1", "4.7.5", "5.1.1", "5.1.2", "5.1.3", "5.1.7", "5.1.10", "5.3.2",
            "5.3.4", "5.4.4", "5.4.6", "5.5.0", "5.5.1", "5.5.2", "5.5.4", "5.6.0", "5.6.3", "5.6.7", "5.7.0", "5.7.1",
            "5.7.8", "5.7.11",
        ] {
            assert!(code.parse::<EnhancedCode>().unwrap().meaning().is_some(), "{code}");
        }
    }
}
