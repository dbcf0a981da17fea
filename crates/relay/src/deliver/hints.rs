//! Hints: classes that have just become due, told by those who made them so. The delivery loop
//! serves them at once, and need not look through all that is due. A part of each bound is for them
//! alone ([`Offer::part_of`](super::due::Offer)).

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use posthaste_queue::{DueClass, NewMessage, Summary};
use tokio::sync::Notify;

/// Hints that wait for the loop. Delivery is right without any of them: the loop also looks by
/// itself.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    classes: Mutex<VecDeque<DueClass>>,
    told: Notify,
}

/// The most hints that wait, of about 50 bytes beside their names. Beyond it hints are dropped, and
/// the next look finds what they were about.
const HINTS: usize = 4_096;

/// The classes of a new message that are due at once.
#[derive(Debug)]
pub(crate) struct Hint(Vec<DueClass>);

impl Hint {
    /// Call it before the message is handed to the queue, and [`Hints::add`] after it.
    pub(crate) fn of(message: &NewMessage) -> Self {
        let due = message.deliveries.iter().filter(|delivery| delivery.delay.is_zero()).take(HINTS);
        let class = |key| DueClass { key, priority: message.priority, owner: message.owner.clone() };
        Self(due.map(|delivery| class(delivery.key.clone())).collect())
    }
}

/// All classes of a message that an operator has made due.
impl From<&Summary> for Hint {
    fn from(message: &Summary) -> Self {
        let class = |key| DueClass { key, priority: message.priority, owner: message.owner.clone() };
        Self(message.deliveries.iter().take(HINTS).map(|delivery| class(delivery.key.clone())).collect())
    }
}

impl Hints {
    /// Adds the classes of a message that is in the queue now.
    pub(crate) fn add(&self, Hint(hint): Hint) {
        if hint.is_empty() {
            return;
        }
        let mut classes = self.classes();
        let room = HINTS.saturating_sub(classes.len());
        classes.extend(hint.into_iter().take(room));
        drop(classes);
        self.told.notify_one();
    }

    /// Waits for hints, and takes all of them. May be dropped: no hint is lost.
    pub(super) async fn next(&self) -> VecDeque<DueClass> {
        loop {
            let classes = std::mem::take(&mut *self.classes());
            if !classes.is_empty() {
                return classes;
            }
            self.told.notified().await;
        }
    }

    fn classes(&self) -> MutexGuard<'_, VecDeque<DueClass>> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use posthaste_queue::{NewDelivery, Owner, Priority, RoutingKey};

    use super::*;

    fn message(delays: &[u64]) -> NewMessage {
        let delivery = |(at, delay): (usize, &u64)| NewDelivery {
            key: RoutingKey::new(&format!("d{at}.test")).unwrap(),
            delay: Duration::from_secs(*delay),
            state: Bytes::new(),
        };
        let deliveries = delays.iter().enumerate().map(delivery).collect();
        NewMessage { owner: Owner::new("one").unwrap(), priority: Priority(3), envelope: Bytes::new(), deliveries }
    }

    #[tokio::test]
    async fn a_hint_names_what_is_due_at_once() {
        let hints = Hints::default();
        hints.add(Hint::of(&message(&[5])));
        hints.add(Hint::of(&message(&[0, 60, 0])));
        let classes = hints.next().await;
        let keys: Vec<_> = classes.iter().map(|class| class.key.as_str()).collect();
        assert_eq!(keys, ["d0.test", "d2.test"]);
        assert_eq!((classes[0].owner.as_str(), classes[0].priority), ("one", Priority(3)));
    }

    #[tokio::test]
    async fn hints_beyond_the_bound_are_dropped() {
        let hints = Hints::default();
        for _ in 0..3 {
            hints.add(Hint::of(&message(&[0; 3_000])));
        }
        assert_eq!(hints.next().await.len(), HINTS);
        hints.add(Hint::of(&message(&[0])));
        assert_eq!(hints.next().await.len(), 1);
    }
}
