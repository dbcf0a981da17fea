//! Conversions that make `"user@example.org"` an address: from text, from borrowed to owned values,
//! from an address to a command.

use alloc::string::String;
use core::str::FromStr;

use crate::{
    address::{AddressError, Domain, EhloName, ForwardPath, Mailbox, ReversePath, Wanted},
    command::{Mail, Rcpt},
    error::{SyntaxError, SyntaxErrorKind},
};

/// Conversions from text and borrowed values. A row is `type: what the error calls it, reader`.
macro_rules! owned {
    ($($name:ident: $wanted:ident, $read:path;)*) => {
        $(
            impl FromStr for $name {
                type Err = AddressError;

                fn from_str(text: &str) -> Result<Self, AddressError> {
                    $read(text).map(Self::from).map_err(|error| AddressError::new(Wanted::$wanted, text, error))
                }
            }

            impl From<$name<&str>> for $name {
                fn from(borrowed: $name<&str>) -> Self {
                    borrowed.into_owned()
                }
            }

            impl<S: AsRef<str>> From<&$name<S>> for $name {
                fn from(value: &$name<S>) -> Self {
                    value.borrowed().into_owned()
                }
            }

            owned!(text $name: &str, &&str, String, &String);
        )*
    };
    (text $name:ident: $($text:ty),*) => {
        $(
            impl TryFrom<$text> for $name {
                type Error = AddressError;

                fn try_from(text: $text) -> Result<Self, AddressError> {
                    text.parse()
                }
            }
        )*
    };
}

owned! {
    Domain: Domain, Domain::parse;
    EhloName: HostName, EhloName::parse;
    ForwardPath: Recipient, forward_path;
    Mail: Sender, mail;
    Mailbox: Mailbox, mailbox;
    Rcpt: Recipient, rcpt;
    ReversePath: Sender, reverse_path;
}

impl<S: AsRef<str>> From<Mailbox<S>> for ReversePath<S> {
    fn from(mailbox: Mailbox<S>) -> Self {
        Self::Mailbox(mailbox)
    }
}

impl<S: AsRef<str>> From<Mailbox<S>> for ForwardPath<S> {
    fn from(mailbox: Mailbox<S>) -> Self {
        Self::Mailbox(mailbox)
    }
}

/// Without parameters. A path that is not ASCII also gets `SMTPUTF8`, which it needs (RFC 6531
/// section 3.5).
impl<S: AsRef<str> + Default> From<ReversePath<S>> for Mail<S> {
    fn from(reverse_path: ReversePath<S>) -> Self {
        let smtputf8 = !reverse_path.is_ascii();
        Self { smtputf8, ..Self::new(reverse_path) }
    }
}

/// As from a [`ReversePath`].
impl<S: AsRef<str> + Default> From<Mailbox<S>> for Mail<S> {
    fn from(mailbox: Mailbox<S>) -> Self {
        ReversePath::from(mailbox).into()
    }
}

/// A command without parameters.
impl<S: AsRef<str> + Default> From<ForwardPath<S>> for Rcpt<S> {
    fn from(forward_path: ForwardPath<S>) -> Self {
        Self::new(forward_path)
    }
}

/// A command without parameters.
impl<S: AsRef<str> + Default> From<Mailbox<S>> for Rcpt<S> {
    fn from(mailbox: Mailbox<S>) -> Self {
        ForwardPath::from(mailbox).into()
    }
}

fn mailbox(text: &str) -> Result<Mailbox<&str>, SyntaxError> {
    if !text.starts_with('<') {
        return Mailbox::parse(text);
    }
    match reverse_path(text)? {
        ReversePath::Mailbox(mailbox) => Ok(mailbox),
        ReversePath::Null => Err(SyntaxError::new(SyntaxErrorKind::Mailbox, 1)),
    }
}

fn reverse_path(text: &str) -> Result<ReversePath<&str>, SyntaxError> {
    match text.as_bytes() {
        [b'<', ..] => ReversePath::parse_prefix(text).and_then(|found| whole(text, found)),
        _ => Mailbox::parse(text).map(ReversePath::Mailbox),
    }
}

fn forward_path(text: &str) -> Result<ForwardPath<&str>, SyntaxError> {
    if text.starts_with('<') {
        ForwardPath::parse_prefix(text).and_then(|found| whole(text, found))
    } else if text.eq_ignore_ascii_case("postmaster") {
        Ok(ForwardPath::Postmaster)
    } else {
        Mailbox::parse(text).map(ForwardPath::Mailbox)
    }
}

fn mail(text: &str) -> Result<Mail<&str>, SyntaxError> {
    match reverse_path(text) {
        Ok(path) => Ok(path.into()),
        Err(_) if text.starts_with('<') => Mail::parse(text),
        Err(error) => Err(error),
    }
}

fn rcpt(text: &str) -> Result<Rcpt<&str>, SyntaxError> {
    if text.starts_with('<') { Rcpt::parse(text) } else { forward_path(text).map(Rcpt::from) }
}

/// The found value, if it is the whole text.
fn whole<T>(text: &str, (found, rest): (T, &str)) -> Result<T, SyntaxError> {
    match rest {
        "" => Ok(found),
        _ => Err(SyntaxError::new(SyntaxErrorKind::Path, text.len() - rest.len())),
    }
}
