//! `Local-part "@" ( Domain / address-literal )`.

use alloc::{borrow::Cow, string::String};
use core::fmt;

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::take_while1,
    character::complete::{char, satisfy},
    combinator::recognize,
    multi::fold_many0,
    sequence::{delimited, preceded},
};

use super::{Domain, MAX_LOCAL_PART};
use crate::error::{SyntaxError, SyntaxErrorKind};

/// A mailbox such as `user@example.org` or `"odd name"@[192.0.2.1]`.
///
/// The local part has at most 64 octets, is opaque, and compares with regard to case; the domain without.
///
/// ```
/// use posthaste_wire::Mailbox;
/// let mailbox = Mailbox::parse("\"john doe\"@Example.org")?;
/// assert_eq!(mailbox.local_part(), "\"john doe\"");
/// assert_eq!(mailbox.unquoted_local_part(), "john doe");
/// assert_eq!(mailbox.domain(), posthaste_wire::Domain::parse("example.org")?);
/// assert!(Mailbox::parse("a@b>\r\nDATA").is_err());
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Mailbox<S = String> {
    text: S,
    /// Octets before the `@`: at most 64.
    local: u8,
}

impl<'a> Mailbox<&'a str> {
    /// Takes a mailbox, the whole text.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Mailbox`] or [`SyntaxErrorKind::Domain`] with the offset.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let fault = |offset| SyntaxError::new(SyntaxErrorKind::Mailbox, offset);
        let (rest, local) = local_part(text).map_err(|error| match error {
            nom::Err::Error(error) | nom::Err::Failure(error) => fault(text.len() - error.input.len()),
            nom::Err::Incomplete(_) => fault(text.len()),
        })?;
        let length = u8::try_from(local.len()).ok().filter(|length| usize::from(*length) <= MAX_LOCAL_PART);
        let length = length.ok_or(fault(MAX_LOCAL_PART))?;
        let domain = rest.strip_prefix('@').ok_or(fault(local.len()))?;
        Domain::parse(domain).map_err(|error| error.at(local.len() + 1))?;
        Ok(Self { text, local: length })
    }

    /// The owned form.
    pub fn into_owned(self) -> Mailbox {
        Mailbox { text: self.text.into(), local: self.local }
    }
}

impl<S: AsRef<str>> Mailbox<S> {
    /// The mailbox as it came.
    pub fn as_str(&self) -> &str {
        self.text.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> Mailbox<&str> {
        Mailbox { text: self.text.as_ref(), local: self.local }
    }

    /// The local part with its quoting.
    pub fn local_part(&self) -> &str {
        self.as_str().get(..usize::from(self.local)).unwrap_or_default()
    }

    /// The local part that the quoting stands for.
    pub fn unquoted_local_part(&self) -> Cow<'_, str> {
        let local = self.local_part();
        let Some(inner) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Cow::Borrowed(local);
        };
        if !inner.contains('\\') {
            return Cow::Borrowed(inner);
        }
        let mut plain = String::with_capacity(inner.len());
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            plain.push(if character == '\\' { characters.next().unwrap_or(character) } else { character });
        }
        Cow::Owned(plain)
    }

    /// The domain.
    pub fn domain(&self) -> Domain<&str> {
        Domain::trusted(self.as_str().get(usize::from(self.local) + 1..).unwrap_or_default())
    }

    /// Whether it needs SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
    }
}

impl core::str::FromStr for Mailbox {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        Mailbox::parse(text).map(Mailbox::into_owned)
    }
}

impl<S: AsRef<str>, T: AsRef<str>> PartialEq<Mailbox<T>> for Mailbox<S> {
    fn eq(&self, other: &Mailbox<T>) -> bool {
        self.local_part() == other.local_part() && self.domain() == other.domain()
    }
}

impl<S: AsRef<str>> Eq for Mailbox<S> {}

impl<S: AsRef<str>> core::hash::Hash for Mailbox<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.local_part().hash(state);
        self.domain().hash(state);
    }
}

impl<S: AsRef<str>> fmt::Display for Mailbox<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `Dot-string / Quoted-string`, with the UTF-8 of RFC 6531.
pub(super) fn local_part(input: &str) -> IResult<&str, &str> {
    if input.starts_with('"') { quoted_string(input) } else { dot_string(input) }
}

/// `Atom *("." Atom)`.
fn dot_string(input: &str) -> IResult<&str, &str> {
    let more = fold_many0(preceded(char('.'), take_while1(is_atext)), || (), |(), _| ());
    recognize((take_while1(is_atext), more)).parse(input)
}

/// `DQUOTE *QcontentSMTP DQUOTE`.
fn quoted_string(input: &str) -> IResult<&str, &str> {
    let qtext = take_while1(|c| matches!(c, ' '..='!' | '#'..='[' | ']'..='~') || is_utf8_non_ascii(c));
    let quoted_pair = recognize(preceded(char('\\'), satisfy(|c| matches!(c, ' '..='~'))));
    let content = fold_many0(alt((qtext, quoted_pair)), || (), |(), _| ());
    recognize(delimited(char('"'), content, char('"'))).parse(input)
}

fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_non_ascii(c)
}

fn is_utf8_non_ascii(c: char) -> bool {
    !c.is_ascii() && !c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn what_is_parsed_is_emitted_as_the_same_octets() {
        for text in [
            "a@b",
            "!#$%&'*+-/=?^_`.{|}~09azAZ@sender.test",
            r#""a\"b\\c"@sender.test"#,
            r#""a@b>c<d,e:f;g"@sender.test"#,
            "\"\"@d",
            "a@[IPv6:2001:db8::1]",
            "\u{3b4}\u{3bf}@sender.test",
            "-oQ@d.test",
            "postmaster@b\u{fc}cher.example",
        ] {
            assert_eq!(format!("{}", Mailbox::parse(text).unwrap()), text);
        }
    }

    #[test]
    fn faults_are_told_where_they_stand() {
        for (text, offset) in [
            ("", 0),
            ("a", 1),
            ("@b", 0),
            ("a b@c", 1),
            ("a..b@c", 1),
            (".a@c", 0),
            ("a.@c", 1),
            ("\"a@c", 4),
            ("a@", 2),
            ("a@b..c", 4),
            ("a@b@c", 2),
            ("\"a\"b@c", 3),
            ("a\r\n@b", 1),
            ("a@b\0", 2),
            ("<a@b>", 0),
            ("a@b>", 2),
        ] {
            assert_eq!(Mailbox::parse(text).unwrap_err().offset, offset, "{text:?}");
        }
    }

    #[test]
    fn a_local_part_has_at_most_64_octets() {
        assert!(Mailbox::parse(&format!("{}@d", "a".repeat(64))).is_ok());
        assert!(Mailbox::parse(&format!("{}@d", "a".repeat(65))).is_err());
    }
}
