//! The result of sending a message.

use std::{fmt, sync::Arc};

use posthaste_tokio::{
    ClientError, TlsParameters,
    wire::{Capabilities, ForwardPath, Reply},
};

use crate::{RecipientOutcome, Target};

/// The result of sending a message over one connection: an outcome for each recipient.
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
    pub broken: Option<Arc<ClientError>>,
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

/// The result of delivering a message, over as many servers as it took.
#[derive(Debug, Clone)]
#[must_use = "some recipients may have failed: look at `failed`"]
#[non_exhaustive]
pub struct Delivered {
    /// The recipients, in their order.
    pub recipients: Vec<Recipient>,
}

/// A recipient and its outcome.
///
/// Its text is one line, such as `<you@example.net>: 550 5.1.1 No such user`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Recipient<S: AsRef<str> = String> {
    /// The recipient's forward-path.
    pub path: ForwardPath<S>,
    /// Its outcome.
    pub outcome: RecipientOutcome,
    /// The server of the outcome. `None`: no server was asked.
    pub server: Option<Arc<ServerFacts>>,
    /// Why the conversation broke off, where the outcome is [`Lost`](RecipientOutcome::Lost).
    pub broken: Option<Arc<ClientError>>,
    /// The server may have the message although the outcome is
    /// [`Lost`](RecipientOutcome::Lost): the whole content may have left. Sending it again may make
    /// a duplicate (RFC 1047).
    pub in_doubt: bool,
}

/// The server of an outcome, and the connection to it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerFacts {
    /// The host and its address. `None`: the application made the stream of the connection.
    pub target: Option<Target>,
    /// What the server offered in its last reply to EHLO.
    pub capabilities: Capabilities,
    /// What the TLS handshake agreed on. `None`: there was no TLS.
    pub tls: Option<TlsParameters>,
    /// TLS has proved the identity of the server.
    pub is_verified: bool,
    /// Why a connection has no TLS although the options have
    /// [`Tls::Opportunistic`](crate::Tls::Opportunistic) and the server offers it: what failed now,
    /// or lately. `None`: it has TLS, or neither was so.
    pub tls_failure: Option<Arc<str>>,
}

impl<S: AsRef<str>> Sent<S> {
    /// The recipients that do not have the message, in their order.
    pub fn failed(&self) -> impl Iterator<Item = &Recipient<S>> {
        self.recipients.iter().filter(|recipient| !recipient.has_it())
    }

    /// Returns `true` if the conversation broke off and the message had no part in that: it is not
    /// in doubt, and each recipient has no reply or a 421.
    pub fn says_nothing(&self) -> bool {
        let nothing = |recipient: &Recipient<S>| recipient.outcome.says_nothing();
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
        Sent {
            recipients: self.recipients.into_iter().map(Recipient::into_owned).collect(),
            broken: self.broken,
            in_doubt: self.in_doubt,
            chunking_failed: self.chunking_failed,
        }
    }
}

impl Delivered {
    /// The recipients that do not have the message, in their order.
    pub fn failed(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients.iter().filter(|recipient| !recipient.has_it())
    }

    /// Returns `true` if every recipient has the message.
    pub fn is_complete(&self) -> bool {
        self.failed().next().is_none()
    }
}

impl<S: AsRef<str>> Recipient<S> {
    /// The server's reply. `None`: the server gave none for this recipient.
    pub const fn reply(&self) -> Option<&Reply> {
        self.outcome.reply()
    }

    /// Returns `true` if another attempt would fail as well; see
    /// [`RecipientOutcome::is_permanent`].
    pub fn is_permanent(&self) -> bool {
        self.outcome.is_permanent()
    }

    const fn has_it(&self) -> bool {
        matches!(self.outcome, RecipientOutcome::Accepted(_))
    }
}

impl Recipient<&str> {
    fn into_owned(self) -> Recipient {
        let Self { path, outcome, server, broken, in_doubt } = self;
        Recipient { path: path.into_owned(), outcome, server, broken, in_doubt }
    }
}

impl<S: AsRef<str>> fmt::Display for Recipient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.broken {
            Some(broken) => write!(f, "{}: {broken}", self.path),
            None => write!(f, "{}: {}", self.path, self.outcome),
        }
    }
}
