//! The order of a message's first events: its acceptance comes before what its delivery tells.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use posthaste_queue::MessageId;
use tokio::sync::Notify;

/// Messages that are being committed, or are in the queue and not told of yet: one for each client
/// that waits for its reply. A worker may claim such a message before the task that took it goes
/// on.
#[derive(Debug, Default)]
pub(crate) struct Announcing {
    messages: Mutex<HashSet<MessageId>>,
    told: Notify,
}

/// A message that is not told of yet. Observe its acceptance, then drop this.
#[derive(Debug)]
pub(crate) struct Untold<'a> {
    all: &'a Announcing,
    message: MessageId,
}

impl Announcing {
    /// A message is about to be committed.
    pub(crate) fn begin(&self, message: MessageId) -> Untold<'_> {
        self.messages().insert(message);
        Untold { all: self, message }
    }

    /// Waits until a message that was claimed has been told of. Mostly it has been.
    pub(crate) async fn told(&self, message: MessageId) {
        loop {
            let mut told = pin!(self.told.notified());
            told.as_mut().enable();
            if !self.messages().contains(&message) {
                return;
            }
            told.await;
        }
    }

    fn messages(&self) -> MutexGuard<'_, HashSet<MessageId>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        self.all.messages().remove(&self.message);
        self.all.told.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claimed_message_waits_until_it_has_been_told_of() {
        let (all, message) = (Arc::new(Announcing::default()), MessageId::from_u64(7));
        all.told(message).await;
        let untold = all.begin(message);
        let waits = tokio::spawn({
            let all = Arc::clone(&all);
            async move { all.told(message).await }
        });
        all.told(MessageId::from_u64(8)).await;
        drop(all.begin(MessageId::from_u64(9)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waits.is_finished());
        drop(untold);
        waits.await.unwrap();
        assert!(all.messages().is_empty());
    }
}
