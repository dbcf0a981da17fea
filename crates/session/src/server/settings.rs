//! What a server offers, how much it takes and how long it waits.

use alloc::string::String;
use core::time::Duration;

use posthaste_wire::{
    MechanismSet,
    command::{MAX_AUTH_LINE, MAX_COMMAND_LINE},
};

/// The settings of a server session; many sessions share one value.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Our name in the greeting and in the reply to EHLO.
    pub host_name: String,
    /// What is offered and demanded.
    pub offers: Offers,
    /// How much is taken.
    pub limits: ServerLimits,
    /// How long is waited.
    pub timeouts: ServerTimeouts,
}

/// What a server offers and demands. PIPELINING, SIZE, 8BITMIME and ENHANCEDSTATUSCODES are always offered.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// STARTTLS. Default: off, since it needs a certificate.
    pub starttls: bool,
    /// The SASL mechanisms. Default: none.
    pub auth: MechanismSet,
    /// AUTH without TLS too. Default: off; the passwords would cross the network in clear.
    pub auth_in_clear: bool,
    /// SMTPUTF8 (RFC 6531). Default: off.
    pub smtputf8: bool,
    /// DSN (RFC 3461). Default: off.
    pub dsn: bool,
    /// MAIL needs TLS. Default: off, as RFC 3207 section 4 demands of a public server on port 25.
    pub require_tls: bool,
    /// MAIL needs AUTH, as RFC 6409 section 4.3 demands of submission. Default: off.
    pub require_auth: bool,
}

/// How much a session takes.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Octets of a command line with CRLF. Default 2,048: RFC 5321's 512, RFC 3461's 1,036 and every other extension.
    /// Beyond it: 500, and the line is thrown away unread.
    pub command_line: usize,
    /// Octets of a SASL response with CRLF. Default 12,288 (RFC 4954 section 4). Beyond it: 500.
    pub auth_line: usize,
    /// Octets of an over-long line that are thrown away. Default 64 KiB. Beyond it: 421 and the end.
    pub discarded: usize,
    /// Octets of a line of content without CRLF. Default 998 (RFC 5321 section 4.5.3.1.6). Beyond it: 550 after the
    /// end of the content.
    pub text_line: usize,
    /// Octets of a message, offered as SIZE. Default 50 MiB. Beyond it: 552 to MAIL, or after the end of the content.
    pub message: u64,
    /// Recipients of a transaction. Default 1,000; RFC 5321 section 4.5.3.1.8 asks for 100. Beyond it: 452; when as many
    /// again have got a 4yz reply, each further one counts as an error.
    pub recipients: usize,
    /// RCPT questions that may be open at once. Default 1; raise it when recipients are looked up over a network.
    pub open_recipients: usize,
    /// Refused commands in a session. Default 20, as others have it. Beyond it: 421 and the end.
    pub errors: u32,
    /// Commands that do no work (NOOP, RSET, VRFY, HELP, EHLO; MAIL, DATA and messages that the application put off) since
    /// the last message. Default 250, enough for a monitor that asks once in a while. Beyond it: 421 and the end.
    pub junk_commands: u32,
    /// Failed AUTH attempts in a session. Default 3. Beyond it: 421 and the end.
    pub auth_failures: u32,
    /// Whether octets behind DATA, before its 354, end the session with 554 (RFC 2920 section 3.1). Default on.
    pub forbid_unauthorised_pipelining: bool,
}

/// How long a session waits. RFC 5321 section 4.5.3.2.7 asks a server to wait at least 5 minutes for a command.
#[derive(Debug, Clone)]
pub struct ServerTimeouts {
    /// For a whole command line, however slowly its octets come. Default 5 minutes.
    pub command: Duration,
    /// For a SASL response. Default 1 minute.
    pub auth: Duration,
    /// For the next octets of content. Default 3 minutes.
    pub content_block: Duration,
    /// The least octets of content a second, counted over the time that the client was waited for once that has
    /// reached a minute. Default 100; 0 switches it off.
    pub minimum_rate: u32,
    /// For the application's verdict. Default 5 minutes.
    pub verdict: Duration,
    /// For one write of the output; the driver keeps this one. Default 5 minutes.
    pub write: Duration,
}

impl ServerSettings {
    /// The defaults, under this name.
    pub fn new(host_name: impl Into<String>) -> Self {
        Self {
            host_name: host_name.into(),
            offers: Offers::default(),
            limits: ServerLimits::default(),
            timeouts: ServerTimeouts::default(),
        }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            command_line: MAX_COMMAND_LINE,
            auth_line: MAX_AUTH_LINE,
            discarded: 64 * 1_024,
            text_line: 998,
            message: 50 * 1_024 * 1_024,
            recipients: 1_000,
            open_recipients: 1,
            errors: 20,
            junk_commands: 250,
            auth_failures: 3,
            forbid_unauthorised_pipelining: true,
        }
    }
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            auth: Duration::from_secs(60),
            content_block: Duration::from_secs(180),
            minimum_rate: 100,
            verdict: Duration::from_secs(300),
            write: Duration::from_secs(300),
        }
    }
}
