//! Capabilities: the keywords that a server offers in its reply to EHLO (RFC 5321 section 4.1.1.1).
//!
//! [`Capability`] is one line, [`Capabilities`] are all lines of a reply. Every line stays
//! available as octets. A line without a type here is not an error.

mod arguments;
mod capabilities;
mod keyword;
mod mechanism;

use core::fmt;

use arguments::{number, write_printable};

pub use arguments::{Limits, Partly, Words};
pub use capabilities::Capabilities;
pub use keyword::Keyword;
pub use mechanism::{Mechanism, MechanismSet};

/// One keyword with its arguments.
///
/// [`Display`](fmt::Display) writes the line as a server sends it: the keyword in upper case, one
/// space between words, known arguments first. Parsing that line gives the same value again.
///
/// Arguments beyond those in the keyword's RFC are dropped, as RFC 6531 section 3.1 demands. If a
/// needed argument is missing, or a number is malformed or too large, the line is
/// [`Other`](Self::Other): a client must not use what it does not understand. SIZE and LIMITS
/// differ, as their variants say.
///
/// ```
/// use posthaste_wire::Capability;
/// assert_eq!(Capability::parse(b"size 1000"), Some(Capability::Size(1000)));
/// assert_eq!(Capability::parse(b"DELIVERBY soon"), Some(Capability::Other("DELIVERBY soon")));
/// assert_eq!(Capability::DeliverBy(Some(240)).to_string(), "DELIVERBY 240");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability<'a> {
    /// `PIPELINING` (RFC 2920).
    Pipelining,
    /// `SIZE`, with the octets of the largest message. 0: no fixed limit (RFC 1870 section 4). A
    /// limit that is missing, malformed or beyond 64 bits is 0.
    Size(u64),
    /// `8BITMIME` (RFC 6152).
    EightBitMime,
    /// `SMTPUTF8` (RFC 6531).
    SmtpUtf8,
    /// `ENHANCEDSTATUSCODES` (RFC 2034).
    EnhancedStatusCodes,
    /// `DSN` (RFC 3461).
    Dsn,
    /// `CHUNKING` (RFC 3030).
    Chunking,
    /// `BINARYMIME` (RFC 3030).
    BinaryMime,
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `AUTH` with its mechanisms (RFC 4954), also in the old form `AUTH=`.
    Auth(Partly<'a, MechanismSet>),
    /// `REQUIRETLS` (RFC 8689).
    RequireTls,
    /// `DELIVERBY`, with the least time that a client may ask for, in seconds (RFC 2852 section 2).
    DeliverBy(Option<u32>),
    /// `FUTURERELEASE` (RFC 4865 section 3).
    FutureRelease {
        /// The longest time for which the server holds a message, in seconds.
        max_interval: u32,
        /// The latest time until which the server holds a message: a `date-time` of RFC 3339, not
        /// checked.
        max_date_time: &'a str,
    },
    /// `MT-PRIORITY`, with the name of the profile (RFC 6710 section 3).
    MtPriority(Option<&'a str>),
    /// `LIMITS` (RFC 9422). A known limit that is 0, malformed or beyond 32 bits counts as an
    /// unknown word: section 3.7 has clients ignore it.
    Limits(Partly<'a, Limits>),
    /// `ETRN` (RFC 1985).
    Etrn,
    /// `BURL`, with the kinds of URL that the server takes (RFC 4468 section 3.3).
    Burl(Words<'a>),
    /// `NO-SOLICITING`, with the classes of solicitation that the server refuses (RFC 3865 section
    /// 2).
    NoSoliciting(Words<'a>),
    /// `RRVS` (RFC 7293).
    Rrvs,
    /// `VRFY` (RFC 5321 section 3.5.2).
    Vrfy,
    /// `EXPN` (RFC 5321 section 3.5.2).
    Expn,
    /// `HELP` (RFC 5321 section 4.1.1.8).
    Help,
    /// `XCLIENT`, with the attributes that the server takes.
    XClient(Words<'a>),
    /// `XFORWARD`, with the attributes that the server takes.
    XForward(Words<'a>),
    /// Any other line, as it came.
    Other(&'a str),
}

impl<'a> Capability<'a> {
    /// Parses the text of a line, without code, separator and CRLF.
    ///
    /// `None`: it is empty, not UTF-8, or has a control character.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (keyword, length) = Keyword::at_front(line);
        Self::of_line(line, keyword, length)
    }

    /// Parses a line whose first word has `length` octets and is this keyword, if it is known.
    #[inline]
    fn of_line(line: &'a [u8], keyword: Option<Keyword>, length: usize) -> Option<Self> {
        if line.is_empty() || (!is_printable(line) && text(line)?.contains(char::is_control)) {
            return None;
        }
        // In `AUTH=PLAIN` the keyword is not a separate word.
        let (keyword, arguments) = match (keyword, line.split_at_checked("AUTH=".len())) {
            (None, Some((auth, rest))) if auth.eq_ignore_ascii_case(b"AUTH=") => (Some(Keyword::Auth), rest),
            (keyword, _) => (keyword, line.get(length..).unwrap_or_default()),
        };
        keyword.and_then(|keyword| Self::known(keyword, arguments)).or_else(|| text(line).map(Self::Other))
    }

    /// `None`: the arguments, which are text, do not fit the keyword.
    #[inline]
    fn known(keyword: Keyword, arguments: &'a [u8]) -> Option<Self> {
        // Only arguments that are kept as text are checked for UTF-8.
        let words = || Words::new(text(arguments).unwrap_or_default());
        Some(match keyword {
            Keyword::Pipelining => Self::Pipelining,
            Keyword::Size => Self::Size(first_word(arguments).and_then(number).unwrap_or(0)),
            Keyword::EightBitMime => Self::EightBitMime,
            Keyword::SmtpUtf8 => Self::SmtpUtf8,
            Keyword::EnhancedStatusCodes => Self::EnhancedStatusCodes,
            Keyword::Dsn => Self::Dsn,
            Keyword::Chunking => Self::Chunking,
            Keyword::BinaryMime => Self::BinaryMime,
            Keyword::StartTls => Self::StartTls,
            Keyword::Auth => Self::Auth(Partly::parse(words())),
            Keyword::RequireTls => Self::RequireTls,
            // The least time is the first part of a list with commas. RFC 2852 defines no other
            // part.
            Keyword::DeliverBy => {
                Self::DeliverBy(match first_word(arguments).and_then(|list| list.split(is_comma).next()) {
                    None | Some([]) => None,
                    Some(seconds) => Some(number(seconds)?),
                })
            }
            Keyword::FutureRelease => {
                let words = words();
                let mut words = words.iter();
                Self::FutureRelease { max_interval: number(words.next()?.as_bytes())?, max_date_time: words.next()? }
            }
            Keyword::MtPriority => Self::MtPriority(words().iter().next()),
            Keyword::Limits => Self::Limits(Partly::parse(words())),
            Keyword::Etrn => Self::Etrn,
            Keyword::Burl => Self::Burl(words()),
            Keyword::NoSoliciting => Self::NoSoliciting(words()),
            Keyword::Rrvs => Self::Rrvs,
            Keyword::Vrfy => Self::Vrfy,
            Keyword::Expn => Self::Expn,
            Keyword::Help => Self::Help,
            Keyword::XClient => Self::XClient(words()),
            Keyword::XForward => Self::XForward(words()),
        })
    }

    /// The keyword. `None`: the line is [`Other`](Self::Other).
    pub const fn keyword(&self) -> Option<Keyword> {
        Some(match self {
            Self::Pipelining => Keyword::Pipelining,
            Self::Size(_) => Keyword::Size,
            Self::EightBitMime => Keyword::EightBitMime,
            Self::SmtpUtf8 => Keyword::SmtpUtf8,
            Self::EnhancedStatusCodes => Keyword::EnhancedStatusCodes,
            Self::Dsn => Keyword::Dsn,
            Self::Chunking => Keyword::Chunking,
            Self::BinaryMime => Keyword::BinaryMime,
            Self::StartTls => Keyword::StartTls,
            Self::Auth(_) => Keyword::Auth,
            Self::RequireTls => Keyword::RequireTls,
            Self::DeliverBy(_) => Keyword::DeliverBy,
            Self::FutureRelease { .. } => Keyword::FutureRelease,
            Self::MtPriority(_) => Keyword::MtPriority,
            Self::Limits(_) => Keyword::Limits,
            Self::Etrn => Keyword::Etrn,
            Self::Burl(_) => Keyword::Burl,
            Self::NoSoliciting(_) => Keyword::NoSoliciting,
            Self::Rrvs => Keyword::Rrvs,
            Self::Vrfy => Keyword::Vrfy,
            Self::Expn => Keyword::Expn,
            Self::Help => Keyword::Help,
            Self::XClient(_) => Keyword::XClient,
            Self::XForward(_) => Keyword::XForward,
            Self::Other(_) => return None,
        })
    }
}

fn text(octets: &[u8]) -> Option<&str> {
    core::str::from_utf8(octets).ok()
}

/// The first word of arguments without control characters, so that only spaces separate words.
fn first_word(arguments: &[u8]) -> Option<&[u8]> {
    arguments.split(|octet| *octet == b' ').find(|word| !word.is_empty())
}

const fn is_comma(octet: &u8) -> bool {
    *octet == b','
}

/// Returns `true` if all octets are spaces or visible characters of ASCII. Checks 8 octets at once.
fn is_printable(octets: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 255;
    let (windows, rest) = octets.as_chunks::<8>();
    let fold = windows.iter().fold(0, |odd, window| {
        let window = u64::from_le_bytes(*window);
        // The topmost bit is set for an octet below a space, and from DEL on.
        odd | window | window.wrapping_sub(EACH * b' ' as u64) | window.wrapping_add(EACH)
    });
    fold & (EACH << 7) == 0 && rest.iter().all(|octet| matches!(octet, b' '..=b'~'))
}

/// The line as a server sends it. A control character becomes `?`, so that it remains one line.
impl fmt::Display for Capability<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(keyword) = self.keyword() {
            keyword.fmt(f)?;
        }
        match self {
            Self::Size(limit) => write!(f, " {limit}"),
            Self::Auth(auth) if *auth == Partly::default() => Ok(()),
            Self::Auth(auth) => write!(f, " {auth}"),
            Self::DeliverBy(Some(seconds)) => write!(f, " {seconds}"),
            Self::FutureRelease { max_interval, max_date_time } => {
                write!(f, " {max_interval} {}", Words::new(max_date_time))
            }
            Self::MtPriority(Some(profile)) => write!(f, " {}", Words::new(profile)),
            Self::Limits(limits) if *limits == Partly::default() => Ok(()),
            Self::Limits(limits) => write!(f, " {limits}"),
            Self::Burl(words) | Self::NoSoliciting(words) | Self::XClient(words) | Self::XForward(words)
                if !words.is_empty() =>
            {
                write!(f, " {words}")
            }
            Self::Other(line) => write_printable(f, line),
            _ => Ok(()),
        }
    }
}
