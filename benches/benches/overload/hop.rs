//! A next hop in this process, which takes messages at a pace and no faster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, accepted, handlers::cloned,
    session::ServerSettings,
};
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Clone, Default)]
pub(crate) struct Hop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How often each message was taken, by its number.
    taken: HashMap<u64, u32>,
    /// The time from one message to the next.
    pace: Duration,
    /// When the next message may be taken.
    next: Option<Instant>,
}

impl Hop {
    /// Starts a next hop with this time from one message to the next. Returns its port, too.
    pub(crate) async fn start(pace: Duration) -> (Self, u16) {
        let hop = Self::default();
        hop.pace(pace);
        let settings = ServerSettings::new("hop.test".parse().expect("a name"));
        let listener = Listener::bind("127.0.0.1:0", settings).await.expect("a port");
        let port = listener.local_address().expect("an address").port();
        tokio::spawn(Server::new(cloned(hop.clone())).listen(listener).serve());
        (hop, port)
    }

    pub(crate) fn pace(&self, pace: Duration) {
        self.with(|state| state.pace = pace);
    }

    /// How many messages it has taken.
    pub(crate) fn count(&self) -> usize {
        self.with(|state| state.taken.len())
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.with(|state| state.taken.contains_key(&number))
    }

    /// How many it has taken more than once.
    pub(crate) fn twice(&self) -> usize {
        self.with(|state| state.taken.values().filter(|&&times| times > 1).count())
    }

    /// The place of a message in the row of all.
    fn turn(&self) -> Option<Instant> {
        self.with(|state| {
            if state.pace.is_zero() {
                return None;
            }
            let turn = state.next.unwrap_or_else(Instant::now).max(Instant::now());
            state.next = Some(turn + state.pace);
            Some(turn)
        })
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handler for Hop {
    async fn message(&mut self, _: &Context, envelope: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        if let Some(turn) = self.turn() {
            sleep_until(turn).await;
        }
        let sender = envelope.mail.reverse_path.to_string();
        let number = sender.trim_start_matches("<m").split('@').next().and_then(|number| number.parse().ok());
        if let Some(number) = number {
            self.with(|state| *state.taken.entry(number).or_default() += 1);
        }
        Ok(accepted!("250 2.0.0 Taken"))
    }
}
