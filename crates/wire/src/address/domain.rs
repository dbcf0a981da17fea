//! Domains and address literals.

use alloc::string::String;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nom::{Parser, sequence::delimited};

use super::{MAX_DOMAIN, MAX_LABEL};
use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{Fault, Parsed, class, is, octet, some_of, whole},
};

/// The domain of a mailbox: a name, or an address literal in square brackets.
///
/// A name has letters, digits, hyphens, underscores and, if it is internationalized, characters
/// outside ASCII. A label in ASCII has 1 to 63 octets, the name at most 255. RFC 5321 section 4.1.2
/// allows host names only. The DNS also has names with underscores, and with hyphens at the ends of
/// labels. Mail comes from such names, so they are accepted. A trailing dot is refused. Domains
/// compare without regard to case.
#[derive(Debug, Clone, Copy)]
pub struct Domain<S = String>(S);

/// The text in the square brackets of an address literal (RFC 5321 section 4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressLiteral<'a> {
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    Ip(IpAddr),
    /// `[tag:content]` with a tag that is not IPv6.
    General {
        /// The standardized tag.
        tag: &'a str,
        /// The text after the colon.
        content: &'a str,
    },
}

impl<'a> Domain<&'a str> {
    /// Parses a domain name or an address literal, the whole text.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Domain`] with the offset of the label or literal at fault.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        whole(text, SyntaxErrorKind::Domain, domain).map(|()| Self(text))
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

    /// The address literal. `None`: the domain is a name.
    pub fn address_literal(&self) -> Option<AddressLiteral<'_>> {
        literal(self.as_str().strip_prefix('[')?.strip_suffix(']')?)
    }

    /// Returns `true` for an address literal, and for a name without underscores and without
    /// hyphens at the ends of its labels.
    pub(crate) fn is_host_name(&self) -> bool {
        let is_label = |label: &str| !label.starts_with('-') && !label.ends_with('-') && !label.contains('_');
        self.as_str().starts_with('[') || self.as_str().split('.').all(is_label)
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

/// `Domain / address-literal`, of at most [`MAX_DOMAIN`] octets.
#[inline(always)]
pub(crate) fn domain(input: &[u8]) -> Parsed<'_, ()> {
    let parsed = if input.first() == Some(&b'[') { address_literal(input) } else { name(input) };
    let left = match &parsed {
        Ok((rest, ())) => rest.len(),
        Err(fault) => Fault::left(fault),
    };
    match input.get(MAX_DOMAIN..) {
        Some(beyond) if left < beyond.len() => Fault::at(beyond, SyntaxErrorKind::Domain),
        _ => parsed,
    }
}

/// `sub-domain *("." sub-domain)`.
#[inline(always)]
pub(crate) fn name(mut input: &[u8]) -> Parsed<'_, ()> {
    loop {
        let (rest, label) = some_of(class::LABEL, SyntaxErrorKind::Domain)(input)?;
        if label.len() > MAX_LABEL && label.is_ascii() {
            return Fault::at(input, SyntaxErrorKind::Domain);
        }
        match rest.split_first() {
            Some((b'.', rest)) => input = rest,
            _ => return Ok((rest, ())),
        }
    }
}

/// `"[" ... "]"`.
#[inline(never)]
fn address_literal(input: &[u8]) -> Parsed<'_, ()> {
    let kind = SyntaxErrorKind::Domain;
    let (rest, content) =
        delimited(octet(b'[', kind), some_of(class::DCONTENT, kind), octet(b']', kind)).parse(input)?;
    // dcontent is ASCII.
    match core::str::from_utf8(content).ok().and_then(literal) {
        Some(_) => Ok((rest, ())),
        None => Fault::at(input.get(1..).unwrap_or_default(), kind),
    }
}

/// The text in the brackets: `IPv4-address-literal / IPv6-address-literal /
/// General-address-literal`.
fn literal(content: &str) -> Option<AddressLiteral<'_>> {
    if let Ok(address) = content.parse::<Ipv4Addr>() {
        return Some(AddressLiteral::Ip(address.into()));
    }
    let (tag, content) = content.split_once(':')?;
    if tag.eq_ignore_ascii_case("IPv6") {
        return content.parse::<Ipv6Addr>().ok().map(|address| AddressLiteral::Ip(address.into()));
    }
    // Standardized-tag = Ldh-str.
    let is_tag = !tag.is_empty() && !tag.ends_with('-') && tag.bytes().all(is(class::KEYWORD));
    (is_tag && !content.is_empty()).then_some(AddressLiteral::General { tag, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_names_or_address_literals() {
        for good in [
            "a",
            "example.org",
            "3com-x.2-b.test",
            "xn--bcher-kva.example",
            "b\u{fc}cher.example",
            "my_server.example.org",
            "_dmarc.a_b._c",
            "-a.b-.-",
            "\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}\u{3048}\u{4f8b}.test",
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
            ("[999.1.2.3]", 1),
            ("[192.0.2.1", 10),
            ("[]", 1),
            ("[IPv6:zz]", 1),
            ("[x:a]b]", 5),
            ("a b", 1),
            ("a\u{85}b", 1),
        ] {
            let error = Domain::parse(bad).unwrap_err();
            assert_eq!((error.kind, error.offset), (SyntaxErrorKind::Domain, offset), "{bad}");
        }
        assert_eq!(Domain::parse("Example.ORG").unwrap(), Domain::parse("example.org").unwrap());
    }
}
