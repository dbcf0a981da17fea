//! Commands (RFC 5321 section 4.1 and its extensions), parsed from one line and emitted as one.

mod auth;
mod extension;
mod mail;
mod rcpt;

use core::fmt;

use bytes::BytesMut;

use crate::{
    address::EhloName,
    encode::{self, EncodeError},
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{class, is, key, trim_end, trim_spaces, word},
    parameter::number,
};

pub use auth::Auth;
pub use extension::{Attributes, Node};
pub use mail::Mail;
pub use rcpt::Rcpt;

/// The most octets of a command line, CRLF included, that a server takes by default and that this crate emits, for commands
/// other than AUTH, MAIL and RCPT.
///
/// RFC 5321 has 512, and RFC 3461 section 5.4 raises it to 1,036 and more with every extension.
pub const MAX_COMMAND_LINE: usize = 2_048;
/// The most octets of a MAIL or RCPT line that this crate emits, CRLF included: twice [`MAX_COMMAND_LINE`], so that what a
/// relay was told always leaves, with the parameters that it adds. Whether that is too long is for the next server to say.
pub const MAX_ENVELOPE_LINE: usize = 2 * MAX_COMMAND_LINE;
/// The most octets of an AUTH line or a SASL response, CRLF included (RFC 4954 section 4).
pub const MAX_AUTH_LINE: usize = 12_288;

/// A command as a client says it. It borrows from the line.
///
/// ```
/// use posthaste_wire::{BodyType, Command};
/// let Command::Mail(mail) = Command::parse(b"MAIL FROM:<a@example.org> SIZE=1000 BODY=8BITMIME FOO=bar")? else { panic!() };
/// assert_eq!(mail.reverse_path.to_string(), "<a@example.org>");
/// assert_eq!((mail.size, mail.body), (Some(1000), Some(BodyType::EightBitMime)));
/// assert_eq!(mail.unknown().next().map(|parameter| parameter.keyword), Some("FOO"));
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// `EHLO name` (RFC 5321 section 4.1.1.1).
    Ehlo(EhloName<&'a str>),
    /// `HELO name`.
    Helo(EhloName<&'a str>),
    /// `LHLO name` (RFC 2033).
    Lhlo(EhloName<&'a str>),
    /// `MAIL FROM:<path> …` (RFC 5321 section 4.1.1.2).
    Mail(Mail<&'a str>),
    /// `RCPT TO:<path> …` (RFC 5321 section 4.1.1.3).
    Rcpt(Rcpt<&'a str>),
    /// `DATA`.
    Data,
    /// `BDAT size [LAST]` (RFC 3030): that many octets follow the line.
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// Whether it ends the message.
        last: bool,
    },
    /// `RSET`.
    Rset,
    /// `NOOP [string]`.
    Noop(&'a str),
    /// `QUIT`.
    Quit,
    /// `VRFY string`.
    Vrfy(&'a str),
    /// `EXPN string`.
    Expn(&'a str),
    /// `HELP [string]`.
    Help(&'a str),
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954).
    Auth(Auth<'a>),
    /// `ETRN node` (RFC 1985).
    Etrn(Node<&'a str>),
    /// `BURL url [LAST]` (RFC 4468): the content is fetched from there.
    Burl {
        /// The URL as it came, without spaces; which schemes there are is the application's to say.
        url: &'a str,
        /// Whether it ends the message.
        last: bool,
    },
    /// `XCLIENT name=value …`: from here on the client counts as the one that the attributes describe.
    XClient(Attributes<'a>),
    /// `XFORWARD name=value …`: the client behind this one, for the log.
    XForward(Attributes<'a>),
    /// A verb that this crate does not know, with its text.
    Other {
        /// The verb as it came.
        verb: &'a str,
        /// What follows it, without the space between.
        argument: &'a str,
    },
}

impl<'a> Command<'a> {
    /// Parses a line, without its CRLF. Trailing spaces and tabs are tolerated (RFC 5321 section 4.1.1).
    ///
    /// # Errors
    /// A [`SyntaxError`] that knows the offset and its reply.
    pub fn parse(line: &'a [u8]) -> Result<Self, SyntaxError> {
        let text = trim_end(core::str::from_utf8(line).map_err(|_| undecodable(line))?);
        let (end, verb) = word(text.as_bytes());
        let (name, argument) = match text.split_at_checked(end) {
            Some((name, rest)) if rest.is_empty() => (name, rest),
            Some((name, rest)) if rest.starts_with(' ') => (name, rest.get(1..).unwrap_or_default()),
            _ => return Err(in_line(text, text, SyntaxError::new(SyntaxErrorKind::Verb, end))),
        };
        // A command is much to move: these make it where the caller wants it.
        match verb {
            verb::MAIL => Self::mail(text, argument),
            verb::RCPT => Self::rcpt(text, argument),
            verb => Self::short(verb, text, name, argument),
        }
    }

    #[inline(never)]
    fn mail(text: &'a str, argument: &'a str) -> Result<Self, SyntaxError> {
        let path = behind_colon(argument, "FROM:").map_err(|error| in_line(text, argument, error))?;
        Mail::parse(path).map(Self::Mail).map_err(|error| in_line(text, path, error))
    }

    #[inline(never)]
    fn rcpt(text: &'a str, argument: &'a str) -> Result<Self, SyntaxError> {
        let path = behind_colon(argument, "TO:").map_err(|error| in_line(text, argument, error))?;
        Rcpt::parse(path).map(Self::Rcpt).map_err(|error| in_line(text, path, error))
    }

    /// The commands that make few octets.
    #[inline(never)]
    fn short(verb: u64, text: &'a str, name: &'a str, argument: &'a str) -> Result<Self, SyntaxError> {
        match verb {
            verb::DATA => nothing(argument, Self::Data),
            verb::BDAT => bdat(argument),
            verb::EHLO => hello(argument).map(Self::Ehlo),
            verb::HELO => hello(argument).map(Self::Helo),
            verb::LHLO => hello(argument).map(Self::Lhlo),
            verb::RSET => nothing(argument, Self::Rset),
            verb::NOOP => free(argument).map(Self::Noop),
            verb::QUIT => nothing(argument, Self::Quit),
            verb::VRFY => something(argument).map(Self::Vrfy),
            verb::EXPN => something(argument).map(Self::Expn),
            verb::HELP => free(argument).map(Self::Help),
            verb::STARTTLS => nothing(argument, Self::StartTls),
            verb::AUTH => Auth::parse(argument).map(Self::Auth),
            verb::ETRN => Node::parse(argument).map(Self::Etrn),
            verb::BURL => burl(argument),
            verb::XCLIENT => Attributes::parse(argument).map(Self::XClient),
            verb::XFORWARD => Attributes::parse(argument).map(Self::XForward),
            _ => unknown(name, argument),
        }
        .map_err(|error| match error.kind {
            SyntaxErrorKind::Verb => in_line(text, text, error),
            _ => in_line(text, argument, error),
        })
    }

    /// Appends the command as one line with its CRLF.
    ///
    /// # Errors
    /// [`EncodeError`] when the finished line has a line break or NUL in it or is too long
    /// ([`MAX_COMMAND_LINE`], [`MAX_ENVELOPE_LINE`], [`MAX_AUTH_LINE`]); nothing is written then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match *self {
            Self::Ehlo(name) => line(out, format_args!("EHLO {name}")),
            Self::Helo(name) => line(out, format_args!("HELO {name}")),
            Self::Lhlo(name) => line(out, format_args!("LHLO {name}")),
            Self::Mail(mail) => encode::line(out, MAX_ENVELOPE_LINE, format_args!("MAIL FROM:{mail}")),
            Self::Rcpt(rcpt) => encode::line(out, MAX_ENVELOPE_LINE, format_args!("RCPT TO:{rcpt}")),
            Self::Data => verb(out, "DATA", ""),
            Self::Bdat { size, last } => line(out, format_args!("BDAT {size}{}", if last { " LAST" } else { "" })),
            Self::Rset => verb(out, "RSET", ""),
            Self::Noop(text) => verb(out, "NOOP", text),
            Self::Quit => verb(out, "QUIT", ""),
            Self::Vrfy(text) => verb(out, "VRFY", text),
            Self::Expn(text) => verb(out, "EXPN", text),
            Self::Help(text) => verb(out, "HELP", text),
            Self::StartTls => verb(out, "STARTTLS", ""),
            Self::Auth(auth) => encode::line(out, MAX_AUTH_LINE, format_args!("AUTH {}", auth.emit())),
            Self::Etrn(node) => line(out, format_args!("ETRN {node}")),
            Self::Burl { url, last } => line(out, format_args!("BURL {url}{}", if last { " LAST" } else { "" })),
            Self::XClient(attributes) => verb(out, "XCLIENT", attributes.as_str()),
            Self::XForward(attributes) => verb(out, "XFORWARD", attributes.as_str()),
            Self::Other { verb: word, argument } => verb(out, word, argument),
        }
    }
}

/// The verbs as numbers.
mod verb {
    use super::key;

    pub(super) const EHLO: u64 = key("EHLO");
    pub(super) const HELO: u64 = key("HELO");
    pub(super) const LHLO: u64 = key("LHLO");
    pub(super) const MAIL: u64 = key("MAIL");
    pub(super) const RCPT: u64 = key("RCPT");
    pub(super) const DATA: u64 = key("DATA");
    pub(super) const BDAT: u64 = key("BDAT");
    pub(super) const RSET: u64 = key("RSET");
    pub(super) const NOOP: u64 = key("NOOP");
    pub(super) const QUIT: u64 = key("QUIT");
    pub(super) const VRFY: u64 = key("VRFY");
    pub(super) const EXPN: u64 = key("EXPN");
    pub(super) const HELP: u64 = key("HELP");
    pub(super) const STARTTLS: u64 = key("STARTTLS");
    pub(super) const AUTH: u64 = key("AUTH");
    pub(super) const ETRN: u64 = key("ETRN");
    pub(super) const BURL: u64 = key("BURL");
    pub(super) const XCLIENT: u64 = key("XCLIENT");
    pub(super) const XFORWARD: u64 = key("XFORWARD");
}

/// The error of the end of a line as the line's own.
///
/// No class of octets has a control character in it, so a line that parses has none; only one that does not is looked
/// at again.
#[cold]
fn in_line(line: &str, end: &str, error: SyntaxError) -> SyntaxError {
    control_character(line.as_bytes()).unwrap_or(error.at(line.len() - end.len()))
}

/// The first control character of a line, as an error. A tab is none.
#[cold]
fn control_character(line: &[u8]) -> Option<SyntaxError> {
    let offset = line.iter().position(|octet| octet.is_ascii_control() && *octet != b'\t')?;
    Some(SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset))
}

/// The first octet of a line that is no UTF-8 or a control character.
#[cold]
fn undecodable(line: &[u8]) -> SyntaxError {
    let valid = core::str::from_utf8(line).map_or_else(|error| error.valid_up_to(), str::len);
    let control = control_character(line).map_or(valid, |error| error.offset);
    SyntaxError::new(SyntaxErrorKind::ControlCharacter, valid.min(control))
}

/// Text that no grammar looks at. Control characters outside ASCII have no place in it either (RFC 5198 section 2).
fn free(text: &str) -> Result<&str, SyntaxError> {
    match text.char_indices().find(|(_, character)| character.is_control() && *character != '\t') {
        Some((offset, _)) => Err(SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset)),
        None => Ok(text),
    }
}

/// What follows `FROM:` or `TO:`. Spaces behind the colon are tolerated, as every server does.
#[inline(always)]
fn behind_colon<'a>(argument: &'a str, keyword: &str) -> Result<&'a str, SyntaxError> {
    match argument.split_at_checked(keyword.len()) {
        Some((found, rest)) if is_same(found, keyword) => Ok(trim_spaces(rest)),
        _ => {
            let is_start = keyword.get(..argument.len()).is_some_and(|start| start.eq_ignore_ascii_case(argument));
            let error = SyntaxError::new(SyntaxErrorKind::PathKeyword, 0);
            Err(if is_start { SyntaxError::cut_off(error.kind, argument.len()) } else { error })
        }
    }
}

/// Whether they are the same but for the case of letters, of texts of the same length and of a keyword in upper case.
#[inline(always)]
fn is_same(text: &str, keyword: &str) -> bool {
    // Without a way out in the middle: the keyword is short and the same in nearly every line.
    text.bytes().zip(keyword.bytes()).fold(true, |same, (one, other)| same & (one.to_ascii_uppercase() == other))
}

fn hello(argument: &str) -> Result<EhloName<&str>, SyntaxError> {
    let name = argument.trim_matches(' ');
    EhloName::parse(name).map_err(|error| error.at(argument.len() - name.len()))
}

fn nothing<'a>(argument: &str, command: Command<'a>) -> Result<Command<'a>, SyntaxError> {
    match argument.bytes().position(|octet| octet != b' ') {
        None => Ok(command),
        Some(offset) => Err(SyntaxError::new(SyntaxErrorKind::UnexpectedArgument, offset)),
    }
}

fn something(argument: &str) -> Result<&str, SyntaxError> {
    match argument.trim_matches(' ') {
        "" => Err(SyntaxError::cut_off(SyntaxErrorKind::MissingArgument, 0)),
        text => free(text).map_err(|error| error.at(argument.len() - text.len())),
    }
}

fn line(out: &mut BytesMut, text: fmt::Arguments<'_>) -> Result<(), EncodeError> {
    encode::line(out, MAX_COMMAND_LINE, text)
}

fn verb(out: &mut BytesMut, verb: &str, argument: &str) -> Result<(), EncodeError> {
    match argument {
        "" => line(out, format_args!("{verb}")),
        _ => line(out, format_args!("{verb} {argument}")),
    }
}

fn unknown<'a>(verb: &'a str, argument: &'a str) -> Result<Command<'a>, SyntaxError> {
    match verb.bytes().position(|octet| !is(class::KEYWORD)(octet)) {
        None if verb.is_empty() => {
            Err(SyntaxError { cut_off: argument.is_empty(), ..SyntaxError::new(SyntaxErrorKind::Verb, 0) })
        }
        None => free(argument).map(|argument| Command::Other { verb, argument }),
        Some(offset) => Err(SyntaxError::new(SyntaxErrorKind::Verb, offset)),
    }
}

fn bdat(argument: &str) -> Result<Command<'_>, SyntaxError> {
    let (size, rest) = first_word(argument)?;
    Ok(Command::Bdat { size: number(size)?, last: is_last(argument, rest)? })
}

fn burl(argument: &str) -> Result<Command<'_>, SyntaxError> {
    let (url, rest) = first_word(argument)?;
    // absolute-URI of RFC 3986: a scheme, a colon, something behind it, and no octet that a URI cannot have.
    let is_scheme =
        |(at, octet): (usize, u8)| octet.is_ascii_alphabetic() || at > 0 && b"0123456789+-.".contains(&octet);
    let colon = url.bytes().enumerate().position(|octet| !is_scheme(octet)).unwrap_or(url.len());
    let hier_part = url.get(colon..).and_then(|text| text.strip_prefix(':')).filter(|_| colon > 0);
    let wrong = match hier_part {
        None => Some(colon),
        Some("") => Some(url.len()),
        Some(_) => url.bytes().position(|octet| !octet.is_ascii_graphic() || b"\"<>\\^`{|}".contains(&octet)),
    };
    match wrong {
        None => Ok(Command::Burl { url, last: is_last(argument, rest)? }),
        Some(offset) => {
            Err(SyntaxError { cut_off: offset == argument.len(), ..SyntaxError::new(SyntaxErrorKind::Url, offset) })
        }
    }
}

/// The first word of an argument, and what follows its space.
fn first_word(argument: &str) -> Result<(&str, &str), SyntaxError> {
    match argument.split_once(' ').unwrap_or((argument, "")) {
        ("", _) => Err(SyntaxError::cut_off(SyntaxErrorKind::MissingArgument, 0).within(argument)),
        words => Ok(words),
    }
}

/// Whether the rest of an argument is `LAST`, or nothing.
fn is_last(argument: &str, rest: &str) -> Result<bool, SyntaxError> {
    match rest.trim_matches(' ') {
        "" => Ok(false),
        last if last.eq_ignore_ascii_case("LAST") => Ok(true),
        last => {
            let cut_off = "LAST".get(..last.len()).is_some_and(|start| start.eq_ignore_ascii_case(last));
            let error = SyntaxError::new(SyntaxErrorKind::UnexpectedArgument, argument.len() - last.len());
            Err(if cut_off { SyntaxError::cut_off(error.kind, argument.len()) } else { error })
        }
    }
}
