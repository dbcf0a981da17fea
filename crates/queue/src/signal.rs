//! The count behind [`Queue::changed`](crate::Queue::changed).

use tokio::sync::watch;

use crate::{Change, Error};

/// Counts changes and wakes the callers that wait for a higher count.
///
/// No wake-up is lost: a waiter compares counts under the channel's own lock. A count raised before
/// that resolves the wait at once, and a count raised later wakes it.
#[derive(Debug)]
pub(crate) struct Signal {
    count: watch::Sender<State>,
}

#[derive(Debug, Clone)]
struct State {
    count: u64,
    ended: Option<Error>,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self { count: watch::Sender::new(State { count: 1, ended: None }) }
    }

    /// To be called after the work became claimable, never before.
    pub(crate) fn raise(&self) {
        self.count.send_modify(|state| state.count = state.count.wrapping_add(1));
    }

    /// Fails all waits, present and future, with this error. The first reason stays.
    pub(crate) fn end(&self, why: Error) {
        self.count.send_modify(|state| {
            state.ended.get_or_insert(why);
        });
    }

    pub(crate) async fn wait(&self, seen: Change) -> Result<Change, Error> {
        let mut watch = self.count.subscribe();
        // The sender lives in `self`, so the wait ends only by its condition.
        match watch.wait_for(|state| state.ended.is_some() || state.count != seen.0).await {
            Ok(state) => match &state.ended {
                Some(why) => Err(why.clone()),
                None => Ok(Change(state.count)),
            },
            Err(_) => Err(Error::Closed),
        }
    }
}
