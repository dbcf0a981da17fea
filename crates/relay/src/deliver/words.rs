//! The cause of a refusal, read from the words of the reply.
//!
//! Enhanced codes name few causes, and servers use 4.7.0 and 4.7.1 for most of them. So codes that
//! always mean the same come first, then the words, then the codes that usually mean the same.

use std::{net::IpAddr, time::Duration};

use posthaste_client::RefusedAt;
use posthaste_server::wire::{EnhancedCode, Reply, ReplyCode, Severity};

/// Why a host does not take mail now, as its reply says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It has too many connections, from the relay or at all.
    TooManyConnections,
    /// It takes no more mail from the relay in this time.
    RateLimited,
    /// It takes the message when it comes again later.
    Greylisted,
    /// The recipient's mailbox has no room.
    MailboxFull,
    /// The host, or the recipient's mailbox, has too much to do.
    Busy,
    /// Another cause, or none that the words tell.
    #[default]
    Other,
}

impl Cause {
    /// Returns `true` if the host speaks of all mail from the relay, and not of this message.
    pub(super) const fn is_throttling(self) -> bool {
        matches!(self, Self::TooManyConnections | Self::RateLimited)
    }
}

/// What a reply says beyond its code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) cause: Cause,
    /// The time after which to try again, if the reply names one. At most [`MAX_WAIT`].
    pub(crate) wait: Option<Duration>,
}

/// What a reply was an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// The connection, or EHLO.
    Session,
    /// MAIL.
    Mail,
    /// RCPT, DATA or the content.
    Message,
}

impl From<RefusedAt> for At {
    fn from(at: RefusedAt) -> Self {
        match at {
            RefusedAt::Mail => Self::Mail,
            RefusedAt::Rcpt
            | RefusedAt::LaterRcpt
            | RefusedAt::Data
            | RefusedAt::Bdat
            | RefusedAt::Content
            | RefusedAt::InClear => Self::Message,
        }
    }
}

/// The longest wait that a reply can ask for.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

impl Words {
    /// Reads a refusal. A permanent one has a cause only before the first transaction, where the
    /// relay tries again all the same.
    pub(super) fn of(reply: &Reply, at: At) -> Self {
        if reply.code().severity() != Severity::TransientNegative && at != At::Session {
            return Self::default();
        }
        let text = reply.borrowed().text().to_lowercase();
        Self { cause: cause(reply, &text, at), wait: wait(&text) }
    }
}

/// Returns `true` if a refusal of the session is about where the connection comes from.
pub(super) fn blocks(reply: &Reply) -> bool {
    let text = reply.borrowed().text().to_lowercase();
    let is_permanent = reply.code().severity() == Severity::PermanentNegative;
    let is_security = reply.enhanced().map(EnhancedCode::subject) == Some(SECURITY);
    is_permanent && is_security || BLOCKED.iter().any(|words| text.contains(words))
}

/// Returns `true` if a refusal in a transaction is about where the connection comes from, one of
/// these addresses. It says both that something is blocked and that this is the address. Others
/// are about the message.
pub(super) fn blocks_address(reply: &Reply, own: &[IpAddr]) -> bool {
    let text = reply.borrowed().text().to_lowercase();
    let says = |table: &[&str]| table.iter().any(|words| text.contains(words));
    let names = |address: &IpAddr| has_address(&text, &address.to_string());
    let is_refused = says(BLOCKED) || says(REFUSED);
    let is_address = own.iter().any(names) || says(LISTS);
    reply.code().severity() == Severity::PermanentNegative
        && !says(CONTENT)
        && (says(BLOCKED) && says(ADDRESS) || is_refused && is_address)
}

/// Returns `true` if a text has an address, and not as a part of a longer one.
fn has_address(text: &str, address: &str) -> bool {
    text.match_indices(address).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default().chars().next_back();
        let mut after = text.get(at.saturating_add(address.len())..).unwrap_or_default().chars();
        let (next, then) = (after.next(), after.next());
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        // A dot may end a sentence, and a colon stand before a port.
        let goes_on = next == Some('.') && is_digit(then) || next == Some(':') && address.contains(':');
        !is_digit(before) && before != Some('.') && !next.is_some_and(|c| c.is_ascii_hexdigit()) && !goes_on
    })
}

/// Lists that have addresses of hosts alone.
const LISTS: &[&str] = &[
    "zen.spamhaus.org",
    "sbl.spamhaus.org",
    "xbl.spamhaus.org",
    "pbl.spamhaus.org",
    "sbl-xbl",
    "spamhaus xbl",
    "spamhaus sbl",
    "spamhaus.org/query/ip/",
    "spamhaus.org/query/bl?ip=",
    "spamcop.net/bl.shtml?",
    "in the rbl",
    "sending mta's poor reputation",
];

/// What sites say to an address beside [`BLOCKED`], if they name it.
const REFUSED: &[&str] = &[
    "rejected",
    "refused",
    "denied",
    "not allowed",
    "not accepted",
    "will not be accepted",
    "weren't sent",
    "rbl",
    "dnsbl",
    "spamcop",
    "sorbs",
    "reputation",
    "spammer",
    "sending spam",
    "(bl)",
    "listing in",
    "query/ip/",
    "query/bl?ip=",
];

/// A refusal with these words is about what a message has in it, or about a domain.
const CONTENT: &[&str] = &["dbl.spamhaus", "query/domain/", "sender address [", "surbl", "uribl", "a virus", "url in"];

/// How sites call the address of a client.
const ADDRESS: &[&str] = &[
    "client host",
    "client address",
    "client ip",
    "sending ip",
    "sender ip",
    "source ip",
    "your ip",
    "your address",
    "your host",
    "your mail server",
    "ip address",
    "messages from [",
    "mail from ip",
    "connections will not be accepted",
];

/// What sites say to an address from which they take nothing.
const BLOCKED: &[&str] = &[
    "blocked",
    "blacklist",
    "black list",
    "blocklist",
    "block list",
    "denylist",
    "banned",
    "spamhaus",
    "is listed",
    "listed at",
    "listed by",
    "listed in",
];

fn cause(reply: &Reply, text: &str, at: At) -> Cause {
    let code = reply.enhanced().map(|code| (code.subject(), code.detail()));
    let named =
        |table: &[((u16, u16), Cause)]| table.iter().find(|(known, _)| Some(*known) == code).map(|(_, cause)| *cause);
    let said = || WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, cause)| *cause);
    let is_security = reply.enhanced().map(EnhancedCode::subject) == Some(SECURITY);
    let found = named(SURE).or_else(said).or_else(|| named(USUAL));
    let found = found.unwrap_or_else(|| match () {
        () if is_security && reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE => Cause::RateLimited,
        // The default words of filters that greylist.
        () if at == At::Message && code == Some((SECURITY, 1)) && LATER.iter().any(|words| text.contains(words)) => {
            Cause::Greylisted
        }
        () => Cause::Other,
    });
    match found {
        // These are about a recipient or a message.
        Cause::Greylisted | Cause::MailboxFull if at == At::Session => Cause::Other,
        found => found,
    }
}

/// The subject of enhanced codes (RFC 3463 section 3.8) that speak of security or policy.
const SECURITY: u16 = 7;

/// Enhanced codes, without their class, that mean the same whatever the words are.
const SURE: &[((u16, u16), Cause)] = &[
    ((7, 28), Cause::RateLimited),
    // Outlook: the address has sent too much for its reputation.
    ((7, 500), Cause::RateLimited),
    ((7, 650), Cause::RateLimited),
    ((7, 651), Cause::RateLimited),
    ((7, 652), Cause::RateLimited),
    // Gmail calls mail "rate limited" that is not authenticated: it speaks of this message.
    ((7, 23), Cause::Other),
    ((7, 24), Cause::Other),
    ((7, 25), Cause::Other),
    ((7, 26), Cause::Other),
    ((7, 27), Cause::Other),
    ((7, 29), Cause::Other),
    ((7, 30), Cause::Other),
    ((7, 31), Cause::Other),
    ((7, 32), Cause::Other),
    ((7, 40), Cause::Other),
    // Too many recipients: another transaction has fewer.
    ((5, 3), Cause::Other),
];

/// Enhanced codes, without their class, that tell if the words do not.
const USUAL: &[((u16, u16), Cause)] =
    &[((2, 2), Cause::MailboxFull), ((3, 1), Cause::Busy), ((3, 2), Cause::Busy), ((4, 5), Cause::Busy)];

const LATER: &[&str] = &["try again", "try later", "come back", "retry"];

/// Words in lower case. The first that the text has count.
const WORDS: &[(&str, Cause)] = &[
    // Greylisting, by any spelling.
    ("greylist", Cause::Greylisted),
    ("graylist", Cause::Greylisted),
    ("grey list", Cause::Greylisted),
    ("gray list", Cause::Greylisted),
    ("grey-list", Cause::Greylisted),
    ("gray-list", Cause::Greylisted),
    ("postgrey", Cause::Greylisted),
    ("not yet authorized to deliver", Cause::Greylisted),
    // They look like a limit on all mail, and speak of one session, recipient or message.
    ("tls required", Cause::Other),
    ("not in whitelist", Cause::Other),
    ("too many recipients", Cause::Other),
    ("too many invalid recipients", Cause::Other),
    ("too many unknown", Cause::Other),
    ("too many errors", Cause::Other),
    ("in this session", Cause::Other),
    ("for this session", Cause::Other),
    ("on this session", Cause::Other),
    ("per session", Cause::Other),
    ("per connection", Cause::Other),
    ("on this connection", Cause::Other),
    ("user you are trying to contact is receiving mail", Cause::Busy),
    ("recipient is receiving", Cause::Busy),
    ("mailbox is receiving", Cause::Busy),
    // Connections.
    ("connection rate", Cause::RateLimited),
    ("connection frequency", Cause::RateLimited),
    ("too many connect", Cause::TooManyConnections),
    ("too many concurrent", Cause::TooManyConnections),
    ("too many simultaneous", Cause::TooManyConnections),
    ("too many parallel", Cause::TooManyConnections),
    ("too many open connections", Cause::TooManyConnections),
    ("too many active connections", Cause::TooManyConnections),
    ("too many smtp", Cause::TooManyConnections),
    ("too many sessions", Cause::TooManyConnections),
    ("concurrent connection", Cause::TooManyConnections),
    ("concurrent server connection", Cause::TooManyConnections),
    ("concurrent session", Cause::TooManyConnections),
    ("simultaneous connection", Cause::TooManyConnections),
    ("connection limit", Cause::TooManyConnections),
    ("connections limit", Cause::TooManyConnections),
    ("limit of connections", Cause::TooManyConnections),
    ("number of connections", Cause::TooManyConnections),
    ("maximum connections", Cause::TooManyConnections),
    ("trop de connexions", Cause::TooManyConnections),
    // Rates.
    ("throttl", Cause::RateLimited),
    ("rate limit", Cause::RateLimited),
    ("rate-limit", Cause::RateLimited),
    ("ratelimit", Cause::RateLimited),
    ("unusual rate", Cause::RateLimited),
    ("rate exceeded", Cause::RateLimited),
    ("rate too high", Cause::RateLimited),
    ("unexpected volume", Cause::RateLimited),
    ("excessive volume", Cause::RateLimited),
    ("temporarily deferred", Cause::RateLimited),
    ("(dyn:", Cause::RateLimited),
    ("too many messages", Cause::RateLimited),
    ("too many mails", Cause::RateLimited),
    ("too many emails", Cause::RateLimited),
    ("too much mail", Cause::RateLimited),
    ("too fast", Cause::RateLimited),
    ("too quickly", Cause::RateLimited),
    ("slow down", Cause::RateLimited),
    ("slower", Cause::RateLimited),
    ("more slowly", Cause::RateLimited),
    ("frequency limit", Cause::RateLimited),
    ("emails per", Cause::RateLimited),
    ("messages per", Cause::RateLimited),
    ("mails per", Cause::RateLimited),
    ("sending limit", Cause::RateLimited),
    ("sending quota", Cause::RateLimited),
    ("message quota", Cause::RateLimited),
    ("hourly limit", Cause::RateLimited),
    ("daily limit", Cause::RateLimited),
    ("mi:sfq", Cause::RateLimited),
    ("rp:qrc", Cause::RateLimited),
    // Mailboxes.
    ("mailbox full", Cause::MailboxFull),
    ("mailbox is full", Cause::MailboxFull),
    ("inbox is full", Cause::MailboxFull),
    ("over quota", Cause::MailboxFull),
    ("overquota", Cause::MailboxFull),
    ("over its quota", Cause::MailboxFull),
    ("over the allowed quota", Cause::MailboxFull),
    ("out of storage", Cause::MailboxFull),
    ("quota exceeded", Cause::MailboxFull),
    ("exceeded quota", Cause::MailboxFull),
    ("exceeded storage", Cause::MailboxFull),
    ("storage quota", Cause::MailboxFull),
    ("mailbox size limit", Cause::MailboxFull),
    // Load.
    ("busy", Cause::Busy),
    ("overload", Cause::Busy),
    ("system load", Cause::Busy),
    ("load average", Cause::Busy),
    ("load too high", Cause::Busy),
    ("insufficient system", Cause::Busy),
    ("insufficient disk", Cause::Busy),
    ("insufficient storage", Cause::Busy),
    ("out of resources", Cause::Busy),
    ("not accepting", Cause::Busy),
    ("shutting down", Cause::Busy),
];

/// The time that a text names after one of these words: "in 5 minutes", "for 300s", "in 00:04:59".
const BEFORE: &[&str] = &["in", "after", "for", "wait", "least", "another", "about", "approximately"];

fn wait(text: &str) -> Option<Duration> {
    let is_apart = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | ',' | ';' | '=');
    let mut words = text.split(is_apart).filter(|word| !word.is_empty()).peekable();
    let mut before = "";
    while let Some(word) = words.next() {
        if BEFORE.contains(&std::mem::replace(&mut before, word)) {
            let unit = words.peek().copied().unwrap_or_default();
            if let Some(seconds) = seconds(word.trim_end_matches('.'), unit).filter(|seconds| *seconds > 0) {
                return Some(Duration::from_secs(seconds).min(MAX_WAIT));
            }
        }
    }
    None
}

/// The seconds of a number with its unit, which may be the word that follows.
fn seconds(word: &str, unit: &str) -> Option<u64> {
    if word.contains(':') {
        let mut parts = word.split(':').map(|part| part.parse::<u64>().ok());
        let seconds = parts.try_fold(0_u64, |sum, part| sum.checked_mul(60)?.checked_add(part?));
        return seconds.filter(|_| matches!(word.split(':').count(), 2 | 3));
    }
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, own) = word.split_at_checked(digits)?;
    let unit = if own.is_empty() { unit.trim_end_matches(['.', '!', ':']) } else { own };
    let each = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each)
}

#[cfg(test)]
mod tests {
    use super::{At::*, Cause::*, *};

    /// What servers say: the stage, the reply, the cause, and the seconds that it names.
    #[rustfmt::skip]
    const REPLIES: &[(At, &str, Cause, u64)] = &[
        // Gmail.
        (Session, "421-4.7.28 [192.0.2.1] Our system has detected an unusual rate of\n421 4.7.28 unsolicited mail originating from your IP address.", RateLimited, 0),
        (Session, "421 4.7.0 Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users from spam, mail sent from your IP address has been temporarily blocked.", RateLimited, 0),
        (Session, "421 4.7.0 Try again later, closing connection.", RateLimited, 0),
        (Message, "421-4.7.28 Gmail has detected an unusual rate of mail originating\n421 4.7.28 from your DKIM domain. To protect our users, mail has been temporarily rate limited. gsmtp", RateLimited, 0),
        (Message, "421 4.7.0 TLS required for RCPT domain, closing connection.", Other, 0),
        (Message, "421 4.7.0 IP not in whitelist for RCPT domain, closing connection.", Other, 0),
        (Message, "421-4.7.26 Your email has been rate limited because it is unauthenticated.", Other, 0),
        (Message, "421-4.7.32 Your email has been rate limited because the From: header isn't aligned", Other, 0),
        (Message, "450-4.2.1 The user you are trying to contact is receiving mail too quickly.\n450 4.2.1 Please resend your message at a later time.", Busy, 0),
        (Message, "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered.", Busy, 0),
        (Message, "452-4.2.2 The recipient's inbox is out of storage space. Please direct the\n452 4.2.2 recipient to the help page. gsmtp", MailboxFull, 0),
        (Message, "452 4.2.2 The email account that you tried to reach is over quota.", MailboxFull, 0),
        (Message, "452 4.5.3 Your message has too many recipients.", Other, 0),
        (Session, "421 4.4.5 Server busy, try again later.", Busy, 0),
        (Message, "451 4.3.0 Mail server temporarily rejected message.", Other, 0),
        (Message, "421 4.4.2 Timeout - closing connection.", Other, 0),
        // Yahoo and AOL.
        (Session, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes", RateLimited, 0),
        (Mail, "421 4.7.0 [GL01] Message from (192.0.2.1) temporarily deferred - 4.16.50.", RateLimited, 0),
        (Mail, "421 4.16.55 [TS01] Messages from 192.0.2.1 temporarily deferred due to excessive user complaints", RateLimited, 0),
        (Session, "421 4.7.1 : (DYN:T1) http://postmaster.info.aol.com/errors/421dynt1.html", RateLimited, 0),
        (Message, "451 4.3.2 Internal error reading data", Busy, 0),
        (Message, "452 4.2.2 Mailbox full", MailboxFull, 0),
        // Outlook and Exchange.
        (Message, "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", RateLimited, 0),
        (Session, "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see the page (S775)", RateLimited, 0),
        (Mail, "451 4.7.700 PFA agent busy, please try again.", Busy, 0),
        (Session, "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit, closing transmission channel", TooManyConnections, 0),
        (Session, "421 4.3.2 The maximum number of concurrent connections per resource forest has exceeded a limit, closing transmission channel.", TooManyConnections, 0),
        (Session, "421 RP-001 The mail server IP connecting to the server has exceeded the rate limit allowed.", RateLimited, 0),
        (Session, "421 RP-002 The mail server IP connecting has exceeded the rate limit allowed on this connection.", Other, 0),
        (Session, "421 RP-003 The mail server IP has exceeded the connection limit allowed.", TooManyConnections, 0),
        (Message, "452 4.3.1 Insufficient system resources", Busy, 0),
        (Message, "452 4.5.3 Too many recipients", Other, 0),
        (Message, "451 4.7.1 Please try again later", Greylisted, 0),
        (Session, "421 4.3.2 Service not active", Busy, 0),
        // Comcast, Orange, Free, GMX, T-Online, GoDaddy, iCloud, Mail.ru, QQ, NetEase.
        (Session, "421 4.1.0 192.0.2.1 Throttled - try again later. Please see https://postmaster.comcast.net/smtp-error-codes.php#RL000003", RateLimited, 0),
        (Message, "451 4.2.0 Throttled - https://postmaster.comcast.net/smtp-error-codes.php#RL000010", RateLimited, 0),
        (Session, "421 4.3.2 Too many open connections from 192.0.2.1", TooManyConnections, 0),
        (Session, "421 mwinf5c04 ME Trop de connexions, veuillez verifier votre configuration. Too many connections, slow down. OFR004_104", TooManyConnections, 0),
        (Session, "450 Too many connections, slow down. LPN104_402", TooManyConnections, 0),
        (Mail, "451 too many messages from your ip, retry in 600 seconds", RateLimited, 600),
        (Session, "421-gmx.net (mxgmx016) Nemesis ESMTP Service not available\n421-Service not available\n421 Too many concurrent connections from 192.0.2.1", TooManyConnections, 0),
        (Message, "450 4.7.1 Requested mail action not taken: rate limit reached", RateLimited, 0),
        (Session, "421 Connection refused, too many sessions from 192.0.2.1. Please lower the number of concurrent sessions. IB007", TooManyConnections, 0),
        (Session, "421 Server temporarily unavailable. Try again later. IB101", Other, 0),
        (Session, "421 Temporarily rejected. Reverse DNS for 192.0.2.1 failed. IB108", Other, 0),
        (Message, "451 4.7.1 Messages to user@icloud.test deferred due to excessive volume. Try again later", RateLimited, 0),
        (Message, "421 Ratelimit exceeded for mailbox. Try again later.", RateLimited, 0),
        (Session, "421 Connection frequency limited. http://service.mail.qq.com/cgi-bin/help?id=20022", RateLimited, 0),
        (Mail, "451 MI:SFQ 163 smtp7,C8CowAD3", RateLimited, 0),
        // Amazon SES, SendGrid, Mimecast, Proofpoint, Barracuda, Cisco.
        (Session, "421 Too many concurrent SMTP connections", TooManyConnections, 0),
        (Message, "454 Throttling failure: Maximum sending rate exceeded.", RateLimited, 0),
        (Message, "454 Throttling failure: Daily message quota exceeded.", RateLimited, 0),
        (Session, "421 All available IPs are at maximum connection limit", TooManyConnections, 0),
        (Message, "451 Internal resources are temporarily unavailable", Other, 0),
        (Message, "451 Recipient server unavailable or busy", Busy, 0),
        (Session, "421 4.7.0 Temporary failure, please try again later.", RateLimited, 0),
        (Session, "421 #4.4.5 Too many connections from your host", TooManyConnections, 0),
        (Message, "421 #4.x.2 Too many messages for this session", Other, 0),
        (Session, "452 Too many concurrent connections from this host", TooManyConnections, 0),
        // Postfix, Sendmail, Exim, qmail, Courier, OpenSMTPD, MDaemon, hMailServer.
        (Session, "421 4.7.0 mx.example.net Error: too many connections from 192.0.2.1", TooManyConnections, 0),
        (Message, "450 4.7.1 Error: too much mail from 192.0.2.1", RateLimited, 0),
        (Message, "450 4.7.1 Error: too many recipients from 192.0.2.1", Other, 0),
        (Message, "451 4.7.0 Error: too many errors from 192.0.2.1", Other, 0),
        (Message, "451 4.7.1 <smtp.example.org[192.0.2.1]>: Client host rejected: Please try again slower", RateLimited, 0),
        (Message, "451 4.7.1 Service unavailable - try again later", Greylisted, 0),
        (Message, "450 4.7.1 Client host rejected: cannot find your hostname, [192.0.2.1]", Other, 0),
        (Message, "450 4.1.1 <a@example.net>: Recipient address rejected: unverified address", Other, 0),
        (Message, "452 4.3.1 Insufficient system storage", Busy, 0),
        (Mail, "452 4.3.2 Connection rate limit exceeded.", RateLimited, 0),
        (Session, "421 4.3.2 Too many open connections.", TooManyConnections, 0),
        (Session, "450 4.3.0 rejecting connections on daemon MTA: load average: 24", Busy, 0),
        (Session, "421 mx.example.net: Too many concurrent SMTP connections; please try again later", TooManyConnections, 0),
        (Session, "421 Too many concurrent SMTP connections from this IP address; please try again later.", TooManyConnections, 0),
        (Message, "451 Could not complete sender verify callout", Other, 0),
        (Message, "452 space shortage, please try later", Other, 0),
        (Message, "421 mx.example.net: SMTP command timeout - closing connection", Other, 0),
        (Session, "421 4.3.2 Too many sessions opened", TooManyConnections, 0),
        (Session, "554 5.7.1 Too many simultaneous connections from your address", TooManyConnections, 0),
        (Message, "554 5.7.1 Too many simultaneous connections from your address", Other, 0),
        (Session, "421 4.3.2 System shutting down", Busy, 0),
        // Greylisting.
        (Message, "450 4.2.0 <a@example.net>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.net.html", Greylisted, 0),
        (Message, "450 4.7.1 Greylisted, please try again in 120 seconds", Greylisted, 120),
        (Message, "451 4.7.1 Greylisted, please try again in 5 minutes.", Greylisted, 300),
        (Message, "451 4.7.1 Greylisting in action, please come back in 00:04:59", Greylisted, 299),
        (Message, "450 4.2.0 Sender address rejected: Greylisted for 60 sec.", Greylisted, 60),
        (Message, "422 4.2.2 Greylisted, please try again in a few moments.", Greylisted, 0),
        (Message, "451-192.0.2.1 is not yet authorized to deliver mail from\n451-<a@example.org> to <b@example.net>.\n451 Please try later.", Greylisted, 0),
        (Message, "451 4.7.1 Try again later", Greylisted, 0),
        (Message, "450 4.7.1 Graylisted, wait 5m", Greylisted, 300),
        (Mail, "451 Greylisted, retry after 25 hours", Greylisted, 3_600),
        // Times.
        (Session, "421 4.7.0 Too many connections, try again in 300 seconds", TooManyConnections, 300),
        (Message, "451 4.7.1 rate limit of 100 messages/h reached, wait at least 10min", RateLimited, 600),
        (Message, "451 4.7.1 Too many messages in 0 seconds, slow down", RateLimited, 0),
        (Message, "451 4.7.1 slow down for 99999999999999999999 seconds", RateLimited, 0),
        (Message, "451 4.7.1 slow down for 9999999999999999999 hours", RateLimited, 0),
        // Full mailboxes.
        (Message, "452 4.2.2 <a@example.net>: user is over quota", MailboxFull, 0),
        (Message, "452 4.2.2 Quota exceeded (mailbox for user is full)", MailboxFull, 0),
        (Message, "452 4.1.1 <a@example.net>: Mailbox is full", MailboxFull, 0),
        (Message, "452 4.2.2", MailboxFull, 0),
        // Nothing is told.
        (Message, "451 4.0.0", Other, 0),
        (Message, "421 Service not available", Other, 0),
    ];

    /// Makes the reply of these lines, each with its code.
    fn reply(lines: &str) -> Reply {
        let octets: String = lines.split('\n').map(|line| format!("{line}\r\n")).collect();
        posthaste_server::wire::ReplyRef::parse(octets.as_bytes()).unwrap().into_owned()
    }

    #[test]
    fn the_words_of_servers_tell_the_cause_and_the_time() {
        let mut wrong = Vec::new();
        for (at, lines, cause, seconds) in REPLIES {
            let lines = match lines.split_once('\n') {
                None => (*lines).replacen("421-", "421 ", 1),
                Some(_) => (*lines).to_owned(),
            };
            let found = Words::of(&reply(&lines), *at);
            let wait = (*seconds > 0).then_some(Duration::from_secs(*seconds));
            if found != (Words { cause: *cause, wait }) {
                wrong.push(format!("{at:?} {lines}: {found:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(REPLIES.len() >= 90);
    }

    #[test]
    fn the_words_of_a_greeting_tell_if_the_address_is_blocked() {
        for (lines, is_blocked) in [
            ("554 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org", true),
            ("554-mx.example.net\n554 Transaction failed, your address is listed at bl.example.net", true),
            ("550 5.7.1 No mail from there", true),
            ("421 Your IP is on our blocklist", true),
            ("554 No SMTP service here", false),
            ("554 5.3.2 Not accepting mail", false),
            ("421 4.7.0 Not in whitelist, not listed", false),
        ] {
            assert_eq!(blocks(&reply(lines)), is_blocked, "{lines}");
        }
    }

    #[test]
    fn a_permanent_refusal_has_no_cause_in_a_transaction() {
        for at in [Mail, Message] {
            assert_eq!(Words::of(&reply("550 5.7.28 rate limit, try again in 60 seconds"), at), Words::default());
        }
    }

    /// What sites say of the address 192.0.2.1, which is the source's own, and what they say of a
    /// message or of others.
    #[rustfmt::skip]
    const BLOCKS: &[(&str, bool)] = &[
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", true),
        ("554 5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.example.net", true),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1]", true),
        ("550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Part of their network is on our block list (S3140).", true),
        ("550 OU-002 Unfortunately, messages from 192.0.2.1 weren't sent.", true),
        ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list", true),
        ("550 5.7.1 Your IP address is listed at bl.example.org", true),
        ("550 192.0.2.1 is on our blacklist", true),
        ("550 5.7.1 192.0.2.1 has been blocked by zen.spamhaus.org", true),
        ("550 5.7.1 <a@example.org>... Rejected: 192.0.2.1 listed at a list", true),
        ("550 5.7.1 Mail from 192.0.2.1 refused, see our page", true),
        ("553 5.3.0 192.0.2.1 Rejected - see our page", true),
        ("554 mx.example.net[192.0.2.1] blocked using a list", true),
        ("550 Rejected 192.0.2.1 found in dnsbl.example.net", true),
        ("550 \"JunkMail rejected - out.example.org [192.0.2.1]:39153 is in an RBL on example.net\"", true),
        ("554 5.5.4 Your IP 192.0.2.1 address has a bad reputation.", true),
        ("553 https://www.spamhaus.org/query/ip/192.0.2.1", true),
        ("554 5.7.1 Blocked - see http://www.spamhaus.org/query/bl?ip=192.0.2.1", true),
        ("554 IP=192.0.2.1 - A problem occurred. (BL)", true),
        ("554 Connection from 192.0.2.1 rejected for policy reasons", true),
        ("550 5.7.1 Blacklisted by zen.spamhaus.org.", true),
        ("554 Refused. Your address is listed in the RBL at xbl.example.org", true),
        ("554 Your access has been rejected due to the sending MTA's poor reputation.", true),
        ("550 5.7.1 Message blocked: it has a virus", false),
        ("550 5.7.1 The sender example.org is banned here", false),
        ("550 5.1.1 No such user at your address", false),
        ("421 4.7.0 Mail sent from your IP address has been temporarily blocked", false),
        ("450 4.7.1 Mail from 192.0.2.1 refused", false),
        ("550 5.1.1 No such user (seen from 192.0.2.1)", false),
        ("550 5.7.1 Mail from 192.0.2.10 refused", false),
        ("550 5.7.1 Mail from 8.192.0.2.1 refused", false),
        ("550 5.7.1 Mail from 192.0.2.1.9 refused", false),
        ("554 5.7.1 Sender address [u@example.org] blocked using dbl.spamhaus.org; https://www.spamhaus.org/query/domain/example.org", false),
        ("554 5.7.1 A URL in the message from 192.0.2.1 is listed by uribl", false),
        ("554 5.7.1 Content rejected as spam", false),
        ("550 5.7.26 Unauthenticated mail from example.org is not accepted due to its DMARC policy", false),
        ("550 5.7.1 Relaying denied", false),
        ("550 5.7.1 Reverse DNS does not match", false),
        ("552 5.2.2 Mailbox full", false),
        ("554 5.6.0 Message refused: bad MIME", false),
        ("550 5.7.23 SPF check failed", false),
        ("550 5.7.509 Access denied, sending domain example.org does not pass DMARC verification", false),
        ("550 5.4.1 Recipient address rejected: Access denied", false),
        ("554 5.7.1 Recipient rejected: policy", false),
        ("550 5.1.8 Sender address rejected: domain not found", false),
        ("554 5.3.4 Message too big", false),
    ];

    #[test]
    fn a_refusal_in_a_transaction_is_about_the_address_if_it_says_so() {
        for (said, is_so) in BLOCKS {
            assert_eq!(blocks_address(&reply(said), &["192.0.2.1".parse().unwrap()]), *is_so, "{said}");
        }
        let own = ["2001:db8::1".parse().unwrap()];
        for (said, is_so) in [("550 [2001:db8::1] is blocked", true), ("550 [2001:db8::1:2] is blocked", false)] {
            assert_eq!(blocks_address(&reply(said), &own), is_so, "{said}");
        }
        // Without an address of its own: by the words alone.
        assert!(blocks_address(&reply("554 5.7.1 Client host [192.0.2.1] blocked"), &[]));
        assert!(!blocks_address(&reply("550 5.7.1 Mail from 192.0.2.1 refused"), &[]));
    }
}
