//! Internationalized domain names in both forms (RFC 5890 section 2.3.2.1, RFC 5891), by the crate
//! `idna`.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use super::{Domain, Mailbox};
use crate::error::{SyntaxError, SyntaxErrorKind};

const FAULT: SyntaxError = SyntaxError::new(SyntaxErrorKind::Domain, 0);

impl<S: AsRef<str>> Domain<S> {
    /// The name in the form that the DNS uses: A-labels (`xn--…`) for labels that are not ASCII,
    /// letters in lower case.
    ///
    /// An address literal does not change. A name in ASCII changes in case only. Its labels are not
    /// checked: only the DNS decides which names exist.
    ///
    /// The mapping is that of UTS #46, non-transitional, with the lengths of the DNS.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Domain`], only for a name that is not ASCII: a label is not a U-label, is
    /// an A-label without a U-label, or becomes too long.
    ///
    /// ```
    /// use posthaste_wire::Domain;
    /// let domain = Domain::parse("Bücher.example")?;
    /// assert_eq!(domain.to_a_labels()?.as_str(), "xn--bcher-kva.example");
    /// assert_eq!(domain.to_a_labels()?.to_u_labels()?.as_str(), "bücher.example");
    /// # Ok::<(), posthaste_wire::SyntaxError>(())
    /// ```
    pub fn to_a_labels(&self) -> Result<Domain, SyntaxError> {
        if self.address_literal().is_some() {
            return Ok(self.borrowed().into_owned());
        }
        if self.as_str().is_ascii() {
            return Domain::parse(&self.as_str().to_ascii_lowercase()).map(Domain::into_owned);
        }
        let name = self.as_str().as_bytes();
        // The result is parsed: the mapping can make ASCII that a name must not have.
        let name = Uts46::new().to_ascii(name, AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Verify);
        Domain::parse(&name.map_err(|_| FAULT)?).map(Domain::into_owned)
    }

    /// The name in the form that people read: U-labels in place of A-labels. An address literal
    /// does not change.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Domain`] if a label is not a U-label, or is an A-label without a U-label.
    pub fn to_u_labels(&self) -> Result<Domain, SyntaxError> {
        if self.address_literal().is_some() {
            return Ok(self.borrowed().into_owned());
        }
        let name = self.as_str().as_bytes();
        match Uts46::new().to_unicode(name, AsciiDenyList::EMPTY, Hyphens::Allow) {
            (name, Ok(())) => Domain::parse(&name).map(Domain::into_owned),
            (_, Err(_)) => Err(FAULT),
        }
    }
}

impl<S: AsRef<str>> Mailbox<S> {
    /// The mailbox with its domain in A-labels. It is ASCII, and so fit for any server, if its
    /// local part is.
    ///
    /// # Errors
    /// As [`Domain::to_a_labels`].
    pub fn to_a_labels(&self) -> Result<Mailbox, SyntaxError> {
        let text = alloc::format!("{}@{}", self.local_part(), self.domain().to_a_labels()?);
        Mailbox::parse(&text).map(Mailbox::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn domain(text: &str) -> Domain<&str> {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_labels_and_u_labels_convert_into_each_other() {
        for (u_label, a_label) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("faß.example", "xn--fa-hia.example"),
            ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
            ("plain.example", "plain.example"),
            ("r3---sn.example", "r3---sn.example"),
            ("my_server.example", "my_server.example"),
            ("-a-.b_ücher.example", "-a-.xn--b_cher-4ya.example"),
            ("[192.0.2.1]", "[192.0.2.1]"),
        ] {
            assert_eq!(domain(u_label).to_a_labels().unwrap().as_str(), a_label);
            assert_eq!(domain(a_label).to_u_labels().unwrap().as_str(), u_label);
        }
        let mailbox: Mailbox = "info@bücher.example".parse().unwrap();
        assert_eq!(mailbox.to_a_labels().unwrap().to_string(), "info@xn--bcher-kva.example");
    }

    #[test]
    fn malformed_labels_are_refused() {
        // Not an A-label, one of an unassigned character, and a combining mark at the start.
        for text in ["xn--a.example", "xn--0.test", "\u{301}a.test"] {
            assert_eq!(domain(text).to_u_labels(), Err(FAULT), "{text}");
            // The DNS decides about names in ASCII.
            let asked = if text.is_ascii() { Ok(domain(text).into_owned()) } else { Err(FAULT) };
            assert_eq!(domain(text).to_a_labels(), asked, "{text}");
        }
        // Mapped to ASCII that no name has: a slash.
        assert!(domain("a\u{2100}b.test").to_a_labels().is_err());
    }
}
