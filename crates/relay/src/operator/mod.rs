//! What an operator sees of queued mail, and what an operator does with it.

mod content;
mod destination;
mod filter;
mod message;

use std::time::Duration;

use posthaste_client::Resolver;
use posthaste_queue::{Alteration, Error, MessageId, Queue};

pub use content::QueuedContent;
pub use destination::{Destination, Destinations, Reason};
pub use filter::{MessageFilter, SenderPattern};
pub use message::{LastAttempt, QueuedMessage, QueuedRecipient, RecipientState};

use crate::{
    Event, Label, Relay,
    deliver::Hint,
    record::Outside,
    rule::{key_parts, pinned_key},
    shared::Shared,
};
use filter::Finder;

/// The hands of an operator: looks at queued mail, and changes it, while the relay runs. Get it
/// with [`Relay::operator`].
///
/// Everything is durable when a call returns. An attempt that is under way when its message is
/// changed goes on, and its outcome counts, unless the message was removed.
///
/// ```
/// # use posthaste_relay::{MessageFilter, Relay, RelayOptions, queue::{self, Queue}, client::Resolver};
/// /// Tries all mail again at once that was deferred with these words.
/// async fn retry<Q: Queue, R: Resolver>(relay: &Relay<Q, R>, words: &str) -> Result<(), queue::Error> {
///     let mut filter = MessageFilter::default();
///     filter.reply = Some(words.to_owned());
///     let (operator, mut after) = (relay.operator(), None);
///     loop {
///         let page = operator.find(&filter, after, 100).await?;
///         for message in page.messages {
///             println!("{}: {} recipients", message.id, message.recipients.len());
///             operator.retry(message.id).await?;
///         }
///         after = page.next;
///         if after.is_none() {
///             return Ok(());
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Operator<'r, Q, R> {
    shared: &'r Shared<Q, R>,
}

/// A part of what an operator's search finds.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct MessagePage {
    /// In the order in which they were accepted.
    pub messages: Vec<QueuedMessage>,
    /// The message after which to go on. `None`: this is the last page.
    pub next: Option<MessageId>,
}

impl<Q: Queue, R: Resolver> Relay<Q, R> {
    /// Looks at queued mail, and changes it.
    pub fn operator(&self) -> Operator<'_, Q, R> {
        Operator { shared: self.shared() }
    }
}

impl<Q: Queue, R: Send + Sync + 'static> Operator<'_, Q, R> {
    /// Looks through the queue from the message after `after` on. A page has `limit` messages at
    /// most, and may have fewer, or none, before the last one: see [`Queue::search`].
    ///
    /// # Errors
    /// The queue has stopped.
    pub async fn find(
        &self,
        filter: &MessageFilter,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<MessagePage, Error> {
        let finder = Finder::new(filter);
        let page = self.shared.queue.search(&finder.search, after, limit).await?;
        let messages = page.messages.iter().map(QueuedMessage::read).filter(|message| finder.finds(message));
        Ok(MessagePage { messages: messages.collect(), next: page.next })
    }

    /// One message.
    ///
    /// # Errors
    /// [`Error::NoSuchMessage`]: it is not in the queue, or no longer. The queue has stopped.
    pub async fn message(&self, id: MessageId) -> Result<QueuedMessage, Error> {
        Ok(QueuedMessage::read(&self.shared.queue.summary(id).await?))
    }

    /// The content of a message, as its next hop gets it. It can be read on after the message has
    /// left the queue.
    ///
    /// # Errors
    /// As [`message`](Self::message); [`Error::Damaged`], [`Error::Unreadable`].
    pub async fn content(&self, id: MessageId) -> Result<QueuedContent<Q::Body>, Error> {
        let summary = self.shared.queue.summary(id).await?;
        let front = Outside::decode(&summary.envelope).map(|outside| outside.front).unwrap_or_default();
        Ok(QueuedContent::new(front, self.shared.queue.body(id).await?))
    }

    /// Keeps a message from being tried until it is released. `false`: it was on hold already.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn hold(&self, id: MessageId) -> Result<bool, Error> {
        let has_changed = self.shared.queue.hold(id).await?;
        if has_changed {
            self.shared.observe(&Event::Held { message: id });
        }
        Ok(has_changed)
    }

    /// Ends a hold. `false`: it was not on hold.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn release(&self, id: MessageId) -> Result<bool, Error> {
        let has_changed = self.shared.queue.release(id).await?;
        if has_changed {
            self.shared.observe(&Event::Released { message: id });
        }
        Ok(has_changed)
    }

    /// Makes all recipients of a message due now, and returns the number of its deliveries. A hold
    /// stays, and so do the limits and the rest of its [site](Relay::sites).
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn retry(&self, id: MessageId) -> Result<usize, Error> {
        let now = Alteration::Reschedule { key: None, delay: Duration::ZERO };
        let summary = self.shared.queue.summary(id).await?;
        // Otherwise it would be deferred again without an attempt.
        self.shared.sites.try_again(summary.deliveries.iter().map(|delivery| &delivery.key));
        let count = self.shared.queue.alter(id, now).await?;
        // The loop need not find it by itself.
        self.shared.hints.add(Hint::from(&summary));
        Ok(count)
    }

    /// Gives a message the route of another [rule](crate::Rule), whatever the rule's conditions
    /// are, and returns the number of its deliveries that have changed. It keeps that route when
    /// the rules change; if there is no such rule any more, it takes the route of its domain.
    /// `None`: the route of its domain, until the rules change.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn reroute(&self, id: MessageId, rule: Option<&Label>) -> Result<usize, Error> {
        let summary = self.shared.queue.summary(id).await?;
        let mut keys: Vec<_> = summary.deliveries.iter().map(|delivery| &delivery.key).collect();
        keys.sort();
        keys.dedup();
        let mut count = 0_usize;
        for key in keys {
            // A domain that leaves no room for a label keeps its route.
            let Ok(to) = pinned_key(key_parts(key).0, rule) else { continue };
            if to != *key {
                let what = Alteration::Reroute { from: Some(key.clone()), to };
                count = count.saturating_add(self.shared.queue.alter(id, what).await?);
            }
        }
        Ok(count)
    }

    /// Removes a message. Its sender is not told.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn remove(&self, id: MessageId) -> Result<(), Error> {
        self.shared.queue.remove(id).await?;
        self.shared.observe(&Event::Removed { message: id });
        Ok(())
    }
}
