//! A map whose keys are forgotten at their time, with a bound.

use std::{collections::HashMap, hash::Hash};

use tokio::time::Instant;

/// Values until their time. Beyond the bound, the quarter whose time comes first goes at once. So
/// an insertion into a full map looks at some four entries on average, and not at all of them.
#[derive(Debug)]
pub(crate) struct Expiring<K, V = ()> {
    most: usize,
    entries: HashMap<K, (Instant, V)>,
}

impl<K: Eq + Hash, V> Expiring<K, V> {
    /// An empty map of at most `most` entries.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new() }
    }

    /// The value of a key and its time, if that is still to come.
    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<(Instant, &V)> {
        self.entries.get(key).filter(|(until, _)| *until > now).map(|(until, value)| (*until, value))
    }

    /// Sets the value of a key until a time.
    pub(crate) fn insert(&mut self, key: K, value: V, until: Instant, now: Instant) {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        self.entries.insert(key, (until, value));
    }

    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, (until, _)| *until > now);
        let kept = self.most - self.most.div_ceil(4);
        let Some(mut goes) = self.entries.len().checked_sub(kept).filter(|goes| *goes > 0) else { return };
        let mut ends: Vec<_> = self.entries.values().map(|(until, _)| *until).collect();
        let (_, last_to_go, _) = ends.select_nth_unstable(goes - 1);
        let last_to_go = *last_to_go;
        self.entries.retain(|_, (until, _)| {
            let stays = *until > last_to_go || goes == 0;
            goes -= usize::from(!stays);
            stays
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_key_is_forgotten_at_its_time() {
        let mut map = Expiring::new(10);
        let now = Instant::now();
        map.insert("a", 1, now + SECOND, now);
        assert_eq!(map.get(&"a", now), Some((now + SECOND, &1)));
        assert_eq!(map.get(&"a", now + SECOND), None);
        map.insert("a", 2, now + 2 * SECOND, now);
        assert_eq!(map.get(&"a", now + SECOND), Some((now + 2 * SECOND, &2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_map_forgets_the_quarter_whose_time_comes_first() {
        for most in [1, 2, 3, 4, 100] {
            let mut map = Expiring::new(most);
            let now = Instant::now();
            for n in 0..u32::try_from(most).unwrap() {
                map.insert(n, (), now + SECOND * (1 + (n * 7) % 100), now);
            }
            assert_eq!(map.len(), most);
            map.insert(1_000, (), now + 200 * SECOND, now);
            assert_eq!(map.len(), most - most.div_ceil(4) + 1, "{most}");
            assert!(map.get(&1_000, now).is_some());
            if most == 100 {
                let ends: Vec<_> = map.entries.values().map(|(until, ())| *until).collect();
                assert!(ends.iter().all(|until| *until > now + 25 * SECOND));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_with_one_time_and_expired_ones_make_room_too() {
        let mut map = Expiring::new(8);
        let now = Instant::now();
        (0..8).for_each(|n| map.insert(n, (), now + SECOND, now));
        map.insert(8, (), now + SECOND, now);
        assert_eq!(map.len(), 7);
        map.insert(9, (), now + 9 * SECOND, now);
        // All but one are over.
        map.insert(10, (), now + 9 * SECOND, now + 2 * SECOND);
        assert_eq!(map.len(), 2);
        // A key that is there needs no room.
        map.insert(10, (), now + 9 * SECOND, now);
        assert_eq!(map.len(), 2);
    }
}
