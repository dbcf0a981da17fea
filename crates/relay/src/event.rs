//! Events: what happens to messages, for the application and the log.

use std::{
    borrow::Cow,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use posthaste_client::{ConnectError, mx::MxError};
use posthaste_queue::MessageId;
use posthaste_server::{
    Peer, Refusal,
    wire::{EnhancedCode, ForwardPath, Reply, ReversePath, Severity},
};
use tracing::{error, info, warn};

use crate::{Gauge, Rung};

/// Why a recipient has not got a message, and which host said so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The host that said it, or the agent, or the Unix socket. `None`: the relay found it. What
    /// has a colon, and is no address literal, is no host, and reports do not name it.
    pub remote: Option<String>,
    /// The enhanced status code of the reply. If the reply has none: the one that fits.
    pub status: EnhancedCode,
    /// The exact words of the reply with its code, or what the relay found. At most 1,000 octets; a
    /// longer text is cut and ends in `...`.
    pub text: String,
    /// `true`: the text is an SMTP reply.
    pub is_reply: bool,
}

/// What happened to a message or to one of its recipients.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message was accepted and is on stable storage.
    #[non_exhaustive]
    Accepted {
        /// The message's id.
        message: MessageId,
        /// The client that sent it: address, EHLO name, TLS, and identity if it has logged in.
        /// `None`: the application.
        client: Option<&'a Peer>,
        /// The reverse-path.
        sender: &'a ReversePath,
        /// The number of recipients.
        recipients: usize,
        /// Octets of content, with our Received field and our signatures.
        octets: u64,
        /// The priority that it is sent on with (RFC 6710). 0 unless the client asked for another
        /// one, and may have it.
        priority: i8,
        /// The time for which it is held before the first attempt (RFC 4865). Zero unless the
        /// client asked for a hold.
        held: Duration,
    },
    /// The next hop of a recipient has taken the message.
    #[non_exhaustive]
    Delivered {
        /// The message's id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// The name of the host that took it, or of the agent.
        remote: &'a str,
        /// The host's reply.
        reply: &'a Reply,
        /// The message went over TLS.
        tls: bool,
        /// The time since the message was accepted.
        age: Duration,
    },
    /// The delivery to a recipient will be tried again.
    Deferred {
        /// The message's id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// Why it failed this time.
        diagnostic: &'a Diagnostic,
        /// The time until the next attempt.
        retry_in: Duration,
    },
    /// The delivery to a recipient has failed for good.
    Failed {
        /// The message's id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// Why it failed.
        diagnostic: &'a Diagnostic,
    },
    /// The message was thrown away for a recipient, whose route leads to
    /// [`NextHop::Discard`](crate::NextHop::Discard).
    Discarded {
        /// The message's id.
        message: MessageId,
        /// The recipient.
        recipient: &'a ForwardPath,
        /// The time since the message was accepted.
        age: Duration,
    },
    /// A report to the sender of the message was queued.
    Reported {
        /// The message's id.
        message: MessageId,
        /// The report's id.
        report: MessageId,
        /// The sender, who gets the report.
        sender: &'a ReversePath,
        /// Recipients that the report calls failed.
        failed: usize,
        /// Recipients that the report calls delayed.
        delayed: usize,
        /// Recipients that the report calls relayed: their host will not report about them.
        relayed: usize,
        /// Recipients that the report calls delivered: an agent has taken the message.
        delivered: usize,
    },
    /// The outcome of a message is not reported.
    NotReported {
        /// The message's id.
        message: MessageId,
        /// Why it is not reported.
        because: NotReported,
    },
    /// A message is on hold, since the relay cannot or must not deliver it by itself. Its record
    /// cannot be read, its body is damaged, or its outcome cannot be written. Its sender is not
    /// told. Look at it, then release it or remove it. The other mail goes on.
    #[non_exhaustive]
    SetAside {
        /// The message's id.
        message: MessageId,
        /// What is wrong with it.
        why: &'a str,
    },
    /// An operator has put a message on hold.
    #[non_exhaustive]
    Held {
        /// The message's id.
        message: MessageId,
    },
    /// An operator has released a message.
    #[non_exhaustive]
    Released {
        /// The message's id.
        message: MessageId,
    },
    /// An operator has removed a message. Its sender is not told.
    #[non_exhaustive]
    Removed {
        /// The message's id.
        message: MessageId,
    },
    /// A sweep through the queue has found the labels of queued mail again, after the rules changed
    /// or the relay started: see [`Relabeling`](crate::Relabeling).
    #[non_exhaustive]
    Relabeled {
        /// Messages that it has looked at.
        seen: u64,
        /// Deliveries that follow another rule now.
        moved: u64,
        /// Deliveries whose recipients would follow different rules now, and stay together.
        together: u64,
    },
    /// The relay does less of its work than before, or more, since it is overloaded or no longer
    /// is.
    #[non_exhaustive]
    Overload {
        /// Where it stands now.
        rung: Rung,
        /// Where it stood before.
        was: Rung,
        /// The gauge that holds the higher of the two rungs, or held it last.
        gauge: Gauge,
        /// Its value, in its unit.
        value: u64,
        /// Its watermark for the higher rung.
        watermark: u64,
    },
}

/// Why the outcome of a message is not reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReported {
    /// The reverse-path is null: the message is a report, or another notice that must not cause one
    /// (RFC 5321 section 4.5.5).
    NullSender,
    /// The sender asked for no report (NOTIFY, RFC 3461 section 4.1).
    NotWanted,
    /// The client was not trusted, and the sender has had its share: it may get no more reports
    /// now, or none as large as this one. See
    /// [`DeliveryOptions::stranger_reports`](crate::DeliveryOptions::stranger_reports).
    TooMany,
}

/// Gets every event. A message is [accepted](Event::Accepted) before anything else happens to it.
/// After a restart there are messages that were accepted before it. The relay calls this in the
/// task that receives or delivers the message: return soon, and never block. A panic is logged, and
/// has no effect on the message.
pub trait Observer: Send + Sync + 'static {
    /// Takes an event.
    fn observe(&self, event: &Event<'_>);
}

/// A closure takes events: `|event: &Event<'_>| println!("{event:?}")`.
impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Writes events to the log with [`tracing`]: failures as warnings, the others as information.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Accepted { message, client: Some(client), sender: _, recipients, octets, priority, held } => {
                let Peer { tls, identity, .. } = client;
                let tls = tls.is_some();
                let (hello, identity) = (client.hello_text(), identity.as_deref().unwrap_or_default());
                // The span of the connection has its address, that of the transaction the sender.
                info!(%message, ?hello, tls, ?identity, recipients, octets, priority, ?held, "message accepted");
            }
            Event::Accepted { message, client: None, sender, recipients, octets, priority, held } => {
                info!(%message, %sender, recipients, octets, priority, ?held, "message accepted from the application");
            }
            Event::Delivered { message, recipient, remote, reply, tls, age } => {
                info!(%message, %recipient, remote, %reply, tls, ?age, "message delivered");
            }
            Event::Deferred { message, recipient, diagnostic, retry_in } => {
                info!(%message, %recipient, %diagnostic, ?retry_in, "delivery deferred");
            }
            Event::Failed { message, recipient, diagnostic } => {
                warn!(%message, %recipient, %diagnostic, "delivery failed")
            }
            Event::Discarded { message, recipient, age } => info!(%message, %recipient, ?age, "message discarded"),
            Event::Reported { message, report, sender, failed, delayed, relayed, delivered } => {
                info!(%message, %report, %sender, failed, delayed, relayed, delivered, "report queued");
            }
            Event::NotReported { message, because } => info!(%message, ?because, "outcome not reported"),
            Event::SetAside { message, why } => {
                error!(%message, why, "message set aside and held; check it, then release or remove it");
            }
            Event::Held { message } => info!(%message, "message put on hold by an operator"),
            Event::Released { message } => info!(%message, "message released by an operator"),
            Event::Removed { message } => warn!(%message, "message removed by an operator, sender not told"),
            Event::Relabeled { seen, moved, together } => {
                info!(seen, moved, together, "labels of queued mail found again");
            }
            Event::Overload { rung, was, gauge, value, watermark } if rung > was => {
                warn!(%rung, %was, %gauge, value, watermark, "overload grown, less mail taken");
            }
            Event::Overload { rung, was, gauge, value, watermark } => {
                info!(%rung, %was, %gauge, value, watermark, "overload shrunk, more mail taken");
            }
        }
    }
}

/// The number of events of each kind since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Messages accepted.
    pub accepted: u64,
    /// Recipients delivered, those of reports included.
    pub delivered: u64,
    /// Deferrals, those of reports included: a recipient counts each time.
    pub deferred: u64,
    /// Recipients failed, those of reports included.
    pub failed: u64,
    /// Reports queued.
    pub reported: u64,
    /// Messages with an outcome that is not reported.
    pub not_reported: u64,
    /// Recipients whose message was thrown away, as their route says.
    pub discarded: u64,
    /// Messages set aside.
    pub set_aside: u64,
    /// Changes of the rung on the overload ladder, up and down.
    pub overload: u64,
    /// Sweeps that found the labels of queued mail again.
    pub relabeled: u64,
    /// Messages that an operator has put on hold.
    pub held: u64,
    /// Messages that an operator has released.
    pub released: u64,
    /// Messages that an operator has removed.
    pub removed: u64,
}

/// Counts events and passes them on.
pub(crate) struct Counting {
    observer: Box<dyn Observer>,
    counts: [AtomicU64; 13],
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
            Event::Discarded { .. } => 6,
            Event::SetAside { .. } => 7,
            Event::Overload { .. } => 8,
            Event::Relabeled { .. } => 9,
            Event::Held { .. } => 10,
            Event::Released { .. } => 11,
            Event::Removed { .. } => 12,
        };
        if let Some(count) = self.counts.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // The message goes on, whatever the observer does: its 250 is still to be sent.
        let observed = catch_unwind(AssertUnwindSafe(|| self.observer.observe(event)));
        if observed.is_err() {
            error!(?event, "observer panicked, event lost to it");
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        let count = |index: usize| self.counts.get(index).map_or(0, |count| count.load(Ordering::Relaxed));
        Totals {
            accepted: count(0),
            delivered: count(1),
            deferred: count(2),
            failed: count(3),
            reported: count(4),
            not_reported: count(5),
            discarded: count(6),
            set_aside: count(7),
            overload: count(8),
            relabeled: count(9),
            held: count(10),
            released: count(11),
            removed: count(12),
        }
    }
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

/// A code that is valid at compile time.
const fn code(class: u16, subject: u16, detail: u16) -> EnhancedCode {
    match EnhancedCode::new(class, subject, detail) {
        Some(code) => code,
        None => panic!(),
    }
}

impl Diagnostic {
    /// Makes the diagnostic of a host's reply.
    pub fn reply(remote: &str, reply: &Reply) -> Self {
        let status = reply.enhanced().unwrap_or(match reply.code().severity() {
            Severity::Positive => const { code(2, 0, 0) },
            Severity::Intermediate | Severity::TransientNegative => const { code(4, 0, 0) },
            Severity::PermanentNegative => const { code(5, 0, 0) },
        });
        Self { remote: Some(remote.to_owned()), status, text: exact_words(reply), is_reply: true }
    }

    /// Makes the diagnostic of a route that refuses mail.
    pub(crate) fn refusal(refusal: &Refusal) -> Self {
        Self { remote: None, is_reply: false, ..Self::reply("", refusal.reply()) }
    }

    /// Makes the diagnostic of what the relay found. Without a status it is 4.0.0.
    pub fn own(status: Option<EnhancedCode>, text: impl fmt::Display) -> Self {
        let status = status.unwrap_or(const { code(4, 0, 0) });
        Self { remote: None, status, text: bounded(text.to_string()), is_reply: false }
    }

    /// The host that said it. `None`: none did. Agents and Unix sockets concern this machine alone.
    pub(crate) fn remote_host(&self) -> Option<&str> {
        self.remote.as_deref().filter(|remote| !remote.contains(':') || remote.starts_with('['))
    }

    /// Why the connection failed.
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

    /// Why the conversation ended early.
    pub(crate) fn lost(remote: &str, error: &dyn fmt::Display) -> Self {
        Self { remote: Some(remote.to_owned()), ..Self::own(EnhancedCode::new(4, 4, 2), error) }
    }

    /// Why the domain has no host.
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

/// The most octets of a diagnostic's text. A reply may have 16 KiB, and a thousand recipients may
/// have as many replies. The queue could not store all of those for one message, and its outcome
/// would be lost.
const MAX_TEXT: usize = 1_000;

/// The code and all lines of a reply as one line, without control characters.
fn exact_words(reply: &Reply) -> String {
    let mut text = reply.code().to_string();
    for line in reply.borrowed().lines().filter(|line| !line.is_empty()) {
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

/// At most `most` octets of a text. If it is cut, `...` follows.
pub(crate) fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let kept = text.get(..end).unwrap_or_default();
    Cow::Owned(format!("{}...", kept.strip_suffix("...").unwrap_or(kept)))
}
