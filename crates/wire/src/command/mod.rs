//! Commands (RFC 5321 section 4.1 and its extensions), parsed from one line and emitted as one.

mod auth;
mod mail;
mod rcpt;

use core::fmt;

use bytes::BytesMut;

use crate::{
    address::EhloName,
    encode::{self, EncodeError},
    error::{SyntaxError, SyntaxErrorKind},
    parameter::number,
};

pub use auth::Auth;
pub use mail::{BodyType, Mail, Ret};
pub use rcpt::{Notify, OriginalRecipient, Rcpt};

/// The most octets of a command line that this crate emits, CRLF included, for commands other than AUTH.
///
/// RFC 5321 has 512, and RFC 3461 section 5.4 raises it to 1,036 and more with every extension.
pub const MAX_COMMAND_LINE: usize = 2_048;
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
        let text = core::str::from_utf8(line)
            .map_err(|error| SyntaxError::new(SyntaxErrorKind::ControlCharacter, error.valid_up_to()))?;
        if let Some(offset) = line.iter().position(|octet| octet.is_ascii_control() && *octet != b'\t') {
            return Err(SyntaxError::new(SyntaxErrorKind::ControlCharacter, offset));
        }
        let text = text.trim_end_matches([' ', '\t']);
        let verb_end = text.find(' ').unwrap_or(text.len());
        let (verb, argument) = (text.get(..verb_end).unwrap_or_default(), text.get(verb_end + 1..).unwrap_or_default());
        if verb.is_empty() || !verb.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
            return Err(SyntaxError::new(SyntaxErrorKind::Verb, 0));
        }
        let base = verb_end + 1;
        Self::parse_argument(verb, argument).map_err(|error| error.at(base))
    }

    fn parse_argument(verb: &'a str, argument: &'a str) -> Result<Self, SyntaxError> {
        let hello = || EhloName::parse(argument.trim_matches(' '));
        let nothing = |command| match argument.trim_matches(' ') {
            "" => Ok(command),
            _ => Err(SyntaxError::new(SyntaxErrorKind::UnexpectedArgument, 0)),
        };
        let something = || match argument.trim_matches(' ') {
            "" => Err(SyntaxError::new(SyntaxErrorKind::MissingArgument, 0)),
            text => Ok(text),
        };
        // No verb is longer than eight letters; a longer one matches no row.
        let mut upper = [0; 8];
        for (to, from) in upper.iter_mut().zip(verb.bytes()) {
            *to = from.to_ascii_uppercase();
        }
        match upper.get(..verb.len()).unwrap_or_default() {
            b"EHLO" => hello().map(Self::Ehlo),
            b"HELO" => hello().map(Self::Helo),
            b"LHLO" => hello().map(Self::Lhlo),
            b"MAIL" => Mail::parse(argument).map(Self::Mail),
            b"RCPT" => Rcpt::parse(argument).map(Self::Rcpt),
            b"DATA" => nothing(Self::Data),
            b"BDAT" => bdat(argument),
            b"RSET" => nothing(Self::Rset),
            b"NOOP" => Ok(Self::Noop(argument)),
            b"QUIT" => nothing(Self::Quit),
            b"VRFY" => something().map(Self::Vrfy),
            b"EXPN" => something().map(Self::Expn),
            b"HELP" => Ok(Self::Help(argument)),
            b"STARTTLS" => nothing(Self::StartTls),
            b"AUTH" => Auth::parse(argument).map(Self::Auth),
            _ => Ok(Self::Other { verb, argument }),
        }
    }

    /// Appends the command as one line with its CRLF.
    ///
    /// # Errors
    /// [`EncodeError`] when the finished line has a line break or NUL in it or is too long
    /// ([`MAX_COMMAND_LINE`], [`MAX_AUTH_LINE`]); nothing is written then.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match *self {
            Self::Ehlo(name) => line(out, format_args!("EHLO {name}")),
            Self::Helo(name) => line(out, format_args!("HELO {name}")),
            Self::Lhlo(name) => line(out, format_args!("LHLO {name}")),
            Self::Mail(mail) => line(out, format_args!("MAIL FROM:{mail}")),
            Self::Rcpt(rcpt) => line(out, format_args!("RCPT TO:{rcpt}")),
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
            Self::Other { verb: word, argument } => verb(out, word, argument),
        }
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

fn bdat(argument: &str) -> Result<Command<'_>, SyntaxError> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let size = words.next().ok_or(SyntaxError::new(SyntaxErrorKind::MissingArgument, 0))?;
    let size = number(size).ok_or(SyntaxError::new(SyntaxErrorKind::Number, 0))?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(SyntaxError::new(SyntaxErrorKind::UnexpectedArgument, 0)),
    };
    match words.next() {
        None => Ok(Command::Bdat { size, last }),
        Some(_) => Err(SyntaxError::new(SyntaxErrorKind::UnexpectedArgument, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(line: &str) -> alloc::string::String {
        let mut out = BytesMut::new();
        Command::parse(line.as_bytes()).unwrap().encode(&mut out).unwrap();
        alloc::string::String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn emit_after_parse_is_the_canonical_line() {
        for (line, canonical) in [
            ("ehlo client.test", "EHLO client.test\r\n"),
            ("HELO [127.0.0.1]", "HELO [127.0.0.1]\r\n"),
            ("mail from:<a@b> size=10 body=8bitmime", "MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME\r\n"),
            ("MAIL FROM:<> RET=hdrs ENVID=QQ+2B FOO=bar", "MAIL FROM:<> RET=HDRS ENVID=QQ+2B FOO=bar\r\n"),
            ("MAIL FROM:<\u{fc}@b> SMTPUTF8", "MAIL FROM:<\u{fc}@b> SMTPUTF8\r\n"),
            ("MAIL FROM:<a@b> AUTH=<>", "MAIL FROM:<a@b> AUTH=<>\r\n"),
            (
                "rcpt to:<a@b> notify=success,FAILURE orcpt=rfc822;A+2B@b",
                "RCPT TO:<a@b> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;A+2B@b\r\n",
            ),
            ("RCPT TO:<postmaster>", "RCPT TO:<Postmaster>\r\n"),
            ("BDAT 17 last", "BDAT 17 LAST\r\n"),
            ("NOOP some string", "NOOP some string\r\n"),
            ("QUIT \t", "QUIT\r\n"),
            ("AUTH plain dGVzdA==", "AUTH PLAIN dGVzdA==\r\n"),
            ("XYZZY foo", "XYZZY foo\r\n"),
        ] {
            assert_eq!(emitted(line), canonical);
        }
    }

    #[test]
    fn a_refused_line_says_which_reply_and_where() {
        for (line, code, offset) in [
            (&b""[..], 500, 0),
            (b" NOOP", 500, 0),
            (b"\x16\x03\x01", 500, 0),
            (b"NOOP \xff", 500, 5),
            (b"NOOP a\0b", 500, 6),
            (b"EHLO", 501, 5),
            (b"EHLO a b", 501, 6),
            (b"MAIL FROM <a@b>", 501, 5),
            (b"MAIL TO:<a@b>", 501, 5),
            (b"MAIL FROM:a@b", 501, 10),
            (b"MAIL FROM:<a@b", 501, 14),
            (b"MAIL FROM:<a@b>SIZE=1", 501, 15),
            (b"MAIL FROM:<a@b> SIZE=abc", 501, 16),
            (b"MAIL FROM:<a@b> SIZE=18446744073709551616", 501, 16),
            (b"MAIL FROM:<a@b> SIZE=1 SIZE=2", 501, 23),
            (b"MAIL FROM:<a@b> SMTPUTF8=yes", 501, 16),
            (b"MAIL FROM:<a@b> RET=FOO", 501, 16),
            (b"MAIL FROM:<a@b> ENVID=QQ+zz", 501, 16),
            (b"RCPT TO:<>", 501, 8),
            (b"RCPT TO:", 501, 8),
            (b"RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", 501, 14),
            (b"RCPT TO:<a@b> ORCPT=foo", 501, 14),
            ("MAIL FROM:<\u{fc}@b>".as_bytes(), 553, 10),
            (b"DATA foo", 501, 5),
            (b"BDAT abc LAST", 501, 5),
            (b"BDAT 99999999999999999999 LAST", 501, 5),
            (b"BDAT -1", 501, 5),
            (b"BDAT 1 FIRST", 501, 5),
            (b"AUTH", 501, 5),
            (b"VRFY", 501, 5),
        ] {
            let error = Command::parse(line).unwrap_err();
            assert_eq!(
                (error.reply().code().get(), error.offset),
                (code, offset),
                "{:?}",
                alloc::string::String::from_utf8_lossy(line)
            );
        }
    }
}
