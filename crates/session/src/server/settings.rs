//! What a server offers, how much it takes and how long it waits.

use alloc::string::String;
use core::time::Duration;

use posthaste_wire::{
    Domain, MechanismSet,
    command::{MAX_AUTH_LINE, MAX_COMMAND_LINE},
};

/// The settings of a server session; many sessions share one value.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSettings {
    /// Our name in the greeting and in the reply to EHLO.
    pub host_name: Domain,
    /// Which protocol is spoken. Default: SMTP.
    pub protocol: Protocol,
    /// What is offered and demanded.
    pub offers: Offers,
    /// How much is taken.
    pub limits: ServerLimits,
    /// How long is waited.
    pub timeouts: ServerTimeouts,
    /// What is taken though the grammar does not have it.
    pub tolerance: Tolerance,
}

/// What is taken though the grammar of RFC 5321 does not have it, since clients say it and no harm follows. Everything else
/// that is malformed is refused.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tolerance {
    /// Local parts with dots at their ends or next to each other, outside quotes: `a..b@example.org`, as mobile providers have
    /// given out. They go on as they came. Default: on. Off: 501.
    pub dots: bool,
    /// Any argument of EHLO, HELO and LHLO, also none, as old mail programs say it: blanks, ISO 8859-1, more than 255 octets.
    /// The application gets what [`EhloName::lossy`](posthaste_wire::EhloName::lossy) makes of it, which cannot break a line.
    /// Control characters are refused in any case. Default: off, since a server that takes mail from other servers loses
    /// nothing by that; switch it on for submission. Off: 501, or 500 for what is not UTF-8.
    pub hello: bool,
}

/// How a connection stands when its session starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In clear.
    Plain,
    /// TLS is up (RFC 8314), by the driver or by a proxy before it.
    Tls,
}

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// SMTP (RFC 5321): EHLO or HELO, and one reply to a message.
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, and one reply to a message for each recipient that was accepted. Not on port 25.
    Lmtp,
}

/// What a server offers and demands. PIPELINING, SIZE, 8BITMIME and ENHANCEDSTATUSCODES are always offered.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
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
    /// CHUNKING (RFC 3030): BDAT beside DATA. Default: off.
    pub chunking: bool,
    /// BINARYMIME (RFC 3030), which offers CHUNKING too: content of any octets, which an application has to keep as they
    /// are. Default: off.
    pub binary_mime: bool,
    /// REQUIRETLS (RFC 8689), inside TLS only. Default: off, since whoever offers it must not relay without verified TLS.
    pub require_tls: bool,
    /// DELIVERBY (RFC 2852), with the least time in seconds that may be asked for in mode R; 0 for none. Default: off.
    pub deliver_by: Option<u32>,
    /// FUTURERELEASE (RFC 4865), for submission: the most seconds for which a message may be held.
    /// They bound HOLDFOR, and HOLDUNTIL from the time of the command on. Beyond it: 501. Default: off.
    ///
    /// Offered only by a session that knows the
    /// [wall-clock time](super::ServerSession::set_wall_clock).
    pub future_release: Option<u32>,
    /// MT-PRIORITY (RFC 6710), with the name of the profile, which may be empty. Default: off.
    pub mt_priority: Option<String>,
    /// RRVS (RFC 7293). Default: off.
    pub rrvs: bool,
    /// NO-SOLICITING (RFC 3865), with the solicitation class keywords that are refused, which may be none; what SOLICIT says
    /// is for the application to look at. Default: off.
    pub no_soliciting: Option<String>,
    /// LIMITS (RFC 9422): says how many recipients a transaction may have. Default: off.
    pub limits: bool,
    /// VRFY, EXPN, HELP, ETRN and every verb that this crate does not know are [asked](super::Ask::Other) about. Default:
    /// off; VRFY gets a 252 then, HELP a 214, the others a 500 or 502.
    pub other_commands: bool,
    /// MAIL needs TLS. Default: off, as RFC 3207 section 4 demands of a public server on port 25.
    pub demand_tls: bool,
    /// MAIL needs AUTH, as RFC 6409 section 4.3 demands of submission. Default: off.
    pub demand_auth: bool,
}

/// How much a session takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Octets of a command line with CRLF. Default 2,048: RFC 5321's 512, RFC 3461's 1,036 and every other extension.
    /// Beyond it: 500, and the line is thrown away unread.
    pub command_line: usize,
    /// Octets of a SASL response with CRLF. Default 12,288 (RFC 4954 section 4). Beyond it: 500.
    pub auth_line: usize,
    /// Octets of an over-long line that are thrown away. Default 64 KiB. Beyond it: 421 and the end.
    pub discarded_line: usize,
    /// Octets of a line of content without CRLF. Default 998 (RFC 5321 section 4.5.3.1.6). Beyond it: 550 after the
    /// end of the content.
    pub text_line: usize,
    /// Octets of a message, offered as SIZE. Default 50 MiB. Beyond it: 552 to MAIL, or after the end of the content.
    pub message_size: u64,
    /// Octets of content beyond [`message_size`](Self::message_size) that are swallowed, so that the client hears its refusal behind the true
    /// end. Default 1 GiB. Beyond it: 552 and the end.
    pub discarded_content: u64,
    /// Recipients of a transaction. Default 1,000; RFC 5321 section 4.5.3.1.8 asks for 100. Beyond it: 452; when as many
    /// again have got a 4yz reply, each further one counts as an error.
    pub recipients: usize,
    /// Refused commands in a session. Default 20, as others have it. Beyond it: 421 and the end.
    pub errors: u32,
    /// Commands that do no work (NOOP, RSET, VRFY, HELP, EHLO; chunks of no octets but the last; MAIL, DATA and messages that
    /// the application put off) since the last message. Default 100, enough for a monitor that asks once in a while.
    /// Beyond it: 421 and the end.
    pub idle_commands: u32,
    /// Failed AUTH attempts in a session. Default 3. Beyond it: 421 and the end.
    pub auth_failures: u32,
    /// Whether octets behind DATA, before its 354, end the session with 554 (RFC 2920 section 3.1). Default on.
    pub forbid_unauthorized_pipelining: bool,
    /// Whether octets before the greeting end the session with 554 (RFC 5321 section 4.3.1 has a client wait for it).
    /// Default on; they are only seen when there is a [delay](ServerTimeouts::greeting_delay).
    pub forbid_early_talking: bool,
}

/// How long a session waits. RFC 5321 section 4.5.3.2.7 asks a server to wait at least 5 minutes for a command. A session that is
/// [hurried](super::ServerSession::hurry) has a tenth of each, but for the greeting's delay, the verdict and the session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerTimeouts {
    /// How long the greeting is kept back to see whether the client waits for it. Default 0; a few seconds turn away
    /// programs that only pretend to speak SMTP.
    pub greeting_delay: Duration,
    /// For a command. Default 5 minutes. Beyond it: 421 and the end, as for each of these.
    pub command: Duration,
    /// For the rest of a line, from its first octet on. Default 1 minute: programs write whole lines, so this is what the
    /// network may need, and a line that comes octet by octet holds the session no longer.
    pub line: Duration,
    /// For a SASL response. Default 1 minute.
    pub auth: Duration,
    /// For the next octets of content. Default 3 minutes.
    pub content_block: Duration,
    /// The least octets of content a second, counted over the time that the client was waited for. Default 100; 0 switches it
    /// off. Content may lag behind by a minute, and by what it was faster before, 5 minutes at most: a burst pays for no
    /// hours of silence. Beyond it: 421 and the end.
    pub minimum_rate: u32,
    /// From one message to the end of the next one's commands, up to its content. Default 20 minutes: a session that does
    /// not send mail makes room for others, however it passes its time. Beyond it: 421 and the end.
    pub message: Duration,
    /// For the application's verdict. Default 5 minutes.
    pub verdict: Duration,
    /// For one write of the output; the driver keeps this one. Default 5 minutes.
    pub write: Duration,
    /// For a TLS handshake, behind STARTTLS or, which the driver sees to, before the greeting. Default 30 seconds: it takes no
    /// more than a few round trips. Beyond it: the end, without a reply, which nobody could read.
    pub handshake: Duration,
    /// For the whole session. Default 24 hours, which RFC 5321 leaves to the server: the other limits bound each wait and
    /// not their number. Beyond it: 421 and the end, as soon as no question is open; content that still comes is not waited
    /// for, the client has to send it again.
    pub session: Duration,
}

impl ServerSettings {
    /// The defaults, under this name: a domain or an address literal.
    pub fn new(host_name: Domain) -> Self {
        Self {
            host_name,
            protocol: Protocol::default(),
            offers: Offers::default(),
            limits: ServerLimits::default(),
            timeouts: ServerTimeouts::default(),
            tolerance: Tolerance::default(),
        }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { dots: true, hello: false }
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            command_line: MAX_COMMAND_LINE,
            auth_line: MAX_AUTH_LINE,
            discarded_line: 64 * 1_024,
            text_line: 998,
            message_size: 50 * 1_024 * 1_024,
            discarded_content: 1_024 * 1_024 * 1_024,
            recipients: 1_000,
            errors: 20,
            idle_commands: 100,
            auth_failures: 3,
            forbid_unauthorized_pipelining: true,
            forbid_early_talking: true,
        }
    }
}

impl Default for ServerTimeouts {
    fn default() -> Self {
        Self {
            greeting_delay: Duration::ZERO,
            command: Duration::from_secs(300),
            line: Duration::from_secs(60),
            auth: Duration::from_secs(60),
            content_block: Duration::from_secs(180),
            minimum_rate: 100,
            message: Duration::from_secs(20 * 60),
            verdict: Duration::from_secs(300),
            write: Duration::from_secs(300),
            handshake: Duration::from_secs(30),
            session: Duration::from_secs(24 * 60 * 60),
        }
    }
}
