//! ETRN, and the attributes of XCLIENT and XFORWARD.

use alloc::string::String;
use core::fmt;

use crate::{
    address::Domain,
    error::{SyntaxError, SyntaxErrorKind},
    xtext::Xtext,
};

/// The mail that a client asks for: the argument of ETRN (RFC 1985 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node<S: AsRef<str> = String> {
    /// `name`: the mail for that host.
    Host(Domain<S>),
    /// `@name`: the mail for all hosts of that domain.
    Subdomains(Domain<S>),
    /// `#name`: that queue. The server defines the names.
    Queue(S),
}

impl<'a> Node<&'a str> {
    pub(super) fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let domain = |name, offset| {
            Domain::parse(name).map_err(|error| SyntaxError { kind: SyntaxErrorKind::Node, ..error.at(offset) })
        };
        match text.as_bytes() {
            [] => Err(SyntaxError::cut_off(SyntaxErrorKind::MissingArgument, 0)),
            [b'@', ..] => domain(text.get(1..).unwrap_or_default(), 1).map(Self::Subdomains),
            [b'#'] => Err(SyntaxError::cut_off(SyntaxErrorKind::Node, 1)),
            [b'#', name @ ..] => match name.iter().position(|octet| !octet.is_ascii_graphic()) {
                Some(offset) => Err(SyntaxError::new(SyntaxErrorKind::Node, offset + 1)),
                None => Ok(Self::Queue(text.get(1..).unwrap_or_default())),
            },
            _ => domain(text, 0).map(Self::Host),
        }
    }

    /// The owned form.
    pub fn into_owned(self) -> Node {
        match self {
            Self::Host(name) => Node::Host(name.into_owned()),
            Self::Subdomains(name) => Node::Subdomains(name.into_owned()),
            Self::Queue(name) => Node::Queue(name.into()),
        }
    }
}

impl<S: AsRef<str>> Node<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Node<&str> {
        match self {
            Self::Host(name) => Node::Host(name.borrowed()),
            Self::Subdomains(name) => Node::Subdomains(name.borrowed()),
            Self::Queue(name) => Node::Queue(name.as_ref()),
        }
    }
}

impl<S: AsRef<str>> fmt::Display for Node<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => name.fmt(f),
            Self::Subdomains(name) => write!(f, "@{name}"),
            Self::Queue(name) => write!(f, "#{}", name.as_ref()),
        }
    }
}

/// The attributes of XCLIENT or XFORWARD, by which a trusted proxy describes its client.
///
/// Postfix defines them, no RFC does. The syntax is `name=value`, separated by spaces, the value in
/// xtext. The names in use are `NAME`, `ADDR`, `PORT`, `PROTO`, `HELO`, `LOGIN`, `DESTADDR`,
/// `DESTPORT`, `IDENT` and `SOURCE`. The proxy sends `[UNAVAILABLE]` or `[TEMPUNAVAIL]` for a value
/// that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes<'a>(&'a str);

impl<'a> Attributes<'a> {
    /// Parses one attribute or more.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Attribute`] at the first wrong octet,
    /// [`SyntaxErrorKind::MissingArgument`] if `text` is empty.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        if text.is_empty() {
            return Err(SyntaxError::cut_off(SyntaxErrorKind::MissingArgument, 0));
        }
        let mut offset = 0;
        for word in text.split(' ') {
            attribute(word).map_err(|error| error.at(offset).within(text))?;
            offset += word.len() + 1;
        }
        Ok(Self(text))
    }

    /// The text as it came.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The attributes in order: the name as it came, and the value.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Xtext<&'a str>)> {
        // `parse` has checked each of them.
        self.0.split(' ').filter_map(|word| attribute(word).ok())
    }

    /// The value of the first attribute with that name, which compares without regard to case.
    /// `None`: no attribute has it.
    pub fn get(self, name: &str) -> Option<Xtext<&'a str>> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn attribute(word: &str) -> Result<(&str, Xtext<&str>), SyntaxError> {
    let fault =
        |offset| SyntaxError { cut_off: offset == word.len(), ..SyntaxError::new(SyntaxErrorKind::Attribute, offset) };
    let end = word.bytes().position(|octet| !octet.is_ascii_alphanumeric()).unwrap_or(word.len());
    let name = word.get(..end).filter(|name| !name.is_empty()).ok_or(fault(end))?;
    let value = word.get(end..).and_then(|rest| rest.strip_prefix('=')).ok_or(fault(end))?;
    let value =
        Xtext::parse(value).map_err(|error| SyntaxError { kind: SyntaxErrorKind::Attribute, ..error.at(end + 1) })?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_name_and_decoded() {
        let attributes = Attributes::parse("NAME=spike.example.org addr=168.100.189.2 LOGIN=a+2Bb HELO=").unwrap();
        assert_eq!(attributes.iter().count(), 4);
        assert_eq!(attributes.get("ADDR").unwrap().as_str(), "168.100.189.2");
        assert_eq!(&*attributes.get("login").unwrap().decode(), b"a+b");
        assert_eq!(attributes.get("HELO").unwrap().as_str(), "");
        assert_eq!(attributes.get("PORT"), None);
    }
}
