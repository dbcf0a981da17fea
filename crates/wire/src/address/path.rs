//! Paths: what MAIL and RCPT name, in angle brackets.

use alloc::string::String;
use core::fmt;

use super::{Domain, MAX_PATH, Mailbox, mailbox::local_part};
use crate::error::{SyntaxError, SyntaxErrorKind};

/// Where a failure is reported to: a mailbox, or nowhere (`<>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReversePath<S: AsRef<str> = String> {
    /// `<>`: a report about this message must never be sent (RFC 5321 section 4.5.5).
    Null,
    /// `<mailbox>`.
    Mailbox(Mailbox<S>),
}

/// Where a message goes to: a mailbox, or the server's own postmaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardPath<S: AsRef<str> = String> {
    /// `<Postmaster>` without a domain (RFC 5321 section 4.5.1), in any case.
    Postmaster,
    /// `<mailbox>`.
    Mailbox(Mailbox<S>),
}

impl<'a> ReversePath<&'a str> {
    /// Reads a path at the start of `text`, angle brackets included; the rest of the text comes back with it.
    ///
    /// A source route is accepted and dropped (RFC 5321 appendix C).
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Path`], [`SyntaxErrorKind::Mailbox`] or [`SyntaxErrorKind::Domain`] with the offset.
    pub fn parse_prefix(text: &'a str) -> Result<(Self, &'a str), SyntaxError> {
        match text.strip_prefix("<>") {
            Some(rest) => Ok((Self::Null, rest)),
            None => bracketed(text).and_then(|(inner, offset, rest)| {
                Ok((Self::Mailbox(Mailbox::parse(inner).map_err(|error| error.at(offset))?), rest))
            }),
        }
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

    /// The mailbox, unless it is the null path.
    pub const fn mailbox(&self) -> Option<&Mailbox<S>> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

impl<'a> ForwardPath<&'a str> {
    /// Reads a path at the start of `text`, angle brackets included; the rest of the text comes back with it.
    ///
    /// # Errors
    /// As [`ReversePath::parse_prefix`]; the null path is [`SyntaxErrorKind::Path`].
    pub fn parse_prefix(text: &'a str) -> Result<(Self, &'a str), SyntaxError> {
        let (inner, offset, rest) = bracketed(text)?;
        if inner.eq_ignore_ascii_case("postmaster") {
            return Ok((Self::Postmaster, rest));
        }
        if inner.is_empty() {
            return Err(SyntaxError::new(SyntaxErrorKind::Path, 0));
        }
        Ok((Self::Mailbox(Mailbox::parse(inner).map_err(|error| error.at(offset))?), rest))
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

    /// The mailbox, unless it is the postmaster without a domain.
    pub const fn mailbox(&self) -> Option<&Mailbox<S>> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
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

/// Splits `<[source route]inner>rest`; the offset is that of the inner part.
fn bracketed(text: &str) -> Result<(&str, usize, &str), SyntaxError> {
    let fault = |offset| SyntaxError::new(SyntaxErrorKind::Path, offset);
    let opened = text.strip_prefix('<').ok_or(fault(0))?;
    let route = source_route(opened).ok_or(fault(1))?;
    let inner = opened.get(route..).unwrap_or_default();
    // A quoted local part may hold a bracket, so the end is looked for behind it.
    let quoted =
        if inner.starts_with('"') { local_part(inner).map_or(0, |(rest, _)| inner.len() - rest.len()) } else { 0 };
    let end = inner.get(quoted..).and_then(|rest| rest.find('>')).ok_or(fault(text.len()))? + quoted;
    let path = 1 + route + end + 1;
    if path > MAX_PATH {
        return Err(SyntaxError::new(SyntaxErrorKind::Mailbox, MAX_PATH));
    }
    let (inner, rest) = (inner.get(..end).unwrap_or_default(), text.get(path..).unwrap_or_default());
    Ok((inner, 1 + route, rest))
}

/// The length of `A-d-l ":"` (`@one,@two:`), 0 when there is none, nothing when it is malformed.
fn source_route(text: &str) -> Option<usize> {
    if !text.starts_with('@') {
        return Some(0);
    }
    let (hops, _) = text.split_once(':')?;
    // An IPv6 literal has colons of its own; no known sender routes by one, and the grammar names domains only.
    hops.split(',')
        .all(|hop| hop.strip_prefix('@').is_some_and(|name| Domain::parse(name).is_ok()))
        .then_some(hops.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn paths_and_what_follows_them() {
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
    fn what_is_no_path_is_refused() {
        for text in ["", "a@b", "<a@b", "<<a@b>>", "< a@b>", "<@x:>", "<@:a@b>", "<@x a@b>", "<a>", "<\"a@b>"] {
            assert!(ReversePath::parse_prefix(text).is_err(), "{text}");
        }
        assert!(ForwardPath::parse_prefix("<>").is_err());
    }
}
