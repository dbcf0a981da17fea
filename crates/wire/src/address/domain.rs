//! Domains and address literals.

use alloc::string::String;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::MAX_DOMAIN;
use crate::error::{SyntaxError, SyntaxErrorKind};

/// The domain of a mailbox: a name, or an address literal in square brackets.
///
/// Names are made of letters, digits, hyphens and, for internationalised domains, characters outside ASCII; each label
/// has 1 to 63 octets, the whole at most 255. A trailing dot is refused. Two domains are equal without regard to case.
#[derive(Debug, Clone, Copy)]
pub struct Domain<S = String>(S);

/// What stands in the square brackets of an address literal (RFC 5321 section 4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressLiteral<'a> {
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Ip(IpAddr),
    /// `[tag:content]` with a tag that is not IPv6.
    General {
        /// The standardised tag.
        tag: &'a str,
        /// What follows the colon.
        content: &'a str,
    },
}

impl<'a> Domain<&'a str> {
    /// Takes a domain name or an address literal.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Domain`] with the offset of the label or literal at fault.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let error = |offset| SyntaxError::new(SyntaxErrorKind::Domain, offset);
        if text.len() > MAX_DOMAIN {
            return Err(error(MAX_DOMAIN));
        }
        if text.starts_with('[') {
            return literal(text).map(|_| Self(text)).ok_or(error(0));
        }
        let mut offset = 0;
        for label in text.split('.') {
            if !is_label(label) {
                return Err(error(offset));
            }
            offset += label.len() + 1;
        }
        Ok(Self(text))
    }

    /// The owned form.
    pub fn into_owned(self) -> Domain {
        Domain(self.0.into())
    }

    pub(crate) const fn trusted(text: &'a str) -> Self {
        Self(text)
    }
}

impl<S: AsRef<str>> Domain<S> {
    /// The text as it came.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> Domain<&str> {
        Domain(self.0.as_ref())
    }

    /// The address literal, when it is one.
    pub fn address_literal(&self) -> Option<AddressLiteral<'_>> {
        literal(self.as_str())
    }
}

impl core::str::FromStr for Domain {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        Domain::parse(text).map(Domain::into_owned)
    }
}

impl<S: AsRef<str>, T: AsRef<str>> PartialEq<Domain<T>> for Domain<S> {
    fn eq(&self, other: &Domain<T>) -> bool {
        self.as_str().eq_ignore_ascii_case(other.as_str())
    }
}

impl<S: AsRef<str>> Eq for Domain<S> {}

impl<S: AsRef<str>> core::hash::Hash for Domain<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        for octet in self.as_str().bytes() {
            state.write_u8(octet.to_ascii_lowercase());
        }
    }
}

impl<S: AsRef<str>> fmt::Display for Domain<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `sub-domain` of RFC 5321, or a U-label of RFC 6531.
fn is_label(label: &str) -> bool {
    let octets = label.as_bytes();
    (1..=63).contains(&octets.len())
        && octets.first() != Some(&b'-')
        && octets.last() != Some(&b'-')
        && octets.iter().all(|&octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet >= 0x80)
        && !label.chars().any(char::is_control)
}

/// `[` dcontent `]`.
fn literal(text: &str) -> Option<AddressLiteral<'_>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    if let Ok(address) = inner.parse::<Ipv4Addr>() {
        return Some(AddressLiteral::Ip(address.into()));
    }
    let (tag, content) = inner.split_once(':')?;
    if tag.eq_ignore_ascii_case("IPv6") {
        return content.parse::<Ipv6Addr>().ok().map(|address| AddressLiteral::Ip(address.into()));
    }
    // dcontent: printable ASCII without brackets and backslash (RFC 5321 section 4.1.3).
    let dcontent = |octet: u8| matches!(octet, b'!'..=b'Z' | b'^'..=b'~');
    (is_label(tag) && tag.is_ascii() && !content.is_empty() && content.bytes().all(dcontent))
        .then_some(AddressLiteral::General { tag, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals() {
        for good in [
            "a",
            "example.org",
            "3com-x.2-b.test",
            "xn--bcher-kva.example",
            "b\u{fc}cher.example",
            "[127.0.0.1]",
            "[IPv6:::1]",
            "[ipv6:2001:db8::1]",
            "[x:y]",
        ] {
            assert!(Domain::parse(good).is_ok(), "{good}");
        }
        for (bad, offset) in [
            ("", 0),
            (".", 0),
            ("a.", 2),
            (".a", 0),
            ("a..b", 2),
            ("-a.b", 0),
            ("a.b-", 2),
            ("a_b", 0),
            ("[999.1.2.3]", 0),
            ("[192.0.2.1", 0),
            ("[]", 0),
            ("[IPv6:zz]", 0),
            ("[x:a]b]", 0),
            ("a b", 0),
            ("a\u{85}b", 0),
        ] {
            assert_eq!(Domain::parse(bad).unwrap_err(), SyntaxError::new(SyntaxErrorKind::Domain, offset), "{bad}");
        }
        assert_eq!(Domain::parse("Example.ORG").unwrap(), Domain::parse("example.org").unwrap());
    }
}
