//! What a server offers in its reply to EHLO (RFC 5321 section 4.1.1.1).

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::reply::ReplyRef;

/// One keyword with its parameters, as a server writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability<'a> {
    /// `PIPELINING` (RFC 2920).
    Pipelining,
    /// `SIZE limit`; 0 means no fixed limit (RFC 1870).
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
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `AUTH mechanisms` (RFC 4954).
    Auth(MechanismSet),
    /// Any other keyword with its parameters, as it came.
    Other(&'a str),
}

/// A set of SASL mechanisms that this workspace speaks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct MechanismSet {
    /// `PLAIN` (RFC 4616).
    pub plain: bool,
    /// `LOGIN` (draft-murchison-sasl-login).
    pub login: bool,
}

impl MechanismSet {
    /// Whether no mechanism is in it.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.plain, "PLAIN"), (self.login, "LOGIN")].into_iter().filter_map(|(offered, name)| offered.then_some(name))
    }
}

impl fmt::Debug for MechanismSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl fmt::Display for Capability<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipelining => f.write_str("PIPELINING"),
            Self::Size(limit) => write!(f, "SIZE {limit}"),
            Self::EightBitMime => f.write_str("8BITMIME"),
            Self::SmtpUtf8 => f.write_str("SMTPUTF8"),
            Self::EnhancedStatusCodes => f.write_str("ENHANCEDSTATUSCODES"),
            Self::Dsn => f.write_str("DSN"),
            Self::Chunking => f.write_str("CHUNKING"),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::Auth(mechanisms) => {
                f.write_str("AUTH")?;
                mechanisms.names().try_for_each(|name| write!(f, " {name}"))
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What a client knows of the server, from the last EHLO: typed views of the known keywords, and all lines as they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `PIPELINING`.
    pub pipelining: bool,
    /// `SIZE`, with the limit in octets when a fixed one was given.
    pub size: Option<Option<u64>>,
    /// `8BITMIME`.
    pub eight_bit_mime: bool,
    /// `SMTPUTF8`.
    pub smtp_utf8: bool,
    /// `ENHANCEDSTATUSCODES`.
    pub enhanced_status_codes: bool,
    /// `DSN`.
    pub dsn: bool,
    /// `CHUNKING`.
    pub chunking: bool,
    /// `STARTTLS`.
    pub start_tls: bool,
    /// The known mechanisms of `AUTH`, the old `AUTH=` form included.
    pub auth: MechanismSet,
    lines: Vec<String>,
}

impl Capabilities {
    /// The most keywords that are kept; a reply has at most 128 lines ([`crate::reply::ReplyLimits`]).
    pub const MAX: usize = 64;

    /// Reads a positive reply to EHLO; its first line is the greeting and no keyword.
    pub fn from_reply(reply: &ReplyRef<'_>) -> Self {
        let mut capabilities = Self::default();
        for line in reply.lines().skip(1).take(Self::MAX) {
            let text = String::from_utf8_lossy(line).into_owned();
            capabilities.add(&text);
            capabilities.lines.push(text);
        }
        capabilities
    }

    /// Every keyword line as it came, known and unknown.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    fn add(&mut self, line: &str) {
        let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
        let keyword = words.next().unwrap_or_default();
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        if is("PIPELINING") {
            self.pipelining = true;
        } else if is("SIZE") {
            // A limit that is no number, or 0, is no fixed limit (RFC 1870 section 4).
            self.size =
                Some(words.next().and_then(|word| crate::parameter::number(word).ok()).filter(|limit| *limit > 0));
        } else if is("8BITMIME") {
            self.eight_bit_mime = true;
        } else if is("SMTPUTF8") {
            self.smtp_utf8 = true;
        } else if is("ENHANCEDSTATUSCODES") {
            self.enhanced_status_codes = true;
        } else if is("DSN") {
            self.dsn = true;
        } else if is("CHUNKING") {
            self.chunking = true;
        } else if is("STARTTLS") {
            self.start_tls = true;
        } else if is("AUTH") {
            for mechanism in words {
                self.auth.plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                self.auth.login |= mechanism.eq_ignore_ascii_case("LOGIN");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keywords_are_typed_and_all_are_kept() {
        let reply = b"250-mx.test hello\r\n250-PIPELINING\r\n250-size 1000\r\n250-8BITMIME\r\n250-AUTH=LOGIN\r\n250-AUTH PLAIN XFOO\r\n250 X-ODD a=b\r\n";
        let capabilities = Capabilities::from_reply(&ReplyRef::parse(reply).unwrap());
        assert!(capabilities.pipelining && capabilities.eight_bit_mime && !capabilities.start_tls);
        assert_eq!(capabilities.size, Some(Some(1000)));
        assert_eq!(capabilities.auth, MechanismSet { plain: true, login: true });
        assert_eq!(capabilities.lines().last(), Some("X-ODD a=b"));
    }
}
