//! Paths: the arguments of MAIL and RCPT, in angle brackets.

use alloc::string::String;
use core::fmt;

use nom::{
    Parser,
    combinator::cut,
    multi::many0_count,
    sequence::{preceded, terminated},
};

use super::{Mailbox, domain::name};
use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{Fault, Parsed, octet},
};

/// The address for failure reports: a mailbox, or none (`<>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReversePath<S: AsRef<str> = String> {
    /// `<>`: no report about this message may be sent (RFC 5321 section 4.5.5).
    Null,
    /// `<mailbox>`.
    Mailbox(Mailbox<S>),
}

/// The address that a message goes to: a mailbox, or the server's own postmaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardPath<S: AsRef<str> = String> {
    /// `<Postmaster>` without a domain (RFC 5321 section 4.5.1), in any case.
    Postmaster,
    /// `<mailbox>`.
    Mailbox(Mailbox<S>),
}

impl<'a> ReversePath<&'a str> {
    /// Parses a path at the start of `text`, with its angle brackets. Returns the rest of the text
    /// as well.
    ///
    /// A source route is accepted and dropped (RFC 5321 appendix C).
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Path`], [`SyntaxErrorKind::Mailbox`] or [`SyntaxErrorKind::Domain`] with
    /// the offset.
    pub fn parse_prefix(text: &'a str) -> Result<(Self, &'a str), SyntaxError> {
        if let Some(rest) = text.strip_prefix("<>") {
            return Ok((Self::Null, rest));
        }
        let inner = opened(text).map_err(SyntaxError::of_sender)?;
        let (mailbox, rest) = mailbox_and_bracket(text, inner).map_err(SyntaxError::of_sender)?;
        Ok((Self::Mailbox(mailbox), rest))
    }

    /// The owned form.
    pub fn into_owned(self) -> ReversePath {
        match self {
            Self::Null => ReversePath::Null,
            Self::Mailbox(mailbox) => ReversePath::Mailbox(mailbox.into_owned()),
        }
    }
}

impl<S: AsRef<str>> ReversePath<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> ReversePath<&str> {
        match self {
            Self::Null => ReversePath::Null,
            Self::Mailbox(mailbox) => ReversePath::Mailbox(mailbox.borrowed()),
        }
    }

    /// The mailbox. `None`: it is the null path.
    pub const fn mailbox(&self) -> Option<&Mailbox<S>> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Returns `true` if the path can go without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl<'a> ForwardPath<&'a str> {
    /// Parses a path at the start of `text`, with its angle brackets. Returns the rest of the text
    /// as well.
    ///
    /// # Errors
    /// As [`ReversePath::parse_prefix`]; the null path is [`SyntaxErrorKind::Path`].
    pub fn parse_prefix(text: &'a str) -> Result<(Self, &'a str), SyntaxError> {
        let inner = opened(text)?;
        match mailbox_and_bracket(text, inner) {
            Ok((mailbox, rest)) => Ok((Self::Mailbox(mailbox), rest)),
            // Checked last, because it is rare.
            Err(error) => match inner.split_at_checked("postmaster>".len()) {
                Some((name, rest)) if name.eq_ignore_ascii_case("postmaster>") => Ok((Self::Postmaster, rest)),
                _ if inner.starts_with('>') => Err(SyntaxError { kind: SyntaxErrorKind::Path, ..error }),
                _ => Err(error),
            },
        }
    }

    /// The owned form.
    pub fn into_owned(self) -> ForwardPath {
        match self {
            Self::Postmaster => ForwardPath::Postmaster,
            Self::Mailbox(mailbox) => ForwardPath::Mailbox(mailbox.into_owned()),
        }
    }
}

impl<S: AsRef<str>> ForwardPath<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> ForwardPath<&str> {
        match self {
            Self::Postmaster => ForwardPath::Postmaster,
            Self::Mailbox(mailbox) => ForwardPath::Mailbox(mailbox.borrowed()),
        }
    }

    /// The mailbox. `None`: it is the postmaster without a domain.
    pub const fn mailbox(&self) -> Option<&Mailbox<S>> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Returns `true` if the path can go without SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.mailbox().is_none_or(Mailbox::is_ascii)
    }
}

impl<S: AsRef<str>> fmt::Display for ReversePath<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

impl<S: AsRef<str>> fmt::Display for ForwardPath<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<Postmaster>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

/// `"<" [ A-d-l ":" ]`: returns the text after it.
#[inline(always)]
fn opened(text: &str) -> Result<&str, SyntaxError> {
    let octets = text.as_bytes();
    let (mut rest, ()) =
        octet(b'<', SyntaxErrorKind::Path)(octets).map_err(|fault| Fault::in_text(fault, octets.len()))?;
    if rest.first() == Some(&b'@') {
        (rest, ()) = source_route(rest).map_err(|fault| Fault::in_text(fault, octets.len()))?;
    }
    Ok(text.get(octets.len() - rest.len()..).unwrap_or_default())
}

/// `mailbox ">"` at the start of `inner`, which is the end of the path `text`.
#[inline(always)]
fn mailbox_and_bracket<'a>(text: &'a str, inner: &'a str) -> Result<(Mailbox<&'a str>, &'a str), SyntaxError> {
    let base = text.len() - inner.len();
    let (mailbox, rest) = Mailbox::parse_prefix(inner).map_err(|error| error.at(base))?;
    let end = text.len() - rest.len();
    match rest.strip_prefix('>') {
        Some(rest) => Ok((mailbox, rest)),
        None if rest.is_empty() => Err(SyntaxError::cut_off(SyntaxErrorKind::Path, end)),
        None => Err(SyntaxError::new(SyntaxErrorKind::Path, end)),
    }
}

/// `At-domain *("," At-domain) ":"` (RFC 5321 section 4.1.2), without address literals.
#[inline(never)]
fn source_route(input: &[u8]) -> Parsed<'_, ()> {
    let octet = |wanted| octet(wanted, SyntaxErrorKind::Path);
    let at_domain = || preceded(octet(b'@'), name);
    // After a comma only a domain can follow.
    let more = many0_count(preceded(octet(b','), cut(at_domain())));
    terminated((at_domain(), more), octet(b':')).map(drop).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_path_is_parsed_and_the_rest_is_returned() {
        for (text, path, rest) in [
            ("<>", "<>", ""),
            ("<> SIZE=1", "<>", " SIZE=1"),
            ("<a@b>", "<a@b>", ""),
            ("<@relay.test:a@sender.test>", "<a@sender.test>", ""),
            ("<@one.test,@two.test:a@b> X", "<a@b>", " X"),
            (r#"<"a@b>c"@d.test>"#, r#"<"a@b>c"@d.test>"#, ""),
        ] {
            let (parsed, left) = ReversePath::parse_prefix(text).unwrap();
            assert_eq!((parsed.to_string().as_str(), left), (path, rest));
        }
        assert_eq!(ForwardPath::parse_prefix("<POSTMASTER>").unwrap().0, ForwardPath::Postmaster);
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in ["", "a@b", "<a@b", "<<a@b>>", "< a@b>", "<@x:>", "<@:a@b>", "<@x a@b>", "<a>", "<\"a@b>"] {
            assert!(ReversePath::parse_prefix(text).is_err(), "{text}");
        }
        assert!(ForwardPath::parse_prefix("<>").is_err());
    }
}
