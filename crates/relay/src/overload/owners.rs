//! How much each owner has sent lately: a user, or a network of clients without a login.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The weight of an owner: octets that were accepted lately, and 4 KiB for each message. Half of it
/// is forgotten every 10 seconds.
///
/// The table has a fixed size. An owner has a cell in each of two rows, chosen by a hash with a
/// secret of the process. Owners who share a cell add up in it, and the lesser cell counts: only an
/// owner who shares both with a heavy one seems heavy. So there is no list that clients could fill,
/// and no lock.
#[derive(Debug)]
pub(super) struct Owners {
    rows: [Box<[Cell]>; 2],
    hasher: RandomState,
    /// The sum of all weights, and the number of owners, when they were last [summed
    /// up](Self::sum).
    total: AtomicU32,
    count: AtomicU32,
}

#[derive(Debug, Default)]
struct Cell {
    /// The weight as `f32`, and the tick at which it was that.
    weight: AtomicU64,
    /// The tick since which its owners are known, plus 1. 0: they are not.
    known: AtomicU32,
}

/// An owner of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnerHash(u64);

/// How an owner compares with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// It has sent as much as the mean of all owners, or more.
    pub(super) is_above_mean: bool,
    /// It has sent more than twice the mean of the others.
    pub(super) is_heavy: bool,
    /// Its first message was accepted less than a minute ago, or none was within a day.
    pub(super) is_new: bool,
}

/// Cells of a row: 32 KiB of memory.
const CELLS: usize = 2_048;
/// What a message weighs beside its octets: it costs a commit and a delivery.
const MESSAGE: u64 = 4_096;
/// Ticks in a second, in which the table counts time.
const TICKS: u32 = 16;
/// Ticks in which half of a weight is forgotten.
const HALF: u32 = 10 * TICKS;
/// Ticks for which an owner is new after its first message.
const NEW: u32 = 60 * TICKS;
/// Ticks without a message after which an owner is no longer known.
const FORGOTTEN: u32 = 86_400 * TICKS;
/// Who weighs less than an eighth of a message does not count as one that sends.
const LEAST: f32 = 512.0;

impl Owners {
    pub(super) fn owner(&self, name: impl Hash) -> OwnerHash {
        OwnerHash(self.hasher.hash_one(name))
    }

    /// Counts an accepted message. `now` is the time since the relay was made.
    pub(super) fn add(&self, owner: OwnerHash, octets: u64, now: Duration) {
        let (now, weight) = (ticks(now), octets.saturating_add(MESSAGE));
        for cell in self.cells(owner) {
            let sum = |packed: u64| Some(pack(faded(packed, now) + weight as f32, now));
            let before = cell.weight.fetch_update(Relaxed, Relaxed, sum).unwrap_or_default();
            let is_forgotten = now.saturating_sub(unpack(before).1) > FORGOTTEN;
            if is_forgotten || cell.known.load(Relaxed) == 0 {
                cell.known.store(now.saturating_add(1), Relaxed);
            }
        }
    }

    /// Sums up all weights. It looks at every cell of a row.
    pub(super) fn sum(&self, now: Duration) {
        let now = ticks(now);
        let [row, _] = &self.rows;
        let weights = row.iter().map(|cell| faded(cell.weight.load(Relaxed), now)).filter(|weight| *weight >= LEAST);
        let (total, count) = weights.fold((0.0_f32, 0_u32), |(total, count), weight| (total + weight, count + 1));
        self.total.store(total.to_bits(), Relaxed);
        self.count.store(count, Relaxed);
    }

    /// How an owner compares with the others, as they were last summed up.
    pub(super) fn load(&self, owner: OwnerHash, now: Duration) -> Load {
        let now = ticks(now);
        let cells = self.cells(owner).map(|cell| {
            let packed = cell.weight.load(Relaxed);
            let known = cell.known.load(Relaxed).checked_sub(1);
            let is_known = now.saturating_sub(unpack(packed).1) <= FORGOTTEN;
            let is_new = known.filter(|_| is_known).is_none_or(|known| now.saturating_sub(known) < NEW);
            (faded(packed, now), is_new)
        });
        let (weight, is_new) =
            cells.fold((f32::MAX, false), |(least, new), (weight, is_new)| (least.min(weight), new || is_new));
        let (total, count) = (f32::from_bits(self.total.load(Relaxed)), self.count.load(Relaxed));
        let others = count.saturating_sub(1);
        let mean = total / count.max(1) as f32;
        let of_others = (total - weight).max(0.0) / others.max(1) as f32;
        Load {
            is_above_mean: weight >= LEAST && weight >= mean * ALMOST,
            is_heavy: others > 0 && weight >= LEAST && weight > 2.0 * of_others,
            is_new,
        }
    }

    fn cells(&self, owner: OwnerHash) -> impl Iterator<Item = &Cell> {
        let halves = [owner.0 as u32, (owner.0 >> 32) as u32];
        self.rows.iter().zip(halves).filter_map(|(row, half)| row.get(half as usize % CELLS))
    }
}

/// Weights fade between two sums. The only owner is at the mean all the same.
const ALMOST: f32 = 0.9;

impl Default for Owners {
    fn default() -> Self {
        let row = || (0..CELLS).map(|_| Cell::default()).collect();
        Self { rows: [row(), row()], hasher: RandomState::new(), total: AtomicU32::new(0), count: AtomicU32::new(0) }
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / (1_000 / u128::from(TICKS))).unwrap_or(u32::MAX)
}

fn pack(weight: f32, now: u32) -> u64 {
    (u64::from(weight.to_bits()) << 32) | u64::from(now)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// What is left of a weight.
fn faded(packed: u64, now: u32) -> f32 {
    let (weight, then) = unpack(packed);
    weight * (-(now.saturating_sub(then) as f32) / HALF as f32).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Adds messages of 1 KiB, sums up, and compares each owner.
    fn loads(sent: &[(&str, u64)], at: Duration) -> Vec<Load> {
        let owners = Owners::default();
        for (name, messages) in sent {
            (0..*messages).for_each(|_| owners.add(owners.owner(name), 1_024, Duration::ZERO));
        }
        owners.sum(at);
        sent.iter().map(|(name, _)| owners.load(owners.owner(name), at)).collect()
    }

    fn heavy(sent: &[(&str, u64)]) -> Vec<bool> {
        loads(sent, SECOND).iter().map(|load| load.is_heavy).collect()
    }

    #[test]
    fn the_heavy_send_more_than_twice_the_mean_of_the_others() {
        assert_eq!(heavy(&[("a", 1_000)]), [false], "there is no other");
        assert_eq!(heavy(&[("a", 100), ("b", 100)]), [false, false]);
        assert_eq!(heavy(&[("a", 190), ("b", 100)]), [false, false]);
        assert_eq!(heavy(&[("a", 210), ("b", 100)]), [true, false]);
        assert_eq!(heavy(&[("a", 1_000), ("b", 1), ("c", 2), ("d", 1)]), [true, false, false, false]);
        assert_eq!(heavy(&[("a", 0), ("b", 1)]), [false, false], "what sends nothing is no other");
    }

    #[test]
    fn a_share_as_large_as_the_mean_is_above_it() {
        let above = |sent| loads(sent, SECOND).iter().map(|load| load.is_above_mean).collect::<Vec<_>>();
        assert_eq!(above(&[("a", 5)]), [true], "the only one");
        assert_eq!(above(&[("a", 100), ("b", 1), ("c", 1)]), [true, false, false]);
        assert_eq!(above(&[("a", 0), ("b", 100)]), [false, true]);
    }

    #[test]
    fn octets_weigh_too() {
        let owners = Owners::default();
        let [few, many] = ["few", "many"].map(|name| owners.owner(name));
        owners.add(few, 10 << 20, Duration::ZERO);
        (0..20).for_each(|_| owners.add(many, 1_024, Duration::ZERO));
        owners.sum(Duration::ZERO);
        assert_eq!([few, many].map(|owner| owners.load(owner, Duration::ZERO).is_heavy), [true, false]);
    }

    #[test]
    fn weights_fade_and_an_owner_is_new_for_a_minute() {
        let owners = Owners::default();
        let owner = owners.owner("a");
        assert!(owners.load(owner, SECOND).is_new);
        owners.add(owner, 0, SECOND);
        for (at, weight) in [(1, 4_096.0), (11, 2_048.0), (21, 1_024.0), (31, 512.0)] {
            let left: Vec<_> = owners.cells(owner).map(|cell| faded(cell.weight.load(Relaxed), at * TICKS)).collect();
            assert_eq!(left, [weight; 2], "{at}");
        }
        assert!(owners.load(owner, 60 * SECOND).is_new);
        assert!(!owners.load(owner, 61 * SECOND).is_new);
        // A message within a day keeps it known.
        owners.add(owner, 0, 80_000 * SECOND);
        assert!(!owners.load(owner, 160_000 * SECOND).is_new);
        assert!(owners.load(owner, 167_000 * SECOND).is_new);
        owners.add(owner, 0, 167_000 * SECOND);
        assert!(owners.load(owner, 167_059 * SECOND).is_new);
        assert!(!owners.load(owner, 167_060 * SECOND).is_new);
    }

    #[test]
    fn many_light_owners_do_not_hide_a_heavy_one_nor_seem_heavy() {
        let owners = Owners::default();
        let names: Vec<_> = (0..1_000).map(|n| owners.owner(("light", n))).collect();
        names.iter().for_each(|owner| owners.add(*owner, 1_024, Duration::ZERO));
        let heavy = owners.owner("heavy");
        (0..10_000).for_each(|_| owners.add(heavy, 1_024, Duration::ZERO));
        owners.sum(Duration::ZERO);
        assert!(owners.load(heavy, Duration::ZERO).is_heavy);
        // The mean of all counts the heavy one: no light one comes near it.
        let above = names.iter().filter(|owner| owners.load(**owner, Duration::ZERO).is_above_mean).count();
        assert!(above <= 3, "{above} of 1,000 share both cells with the heavy one");
    }
}
