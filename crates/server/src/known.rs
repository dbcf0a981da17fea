//! The networks that have behaved well.

use std::{collections::HashSet, net::IpAddr};

/// The networks of clients that have logged in, or had a message accepted, while this server runs.
/// When all seats are taken, they get one before strangers.
///
/// It holds 16,384 networks at most. The half of them that was seen last is never forgotten.
#[derive(Debug, Default)]
pub(crate) struct Known {
    young: HashSet<IpAddr>,
    old: HashSet<IpAddr>,
}

/// Networks of one generation.
const GENERATION: usize = 8_192;

impl Known {
    /// Returns `true` if a network is known.
    pub(crate) fn contains(&mut self, network: IpAddr) -> bool {
        if self.young.contains(&network) {
            return true;
        }
        let known = self.old.contains(&network);
        if known {
            self.insert(network);
        }
        known
    }

    /// Adds a network.
    pub(crate) fn insert(&mut self, network: IpAddr) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(network);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_networks_seen_last_are_kept_and_the_number_is_bounded() {
        let network = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        let mut known = Known::default();
        assert!(!known.contains(network(1)));
        let all = u32::try_from(GENERATION).unwrap();
        for n in 0..5 * all {
            known.insert(network(n));
            assert!(known.young.len() + known.old.len() <= 2 * GENERATION);
            // One that comes again and again stays.
            assert!(n == 0 || known.contains(network(0)), "{n}");
        }
        assert!((4 * all..5 * all).all(|n| known.contains(network(n))));
        assert!(!known.contains(network(1)));
    }
}
