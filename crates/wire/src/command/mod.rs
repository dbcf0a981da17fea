//! Commands (RFC 5321 section 4.1 and its extensions), parsed from one line and emitted as one.

mod auth;
mod extension;
mod mail;
mod rcpt;
mod table;
mod tolerance;

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
pub use tolerance::Tolerance;

/// The most octets of a command line with CRLF: a server's default limit, and the most that this
/// crate emits. AUTH, MAIL and RCPT have their own limits.
///
/// RFC 5321 allows 512 octets. RFC 3461 section 5.4 raises that to 1,036, and other extensions
/// raise it further.
pub const MAX_COMMAND_LINE: usize = 2_048;
/// The most octets of a MAIL or RCPT line that this crate emits, with CRLF.
///
/// It is twice [`MAX_COMMAND_LINE`]: a relay can always pass on a line that it took, with the
/// parameters that it adds. The next server may still refuse the line as too long.
pub const MAX_ENVELOPE_LINE: usize = 2 * MAX_COMMAND_LINE;
/// The most octets of an AUTH line or a SASL response, CRLF included (RFC 4954 section 4).
pub const MAX_AUTH_LINE: usize = 12_288;

/// A command of a client. It borrows from the line.
///
/// The type is exhaustive on purpose: a server has to decide about each command that is parsed. So
/// a new variant is a new major version, as is a new parameter of [`Mail`] or [`Rcpt`]. A verb
/// without a variant is [`Other`](Self::Other).
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
    /// `BDAT size [LAST]` (RFC 3030): a chunk follows the line.
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// `true`: the chunk ends the message.
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
    /// `BURL url [LAST]` (RFC 4468): the server fetches the content from there.
    Burl {
        /// The URL as it came, without spaces. The application decides which schemes it takes.
        url: &'a str,
        /// `true`: the content ends the message.
        last: bool,
    },
    /// `XCLIENT name=value …`: from here on the server treats the client as the one that the
    /// attributes describe.
    XClient(Attributes<'a>),
    /// `XFORWARD name=value …`: a proxy describes the client that it serves, for the log.
    XForward(Attributes<'a>),
    /// Any other verb, with its text.
    Other {
        /// The verb as it came.
        verb: &'a str,
        /// The text after the verb and its space.
        argument: &'a str,
    },
}

impl<'a> Command<'a> {
    /// Parses a line without its CRLF. Trailing spaces and tabs are tolerated (RFC 5321 section
    /// 4.1.1).
    ///
    /// # Errors
    /// A [`SyntaxError`] with the offset and a reply.
    pub fn parse(line: &'a [u8]) -> Result<Self, SyntaxError> {
        let line = trim_end(line);
        let (end, verb) = word(line);
        let argument = match line.get(end..) {
            Some([]) => end,
            Some([b' ', ..]) => end + 1,
            _ => return Err(in_line(line, 0, SyntaxError::new(SyntaxErrorKind::Verb, end))),
        };
        // A command is large: these functions build it in the memory of the caller.
        match verb {
            verb::MAIL => Self::mail(line, argument),
            verb::RCPT => Self::rcpt(line, argument),
            verb::DATA | verb::BDAT | verb::RSET | verb::QUIT | verb::STARTTLS => Self::bare(verb, line, argument),
            verb => Self::short(verb, line, argument),
        }
    }

    #[inline(never)]
    fn mail(line: &'a [u8], argument: usize) -> Result<Self, SyntaxError> {
        let path = behind_colon(text(line, argument)?, "FROM:").map_err(|error| in_line(line, argument, error))?;
        Mail::parse(path).map(Self::Mail).map_err(|error| in_line(line, line.len() - path.len(), error))
    }

    #[inline(never)]
    fn rcpt(line: &'a [u8], argument: usize) -> Result<Self, SyntaxError> {
        let path = behind_colon(text(line, argument)?, "TO:").map_err(|error| in_line(line, argument, error))?;
        Rcpt::parse(path).map(Self::Rcpt).map_err(|error| in_line(line, line.len() - path.len(), error))
    }

    /// The commands without text. Each accepts ASCII only, so the line needs no check for UTF-8.
    #[inline(never)]
    fn bare(verb: u64, line: &'a [u8], argument: usize) -> Result<Self, SyntaxError> {
        let octets = line.get(argument..).unwrap_or_default();
        match verb {
            verb::BDAT => bdat(octets),
            verb::DATA => nothing(octets, Self::Data),
            verb::RSET => nothing(octets, Self::Rset),
            verb::QUIT => nothing(octets, Self::Quit),
            _ => nothing(octets, Self::StartTls),
        }
        .map_err(|error| in_line(line, argument, error))
    }

    /// The other small commands. A verb alone has no text to check for UTF-8.
    #[inline(never)]
    fn short(verb: u64, line: &'a [u8], argument: usize) -> Result<Self, SyntaxError> {
        let text = if argument == line.len() { "" } else { text(line, argument)? };
        match verb {
            verb::EHLO => hello(text).map(Self::Ehlo),
            verb::HELO => hello(text).map(Self::Helo),
            verb::LHLO => hello(text).map(Self::Lhlo),
            verb::NOOP => free(text).map(Self::Noop),
            verb::VRFY => something(text).map(Self::Vrfy),
            verb::EXPN => something(text).map(Self::Expn),
            verb::HELP => free(text).map(Self::Help),
            verb::AUTH => Auth::parse(text).map(Self::Auth),
            verb::ETRN => Node::parse(text).map(Self::Etrn),
            verb::BURL => burl(text),
            verb::XCLIENT => Attributes::parse(text).map(Self::XClient),
            verb::XFORWARD => Attributes::parse(text).map(Self::XForward),
            _ => return unknown(line, argument, text),
        }
        .map_err(|error| in_line(line, argument, error))
    }

    /// Appends the command as one line with its CRLF.
    ///
    /// # Errors
    /// [`EncodeError`] if the finished line has a line break or NUL, or is too long
    /// ([`MAX_COMMAND_LINE`], [`MAX_ENVELOPE_LINE`], [`MAX_AUTH_LINE`]). `out` does not change
    /// then.
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

/// The argument as text. Checks the whole line for UTF-8: short arguments cost more alone.
#[inline(always)]
fn text(line: &[u8], argument: usize) -> Result<&str, SyntaxError> {
    let text = core::str::from_utf8(line).ok().and_then(|text| text.get(argument..));
    text.ok_or_else(|| in_line(line, 0, SyntaxError::new(SyntaxErrorKind::Verb, 0)))
}

/// Turns the error of a part that starts at `start` into the error of the line.
///
/// A line that parses has no control character, because no class of octets has one, and is UTF-8.
/// So only a line that fails is searched for such octets.
#[cold]
fn in_line(line: &[u8], start: usize, error: SyntaxError) -> SyntaxError {
    let control = line.iter().position(|octet| octet.is_ascii_control() && *octet != b'\t');
    let invalid = core::str::from_utf8(line).err().map(|error| error.valid_up_to());
    match control.into_iter().chain(invalid).min() {
        Some(offset) => SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset),
        None => error.at(start),
    }
}

/// Text without a grammar. It must not have control characters, in ASCII or not (RFC 5198 section
/// 2).
fn free(text: &str) -> Result<&str, SyntaxError> {
    match text.char_indices().find(|(_, character)| character.is_control() && *character != '\t') {
        Some((offset, _)) => Err(SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset)),
        None => Ok(text),
    }
}

/// The text after `FROM:` or `TO:`. Spaces after the colon are tolerated, as by all servers.
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

/// Compares without regard to case. Both have the same length, and the keyword is in upper case.
#[inline(always)]
fn is_same(text: &str, keyword: &str) -> bool {
    // It does not stop early: the keyword is short, and nearly every line has it.
    text.bytes().zip(keyword.bytes()).fold(true, |same, (one, other)| same & (one.to_ascii_uppercase() == other))
}

fn hello(argument: &str) -> Result<EhloName<&str>, SyntaxError> {
    let name = argument.trim_matches(' ');
    EhloName::parse(name).map_err(|error| error.at(argument.len() - name.len()))
}

fn nothing<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, SyntaxError> {
    match argument.iter().position(|octet| *octet != b' ') {
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

fn unknown<'a>(line: &'a [u8], argument: usize, text: &'a str) -> Result<Command<'a>, SyntaxError> {
    let end = line.iter().position(|octet| !is(class::KEYWORD)(*octet)).unwrap_or(line.len());
    let verb = line.get(..end).and_then(|verb| core::str::from_utf8(verb).ok()).unwrap_or_default();
    if verb.is_empty() || !matches!(line.get(end), None | Some(b' ')) {
        let cut_off = line.is_empty();
        return Err(in_line(line, 0, SyntaxError { cut_off, ..SyntaxError::new(SyntaxErrorKind::Verb, end) }));
    }
    match free(text) {
        Ok(argument) => Ok(Command::Other { verb, argument }),
        Err(error) => Err(in_line(line, argument, error)),
    }
}

fn bdat<'a>(argument: &[u8]) -> Result<Command<'a>, SyntaxError> {
    let (size, rest) = first_word(argument)?;
    Ok(Command::Bdat { size: number(size)?, last: is_last(argument, rest)? })
}

fn burl(argument: &str) -> Result<Command<'_>, SyntaxError> {
    let (url, rest) = first_word(argument.as_bytes())?;
    let url = argument.get(..url.len()).unwrap_or_default();
    // absolute-URI of RFC 3986: a scheme, a colon, text after it, and only octets that a URI can
    // have.
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
        None => Ok(Command::Burl { url, last: is_last(argument.as_bytes(), rest)? }),
        Some(offset) => {
            Err(SyntaxError { cut_off: offset == argument.len(), ..SyntaxError::new(SyntaxErrorKind::Url, offset) })
        }
    }
}

/// The first word of an argument, and the octets after its space.
#[inline(always)]
fn first_word(argument: &[u8]) -> Result<(&[u8], &[u8]), SyntaxError> {
    let end = argument.iter().position(|octet| *octet == b' ').unwrap_or(argument.len());
    match argument.split_at_checked(end) {
        None | Some(([], _)) => {
            let cut_off = argument.is_empty();
            Err(SyntaxError { cut_off, ..SyntaxError::new(SyntaxErrorKind::MissingArgument, 0) })
        }
        Some((word, rest)) => Ok((word, rest.get(1..).unwrap_or_default())),
    }
}

/// Reads the rest of an argument. `true`: it is `LAST`. `false`: it is empty.
#[inline(always)]
fn is_last(argument: &[u8], mut rest: &[u8]) -> Result<bool, SyntaxError> {
    while let [b' ', behind @ ..] = rest {
        rest = behind;
    }
    match rest {
        [] => Ok(false),
        last if last.eq_ignore_ascii_case(b"LAST") => Ok(true),
        last => {
            let cut_off = b"LAST".get(..last.len()).is_some_and(|start| start.eq_ignore_ascii_case(last));
            let error = SyntaxError::new(SyntaxErrorKind::UnexpectedArgument, argument.len() - last.len());
            Err(if cut_off { SyntaxError::cut_off(error.kind, argument.len()) } else { error })
        }
    }
}
