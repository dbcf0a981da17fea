//! The labels of queued mail, found again when the rules have changed.
//!
//! A sweep looks through the queue in the background, and asks the rules again with what is
//! recorded of each message. It alters only messages whose label differs. A relay whose rules give
//! labels makes one at its start, since a sweep may have been cut short, and one at each reload.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use posthaste_queue::{Alteration, Error, MessageId, Queue, RoutingKey, Search, Summary};
use posthaste_server::wire::ForwardPath;
use tokio::{sync::Notify, task::JoinSet};
use tracing::warn;

use crate::{
    Event, Facts, RouteTable,
    record::{Outside, Recipient, decode_recipients},
    rule::{is_pinned, key_parts, routing_key},
    shared::Shared,
};

/// How far the relay has come with the labels of queued mail, after its rules have changed: see
/// [`RouteTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Relabeling {
    /// A sweep through the queue is under way. The counts below are its own, and otherwise those of
    /// the last one.
    pub is_running: bool,
    /// Messages that it has looked at.
    pub seen: u64,
    /// Deliveries that follow another rule now.
    pub moved: u64,
    /// Deliveries whose recipients would follow different rules now. They stay together.
    pub together: u64,
}

/// Asks for sweeps, and keeps how far the last one has come.
#[derive(Debug, Default)]
pub(crate) struct Sweeps {
    wanted: Notify,
    state: Mutex<Relabeling>,
}

/// Messages that are looked at before others run, and alterations that are written at once.
const PAGE: usize = 64;
/// The wait for a queue that has stopped, and may go on.
const BROKEN: Duration = Duration::from_secs(5);

impl Sweeps {
    /// Asks for a sweep. One that runs begins again if the options have changed.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    pub(crate) fn state(&self) -> Relabeling {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Relabeling> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Q: Queue, R: Send + Sync + 'static> Shared<Q, R> {
    /// Makes a sweep at once, and whenever one is wanted, until the queue is closed.
    pub(crate) async fn relabel(self: Arc<Self>) {
        self.sweeps.want();
        loop {
            self.sweeps.wanted.notified().await;
            let swept = self.sweep().await;
            self.sweeps.lock().is_running = false;
            match swept {
                Ok(()) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    warn!(%error, "labels of queued mail not found again, queue not readable; trying again");
                    tokio::time::sleep(BROKEN).await;
                    self.sweeps.want();
                }
            }
        }
    }

    /// Looks through the queue. It ends early if the options change: then another is wanted.
    async fn sweep(self: &Arc<Self>) -> Result<(), Error> {
        let options = self.options();
        // What an application's routes know of queued mail is not recorded. A label that no rule
        // has gives way to the domain.
        if self.hooks.routes.is_some() || !self.hooks.gives_labels(&options) {
            return Ok(());
        }
        *self.sweeps.lock() = Relabeling { is_running: true, ..Relabeling::default() };
        let (search, mut after) = (Search::default(), None);
        loop {
            let page = self.queue.search(&search, after, PAGE).await?;
            let mut moves = Vec::new();
            {
                let mut state = self.sweeps.lock();
                for message in &page.messages {
                    // One whose record cannot be read is set aside when it is due.
                    let Some(found) = Moves::find(&options.routes, message) else { continue };
                    state.seen = state.seen.saturating_add(1);
                    state.together = state.together.saturating_add(found.together);
                    if !found.moves.is_empty() {
                        moves.push((message.id, found.moves));
                    }
                }
            }
            self.alter(moves).await?;
            if !self.is_current(&options) {
                return Ok(());
            }
            after = page.next;
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.sweeps.lock().is_running = false;
        let Relabeling { seen, moved, together, .. } = self.sweeps.state();
        self.observe(&Event::Relabeled { seen, moved, together });
        Ok(())
    }
}

impl<Q: Queue, R: Send + Sync + 'static> Shared<Q, R> {
    /// Alters the messages of a page, at once, so that the queue writes them together. What another
    /// caller has removed by now needs no label.
    async fn alter(self: &Arc<Self>, all: Vec<(MessageId, Vec<Move>)>) -> Result<(), Error> {
        let mut writes = JoinSet::new();
        for (message, moves) in all {
            let shared = Arc::clone(self);
            writes.spawn(async move {
                let mut moved = 0_u64;
                for Move { from, to } in moves {
                    match shared.queue.alter(message, Alteration::Reroute { from: Some(from), to }).await {
                        Ok(count) => moved = moved.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)),
                        Err(Error::NoSuchMessage(_)) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(moved)
            });
        }
        let mut result = Ok(());
        while let Some(written) = writes.join_next().await {
            match written {
                Ok(Ok(moved)) => {
                    let mut state = self.sweeps.lock();
                    state.moved = state.moved.saturating_add(moved);
                }
                Ok(Err(error)) => result = Err(error),
                Err(error) => warn!(%error, "label of a queued message not altered"),
            }
        }
        result
    }
}

/// All deliveries of one message with the key `from` get the key `to`.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    from: RoutingKey,
    to: RoutingKey,
}

/// What the rules say of one message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moves {
    /// In an order in which none takes up what another has moved.
    moves: Vec<Move>,
    /// Keys whose recipients have different labels now.
    together: u64,
}

impl Moves {
    /// `None`: its record cannot be read.
    fn find(routes: &RouteTable, message: &Summary) -> Option<Self> {
        let outside = Outside::decode(&message.envelope).ok()?;
        let mut keys: BTreeMap<&RoutingKey, Vec<Recipient>> = BTreeMap::new();
        // What an operator has decided stays.
        for delivery in message.deliveries.iter().filter(|delivery| !is_pinned(&delivery.key)) {
            let recipients = decode_recipients(&delivery.state).ok()?;
            keys.entry(&delivery.key).or_default().extend(recipients.into_iter().filter(Recipient::waits));
        }
        let mut all = Self::default();
        for (from, recipients) in keys {
            let (domain, kept) = key_parts(from);
            let found = recipients.iter().map(|recipient| {
                let facts = facts(&outside, &recipient.rcpt.forward_path);
                routes.label_again(domain, &facts, kept)
            });
            let found: Vec<_> = found.collect();
            let is_kept = found.is_empty() || found.iter().any(|label| label.map(|(_, label)| label.as_str()) == kept);
            // `None`, no rule, comes last.
            let first = found.iter().copied().min_by_key(|label| label.map_or(usize::MAX, |(place, _)| place));
            if found.windows(2).any(|pair| matches!(pair, [one, other] if one != other)) {
                all.together = all.together.saturating_add(1);
            }
            // A domain that leaves no room for the label stays where it is.
            if let (false, Some(label)) = (is_kept, first)
                && let Ok(to) = routing_key(domain, label.map(|(_, label)| label))
            {
                all.moves.push(Move { from: from.clone(), to });
            }
        }
        all.put_in_order();
        Some(all)
    }

    /// A move to a key comes after the one from that key. Moves in a circle are left out.
    fn put_in_order(&mut self) {
        let mut left = std::mem::take(&mut self.moves);
        loop {
            let is_free = |one: &Move| !left.iter().any(|other| other.from == one.to);
            let Some(at) = left.iter().position(is_free) else { break };
            self.moves.push(left.swap_remove(at));
        }
        self.together = self.together.saturating_add(u64::try_from(left.len()).unwrap_or(u64::MAX));
    }
}

/// What is recorded of a message and a recipient: neither the user nor the tag.
fn facts<'a>(outside: &'a Outside, recipient: &'a ForwardPath) -> Facts<'a> {
    let client = outside.received_from.as_deref().map(address);
    Facts { client, ..Facts::new(&outside.mail.reverse_path, recipient) }
}

/// The address of a client that is recorded as `client.example.org ([192.0.2.1])`. One without is
/// on a local socket.
fn address(client: &str) -> IpAddr {
    let literal = client.rsplit_once("([").and_then(|(_, rest)| rest.strip_suffix("])"));
    let literal = literal.map(|literal| literal.strip_prefix("IPv6:").unwrap_or(literal));
    literal.and_then(|literal| literal.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_client_is_read_from_its_record() {
        for (client, address_of) in [
            ("c.test ([192.0.2.1])", "192.0.2.1"),
            ("c.test ([IPv6:2001:db8::1])", "2001:db8::1"),
            ("[192.0.2.9] ([192.0.2.1])", "192.0.2.1"),
            ("([192.0.2.9]) ([192.0.2.1])", "192.0.2.1"),
            ("c.test (local)", "127.0.0.1"),
            ("c.test ([x])", "127.0.0.1"),
        ] {
            assert_eq!(address(client).to_string(), address_of, "{client}");
        }
    }

    #[test]
    fn a_move_waits_for_the_key_that_it_takes_and_a_circle_stays() {
        let key = |name: &str| RoutingKey::new(name).unwrap();
        let one = |from: &str, to: &str| Move { from: key(from), to: key(to) };
        let mut moves = Moves { moves: vec![one("a", "b"), one("b", "c"), one("c", "d")], together: 0 };
        moves.put_in_order();
        assert_eq!(moves, Moves { moves: vec![one("c", "d"), one("b", "c"), one("a", "b")], together: 0 });
        let mut moves = Moves { moves: vec![one("a", "b"), one("b", "a"), one("x", "y")], together: 0 };
        moves.put_in_order();
        assert_eq!(moves, Moves { moves: vec![one("x", "y")], together: 2 });
    }
}
