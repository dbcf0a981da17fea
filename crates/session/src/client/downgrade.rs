//! What becomes of a message's parameters if the next hop does not offer their extension.
//!
//! | parameter | needs | without it |
//! |---|---|---|
//! | `SIZE` | SIZE | left out |
//! | `BODY=7BIT` | 8BITMIME | left out |
//! | `BODY=8BITMIME` | 8BITMIME | undeliverable, 5.6.3 |
//! | `BODY=BINARYMIME` | BINARYMIME, CHUNKING | undeliverable, 5.6.3 |
//! | `SMTPUTF8` | SMTPUTF8 | undeliverable, 5.6.7 |
//! | `REQUIRETLS` | REQUIRETLS | undeliverable, 5.7.30 |
//! | `RET` | DSN | left out |
//! | `ENVID` | DSN | left out |
//! | `AUTH` | AUTH | left out |
//! | `BY=…;R` | DELIVERBY | undeliverable, 5.4.7 |
//! | `BY=…;N` | DELIVERBY | left out |
//! | `HOLDFOR` | FUTURERELEASE | undeliverable, 5.3.3 |
//! | `HOLDUNTIL` | FUTURERELEASE | undeliverable, 5.3.3 |
//! | `MT-PRIORITY` | MT-PRIORITY | left out |
//! | `SOLICIT` | NO-SOLICITING | left out |
//! | `NOTIFY` | DSN | left out |
//! | `ORCPT` | DSN | left out |
//! | `RRVS=…;R` | RRVS | undeliverable, 5.7.19 |
//! | `RRVS=…;C` | RRVS | left out |
//!
//! A test compares this table with [`RULES`]. Every other parameter is left out, because its
//! extension is unknown. An address that is not ASCII needs SMTPUTF8, as the parameter does. With
//! its extension, a parameter may still exceed what the server takes:
//!
//! - SIZE beyond the server's limit: undeliverable, 5.3.4 (RFC 1870 section 6.1).
//! - REQUIRETLS without [verified TLS](NextHop::tls_is_verified): undeliverable, 5.7.10, whatever
//!   the server offers in clear (RFC 8689 section 4.2.1).
//! - BY in mode R with less time than the server's minimum: undeliverable, 5.4.7 (RFC 2852 section
//!   4.1.4.1).
//! - HOLDFOR or HOLDUNTIL beyond the server's limits: undeliverable, 5.3.3 (RFC 4865 section 4).
//! - SOLICIT with a class that the server refuses by name: undeliverable, 5.7.1 (RFC 3865 section
//!   2.4).
//! - ORCPT of more than 500 octets: left out. A server need not take it (RFC 3461 section 4.2) and
//!   would refuse the recipient.
//!
//! A relay that has already done what a parameter asks for changes its field first. It clears
//! `hold` of a message that it held, and subtracts the elapsed time from `by`.
//! [`owes_relayed_report`] returns `true` if the sender must be told what was left out.

use posthaste_wire::{
    BodyType, Capabilities, Capability, EnhancedCode, Mail, Mailbox, Rcpt,
    capability::Keyword,
    parameter::{
        DateTime, DeliverBy, DeliverByMode, Hold, MAX_ORCPT, Notify, Parameters, Rrvs, RrvsAction, Solicitation,
    },
};
use thiserror::Error;

/// Why a message must never go to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Undeliverable {
    /// The server takes no message of this size.
    #[error("the server does not take a message of this size")]
    TooLarge,
    /// The server takes no 8-bit content.
    #[error("the server does not take 8-bit content")]
    EightBit,
    /// The server takes no binary content.
    #[error("the server does not take binary content")]
    Binary,
    /// An address or header is not ASCII, and the server takes only ASCII.
    #[error("the server does not take internationalized mail")]
    Utf8,
    /// The message needs TLS on its whole way, and the server does not promise it.
    #[error("the server does not promise TLS on the whole way of a message")]
    RequireTls,
    /// The message needs TLS on its whole way, and this connection has no verified TLS.
    #[error("no verified TLS on this connection")]
    Unverified,
    /// The message has a deadline, and the server does not offer to keep it.
    #[error("the server does not promise delivery in time")]
    DeliverBy,
    /// The message is to be held, and the server does not hold it, or not for this long.
    #[error("the server does not hold a message for this long")]
    Hold,
    /// The server refuses what the message solicits.
    #[error("the server refuses what the message solicits")]
    Solicitation,
    /// The message is for the mailbox's owner at an earlier time, and the server does not check
    /// that.
    #[error("the server does not check since when a mailbox has its owner")]
    RecipientSince,
}

impl Undeliverable {
    /// The enhanced status code for a report. It is always `Some`.
    pub const fn enhanced(self) -> Option<EnhancedCode> {
        match self {
            Self::TooLarge => EnhancedCode::new(5, 3, 4),
            Self::EightBit | Self::Binary => EnhancedCode::new(5, 6, 3),
            Self::Utf8 => EnhancedCode::new(5, 6, 7),
            Self::RequireTls => EnhancedCode::new(5, 7, 30),
            Self::Unverified => EnhancedCode::new(5, 7, 10),
            Self::DeliverBy => EnhancedCode::new(5, 4, 7),
            Self::Hold => EnhancedCode::new(5, 3, 3),
            Self::Solicitation => EnhancedCode::new(5, 7, 1),
            Self::RecipientSince => EnhancedCode::new(5, 7, 19),
        }
    }
}

/// The server that a message is to go to.
#[derive(Debug, Clone, Copy)]
pub struct NextHop<'a> {
    /// Its offers, from its last reply to EHLO or LHLO; under TLS, from inside TLS.
    pub capabilities: &'a Capabilities,
    /// TLS is up and proves that the server is the one that the mail is for. Its certificate was
    /// verified for its name, and the name was derived securely from the recipient's domain (RFC
    /// 8689 section 4.2.1).
    pub tls_is_verified: bool,
}

/// What becomes of one parameter.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The parameter, with its value where that matters.
    pub parameter: &'static str,
    /// The extensions that it needs.
    pub needs: &'static [Keyword],
    /// Why the message is undeliverable without them. `None`: the parameter is left out.
    pub without: Option<Undeliverable>,
}

const fn rule(parameter: &'static str, needs: &'static [Keyword], without: Option<Undeliverable>) -> Rule {
    Rule { parameter, needs, without }
}

const SIZE: Rule = rule("SIZE", &[Keyword::Size], None);
const SEVEN_BIT: Rule = rule("BODY=7BIT", &[Keyword::EightBitMime], None);
const EIGHT_BIT: Rule = rule("BODY=8BITMIME", &[Keyword::EightBitMime], Some(Undeliverable::EightBit));
const BINARY: Rule = rule("BODY=BINARYMIME", &[Keyword::BinaryMime, Keyword::Chunking], Some(Undeliverable::Binary));
const SMTPUTF8: Rule = rule("SMTPUTF8", &[Keyword::SmtpUtf8], Some(Undeliverable::Utf8));
const REQUIRETLS: Rule = rule("REQUIRETLS", &[Keyword::RequireTls], Some(Undeliverable::RequireTls));
const RET: Rule = rule("RET", &[Keyword::Dsn], None);
const ENVID: Rule = rule("ENVID", &[Keyword::Dsn], None);
const AUTH: Rule = rule("AUTH", &[Keyword::Auth], None);
const BY_RETURN: Rule = rule("BY=…;R", &[Keyword::DeliverBy], Some(Undeliverable::DeliverBy));
const BY_NOTIFY: Rule = rule("BY=…;N", &[Keyword::DeliverBy], None);
const HOLDFOR: Rule = rule("HOLDFOR", &[Keyword::FutureRelease], Some(Undeliverable::Hold));
const HOLDUNTIL: Rule = rule("HOLDUNTIL", &[Keyword::FutureRelease], Some(Undeliverable::Hold));
const MT_PRIORITY: Rule = rule("MT-PRIORITY", &[Keyword::MtPriority], None);
const SOLICIT: Rule = rule("SOLICIT", &[Keyword::NoSoliciting], None);
const NOTIFY: Rule = rule("NOTIFY", &[Keyword::Dsn], None);
const ORCPT: Rule = rule("ORCPT", &[Keyword::Dsn], None);
const RRVS_REJECT: Rule = rule("RRVS=…;R", &[Keyword::Rrvs], Some(Undeliverable::RecipientSince));
const RRVS_CONTINUE: Rule = rule("RRVS=…;C", &[Keyword::Rrvs], None);

/// The rules, in the order of the commands' fields.
pub const RULES: &[Rule] = &[
    SIZE,
    SEVEN_BIT,
    EIGHT_BIT,
    BINARY,
    SMTPUTF8,
    REQUIRETLS,
    RET,
    ENVID,
    AUTH,
    BY_RETURN,
    BY_NOTIFY,
    HOLDFOR,
    HOLDUNTIL,
    MT_PRIORITY,
    SOLICIT,
    NOTIFY,
    ORCPT,
    RRVS_REJECT,
    RRVS_CONTINUE,
];

impl Rule {
    /// Returns the parameter if it may go to that server.
    fn keep<T>(&self, parameter: Option<T>, server: &Capabilities) -> Result<Option<T>, Undeliverable> {
        match (parameter, self.without) {
            (Some(parameter), _) if self.needs.iter().all(|keyword| server.offers(*keyword)) => Ok(Some(parameter)),
            (Some(_), Some(why)) => Err(why),
            (_, _) => Ok(None),
        }
    }
}

/// MAIL as this server can take it.
///
/// # Errors
/// [`Undeliverable`]: leaving a parameter out would change the meaning of the message, or the
/// server has announced that it refuses it.
pub fn mail<'a>(mail: Mail<&'a str>, next_hop: NextHop<'_>) -> Result<Mail<&'a str>, Undeliverable> {
    let server = next_hop.capabilities;
    let body_rule = match mail.body {
        Some(BodyType::BinaryMime) => BINARY,
        Some(BodyType::EightBitMime) => EIGHT_BIT,
        Some(BodyType::SevenBit) | None => SEVEN_BIT,
    };
    // The server's limit counts even if SIZE is not sent.
    let fits = !matches!((mail.size, server.size()), (Some(size), Some(limit)) if size > limit);
    if !fits {
        return Err(Undeliverable::TooLarge);
    }
    check_address(mail.reverse_path.mailbox(), server)?;
    let require_tls = REQUIRETLS.keep(mail.require_tls.then_some(()), server)?;
    if require_tls.is_some() && !next_hop.tls_is_verified {
        return Err(Undeliverable::Unverified);
    }
    Ok(Mail {
        reverse_path: mail.reverse_path,
        size: SIZE.keep(mail.size, server)?,
        body: body_rule.keep(mail.body, server)?,
        smtputf8: SMTPUTF8.keep(mail.smtputf8.then_some(()), server)?.is_some(),
        require_tls: require_tls.is_some(),
        ret: RET.keep(mail.ret, server)?,
        envid: ENVID.keep(mail.envid, server)?,
        auth: AUTH.keep(mail.auth, server)?,
        by: by(mail.by, server)?,
        hold: hold(mail.hold, server)?,
        mt_priority: MT_PRIORITY.keep(mail.mt_priority, server)?,
        solicit: solicit(mail.solicit, server)?,
        parameters: Parameters::NONE,
    })
}

/// RCPT as this server can take it.
///
/// # Errors
/// [`Undeliverable`] as for [`mail`], for this recipient alone.
pub fn rcpt<'a>(rcpt: Rcpt<&'a str>, next_hop: NextHop<'_>) -> Result<Rcpt<&'a str>, Undeliverable> {
    let server = next_hop.capabilities;
    let utf8 = server.offers(Keyword::SmtpUtf8);
    check_address(rcpt.forward_path.mailbox(), server)?;
    let rrvs_rule = match rcpt.rrvs {
        Some(Rrvs { action: Some(RrvsAction::Continue), .. }) => RRVS_CONTINUE,
        // Without an action the stricter one counts (RFC 7293 section 5.2).
        Some(Rrvs { action: Some(RrvsAction::Reject) | None, .. }) | None => RRVS_REJECT,
    };
    Ok(Rcpt {
        forward_path: rcpt.forward_path,
        notify: NOTIFY.keep(rcpt.notify, server)?,
        // One that is not ASCII is written only with SMTPUTF8 (RFC 6533 section 3).
        orcpt: ORCPT
            .keep(rcpt.orcpt.filter(|orcpt| (utf8 || orcpt.is_ascii()) && orcpt.as_str().len() <= MAX_ORCPT), server)?,
        rrvs: rrvs_rule.keep(rcpt.rrvs, server)?,
        parameters: Parameters::NONE,
    })
}

/// Returns `true` if the sender must get a report of the action "relayed" for an accepted
/// recipient. The server does not support what the sender asked for, or the sender asked for a
/// trace. `mail` and `rcpt` are the commands before any parameter was left out.
///
/// - NOTIFY=SUCCESS, if DSN is not offered (RFC 3461 section 6.2.2).
/// - BY with a trace, unless NOTIFY=NEVER (RFC 2852 section 4.1.4).
/// - BY in mode N, if DELIVERBY is not offered, time is left, and it is not NOTIFY=NEVER (RFC 2852
///   section 4.1.4.2).
pub fn owes_relayed_report(mail: &Mail<&str>, rcpt: &Rcpt<&str>, server: &Capabilities) -> bool {
    let asked = rcpt.notify.is_some_and(|notify| notify.success) && !server.offers(Keyword::Dsn);
    let by = mail.by.is_some_and(|by| {
        let ends_here = by.mode == DeliverByMode::Notify && by.seconds > 0 && !server.offers(Keyword::DeliverBy);
        by.trace || ends_here
    });
    asked || (by && rcpt.notify != Some(Notify::NEVER))
}

/// An address that is not ASCII needs SMTPUTF8, with or without the parameter (RFC 6531 section
/// 3.2).
fn check_address(mailbox: Option<&Mailbox<&str>>, server: &Capabilities) -> Result<(), Undeliverable> {
    let fits = server.offers(Keyword::SmtpUtf8) || mailbox.is_none_or(Mailbox::is_ascii);
    if fits { Ok(()) } else { Err(Undeliverable::Utf8) }
}

fn by(by: Option<DeliverBy>, server: &Capabilities) -> Result<Option<DeliverBy>, Undeliverable> {
    let Some(DeliverBy { seconds, mode: DeliverByMode::Return, .. }) = by else {
        return BY_NOTIFY.keep(by, server);
    };
    let least = server.min_by_time().unwrap_or(0);
    // In mode R the time must be above 0 (RFC 2852 section 4).
    if seconds <= 0 || u32::try_from(seconds).is_ok_and(|seconds| seconds < least) {
        return Err(Undeliverable::DeliverBy);
    }
    BY_RETURN.keep(by, server)
}

fn hold<'a>(hold: Option<Hold<&'a str>>, server: &Capabilities) -> Result<Option<Hold<&'a str>>, Undeliverable> {
    let rule = if matches!(hold, Some(Hold::Until(_))) { HOLDUNTIL } else { HOLDFOR };
    let kept = rule.keep(hold, server)?;
    let Some(Capability::FutureRelease { max_interval, max_date_time }) = server.get(Keyword::FutureRelease) else {
        return Ok(kept);
    };
    let too_long = match &kept {
        Some(Hold::For(seconds)) => *seconds > max_interval,
        // The server has to enforce a limit that is no time.
        Some(Hold::Until(time)) => {
            DateTime::parse(max_date_time).is_ok_and(|latest| time.unix_seconds() > latest.unix_seconds())
        }
        None => false,
    };
    if too_long { Err(Undeliverable::Hold) } else { Ok(kept) }
}

fn solicit<'a>(
    solicit: Option<Solicitation<&'a str>>,
    server: &Capabilities,
) -> Result<Option<Solicitation<&'a str>>, Undeliverable> {
    let kept = SOLICIT.keep(solicit, server)?;
    if let (Some(solicit), Some(Capability::NoSoliciting(refused))) = (&kept, server.get(Keyword::NoSoliciting)) {
        // The classes are separated by commas, or are words of their own.
        let mut refused = refused.iter().flat_map(|words| words.split(','));
        if refused.any(|refused| solicit.keywords().any(|class| class.eq_ignore_ascii_case(refused))) {
            return Err(Undeliverable::Solicitation);
        }
    }
    Ok(kept)
}
