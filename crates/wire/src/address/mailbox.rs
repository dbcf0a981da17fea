//! `Local-part "@" ( Domain / address-literal )`.

use alloc::{borrow::Cow, string::String};
use core::fmt;

use nom::{
    Parser,
    branch::alt,
    combinator::cut,
    multi::many0_count,
    sequence::{preceded, terminated},
};

use super::{Domain, domain::domain};
use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{Fault, Parsed, class, count, octet, some_of},
};

/// A mailbox such as `user@example.org` or `"odd name"@[192.0.2.1]`.
///
/// The local part is opaque and of any length. Two local parts are equal only in the same case;
/// domains compare without regard to case.
///
/// A local part may have dots at its ends and next to each other: `a..b@example.org`. The grammar
/// of RFC 5321 section 4.1.2 forbids that outside quotes, but mobile providers use it. Such a
/// mailbox is passed on as it came. [`Mailbox::is_dotted_well`] recognizes it,
/// [`Mailbox::parse_strict`] refuses it.
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
    /// Octets before the `@`.
    local: u32,
}

impl<'a> Mailbox<&'a str> {
    /// Parses a mailbox, the whole text.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Mailbox`] or [`SyntaxErrorKind::Domain`] with the offset.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let (mailbox, rest) = Self::parse_prefix(text)?;
        match rest {
            "" => Ok(mailbox),
            _ => Err(SyntaxError::new(SyntaxErrorKind::Domain, text.len() - rest.len())),
        }
    }

    /// Parses a mailbox by the grammar of RFC 5321 section 4.1.2, the whole text.
    ///
    /// # Errors
    /// As [`Mailbox::parse`]; [`SyntaxErrorKind::Mailbox`] at a dot that the grammar forbids.
    pub fn parse_strict(text: &'a str) -> Result<Self, SyntaxError> {
        let mailbox = Self::parse(text)?;
        match mailbox.misplaced_dot() {
            None => Ok(mailbox),
            Some(offset) => Err(SyntaxError::new(SyntaxErrorKind::Mailbox, offset)),
        }
    }

    /// Parses a mailbox at the start of `text`. Returns the rest of the text as well.
    #[inline(always)]
    pub(super) fn parse_prefix(text: &'a str) -> Result<(Self, &'a str), SyntaxError> {
        let octets = text.as_bytes();
        let in_text = |fault| Fault::in_text(fault, octets.len());
        let (rest, ()) = local_part(octets).map_err(in_text)?;
        let local = octets.len() - rest.len();
        // A line is far shorter than 4 GiB.
        let length = u32::try_from(local).map_err(|_| SyntaxError::new(SyntaxErrorKind::Mailbox, 0))?;
        let (rest, ()) =
            octet(b'@', SyntaxErrorKind::Mailbox)(rest).and_then(|(rest, ())| domain(rest)).map_err(in_text)?;
        // The parsers stop only between characters.
        let (text, rest) = text.split_at_checked(octets.len() - rest.len()).unwrap_or((text, ""));
        Ok((Self { text, local: length }, rest))
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
        self.as_str().get(..self.local_octets()).unwrap_or_default()
    }

    /// The local part without its quoting.
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

    /// Returns `true` if each dot of the local part follows the grammar of RFC 5321 section 4.1.2.
    /// It is between two other characters or within quotes.
    pub fn is_dotted_well(&self) -> bool {
        self.misplaced_dot().is_none()
    }

    /// The conversion cannot fail: the number came from a `usize`.
    fn local_octets(&self) -> usize {
        usize::try_from(self.local).unwrap_or(usize::MAX - 1)
    }

    /// The offset of the first dot outside quotes that is at an end or follows another dot.
    fn misplaced_dot(&self) -> Option<usize> {
        let local = self.local_part().as_bytes();
        if local.starts_with(b"\"") {
            return None;
        }
        let is_misplaced = |(at, octet): (usize, &u8)| {
            let before = at.checked_sub(1).and_then(|before| local.get(before));
            *octet == b'.' && (matches!(before, None | Some(b'.')) || at + 1 == local.len())
        };
        local.iter().enumerate().position(is_misplaced)
    }

    /// The domain.
    pub fn domain(&self) -> Domain<&str> {
        Domain::trusted(self.as_str().get(self.local_octets() + 1..).unwrap_or_default())
    }

    /// Returns `true` if the mailbox can go without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.as_str().is_ascii()
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
#[inline(always)]
pub(crate) fn local_part(input: &[u8]) -> Parsed<'_, ()> {
    if let Some((b'"', rest)) = input.split_first() { quoted_string(rest) } else { dot_string(input) }
}

/// `1*(atext / ".")`: `Dot-string` and more.
#[inline(always)]
fn dot_string(input: &[u8]) -> Parsed<'_, ()> {
    let mut rest = input;
    loop {
        // The parsers stop only between characters.
        rest = rest.get(count(rest, class::ATEXT)..).unwrap_or_default();
        match rest.split_first() {
            Some((b'.', behind)) => rest = behind,
            _ if rest.len() == input.len() => return Fault::at(input, SyntaxErrorKind::Mailbox),
            _ => return Ok((rest, ())),
        }
    }
}

/// `*QcontentSMTP DQUOTE`, after the opening quote.
#[inline(never)]
fn quoted_string(input: &[u8]) -> Parsed<'_, ()> {
    let kind = SyntaxErrorKind::Mailbox;
    let quoted_pair = preceded(octet(b'\\', kind), cut(printable));
    let qcontent = alt((some_of(class::QTEXT, kind).map(drop), quoted_pair));
    terminated(many0_count(qcontent), octet(b'"', kind)).map(drop).parse(input)
}

/// A character after a backslash.
fn printable(input: &[u8]) -> Parsed<'_, ()> {
    match input {
        [b' '..=b'~', rest @ ..] => Ok((rest, ())),
        _ => Fault::at(input, SyntaxErrorKind::Mailbox),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn a_mailbox_is_emitted_as_it_was_parsed() {
        for text in [
            "a@b",
            "!#$%&'*+-/=?^_`.{|}~09azAZ@sender.test",
            r#""a\"b\\c"@sender.test"#,
            r#""a@b>c<d,e:f;g"@sender.test"#,
            "\"\"@d",
            "a@[IPv6:2001:db8::1]",
            "\u{3b4}\u{3bf}@sender.test",
            "-oQ@d.test",
            "a..b@d.test",
            ".a@d.test",
            "a.@d.test",
            "...@d.test",
            "root@my_server.example.org",
            "postmaster@b\u{fc}cher.example",
        ] {
            assert_eq!(format!("{}", Mailbox::parse(text).unwrap()), text);
        }
    }

    #[test]
    fn a_fault_in_a_mailbox_has_its_offset() {
        for (text, offset) in [
            ("", 0),
            ("a", 1),
            ("@b", 0),
            ("a b@c", 1),
            ("\"a@c", 4),
            ("a@", 2),
            ("a@b..c", 4),
            ("a@b@c", 3),
            ("\"a\"b@c", 3),
            ("a\r\n@b", 1),
            ("a@b\0", 3),
            ("<a@b>", 0),
            ("a@b>", 3),
        ] {
            assert_eq!(Mailbox::parse(text).unwrap_err().offset, offset, "{text:?}");
        }
    }

    #[test]
    fn a_local_part_has_no_limit_of_its_own() {
        for octets in [64, 65, 300, 1_024, 65_535, 65_536, 100_000] {
            let text = format!("{}@d", "a".repeat(octets));
            assert_eq!(Mailbox::parse(&text).unwrap().local_part().len(), octets);
        }
    }

    #[test]
    fn dots_anywhere_in_a_local_part_are_refused_by_the_strict_parser_only() {
        for (text, misplaced) in [
            ("a.b@c", None),
            ("a..b@c", Some(2)),
            (".a@c", Some(0)),
            ("a.@c", Some(1)),
            (".@c", Some(0)),
            ("a...b@c", Some(2)),
            ("\"..a..\"@c", None),
        ] {
            let mailbox = Mailbox::parse(text).unwrap();
            assert_eq!((mailbox.as_str(), mailbox.is_dotted_well()), (text, misplaced.is_none()));
            let strict = Mailbox::parse_strict(text).map_err(|error| error.offset);
            assert_eq!(strict, misplaced.map_or(Ok(mailbox), Err), "{text}");
        }
    }
}
