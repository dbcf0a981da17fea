//! How long a client waits and how much it takes.

use core::time::Duration;

use posthaste_wire::reply::ReplyLimits;

use crate::table::Exchange;

/// The settings of a client session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientSettings {
    /// How much a server may say in one reply. A line of a SASL exchange may have 12,288 octets whatever stands here (RFC
    /// 4954 section 4).
    pub replies: ReplyLimits,
    /// How long is waited.
    pub timeouts: ClientTimeouts,
    /// Whether content goes by BDAT where the server offers CHUNKING (RFC 3030). Default: on; octets are counted then, and
    /// no content can be taken for its own end. Off, only binary content does, which cannot go by DATA.
    pub chunking: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { replies: ReplyLimits::default(), timeouts: ClientTimeouts::default(), chunking: true }
    }
}

/// How long a client waits for a reply, counted from the reply before it: the values of RFC 5321 section 4.5.3.2.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientTimeouts {
    /// For the greeting. Default 5 minutes.
    pub greeting: Duration,
    /// For the reply to EHLO, STARTTLS, AUTH, RSET and the like, for the TLS handshake, and for the reply to a chunk that is
    /// not the last. Default 5 minutes.
    pub command: Duration,
    /// For the reply to MAIL. Default 5 minutes.
    pub mail: Duration,
    /// For the reply to RCPT. Default 5 minutes.
    pub rcpt: Duration,
    /// For 354. Default 2 minutes.
    pub data: Duration,
    /// For the reply to the end of the content; in LMTP for each of them. Default 10 minutes: giving up sooner makes
    /// duplicates.
    pub end_of_data: Duration,
    /// For the reply to QUIT; nothing depends on it. Default 5 seconds.
    pub quit: Duration,
    /// For the server to take a block of content (RFC 5321 section 4.5.3.2.5) or what is in the output. Default 3 minutes.
    pub write: Duration,
}

impl ClientTimeouts {
    /// The same bound for everything.
    pub const fn all(bound: Duration) -> Self {
        Self {
            greeting: bound,
            command: bound,
            mail: bound,
            rcpt: bound,
            data: bound,
            end_of_data: bound,
            quit: bound,
            write: bound,
        }
    }

    pub(super) const fn of(&self, exchange: Exchange) -> Duration {
        match exchange {
            Exchange::Greeting => self.greeting,
            Exchange::Mail => self.mail,
            Exchange::Rcpt => self.rcpt,
            Exchange::Data => self.data,
            Exchange::EndOfData => self.end_of_data,
            Exchange::Quit => self.quit,
            Exchange::Hello
            | Exchange::Chunk
            | Exchange::Reset
            | Exchange::StartTls
            | Exchange::Handshake
            | Exchange::Auth
            | Exchange::AuthResponse
            | Exchange::Other => self.command,
        }
    }
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self {
            greeting: minutes(5),
            command: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            end_of_data: minutes(10),
            quit: Duration::from_secs(5),
            write: minutes(3),
        }
    }
}
