//! Names as the DNS holds them.

use std::fmt;

use posthaste_tokio::wire::Domain;
use thiserror::Error;

/// A name as the DNS holds it: labels of 1 to 63 octets, 255 octets in all (RFC 1035 section 3.1).
///
/// A label may hold any octet (RFC 2181 section 11): only the DNS decides which names exist. The
/// text is ASCII. Letters, digits, `-` and `_` stand for themselves. Every other octet is a
/// backslash and three decimal digits (RFC 1035 section 5.1). So the text is harmless in a log
/// line, a reply or a report. Names of other scripts are in A-labels. Equality ignores the case of
/// ASCII letters.
#[derive(Debug, Clone)]
pub struct HostName(String);

/// Why the DNS could not hold a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostNameError {
    /// A label has no octet, or the name has no label.
    #[error("a label of the name is empty")]
    EmptyLabel,
    /// A label has more than 63 octets, in A-labels.
    #[error("a label of the name has more than 63 octets")]
    LongLabel,
    /// The name has more than 255 octets. One octet for each label and one for the end count too.
    #[error("the name has more than 255 octets")]
    LongName,
    /// A backslash is the last character, or the digits after it are not three that make a number
    /// up to 255.
    #[error("a backslash in the name needs three digits after it, up to 255, or one other character")]
    Escape,
    /// A label beyond ASCII has no A-label (RFC 5891 section 4), or the feature `idna` is missing.
    #[error("a label of the name has no A-label")]
    NoALabel,
}

/// The most octets of a label, and of a name on the wire (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 255;

impl HostName {
    /// Parses a name whose labels are ASCII, escaped as the [type](Self) says, or U-labels (with
    /// the feature `idna`). One trailing dot is allowed.
    ///
    /// # Errors
    /// [`HostNameError`]; such a name cannot exist.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        if text.is_ascii() {
            return Self::parse_ascii(text);
        }
        let mut ascii = String::with_capacity(text.len());
        for (index, label) in text.split('.').enumerate() {
            if index > 0 {
                ascii.push('.');
            }
            if label.is_ascii() {
                ascii.push_str(label);
            } else {
                // Each label alone, so that a label no host can have, such as `_dmarc`, is allowed
                // beside it.
                ascii.push_str(a_label(label).ok_or(HostNameError::NoALabel)?.as_str());
            }
        }
        Self::parse_ascii(&ascii)
    }

    fn parse_ascii(text: &str) -> Result<Self, HostNameError> {
        let (mut labels, mut label) = (Vec::new(), Vec::new());
        let mut rest = text.as_bytes();
        while let Some((&octet, after)) = rest.split_first() {
            rest = after;
            match octet {
                b'.' => labels.push(std::mem::take(&mut label)),
                b'\\' => {
                    let (octet, after) = unescape(rest)?;
                    label.push(octet);
                    rest = after;
                }
                octet => label.push(octet),
            }
        }
        // An empty label at the end: the trailing dot.
        if !label.is_empty() || labels.is_empty() {
            labels.push(label);
        }
        Self::from_labels(labels)
    }

    /// Makes a name of labels as the DNS has them.
    ///
    /// # Errors
    /// [`HostNameError`] if the DNS could not hold them.
    pub fn from_labels(labels: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self, HostNameError> {
        let (mut text, mut octets) = (String::new(), 1);
        for label in labels {
            let label = label.as_ref();
            octets += 1 + label.len();
            match label.len() {
                0 => return Err(HostNameError::EmptyLabel),
                1..=MAX_LABEL if octets <= MAX_NAME => {}
                1..=MAX_LABEL => return Err(HostNameError::LongName),
                _ => return Err(HostNameError::LongLabel),
            }
            if !text.is_empty() {
                text.push('.');
            }
            for &octet in label {
                if stands_for_itself(octet) {
                    text.push(char::from(octet));
                } else {
                    text.push_str(&format!("\\{octet:03}"));
                }
            }
        }
        if text.is_empty() { Err(HostNameError::EmptyLabel) } else { Ok(Self(text)) }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels' octets.
    pub fn labels(&self) -> impl Iterator<Item = Vec<u8>> {
        self.0.split('.').map(|label| {
            let (mut octets, mut rest) = (Vec::with_capacity(label.len()), label.as_bytes());
            while let Some((&octet, after)) = rest.split_first() {
                // The text is our own, so no escape is cut off.
                let (octet, after) =
                    if octet == b'\\' { unescape(after).unwrap_or((octet, after)) } else { (octet, after) };
                octets.push(octet);
                rest = after;
            }
            octets
        })
    }

    /// Returns `true` if every octet is a letter, a digit, `-` or `_`.
    pub fn is_plain(&self) -> bool {
        !self.0.contains('\\')
    }
}

#[cfg(feature = "idna")]
fn a_label(label: &str) -> Option<Domain> {
    Domain::parse(label).and_then(|label| label.to_a_labels()).ok()
}

#[cfg(not(feature = "idna"))]
const fn a_label(_: &str) -> Option<Domain> {
    None
}

/// The octet that follows a backslash, and the rest.
fn unescape(after: &[u8]) -> Result<(u8, &[u8]), HostNameError> {
    match after {
        [hundreds @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => {
            let digits = [hundreds, tens, ones].map(|digit| u16::from(digit - b'0'));
            let code = digits.iter().fold(0, |code, digit| code * 10 + digit);
            u8::try_from(code).map(|octet| (octet, rest)).map_err(|_| HostNameError::Escape)
        }
        [b'0'..=b'9', ..] | [] => Err(HostNameError::Escape),
        [octet, rest @ ..] => Ok((*octet, rest)),
    }
}

const fn stands_for_itself(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}

impl PartialEq for HostName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for HostName {}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_dns_holds_and_its_text_is_harmless() {
        for (text, expected) in [
            ("mail.one.test", "mail.one.test"),
            ("Mail.One.TEST.", "Mail.One.TEST"),
            ("mail_1.one.test", "mail_1.one.test"),
            ("-a-.123", "-a-.123"),
            ("xn--0.test", "xn--0.test"),
            ("xn--bcher-kva.test", "xn--bcher-kva.test"),
            ("a b\r\n.test", "a\\032b\\013\\010.test"),
            ("a\\.b\\046c\\\\.test", "a\\046b\\046c\\092.test"),
            ("[127.0.0.1]", "\\091127.0.0.1\\093"),
            ("\\000\\255.test", "\\000\\255.test"),
            ("*\"(;.test", "\\042\\034\\040\\059.test"),
        ] {
            let name = HostName::parse(text).unwrap();
            assert_eq!(name.as_str(), expected, "{text:?}");
            assert_eq!(HostName::parse(name.as_str()).unwrap().as_str(), expected, "{text:?}");
            assert_eq!(HostName::from_labels(name.labels()).unwrap().as_str(), expected, "{text:?}");
        }
    }

    #[cfg(feature = "idna")]
    #[test]
    fn a_name_in_u_labels_is_the_one_in_a_labels() {
        for (text, expected) in [
            ("b\u{fc}cher.test", "xn--bcher-kva.test"),
            ("_x.B\u{fc}cher.test", "_x.xn--bcher-kva.test"),
            ("xn--0.b\u{fc}cher.test", "xn--0.xn--bcher-kva.test"),
        ] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), expected, "{text}");
        }
        assert_eq!(HostName::parse("MX.xn--BCHER-kva.test"), HostName::parse("mx.b\u{fc}cher.test"));
    }

    #[test]
    fn a_name_that_cannot_exist_is_an_error() {
        use HostNameError::{EmptyLabel, Escape, LongLabel, LongName, NoALabel};
        let (label, longest) =
            ("a".repeat(63), format!("{}{}", format!("{}.", "a".repeat(63)).repeat(3), "b".repeat(61)));
        assert!(HostName::parse(&label).is_ok() && HostName::parse(&longest).is_ok());
        for (text, expected) in [
            (String::new(), EmptyLabel),
            (".".to_owned(), EmptyLabel),
            ("..".to_owned(), EmptyLabel),
            ("a..b".to_owned(), EmptyLabel),
            (".a".to_owned(), EmptyLabel),
            ("a..".to_owned(), EmptyLabel),
            (format!("{label}a.test"), LongLabel),
            (format!("{longest}b"), LongName),
            (format!("{longest}.b"), LongName),
            ("a\\".to_owned(), Escape),
            ("a\\25".to_owned(), Escape),
            ("a\\256".to_owned(), Escape),
            ("\u{301}a.test".to_owned(), NoALabel),
        ] {
            assert_eq!(HostName::parse(&text), Err(expected), "{text:?}");
        }
    }
}
