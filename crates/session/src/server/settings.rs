//! What a server offers, how much it takes and how long it waits.

use alloc::string::String;
use core::time::Duration;

use posthaste_wire::{
    Domain, Mechanism, MechanismSet,
    command::{MAX_AUTH_LINE, MAX_COMMAND_LINE, Tolerance},
};

/// The settings of a server session. Many sessions share one value.
///
/// Start from the constructor for the server's role, and assign what differs:
///
/// | constructor | role | differs in |
/// |---|---|---|
/// | [`new`](Self::new) | takes mail from other servers, on port 25 | |
/// | [`submission`](Self::submission) | takes mail from people and programs, on ports 587 and 465 | AUTH, TLS, tolerance |
/// | [`lmtp`](Self::lmtp) | delivers to mailboxes, on a Unix socket | protocol, tolerance |
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSettings {
    /// The server's name in the greeting and in the reply to EHLO. Write an internationalized name
    /// in A-labels.
    pub host_name: Domain,
    /// The protocol. Default: SMTP.
    pub protocol: Protocol,
    /// What the server offers and demands.
    pub offers: Offers,
    /// How much the server takes.
    pub limits: ServerLimits,
    /// How long the server waits.
    pub timeouts: ServerTimeouts,
    /// Which departures from the grammar are tolerated. Default: [`Tolerance::MX`], and in the
    /// other roles [`Tolerance::SUBMISSION`] and [`Tolerance::LMTP`].
    pub tolerance: Tolerance,
}

/// TLS on a connection when its session starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TLS is not up, and the session does not offer it.
    Plain,
    /// TLS is not up. The session offers STARTTLS (RFC 3207), so the driver must be able to do the
    /// handshake, which needs a certificate.
    StartTls,
    /// TLS is up (RFC 8314), through the driver or a proxy before it.
    Tls,
}

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// SMTP (RFC 5321): EHLO or HELO, and one reply to a message.
    #[default]
    Smtp,
    /// LMTP (RFC 2033): LHLO, and one reply to a message for each accepted recipient. Not on port
    /// 25.
    Lmtp,
}

/// What a server offers and demands. It always offers PIPELINING, SIZE, 8BITMIME and
/// ENHANCEDSTATUSCODES. [`Transport`] decides about STARTTLS.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Offers {
    /// The SASL mechanisms. Default: none.
    pub auth: MechanismSet,
    /// AUTH without TLS. Default: off, because passwords would cross the network in clear.
    pub auth_in_clear: bool,
    /// SMTPUTF8 (RFC 6531). Default: off.
    pub smtputf8: bool,
    /// DSN (RFC 3461). Default: off.
    pub dsn: bool,
    /// CHUNKING (RFC 3030): BDAT as well as DATA. Default: off.
    pub chunking: bool,
    /// BINARYMIME (RFC 3030): content of any octets, which the application must keep unchanged. It
    /// offers CHUNKING too. Default: off.
    pub binary_mime: bool,
    /// REQUIRETLS (RFC 8689), inside TLS only. Default: off, because a server that offers it must
    /// not relay without verified TLS.
    pub require_tls: bool,
    /// DELIVERBY (RFC 2852): the least time in seconds that a client may ask for in mode R; 0 for
    /// no minimum. `None`, the default: off.
    pub deliver_by: Option<u32>,
    /// FUTURERELEASE (RFC 4865), for submission: the most seconds for which a message may be held.
    /// It bounds HOLDFOR, and HOLDUNTIL counted from the command. Beyond it: 501. `None`, the
    /// default: off.
    ///
    /// Only a session that knows the [wall-clock time](super::ServerSession::set_wall_clock) offers
    /// it.
    pub future_release: Option<u32>,
    /// MT-PRIORITY (RFC 6710): the name of the profile, which may be empty. `None`, the default:
    /// off.
    pub mt_priority: Option<String>,
    /// RRVS (RFC 7293). Default: off.
    pub rrvs: bool,
    /// NO-SOLICITING (RFC 3865): the solicitation class keywords that are refused, separated by
    /// commas; the list may be empty. The application checks SOLICIT. `None`, the default: off.
    pub no_soliciting: Option<String>,
    /// LIMITS (RFC 9422): announces how many recipients a transaction may have. Default: off.
    pub limits: bool,
    /// XCLIENT, as Postfix defines it: a proxy says which client it speaks for, and the application
    /// decides about that one ([`Ask::XClient`](super::Ask::XClient)). Default: off; 550.
    ///
    /// Offer it to trusted proxies alone: it can claim any address, and a login. Once ADDR was
    /// said, neither XCLIENT nor XFORWARD is taken, because the proxy may pass on what its client
    /// sends.
    pub xclient: bool,
    /// XFORWARD, as Postfix defines it: a proxy or a content filter describes its client
    /// [for logs](super::ServerSession::forwarded). Default: off; 550. Offer it to trusted clients
    /// alone.
    pub xforward: bool,
    /// [Asks](super::Ask::Other) the application about VRFY, EXPN, HELP, ETRN and unknown verbs.
    /// Default: off; the session answers 252 to VRFY, 214 to HELP, and 500 or 502 to the others.
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
    /// Octets of a command line with CRLF. Default 2,048: room for the 512 of RFC 5321, the 1,036
    /// of RFC 3461 and all other extensions. Beyond it: 500, and the line is discarded unread.
    pub command_line: usize,
    /// Octets of a SASL response with CRLF. Default 12,288 (RFC 4954 section 4). Beyond it: 500.
    pub auth_line: usize,
    /// Octets of an over-long line that are discarded. Default 64 KiB, more than any client sends
    /// by mistake. Beyond it: 421 and the end.
    pub discarded_line: usize,
    /// Octets of a line of content without CRLF. Default 998 (RFC 5321 section 4.5.3.1.6). Beyond
    /// it: 550 after the end of the content.
    pub text_line: usize,
    /// Octets of a message, offered as SIZE. Default 50 MiB. Beyond it: 552 to MAIL, or after the
    /// end of the content. With 0 no content is taken, although clients read `SIZE 0` as no limit
    /// (RFC 1870 section 4). `u64::MAX` means no limit.
    pub message_size: u64,
    /// Octets of content beyond [`message_size`](Self::message_size) that are discarded, so that
    /// the client reads its refusal after the true end. Default 1 GiB. Beyond it: 552 and the end.
    pub discarded_content: u64,
    /// Recipients of a transaction. Default 1,000; RFC 5321 section 4.5.3.1.8 asks for 100. Beyond
    /// it: 452. The same number of RCPTs may get a 4yz reply; each further 4yz counts as an error.
    pub recipients: usize,
    /// Refused commands since the last message that was accepted. Default 20, as other servers have
    /// it; for LMTP 1,000, as its client is a queue with recipients of many messages. Beyond it:
    /// 421 and the end.
    pub errors: u32,
    /// Commands that do no work since the last message: NOOP, RSET, VRFY, HELP, EHLO, and empty
    /// chunks but the last. MAIL, DATA and messages that the application refused with a 4yz count
    /// too. Default 100, enough for a monitor. Beyond it: 421 and the end.
    pub idle_commands: u32,
    /// Failed AUTH attempts in a session. Default 3. Beyond it: 421 and the end.
    pub auth_failures: u32,
    /// Ends the session with 554 if octets follow DATA before its 354 (RFC 2920 section 3.1).
    /// Default: on.
    pub forbid_unauthorized_pipelining: bool,
    /// Ends the session with 554 if octets come before the greeting (RFC 5321 section 4.3.1).
    /// Default: on. It needs a [delay](ServerTimeouts::greeting_delay).
    pub forbid_early_talking: bool,
}

/// How long a session waits. RFC 5321 section 4.5.3.2.7 asks for at least 5 minutes for a command.
///
/// A [hurried](super::ServerSession::hurry) session has a tenth of each time, except of the
/// greeting's delay, the verdict and the session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerTimeouts {
    /// How long the greeting is delayed to see if the client waits for it. Default 0. A few seconds
    /// turn away programs that only imitate SMTP.
    pub greeting_delay: Duration,
    /// For a command. Default 5 minutes. Beyond it: 421 and the end, here and below unless a time
    /// says otherwise.
    pub command: Duration,
    /// For a line, from its first octet. Default 1 minute, because programs write whole lines. A
    /// line that arrives octet by octet gets no more.
    pub line: Duration,
    /// For a SASL response. Default 1 minute.
    pub auth: Duration,
    /// For the next octets of content. Default 3 minutes.
    pub content_block: Duration,
    /// The least octets of content a second, counted while the session waits for the client.
    /// Default 100; 0 switches it off. Content may be late by 1 minute. Octets that come faster add
    /// to that, up to 5 minutes, so that a burst does not allow hours of silence. Beyond it: 421
    /// and the end.
    pub minimum_rate: u32,
    /// From one message to the content of the next. Default 20 minutes, because a session that
    /// sends no mail takes the place of others. Beyond it: 421 and the end.
    pub message: Duration,
    /// For the application's verdict. Default 5 minutes.
    pub verdict: Duration,
    /// For one write of the output. The driver keeps this bound. Default 5 minutes.
    pub write: Duration,
    /// For a TLS handshake, after STARTTLS or before the greeting; the driver keeps the latter
    /// bound. Default 30 seconds, since it takes a few round trips. Beyond it: the end without a
    /// reply, which the client could not read.
    pub handshake: Duration,
    /// For the whole session. Default 24 hours; RFC 5321 leaves it to the server. The other limits
    /// bound each wait and not their number. Beyond it: 421 and the end, as soon as no question is
    /// open. Content is cut off, and the client has to send it again.
    pub session: Duration,
}

impl ServerSettings {
    /// The settings of a server that takes mail from other servers: the defaults, under this name,
    /// a domain or an address literal.
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

    /// The settings of a server for submission (RFC 6409). Nothing is taken before TLS and AUTH.
    /// The untidy lines of scanners and old libraries are tolerated.
    ///
    /// It offers SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN and LOGIN, which one stored key serves.
    ///
    /// ```
    /// use posthaste_session::{ServerSettings, wire::command::Tolerance};
    /// let settings = ServerSettings::submission("mail.example.org".parse()?);
    /// assert!(settings.offers.demand_tls && settings.offers.demand_auth);
    /// assert_eq!(settings.tolerance, Tolerance::SUBMISSION);
    /// # Ok::<(), posthaste_session::wire::AddressError>(())
    /// ```
    pub fn submission(host_name: Domain) -> Self {
        let mut settings = Self::new(host_name);
        settings.offers.auth =
            MechanismSet::of(&[Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]);
        settings.offers.demand_tls = true;
        settings.offers.demand_auth = true;
        settings.tolerance = Tolerance::SUBMISSION;
        settings
    }

    /// The settings of a server that delivers to mailboxes (RFC 2033). A recipient may be the bare
    /// name of a user. [`errors`](ServerLimits::errors) is 1,000.
    pub fn lmtp(host_name: Domain) -> Self {
        let mut settings = Self::new(host_name);
        settings.protocol = Protocol::Lmtp;
        settings.tolerance = Tolerance::LMTP;
        settings.limits.errors = 1_000;
        settings
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
