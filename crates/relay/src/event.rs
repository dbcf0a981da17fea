//! What happens to mail, told to whoever wants to know.

use std::{
    borrow::Cow,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use posthaste_client::{ConnectError, mx::MxError};
use posthaste_queue::MessageId;
use posthaste_server::{
    Peer,
    wire::{EnhancedCode, ForwardPath, Reply, ReversePath, Severity},
};
use tracing::{info, warn};

/// Why a recipient has not got a message, in whose words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The host that said it; nothing when it is this relay's own finding.
    pub remote: Option<String>,
    /// The enhanced status code: the host's own, or the one that fits.
    pub status: EnhancedCode,
    /// The reply's exact words with its code, or what this relay has found; cut behind 1,000
    /// octets.
    pub text: String,
    /// Whether the text is an SMTP reply.
    pub is_reply: bool,
}

/// Something happened to a message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message was accepted and is on stable storage.
    #[non_exhaustive]
    Accepted {
        /// Its id.
        message: MessageId,
        /// The client that it came from: address, EHLO name, TLS, and who it has logged in as.
        /// `None`: the application itself.
        client: Option<&'a Peer>,
        /// Who sent it.
        sender: &'a ReversePath,
        /// How many recipients it has.
        recipients: usize,
        /// Octets of content, our trace field included.
        octets: u64,
        /// The priority that it travels with (RFC 6710): 0 unless it asked for another and may have
        /// it.
        priority: i8,
        /// How long it is held before the first attempt (RFC 4865): zero unless it asked for that.
        held: Duration,
    },
    /// A recipient's next hop has taken the message.
    Delivered {
        /// Its id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// The host that took it.
        remote: &'a str,
        /// What it said.
        reply: &'a Reply,
        /// Since the message was accepted.
        age: Duration,
    },
    /// A recipient's delivery is tried again later.
    Deferred {
        /// The message's id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// Why.
        diagnostic: &'a Diagnostic,
        /// In how long.
        retry_in: Duration,
    },
    /// A recipient will not get the message.
    Failed {
        /// The message's id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// Why.
        diagnostic: &'a Diagnostic,
    },
    /// What came of recipients is reported to the sender, by a message that is in the queue now.
    Reported {
        /// The message's id.
        message: MessageId,
        /// The report's id.
        report: MessageId,
        /// Who gets it.
        sender: &'a ReversePath,
        /// How many recipients it says have failed.
        failed: usize,
        /// How many it says are delayed.
        delayed: usize,
        /// How many it says were relayed to a host that will not report about them.
        relayed: usize,
    },
    /// What came of recipients is reported to nobody.
    NotReported {
        /// The message's id.
        message: MessageId,
        /// Why.
        because: NotReported,
    },
}

/// Why what came of a message is reported to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReported {
    /// There is no sender to tell: it is a report itself, or something of the kind (RFC 5321
    /// section 4.5.5).
    NullSender,
    /// The sender has asked not to be told (NOTIFY, RFC 3461 section 4.1).
    NotWanted,
    /// No trusted client has named this sender, and it was told as much as it may be: see
    /// [`DeliveryOptions::stranger_reports`](crate::DeliveryOptions::stranger_reports).
    TooMany,
}

/// Is told what happens. It is called where the work is done: keep it short, and never wait in it.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// Writes events to the log by [`tracing`].
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { message, client: Some(client), sender, recipients, octets, priority, held } => {
                let Peer { address, tls, identity, .. } = client;
                let (hello, identity) = (client.hello_text(), identity.as_deref().unwrap_or_default());
                info!(%message, %address, ?hello, tls, ?identity, %sender, recipients, octets, priority, ?held, "accepted");
            }
            Event::Accepted { message, client: None, sender, recipients, octets, priority, held } => {
                info!(%message, %sender, recipients, octets, priority, ?held, "accepted from the application");
            }
            Event::Delivered { message, recipient, remote, reply, age } => {
                info!(%message, %recipient, remote, %reply, ?age, "delivered");
            }
            Event::Deferred { message, recipient, diagnostic, retry_in } => {
                info!(%message, %recipient, %diagnostic, ?retry_in, "deferred");
            }
            Event::Failed { message, recipient, diagnostic } => warn!(%message, %recipient, %diagnostic, "failed"),
            Event::Reported { message, report, sender, failed, delayed, relayed } => {
                info!(%message, %report, %sender, failed, delayed, relayed, "reported");
            }
            Event::NotReported { message, because } => info!(%message, ?because, "reported to nobody"),
        }
    }
}

/// How often each event has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Messages accepted.
    pub accepted: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients deferred, each time counted.
    pub deferred: u64,
    /// Recipients failed.
    pub failed: u64,
    /// Reports queued.
    pub reported: u64,
    /// Messages whose failures were reported to nobody.
    pub not_reported: u64,
}

/// Counts events and passes them on.
pub(crate) struct Counting {
    observer: Box<dyn Observer>,
    counts: [AtomicU64; 6],
}

impl Counting {
    pub(crate) fn new(observer: impl Observer) -> Self {
        Self { observer: Box::new(observer), counts: Default::default() }
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        let index = match event {
            Event::Accepted { .. } => 0,
            Event::Delivered { .. } => 1,
            Event::Deferred { .. } => 2,
            Event::Failed { .. } => 3,
            Event::Reported { .. } => 4,
            Event::NotReported { .. } => 5,
        };
        if let Some(count) = self.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.observer.observe(event);
    }

    pub(crate) fn totals(&self) -> Totals {
        let [accepted, delivered, deferred, failed, reported, not_reported] =
            std::array::from_fn(|index| self.counts.get(index).map_or(0, |count| count.load(Ordering::Relaxed)));
        Totals { accepted, delivered, deferred, failed, reported, not_reported }
    }
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

/// A code that is known to be one.
const fn code(class: u16, subject: u16, detail: u16) -> EnhancedCode {
    match EnhancedCode::new(class, subject, detail) {
        Some(code) => code,
        None => panic!(),
    }
}

impl Diagnostic {
    /// What a host said.
    pub fn reply(remote: &str, reply: &Reply) -> Self {
        let status = reply.as_ref().enhanced().unwrap_or(match reply.code().severity() {
            Severity::Positive => const { code(2, 0, 0) },
            Severity::Intermediate | Severity::TransientNegative => const { code(4, 0, 0) },
            Severity::PermanentNegative => const { code(5, 0, 0) },
        });
        Self { remote: Some(remote.to_owned()), status, text: exact_words(reply), is_reply: true }
    }

    /// What this relay has found.
    pub fn own(status: Option<EnhancedCode>, text: impl fmt::Display) -> Self {
        let status = status.unwrap_or(const { code(4, 0, 0) });
        Self { remote: None, status, text: bounded(text.to_string()), is_reply: false }
    }

    /// Why there was no connection.
    pub(crate) fn connect(remote: &str, error: &ConnectError) -> Self {
        match error {
            ConnectError::Refused { reply, .. } => Self::reply(remote, reply),
            ConnectError::OpportunisticTls(error) => Self::connect(remote, error),
            ConnectError::TlsUnavailable | ConnectError::TlsName(_) | ConnectError::Tls(_) => {
                Self { remote: Some(remote.to_owned()), ..Self::own(EnhancedCode::new(4, 7, 5), error) }
            }
            ConnectError::Tcp { .. } | ConnectError::NoAddress => {
                Self { remote: Some(remote.to_owned()), ..Self::own(EnhancedCode::new(4, 4, 1), error) }
            }
            _ => Self::lost(remote, error),
        }
    }

    /// A conversation broke off.
    pub(crate) fn lost(remote: &str, error: &dyn fmt::Display) -> Self {
        Self { remote: Some(remote.to_owned()), ..Self::own(EnhancedCode::new(4, 4, 2), error) }
    }

    /// There is no host for the domain.
    pub(crate) fn mx(error: &MxError) -> Self {
        Self::own(error.enhanced(), error)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remote {
            Some(remote) if self.is_reply => write!(f, "{remote} said: {}", self.text),
            Some(remote) => write!(f, "{remote}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// The most octets of a diagnostic's text; more is cut. A reply may have 16 KiB, and a thousand
/// recipients as many replies: kept whole they would be more than the queue takes for one message,
/// and what came of it could not be written down.
const MAX_TEXT: usize = 1_000;

/// A reply with its codes on one line, every line of it, free of control characters.
fn exact_words(reply: &Reply) -> String {
    let mut text = reply.code().to_string();
    for line in reply.as_ref().lines().filter(|line| !line.is_empty()) {
        text.push(' ');
        text.extend(String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { '?' } else { c }));
    }
    bounded(text)
}

fn bounded(text: String) -> String {
    match shortened(&text, MAX_TEXT) {
        Cow::Borrowed(_) => text,
        Cow::Owned(shortened) => shortened,
    }
}

/// At most so many octets of a text; what is cut ends in three dots more.
pub(crate) fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let kept = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{}...", kept.strip_suffix("...").unwrap_or(kept)))
}
