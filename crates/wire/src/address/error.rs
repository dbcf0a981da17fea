//! The error for a text that a program gave as an address.

use alloc::string::String;
use core::{convert::Infallible, fmt};

use crate::error::{SyntaxError, SyntaxErrorKind};

/// The most octets of a refused text that its error keeps: room for an address of usual length.
const MAX_TEXT: usize = 320;

/// A text that is not an address: the fault, its place, and what to write instead.
///
/// All conversions from text in [`address`](crate::address), and those of [`Mail`](crate::Mail) and
/// [`Rcpt`](crate::Rcpt), fail with it. It is for the program that wrote the text. For text from a
/// peer, [`Command::parse`](crate::Command::parse) has an error with a reply.
///
/// ```
/// use posthaste_wire::Rcpt;
/// let error = "Bob <bob@example.org>".parse::<Rcpt>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "recipient \"Bob <bob@example.org>\": the mailbox is malformed or too long, at octet 3 (' '); \
///      write the address alone, without a display name"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    wanted: Wanted,
    text: String,
    syntax: SyntaxError,
}

/// The type that the text should have become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Mailbox,
    Sender,
    Recipient,
    Domain,
    HostName,
}

impl AddressError {
    pub(crate) fn new(wanted: Wanted, text: &str, syntax: SyntaxError) -> Self {
        let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
        let end = ends.take_while(|end| *end <= MAX_TEXT).last().unwrap_or(0);
        Self { wanted, text: text.get(..end).unwrap_or_default().into(), syntax }
    }

    /// The refused text, cut to 320 octets.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fault in the grammar. Its offset counts from the start of the text.
    pub const fn syntax(&self) -> SyntaxError {
        self.syntax
    }

    const fn what(&self) -> &'static str {
        match self.wanted {
            Wanted::Mailbox => "mailbox",
            Wanted::Sender => "sender",
            Wanted::Recipient => "recipient",
            Wanted::Domain => "domain",
            Wanted::HostName => "host name",
        }
    }

    fn remedy(&self) -> &'static str {
        use SyntaxErrorKind::{DuplicateParameter, Number, Parameter, ParameterValue};
        if matches!(self.syntax.kind, DuplicateParameter | Number | Parameter | ParameterValue) {
            return "correct that parameter or leave it out";
        }
        match self.wanted {
            Wanted::Domain => "write it as example.org, [192.0.2.1] or [IPv6:2001:db8::1]",
            Wanted::HostName => "write it as host.example.org, [192.0.2.1] or [IPv6:2001:db8::1]",
            _ if self.text.find('<').is_some_and(|at| at > 0) => "write the address alone, without a display name",
            Wanted::Sender => "write it as user@example.org, or as <> for no sender",
            Wanted::Mailbox | Wanted::Recipient => "write it as user@example.org",
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SyntaxError { kind, offset, cut_off, .. } = self.syntax;
        write!(f, "{} {:?}: ", self.what(), self.text)?;
        if cut_off {
            f.write_str("it ends too early")?;
        } else {
            write!(f, "{}, at octet {offset}", kind.message())?;
            if let Some(character) = self.text.get(offset..).and_then(|rest| rest.chars().next()) {
                write!(f, " ({character:?})")?;
            }
        }
        write!(f, "; {}", self.remedy())
    }
}

impl core::error::Error for AddressError {}

/// Lets a function take text as well as finished values. Their conversion cannot fail.
impl From<Infallible> for AddressError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
