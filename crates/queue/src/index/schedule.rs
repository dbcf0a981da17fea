//! Which delivery goes next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};

use super::{Delivery, Moment, Phase, Slot};
use crate::{Keys, MessageId, Owner, Priority, RoutingKey};

/// The first of a set goes first.
type Rank = (Reverse<Priority>, Moment, Slot);

/// Invariant: a ready delivery is in `by_owner` and in `by_key`; no set and no map in them is empty.
#[derive(Default)]
pub(super) struct Schedule {
    future: BTreeSet<(Moment, Slot)>,
    leases: BTreeSet<(Moment, Slot)>,
    by_owner: BTreeMap<Owner, BTreeMap<Rank, RoutingKey>>,
    by_key: BTreeMap<RoutingKey, BTreeMap<Owner, BTreeSet<Rank>>>,
    claimable: u64,
    /// Whose turn it was last.
    turn: Option<Owner>,
}

impl Schedule {
    /// Every delivery begins in the future, also when that is over: the next `advance` makes it ready.
    pub(super) fn plan(&mut self, id: MessageId, delivery: &Delivery) -> Phase {
        self.future.insert((delivery.due, (id, delivery.number)));
        Phase::Future
    }

    pub(super) fn ready(&mut self, owner: &Owner, priority: Priority, id: MessageId, delivery: &Delivery) -> Phase {
        let rank = (Reverse(priority), delivery.due, (id, delivery.number));
        self.by_owner.entry(owner.clone()).or_default().insert(rank, delivery.key.clone());
        let owners = self.by_key.entry(delivery.key.clone()).or_default();
        owners.entry(owner.clone()).or_default().insert(rank);
        self.claimable = self.claimable.saturating_add(1);
        Phase::Ready
    }

    pub(super) fn lease(&mut self, until: Moment, slot: Slot) -> Phase {
        self.leases.insert((until, slot));
        Phase::Leased { until }
    }

    /// Takes a delivery out of wherever its phase says it is.
    pub(super) fn cancel(&mut self, owner: &Owner, priority: Priority, id: MessageId, delivery: &Delivery) {
        let slot = (id, delivery.number);
        match delivery.phase {
            Phase::Idle | Phase::Writing => {}
            Phase::Future => {
                self.future.remove(&(delivery.due, slot));
            }
            Phase::Ready => self.remove_ready(owner, &delivery.key, (Reverse(priority), delivery.due, slot)),
            Phase::Leased { until } => {
                self.leases.remove(&(until, slot));
            }
        }
    }

    pub(super) fn pop_due(&mut self, now: Moment) -> Option<Slot> {
        pop_until(&mut self.future, now)
    }

    pub(super) fn pop_expired(&mut self, now: Moment) -> Option<Slot> {
        pop_until(&mut self.leases, now)
    }

    pub(super) fn next_event(&self) -> Option<Moment> {
        let due = self.future.first().map(|(due, _)| *due);
        let expiry = self.leases.first().map(|(until, _)| *until);
        [due, expiry].into_iter().flatten().min()
    }

    /// The best delivery of the owner whose turn it is.
    pub(super) fn pop_ready(&mut self, keys: Keys<'_>) -> Option<Slot> {
        let found = match keys {
            Keys::Any => self.next_of_any(),
            Keys::Of(keys) => self.next_of(keys),
        };
        let (owner, key, rank) = found?;
        self.remove_ready(&owner, &key, rank);
        self.turn = Some(owner);
        Some(rank.2)
    }

    pub(super) fn ready_keys(&self, after: Option<&RoutingKey>, limit: usize) -> Vec<RoutingKey> {
        let start = after.map_or(Unbounded, Excluded);
        self.by_key.range::<RoutingKey, _>((start, Unbounded)).map(|(key, _)| key.clone()).take(limit).collect()
    }

    pub(super) fn claimable(&self) -> u64 {
        self.claimable
    }

    fn next_of_any(&self) -> Option<(Owner, RoutingKey, Rank)> {
        let behind = self.turn.as_ref().map_or(Unbounded, Excluded);
        let next = self.by_owner.range::<Owner, _>((behind, Unbounded)).next();
        let (owner, ranks) = next.or_else(|| self.by_owner.first_key_value())?;
        let (rank, key) = ranks.first_key_value()?;
        Some((owner.clone(), key.clone(), *rank))
    }

    fn next_of(&self, keys: &[RoutingKey]) -> Option<(Owner, RoutingKey, Rank)> {
        let behind = self.turn.as_ref().map_or(Unbounded, Excluded);
        // Owners behind the last turn come first, then the others; among one owner's the best rank of all keys.
        let mut best: Option<(bool, &Owner, Rank, &RoutingKey)> = None;
        for key in keys {
            let Some(owners) = self.by_key.get(key) else {
                continue;
            };
            let next = owners.range::<Owner, _>((behind, Unbounded)).next().map(|found| (false, found));
            let Some((wrapped, (owner, ranks))) = next.or_else(|| owners.first_key_value().map(|found| (true, found)))
            else {
                continue;
            };
            let Some(rank) = ranks.first() else { continue };
            let candidate = (wrapped, owner, *rank, key);
            if best.is_none_or(|best| candidate < best) {
                best = Some(candidate);
            }
        }
        best.map(|(_, owner, rank, key)| (owner.clone(), key.clone(), rank))
    }

    fn remove_ready(&mut self, owner: &Owner, key: &RoutingKey, rank: Rank) {
        let mut removed = false;
        if let Some(ranks) = self.by_owner.get_mut(owner) {
            removed = ranks.remove(&rank).is_some();
            if ranks.is_empty() {
                self.by_owner.remove(owner);
            }
        }
        if let Some(owners) = self.by_key.get_mut(key) {
            if let Some(ranks) = owners.get_mut(owner) {
                ranks.remove(&rank);
                if ranks.is_empty() {
                    owners.remove(owner);
                }
            }
            if owners.is_empty() {
                self.by_key.remove(key);
            }
        }
        self.claimable = self.claimable.saturating_sub(u64::from(removed));
    }
}

fn pop_until(set: &mut BTreeSet<(Moment, Slot)>, now: Moment) -> Option<Slot> {
    let (at, slot) = *set.first()?;
    if at > now {
        return None;
    }
    set.pop_first();
    Some(slot)
}
