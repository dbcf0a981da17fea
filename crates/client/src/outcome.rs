//! The outcome of one recipient, and what another attempt can change.

use std::{fmt, sync::Arc};

use posthaste_tokio::{
    ClientError,
    session::{ApiMisuse, client::downgrade::Undeliverable},
    wire::{EnhancedCode, Reply, ReplyCode, Severity, frame::ContentFault},
};
use thiserror::Error;

use crate::{ConnectError, mx::MxError};

/// The outcome of one recipient. Exhaustive on purpose: a sender decides about each kind.
#[derive(Debug, Clone)]
pub enum RecipientOutcome {
    /// The server has the message. This is its reply to the end of the content.
    Accepted(Reply),
    /// The server refused with this reply; see [`is_permanent`](Self::is_permanent).
    Refused(Reply, RefusedAt),
    /// The server lacks what the message needs. Permanent.
    Undeliverable(Undeliverable),
    /// The content has an octet or a line that must not leave, such as a bare LF. The server does
    /// not have the message, and the conversation is over. Permanent.
    Unsendable(ContentFault),
    /// The recipient was not sent: the server takes fewer recipients or domains in one transaction
    /// (RFC 9422). Send the message to it in another transaction;
    /// [`Client::recipients_at_once`](crate::Client::recipients_at_once) says how many fit.
    Postponed,
    /// The conversation broke off before the reply. Try again.
    Lost,
    /// No server could be reached.
    Unreachable(Arc<Unreachable>),
}

/// Why no server could be reached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// The domain has no host to deliver to.
    #[error(transparent)]
    Mx(#[from] MxError),
    /// No host became ready. This is the reason of the last.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Unreachable {
    /// Returns `true` if another attempt would fail as well. What a server says is not permanent:
    /// another server of the domain may be ready next time.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Mx(error) => !error.is_transient(),
            Self::Connect(error) => error.reply().is_none() && error.is_permanent(),
        }
    }
}

/// The command or content that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedAt {
    /// The reverse-path.
    Mail,
    /// The recipient, before any other recipient of the transaction was accepted.
    Rcpt,
    /// The recipient, after another recipient of the transaction was accepted.
    LaterRcpt,
    /// DATA, before the content.
    Data,
    /// BDAT: the server does not know the command, although it offers CHUNKING.
    Bdat,
    /// The content, at its end or before.
    Content,
    /// Any of these, on a connection without TLS: the server offers TLS, and asks for it with this
    /// refusal. Never permanent, since TLS may work next time;
    /// [`ServerFacts::tls_failure`](crate::ServerFacts::tls_failure) says what failed.
    InClear,
}

impl RecipientOutcome {
    /// Returns `true` if another attempt would fail as well: the server refused with 5yz or lacks
    /// what the message needs, or the content must not leave.
    ///
    /// The reply code decides. An enhanced code of another class has no meaning (RFC 2034 section
    /// 4). Three kinds of 5yz are not permanent:
    ///
    /// | refused | code | enhanced code | why |
    /// |---|---|---|---|
    /// | [`LaterRcpt`](RefusedAt::LaterRcpt) | 552 | none, 5.0.0 or 5.5.3 | RFC 821 used it for too many recipients; it counts as 452 (RFC 5321 section 4.5.3.1.10) |
    /// | [`LaterRcpt`](RefusedAt::LaterRcpt) | any 5yz | 5.5.3 | too many recipients: another transaction has fewer |
    /// | [`Bdat`](RefusedAt::Bdat) | 500 to 504 | any | the message can go by DATA |
    /// | [`InClear`](RefusedAt::InClear) | any 5yz | any | the server takes the message over TLS |
    ///
    /// So `552 5.2.2`, a full mailbox, is permanent, and so is any 552 before a recipient was
    /// accepted.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused(reply, at) => is_permanent(reply, *at),
            Self::Undeliverable(_) | Self::Unsendable(_) => true,
            Self::Unreachable(why) => why.is_permanent(),
            Self::Accepted(_) | Self::Postponed | Self::Lost => false,
        }
    }

    /// Returns `true` if the recipient does not have the message, and another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Accepted(_)) && !self.is_permanent()
    }

    /// Returns `true` if it says nothing of the message: there was no reply, or a 421.
    pub(crate) fn says_nothing(&self) -> bool {
        match self {
            Self::Lost => true,
            Self::Refused(reply, _) => reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE,
            _ => false,
        }
    }

    /// Returns `true` if the server takes no mail now, for any recipient.
    fn is_servers_refusal(&self) -> bool {
        let Self::Refused(reply, at) = self else { return false };
        let subject = reply.enhanced().map(EnhancedCode::subject);
        let is_own = match at {
            RefusedAt::Mail => subject != Some(ADDRESSING),
            _ => subject == Some(MAIL_SYSTEM),
        };
        is_own && reply.code().severity() == Severity::TransientNegative
    }

    /// Returns `true` if a server has refused all recipients of a transaction since it takes no
    /// mail now.
    pub(crate) fn are_servers_refusals<'o>(outcomes: impl IntoIterator<Item = &'o Self>) -> bool {
        let mut outcomes = outcomes.into_iter().peekable();
        outcomes.peek().is_some() && outcomes.all(Self::is_servers_refusal)
    }

    /// Returns `true` if the recipient is one too many for the transaction, which has others. It
    /// goes into another one (RFC 5321 section 4.5.3.1.10).
    pub(crate) fn is_surplus(&self) -> bool {
        let Self::Refused(reply, RefusedAt::LaterRcpt) = self else { return false };
        match (reply.code().get(), reply.enhanced().map(|code| (code.subject(), code.detail()))) {
            (452, None) | (450..=452, Some(TOO_MANY_RECIPIENTS)) => true,
            _ => is_too_many_recipients(reply),
        }
    }

    /// Makes it a refusal [in clear](RefusedAt::InClear) if it asks for TLS. Returns `true` if it
    /// does.
    pub(crate) fn is_for_lack_of_tls(&mut self) -> bool {
        match self {
            Self::Refused(reply, at) if asks_for_tls(reply) => {
                *at = RefusedAt::InClear;
                true
            }
            _ => false,
        }
    }

    /// The server's reply. `None`: the server gave none for this recipient.
    pub const fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Accepted(reply) | Self::Refused(reply, _) => Some(reply),
            Self::Undeliverable(_) | Self::Unsendable(_) | Self::Postponed | Self::Lost | Self::Unreachable(_) => None,
        }
    }

    pub(crate) fn of(reply: Reply, at: RefusedAt) -> Self {
        if reply.code().is_positive() { Self::Accepted(reply) } else { Self::Refused(reply, at) }
    }
}

/// The subjects of enhanced codes (RFC 3463 section 3) that speak of an address, and of the server.
const ADDRESSING: u16 = 1;
const MAIL_SYSTEM: u16 = 3;

/// The reply, or the reason why there is none.
impl fmt::Display for RecipientOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(reply) | Self::Refused(reply, _) => reply.fmt(f),
            Self::Undeliverable(why) => why.fmt(f),
            Self::Unsendable(fault) => ClientError::Misuse(ApiMisuse::Content(*fault)).fmt(f),
            Self::Postponed => {
                f.write_str("the server takes fewer recipients at once; send the message to this one again")
            }
            Self::Unreachable(why) => why.fmt(f),
            Self::Lost => f.write_str("the conversation broke off before the reply; try again"),
        }
    }
}

fn is_permanent(reply: &Reply, at: RefusedAt) -> bool {
    let is_permanent = reply.code().severity() == Severity::PermanentNegative;
    is_permanent
        && match at {
            RefusedAt::Mail | RefusedAt::Rcpt | RefusedAt::Data | RefusedAt::Content => true,
            RefusedAt::LaterRcpt => !is_too_many_recipients(reply),
            RefusedAt::Bdat => !is_unknown_command(reply),
            RefusedAt::InClear => false,
        }
}

fn is_too_many_recipients(reply: &Reply) -> bool {
    let says = |class, subject, detail| reply.enhanced() == EnhancedCode::new(class, subject, detail);
    match reply.code().get() {
        STORAGE_EXCEEDED => reply.enhanced().is_none() || says(5, 0, 0) || says(5, 5, 3),
        _ => says(5, 5, 3),
    }
}

/// Returns `true` if the reply is about the command and not about the message (RFC 5321 section
/// 4.2.3).
pub(crate) fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code().get(), 500..=504)
}

/// Subject and detail of the enhanced code X.5.3.
const TOO_MANY_RECIPIENTS: (u16, u16) = (5, 3);

/// Returns `true` if a refusal asks for TLS. It does so by its words, by X.7.10 (RFC 5248), or by
/// 530 (RFC 3207 section 4), unless that asks for a login (RFC 4954 section 6).
pub(crate) fn asks_for_tls(reply: &Reply) -> bool {
    if reply.code().is_positive() {
        return false;
    }
    let text = reply.borrowed().text().to_ascii_lowercase();
    let code = reply.enhanced().map(|code| (code.subject(), code.detail()));
    let is_530 = reply.code().get() == 530 && !text.contains("auth") && !text.contains("log");
    is_530 || code == Some(ENCRYPTION_NEEDED) || FOR_TLS.iter().any(|words| text.contains(words))
}

/// Subject and detail of the enhanced code X.7.10.
const ENCRYPTION_NEEDED: (u16, u16) = (7, 10);

/// The words with which servers ask for TLS.
const FOR_TLS: &[&str] = &[
    "starttls",
    "tls required",
    "tls is required",
    "tls encryption required",
    "requires tls",
    "require tls",
    "use tls",
    "using tls",
    "needs tls",
    "need tls",
    "without tls",
    "only over tls",
    "encryption required",
    "encryption is required",
    "encryption needed",
    "encrypted connection",
    "secure connection",
];

/// The code that RFC 821 used for too many recipients.
const STORAGE_EXCEEDED: u16 = 552;

#[cfg(test)]
mod tests {
    use super::{RefusedAt::*, *};

    fn refused(line: &str, at: RefusedAt) -> RecipientOutcome {
        let code = ReplyCode::new(line[..3].parse().unwrap()).unwrap();
        RecipientOutcome::of(Reply::new(code, None, &line[4..]), at)
    }

    #[test]
    fn a_server_that_takes_no_mail_now_says_so_to_all_recipients() {
        for (line, at, is_servers) in [
            ("451 4.3.2 Not now", Mail, true),
            ("452 4.3.1 Full", Mail, true),
            ("450 Not now", Mail, true),
            ("451 4.7.1 Too many messages from your address", Mail, true),
            ("450 4.1.8 No such domain of the sender", Mail, false),
            ("550 5.3.2 Not here", Mail, false),
            ("451 4.3.0 Look-up failed", Rcpt, true),
            ("452 4.3.1 Full", LaterRcpt, true),
            ("450 4.2.0 Greylisted", Rcpt, false),
            ("452 4.2.2 Mailbox full", Rcpt, false),
            ("451 Not now", Rcpt, false),
            ("451 4.3.0 Not now", Data, true),
            ("451 4.3.0 Not now", Content, true),
            ("451 4.7.0 Not this one", Content, false),
            ("250 2.3.0 Taken", Content, false),
        ] {
            let (one, other) = (refused(line, at), refused("450 4.2.0 Greylisted", Rcpt));
            assert_eq!(RecipientOutcome::are_servers_refusals([&one, &one]), is_servers, "{line} at {at:?}");
            assert!(!RecipientOutcome::are_servers_refusals([&one, &other]), "{line} at {at:?}");
        }
        assert!(!RecipientOutcome::are_servers_refusals([]));
    }

    #[test]
    fn a_recipient_is_one_too_many_after_an_accepted_one_alone() {
        for (line, at, is_surplus) in [
            ("452 4.5.3 Too many recipients", LaterRcpt, true),
            ("452 4.5.3 Recipients belong to multiple regions ATTR38", LaterRcpt, true),
            ("452 Too many recipients", LaterRcpt, true),
            ("451 4.5.3 Too many recipients", LaterRcpt, true),
            ("552 Too many recipients", LaterRcpt, true),
            ("550 5.5.3 Too many recipients", LaterRcpt, true),
            ("452 4.5.3 Too many recipients", Rcpt, false),
            ("452 4.2.2 Mailbox full", LaterRcpt, false),
            ("452 4.3.1 Full", LaterRcpt, false),
            ("450 4.2.0 Greylisted", LaterRcpt, false),
            ("421 4.5.3 Too many recipients", LaterRcpt, false),
            ("552 5.2.2 Mailbox full", LaterRcpt, false),
            ("452 4.5.3 Too many recipients", Content, false),
        ] {
            assert_eq!(refused(line, at).is_surplus(), is_surplus, "{line} at {at:?}");
        }
    }

    #[test]
    fn a_refusal_asks_for_tls_by_its_code_or_its_words() {
        for (line, asks) in [
            ("530 5.7.0 Must issue a STARTTLS command first", true),
            ("530 Not now", true),
            ("530 5.7.0 Authentication required", false),
            ("530 Log in first", false),
            ("530 5.7.0 Must issue a STARTTLS command before authentication", true),
            ("550 5.7.10 Encryption needed", true),
            ("550 5.7.10 No", true),
            ("554 5.7.1 TLS required, see our policy", true),
            ("451 4.7.0 This server requires TLS", true),
            ("550 5.7.1 We take no spam", false),
            ("550 5.7.0 No", false),
            ("550 5.1.1 No such user", false),
            ("250 2.0.0 starttls", false),
        ] {
            let mut outcome = refused(line, Mail);
            assert_eq!(outcome.is_for_lack_of_tls(), asks, "{line}");
            assert_eq!(matches!(outcome, RecipientOutcome::Refused(_, InClear)), asks, "{line}");
        }
    }

    #[test]
    fn reply_code_enhanced_code_and_position_decide_what_is_permanent() {
        for (line, at, permanent) in [
            // The only recipient, or the first.
            ("552 5.2.2 Mailbox full", Rcpt, true),
            ("552 Mailbox full", Rcpt, true),
            ("552 5.5.3 Too many recipients", Rcpt, true),
            ("552 5.0.0 No", Rcpt, true),
            // After an accepted recipient.
            ("552 Too many recipients", LaterRcpt, false),
            ("552 5.5.3 Too many recipients", LaterRcpt, false),
            ("552 5.0.0 Too many recipients", LaterRcpt, false),
            ("552 5.2.2 Mailbox full", LaterRcpt, true),
            ("552 5.3.4 Too large", LaterRcpt, true),
            ("550 5.5.3 Too many recipients", LaterRcpt, false),
            ("554 5.5.3 Too many recipients", LaterRcpt, false),
            ("550 5.5.3 Too many recipients", Rcpt, true),
            ("550 5.1.1 No such user", LaterRcpt, true),
            ("550 No such user", LaterRcpt, true),
            ("452 4.5.3 Too many recipients", LaterRcpt, false),
            ("452 4.5.3 Too many recipients", Rcpt, false),
            ("452 4.2.2 Mailbox full", Rcpt, false),
            // Elsewhere 552 is permanent.
            ("552 5.3.4 Too large", Mail, true),
            ("552 Too large", Mail, true),
            ("552 Too large", Data, true),
            ("552 5.2.2 Mailbox full", Content, true),
            ("552 Too large", Content, true),
            // The code decides when the enhanced one contradicts it.
            ("550 4.2.1 Busy", Rcpt, true),
            ("550 4.5.3 Too many", LaterRcpt, true),
            ("552 4.5.3 Too many", LaterRcpt, false),
            ("450 5.1.1 No such user", Rcpt, false),
            ("451 5.7.1 Spam", Content, false),
            ("554 2.0.0 No", Content, true),
            // A server that goes away has not judged the message.
            ("421 4.3.2 Going away", Mail, false),
            ("421 5.7.1 Going away", Rcpt, false),
            ("421 Going away", LaterRcpt, false),
            ("421 Going away", Data, false),
            ("421 Going away", Bdat, false),
            ("421 Going away", Content, false),
            // Commands that the server does not know, or not here.
            ("503 5.5.1 Bad sequence", Mail, true),
            ("502 5.5.1 Not implemented", Rcpt, true),
            ("500 5.5.1 What", Bdat, false),
            ("502 5.5.1 Not implemented", Bdat, false),
            ("503 5.5.1 Bad sequence", Bdat, false),
            ("504 5.5.4 Not implemented", Bdat, false),
            ("503 Bad sequence", Content, true),
            // TLS may work next time.
            ("530 5.7.0 Must issue a STARTTLS command first", InClear, false),
        ] {
            assert_eq!(refused(line, at).is_permanent(), permanent, "{line} at {at:?}");
        }
        // The text after 250 takes nothing back.
        let accepted = RecipientOutcome::of(Reply::new(ReplyCode::OK, None, "5.1.1 odd"), Content);
        assert!(matches!(accepted, RecipientOutcome::Accepted(_)) && !accepted.is_permanent());
    }
}
