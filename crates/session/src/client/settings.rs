//! How long a client waits and how much it takes.

use core::time::Duration;

use posthaste_wire::reply::ReplyLimits;

use crate::table::Exchange;

/// The settings of a client session. Start from the default and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientSettings {
    /// The limits of one reply. Defaults: those of [`ReplyLimits`]. A line of a SASL exchange may
    /// always have 12,288 octets (RFC 4954 section 4).
    pub replies: ReplyLimits,
    /// How long the client waits.
    pub timeouts: ClientTimeouts,
    /// Sends content by BDAT if the server offers CHUNKING (RFC 3030). Default: on, because counted
    /// octets cannot end a message early. Off: only binary content goes by BDAT, because it cannot
    /// go by DATA.
    pub chunking: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { replies: ReplyLimits::default(), timeouts: ClientTimeouts::default(), chunking: true }
    }
}

/// How long a client waits for each reply, counted from when it begins to wait for it: the values
/// of RFC 5321 section 4.5.3.2. Beyond it: the session is closed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientTimeouts {
    /// For the greeting. Default 5 minutes.
    pub greeting: Duration,
    /// For the reply to every other command, such as EHLO, STARTTLS, AUTH and RSET. The TLS
    /// handshake, and the reply to a chunk that is not the last, have this time too. Default 5
    /// minutes.
    pub command: Duration,
    /// For the reply to MAIL. Default 5 minutes.
    pub mail: Duration,
    /// For the reply to RCPT. Default 5 minutes.
    pub rcpt: Duration,
    /// For 354. Default 2 minutes.
    pub data: Duration,
    /// For the reply to the end of the content; in LMTP for each of them. Default 10 minutes,
    /// because giving up sooner makes duplicates.
    pub end_of_data: Duration,
    /// For the reply to QUIT. Default 5 seconds, because no message depends on it.
    pub quit: Duration,
    /// For one write of content (RFC 5321 section 4.5.3.2.5) or of the output. Default 3 minutes.
    pub write: Duration,
}

impl ClientTimeouts {
    /// The same bound for every wait.
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
            | Exchange::XClient
            | Exchange::XForward
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
