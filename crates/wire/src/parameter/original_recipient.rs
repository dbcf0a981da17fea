//! `ORCPT=` (RFC 3461 section 4.2, RFC 6533 section 3).

use alloc::{borrow::Cow, format, string::String};
use core::fmt;

use super::{fault, fault_in};
use crate::{
    address::Mailbox,
    error::SyntaxError,
    grammar::{class, count, is},
    utf8_xtext::Utf8Xtext,
    xtext::Xtext,
};

/// The most octets of an ORCPT value that every server takes (RFC 3461 section 4.2). This crate
/// takes longer ones, since an address may be longer.
pub const MAX_ORCPT: usize = 500;

/// The recipient as the sender knew it: `addr-type ";" encoded-address`.
///
/// The address is xtext. With the type `utf-8` it is one of the forms of [`Utf8Xtext`], or a plain
/// mailbox outside ASCII.
///
/// ```
/// use posthaste_wire::{Mailbox, OriginalRecipient};
/// let original = OriginalRecipient::new(Mailbox::parse("a+b@example.org")?)?;
/// assert_eq!(original.as_str(), "rfc822;a+2Bb@example.org");
/// assert_eq!((original.address_type(), &*original.address()), ("rfc822", "a+b@example.org"));
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OriginalRecipient<S = String> {
    text: S,
    /// Octets before the semicolon.
    kind: u32,
}

impl<'a> OriginalRecipient<&'a str> {
    /// Parses an encoded value.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`](crate::SyntaxErrorKind::ParameterValue) at the first
    /// wrong octet.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let octets = text.as_bytes();
        let end = match octets.first_chunk::<7>() {
            // Nearly every recipient has this type.
            Some(front) if front.eq_ignore_ascii_case(b"rfc822;") => front.len() - 1,
            // An atom (RFC 822 section 3.3) of octets that an esmtp-value may have.
            _ => octets.iter().take_while(|octet| is(class::ATEXT)(**octet) && is(class::VALUE)(**octet)).count(),
        };
        let (kind, address) = (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
        if kind.is_empty() || octets.get(end) != Some(&b';') || address.is_empty() {
            return Err(fault_in(text, if octets.get(end) == Some(&b';') && end > 0 { end + 1 } else { end }));
        }
        let checked = match kind.eq_ignore_ascii_case("utf-8") {
            true => Utf8Xtext::parse(address).map(|_| ()).or_else(|error| match is_utf8_address(address) {
                true => Ok(()),
                false => Err(error),
            }),
            false => Xtext::parse(address).map(|_| ()),
        };
        checked.map_err(|error| error.at(end + 1))?;
        // A line is far shorter than 4 GiB.
        Ok(Self { text, kind: u32::try_from(end).map_err(|_| fault(0))? })
    }

    /// The owned form.
    pub fn into_owned(self) -> OriginalRecipient {
        OriginalRecipient { text: self.text.into(), kind: self.kind }
    }
}

impl OriginalRecipient {
    /// Encodes a mailbox as text in ASCII. The type is `rfc822` for a mailbox in ASCII, otherwise
    /// `utf-8`.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`](crate::SyntaxErrorKind::ParameterValue) if the mailbox
    /// cannot be encoded.
    pub fn new<S: AsRef<str>>(mailbox: Mailbox<S>) -> Result<Self, SyntaxError> {
        let address = mailbox.as_str();
        match mailbox.is_ascii() {
            true => format!("rfc822;{}", Xtext::encode(address.as_bytes())?),
            false => format!("utf-8;{}", Utf8Xtext::encode(address)?),
        }
        .parse()
    }
}

impl<S: AsRef<str>> OriginalRecipient<S> {
    /// The value as it came.
    pub fn as_str(&self) -> &str {
        self.text.as_ref()
    }

    /// The conversion cannot fail: the number came from a `usize`.
    fn kind_octets(&self) -> usize {
        usize::try_from(self.kind).unwrap_or(usize::MAX - 1)
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> OriginalRecipient<&str> {
        OriginalRecipient { text: self.text.as_ref(), kind: self.kind }
    }

    /// The address type, such as `rfc822`.
    pub fn address_type(&self) -> &str {
        self.as_str().get(..self.kind_octets()).unwrap_or_default()
    }

    /// The address as it came, still encoded.
    pub fn encoded_address(&self) -> &str {
        self.as_str().get(self.kind_octets() + 1..).unwrap_or_default()
    }

    /// The decoded address, with U+FFFD for octets that are not UTF-8. It is text of the peer: with
    /// the type `rfc822` it need not be a mailbox.
    pub fn address(&self) -> Cow<'_, str> {
        let encoded = self.encoded_address();
        // Decoded text may have control characters outside ASCII. A report must not have them.
        let plain = |octets: &[u8]| String::from_utf8_lossy(octets).replace(char::is_control, "\u{fffd}");
        if self.address_type().eq_ignore_ascii_case("utf-8") {
            Utf8Xtext::parse(encoded).map_or(Cow::Borrowed(encoded), Utf8Xtext::into_decoded)
        } else {
            Xtext::parse(encoded).map_or(Cow::Borrowed(encoded), |text| match text.into_decoded() {
                Cow::Borrowed(_) => Cow::Borrowed(encoded),
                Cow::Owned(octets) => Cow::Owned(plain(&octets)),
            })
        }
    }

    /// Returns `true` if the value can go to a server without SMTPUTF8.
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }
}

/// utf-8-address (RFC 6533 section 3): a mailbox without encoded characters that is an esmtp-value.
/// A mailbox in ASCII must be in the encoded form: without SMTPUTF8, servers take it for that.
fn is_utf8_address(address: &str) -> bool {
    count(address.as_bytes(), class::VALUE) == address.len()
        && Mailbox::parse(address).is_ok_and(|mailbox| !mailbox.is_ascii())
}

impl<S: AsRef<str>> fmt::Display for OriginalRecipient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
