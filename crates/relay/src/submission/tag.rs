//! The field that names the campaign of a message.

use std::{fmt, str::FromStr};

use bytes::BytesMut;
use posthaste_queue::MAX_NAME;
use posthaste_server::{Refusal, refusal};
use thiserror::Error;

use super::header::fields;

/// The name of a field that the relay reads and removes, such as `X-Campaign`. It is compared
/// without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagField(String);

/// A text that cannot be the name of such a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TagFieldError {
    /// It is not the name of a field.
    #[error("`{0}` is no name of a field; write up to 76 letters, digits and hyphens, such as X-Campaign")]
    Name(String),
    /// The field says something to others, and must not be removed.
    #[error(
        "`{0}` is a field that others need, and the relay would remove it; choose a name of your own, such as X-Campaign"
    )]
    Needed(String),
}

/// The octets of the longest name.
const MAX_FIELD: usize = 76;

/// Fields that must stay (RFC 5322 section 3.6, RFC 2045, RFC 6376).
const NEEDED: [&str; 21] = [
    "authentication-results",
    "auto-submitted",
    "bcc",
    "cc",
    "comments",
    "date",
    "delivered-to",
    "dkim-signature",
    "from",
    "in-reply-to",
    "keywords",
    "message-id",
    "mime-version",
    "received",
    "references",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "tls-required",
    "to",
];
/// The same by the beginning of the name.
const NEEDED_WITH: [&str; 4] = ["arc-", "content-", "list-", "resent-"];

impl TagField {
    /// The name, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes the field out of a header. `None`: it is not there, or is empty.
    ///
    /// # Errors
    /// The refusal of the message.
    pub(super) fn take(&self, header: &mut BytesMut) -> Result<Option<String>, Refusal> {
        let mut found = fields(header).filter(|field| field.name.eq_ignore_ascii_case(self.0.as_bytes()));
        let Some(field) = found.next() else { return Ok(None) };
        let is_twice = found.next().is_some();
        drop(found);
        if is_twice {
            return Err(refusal!("554 5.6.0 The message has two {} fields, send one", self));
        }
        let value = std::str::from_utf8(field.value).map_err(|_| self.refused("is not in UTF-8"))?;
        let value = value.split(['\r', '\n']).collect::<String>();
        let value = value.trim_matches([' ', '\t']);
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(self.refused("has control characters"));
        }
        if value.len() > MAX_NAME {
            return Err(refusal!(
                "554 5.6.0 The {} field has {} octets, at most {} are taken",
                self,
                value.len(),
                MAX_NAME
            ));
        }
        let value = value.to_owned();
        let after = header.get(field.at.end..).unwrap_or_default().to_vec();
        let start = field.at.start;
        header.truncate(start);
        header.extend_from_slice(&after);
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    fn refused(&self, why: &str) -> Refusal {
        refusal!("554 5.6.0 The {} field {}", self, why)
    }
}

impl FromStr for TagField {
    type Err = TagFieldError;

    fn from_str(text: &str) -> Result<Self, TagFieldError> {
        let is_name = (1..=MAX_FIELD).contains(&text.len())
            && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
        if !is_name {
            return Err(TagFieldError::Name(text.to_owned()));
        }
        let lower = text.to_ascii_lowercase();
        if NEEDED.contains(&&*lower) || NEEDED_WITH.iter().any(|start| lower.starts_with(start)) {
            return Err(TagFieldError::Needed(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TagField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_leaves_the_header_however_it_is_written() {
        let field: TagField = "X-Campaign".parse().unwrap();
        let long = format!("X-Campaign: {}\r\n", "x".repeat(255));
        for (header, tag, rest) in [
            ("", None, ""),
            ("A: b\r\n\r\n", None, "A: b\r\n\r\n"),
            ("X-Campaign: spring\r\n\r\n", Some("spring"), "\r\n"),
            ("A: b\r\nx-CAMPAIGN :spring sale \t\r\nC: d\r\n\r\n", Some("spring sale"), "A: b\r\nC: d\r\n\r\n"),
            ("X-Campaign:\r\n\tspring\r\n sale\r\nA: b\r\n e\r\n", Some("spring sale"), "A: b\r\n e\r\n"),
            ("A: b\r\nX-Campaign: \u{e4}", Some("\u{e4}"), "A: b\r\n"),
            ("X-Campaign: \r\n \r\nA: b\r\n", None, "A: b\r\n"),
            ("X-Campaign: a\nA: b\n", Some("a"), "A: b\n"),
            (
                "A: b\r\n X-Campaign: no\r\nX-Campaigns: no\r\nY-X-Campaign: no\r\n",
                None,
                "A: b\r\n X-Campaign: no\r\nX-Campaigns: no\r\nY-X-Campaign: no\r\n",
            ),
            (&long, Some(&long[12..267]), ""),
        ] {
            let mut octets = BytesMut::from(header);
            let found = field.take(&mut octets).unwrap();
            assert_eq!((found.as_deref(), &octets[..]), (tag, rest.as_bytes()), "{header:?}");
        }
    }

    #[test]
    fn a_tag_that_is_not_clear_refuses_the_message() {
        let field: TagField = "X-Campaign".parse().unwrap();
        let long = format!("X-Campaign: {}\r\n", "x".repeat(256)).into_bytes();
        for (header, words) in [
            (&b"X-Campaign: a\r\nx-campaign: a\r\n"[..], "two X-Campaign fields"),
            (b"X-Campaign: \r\nX-Campaign: a\r\n", "two X-Campaign fields"),
            (b"X-Campaign: \xe4\r\n", "not in UTF-8"),
            (b"X-Campaign: a\x1bb\r\n", "control characters"),
            (b"X-Campaign: a\0b\r\n", "control characters"),
            (&long, "256 octets, at most 255"),
        ] {
            let said = field.take(&mut BytesMut::from(header)).unwrap_err().to_string();
            assert!(said.starts_with("554 5.6.0") && said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_field_that_others_need_is_no_tag() {
        for name in ["Subject", "FROM", "Received", "Content-Type", "List-Unsubscribe", "resent-to", "DKIM-Signature"] {
            assert!(matches!(name.parse::<TagField>(), Err(TagFieldError::Needed(_))), "{name}");
        }
        for name in ["", "X Campaign", "X:", "X\r\nY", "\u{e4}", &"x".repeat(77)] {
            assert!(matches!(name.parse::<TagField>(), Err(TagFieldError::Name(_))), "{name}");
        }
        assert!("X-Job_1".parse::<TagField>().is_ok());
    }
}
