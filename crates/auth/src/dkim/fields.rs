//! The names of the fields that are signed.

use super::FieldNameError;

/// The names of the fields that are signed, in the order of `h=`. From is always one of them.
///
/// Every field that is signed is sealed: `h=` names it once more than the message has it, and none
/// can be added. There are two kinds. A field that is *always* signed is sealed even if the message
/// has none of this name. A field that is signed *if present* can be added to a message without
/// one.
///
/// The default, beginning with what RFC 6376 section 5.4.1 advises:
/// - always: From, To, Cc, Subject, Reply-To, In-Reply-To, References, MIME-Version, Content-Type,
///   Content-Transfer-Encoding. Readers see them, or their programs act on them.
/// - if present: Date and Message-ID, which a server for submission may add (RFC 6409 section 8);
///   Sender, Content-ID, Content-Description, Content-Disposition, List-Id, List-Help,
///   List-Unsubscribe, List-Unsubscribe-Post, List-Subscribe, List-Post, List-Owner, List-Archive,
///   Autocrypt. A mailing list that changes nothing else may add the latter. RFC 8058 section 4
///   needs the two of List-Unsubscribe signed.
///
/// Sign last: a field that is sealed and is added on the way, such as To or MIME-Version, breaks
/// the signature. A later call for a name replaces an earlier one, so
/// `SignedFields::default().if_present("To")` leaves To open.
///
/// Resent fields are left out: a message can be resent again, with another block of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFields(Vec<SignedField>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedField {
    pub(crate) name: String,
    /// It is sealed even if the message has none.
    pub(crate) always: bool,
}

/// Names at most.
const MAX_NAMES: usize = 100;
/// Octets of a name at most. A line of a header has at most 78 (RFC 5322 section 2.1.1).
const MAX_NAME: usize = 70;

const ALWAYS: [&str; 10] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
const IF_PRESENT: [&str; 15] = [
    "Date",
    "Message-ID",
    "Sender",
    "Content-ID",
    "Content-Description",
    "Content-Disposition",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Autocrypt",
];
/// Relays add, change or remove them (RFC 6376 section 5.4).
const NEVER: [&str; 7] =
    ["Return-Path", "Received", "DKIM-Signature", "Authentication-Results", "Delivered-To", "Bcc", "Resent-Bcc"];

impl SignedFields {
    /// From alone, which RFC 6376 section 5.4 demands.
    pub fn from_alone() -> Self {
        Self(vec![SignedField { name: "From".into(), always: true }])
    }

    /// Signs each field of this name, and seals the name even if the message has none.
    ///
    /// # Errors
    /// [`FieldNameError`].
    pub fn always(self, name: &str) -> Result<Self, FieldNameError> {
        self.with(name, true)
    }

    /// Signs each field of this name, and seals the name if the message has one.
    ///
    /// # Errors
    /// [`FieldNameError`], also for From, which is always signed.
    pub fn if_present(self, name: &str) -> Result<Self, FieldNameError> {
        self.with(name, false)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, SignedField> {
        self.0.iter()
    }

    fn with(mut self, name: &str, always: bool) -> Result<Self, FieldNameError> {
        let is_name = |name: &str| name.bytes().all(|octet| matches!(octet, b'!'..=b'~') && octet != b':');
        // A semicolon is allowed in names, and would end `h=`.
        if name.is_empty() || name.len() > MAX_NAME || !is_name(name) || name.contains(';') {
            return Err(FieldNameError::NotAName { name: name.into(), limit: MAX_NAME });
        }
        let is = |other: &&str| other.eq_ignore_ascii_case(name);
        if NEVER.iter().any(is) {
            return Err(FieldNameError::Changes { name: name.into() });
        }
        if !always && is(&"From") {
            return Err(FieldNameError::From);
        }
        let count = self.0.len();
        match self.0.iter_mut().find(|field| is(&field.name.as_str())) {
            Some(field) => field.always = always,
            None if count >= MAX_NAMES => return Err(FieldNameError::TooMany { limit: MAX_NAMES }),
            None => self.0.push(SignedField { name: name.into(), always }),
        }
        Ok(self)
    }
}

impl Default for SignedFields {
    fn default() -> Self {
        let names = ALWAYS.map(|name| (name, true)).into_iter().chain(IF_PRESENT.map(|name| (name, false)));
        Self(names.map(|(name, always)| SignedField { name: name.into(), always }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_signed_are_refused() {
        let fields = SignedFields::default;
        for name in ["", "a b", "a:b", "a;b", "\u{e4}", "a\r\nb", &"x".repeat(71)] {
            assert!(matches!(fields().always(name), Err(FieldNameError::NotAName { .. })), "{name:?}");
        }
        for name in NEVER {
            assert!(matches!(fields().if_present(name), Err(FieldNameError::Changes { .. })), "{name}");
        }
        assert_eq!(fields().if_present("from"), Err(FieldNameError::From));
        let full = (0..99).try_fold(SignedFields::from_alone(), |fields, n| fields.always(&format!("X-{n}"))).unwrap();
        assert_eq!(full.clone().always("X-99"), Err(FieldNameError::TooMany { limit: 100 }));
        assert!(full.always("x-98").is_ok());
    }

    #[test]
    fn a_name_stands_once_and_the_last_word_counts() {
        let fields = SignedFields::from_alone().always("X-A").unwrap().if_present("x-a").unwrap();
        let found: Vec<_> = fields.iter().map(|field| (field.name.as_str(), field.always)).collect();
        assert_eq!(found, [("From", true), ("X-A", false)]);
    }
}
