//! The result of sending a message.

use std::fmt;

use posthaste_tokio::{
    ClientError,
    wire::{ForwardPath, Reply, ReplyCode},
};

use crate::RecipientOutcome;

/// The result of sending a message: an outcome for each recipient.
#[derive(Debug)]
#[must_use = "some recipients may have failed: look at `failed`"]
#[non_exhaustive]
pub struct Sent<S: AsRef<str> = String> {
    /// The recipients, in their order.
    pub recipients: Vec<Recipient<S>>,
    /// Why the conversation broke off. It is also set if every recipient has an outcome but a reply
    /// was not well formed
    /// ([`ClientSession::oddity`](posthaste_tokio::session::ClientSession::oddity)): then send
    /// nothing more over this connection. `None`: the connection can be used again.
    pub broken: Option<ClientError>,
    /// The end of the content may have left before the conversation broke off. The server may have
    /// the message nevertheless: sending it again may make a duplicate (RFC 1047).
    pub in_doubt: bool,
    /// The content went by BDAT, since the server offers CHUNKING, and that failed: the server
    /// answered BDAT with 500 to 504, or the conversation broke off during it. No outcome is
    /// permanent because of that. For the next attempt, switch
    /// [`ClientSettings::chunking`](posthaste_tokio::session::ClientSettings::chunking) off, so
    /// that content that is not BODY=BINARYMIME goes by DATA.
    pub chunking_failed: bool,
}

/// A recipient and its outcome.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Recipient<S: AsRef<str> = String> {
    /// The recipient's forward-path.
    pub path: ForwardPath<S>,
    /// Its outcome.
    pub outcome: RecipientOutcome,
}

/// A recipient that does not have the message. Its text is one line:
/// `<you@example.net>: 550 5.1.1 No such user`.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Failed<'s, S: AsRef<str> = String> {
    /// The recipient's forward-path.
    pub recipient: &'s ForwardPath<S>,
    /// Its outcome.
    pub outcome: &'s RecipientOutcome,
    /// Why the conversation broke off, if this recipient's outcome is
    /// [`Lost`](RecipientOutcome::Lost). `None`: the outcome says why.
    pub broken: Option<&'s ClientError>,
}

impl<S: AsRef<str>> Sent<S> {
    /// The recipients that do not have the message, in their order.
    pub fn failed(&self) -> impl Iterator<Item = Failed<'_, S>> {
        self.recipients.iter().filter_map(|recipient| {
            let broken = match &recipient.outcome {
                RecipientOutcome::Accepted(_) => return None,
                RecipientOutcome::Lost => self.broken.as_ref(),
                RecipientOutcome::Refused(..)
                | RecipientOutcome::Undeliverable(_)
                | RecipientOutcome::Unsendable(_)
                | RecipientOutcome::Postponed => None,
            };
            Some(Failed { recipient: &recipient.path, outcome: &recipient.outcome, broken })
        })
    }

    /// Returns `true` if the conversation broke off and the message had no part in that: it is not
    /// in doubt, and each recipient has no reply or a 421.
    pub fn says_nothing(&self) -> bool {
        let nothing = |recipient: &Recipient<S>| match &recipient.outcome {
            RecipientOutcome::Lost => true,
            RecipientOutcome::Refused(reply, _) => reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE,
            RecipientOutcome::Accepted(_)
            | RecipientOutcome::Undeliverable(_)
            | RecipientOutcome::Unsendable(_)
            | RecipientOutcome::Postponed => false,
        };
        self.broken.is_some() && !self.in_doubt && self.recipients.iter().all(nothing)
    }

    /// Returns `true` if every recipient has the message.
    pub fn is_complete(&self) -> bool {
        self.failed().next().is_none()
    }
}

impl Sent<&str> {
    /// The owned form.
    pub fn into_owned(self) -> Sent {
        let owned =
            |recipient: Recipient<&str>| Recipient { path: recipient.path.into_owned(), outcome: recipient.outcome };
        Sent {
            recipients: self.recipients.into_iter().map(owned).collect(),
            broken: self.broken,
            in_doubt: self.in_doubt,
            chunking_failed: self.chunking_failed,
        }
    }
}

impl<'s, S: AsRef<str>> Failed<'s, S> {
    /// The server's reply. `None`: the server gave none for this recipient.
    pub const fn reply(&self) -> Option<&'s Reply> {
        self.outcome.reply()
    }

    /// Returns `true` if another attempt would fail as well; see
    /// [`RecipientOutcome::is_permanent`].
    pub fn is_permanent(&self) -> bool {
        self.outcome.is_permanent()
    }
}

impl<S: AsRef<str>> fmt::Display for Failed<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.broken {
            Some(broken) => write!(f, "{}: {broken}", self.recipient),
            None => write!(f, "{}: {}", self.recipient, self.outcome),
        }
    }
}
