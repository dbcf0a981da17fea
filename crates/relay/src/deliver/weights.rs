//! The order of a route's hosts within their groups.

use std::sync::Arc;

use fastrand::Rng;
use posthaste_client::Target;

/// Hosts that share a group with others. Without such a host the order is that of the route.
#[derive(Debug, Default)]
pub(super) struct Weights(Vec<Weight>);

#[derive(Debug)]
pub(super) struct Weight {
    /// As its targets have it.
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) weight: u16,
}

impl Weights {
    pub(super) fn push(&mut self, weight: Weight) {
        self.0.push(weight);
    }

    /// Puts targets into the order of one attempt. In each group the hosts are drawn by weight, one
    /// after another. The addresses of a host stay together and in order.
    pub(super) fn order(&self, targets: &mut [Target], random: &mut Rng) {
        if self.0.is_empty() {
            return;
        }
        let drawn: Vec<u64> = self.0.iter().map(|host| host.draw(random)).collect();
        targets.sort_by_cached_key(|target| {
            let port = target.server.address().map_or(0, |address| address.port());
            let at = self.0.iter().position(|host| host.port == port && host.name == target.host);
            (target.preference, at.and_then(|at| drawn.get(at)).copied().unwrap_or_default(), at)
        });
    }
}

impl Weight {
    /// A number by which to sort: each of some hosts is first as often as its share of their weight
    /// (Efraimidis and Spirakis 2006).
    fn draw(&self, random: &mut Rng) -> u64 {
        match self.weight {
            // After all others.
            0 => u64::MAX,
            // Positive numbers are in the order of their bits.
            weight => (-random.f64().max(f64::MIN_POSITIVE).ln() / f64::from(weight)).max(0.0).to_bits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn target(name: &str, address: &str, preference: u16) -> Target {
        Target::new(name, address.parse::<SocketAddr>().unwrap(), preference)
    }

    fn weights(hosts: &[(&str, u16)]) -> Weights {
        Weights(hosts.iter().map(|(name, weight)| Weight { name: (*name).into(), port: 25, weight: *weight }).collect())
    }

    fn names(targets: &[Target]) -> Vec<&str> {
        targets.iter().map(|target| &*target.host).collect()
    }

    #[test]
    fn hosts_of_a_group_come_first_as_often_as_their_weights_say() {
        let mut random = Rng::with_seed(7);
        let weights = weights(&[("a", 3), ("b", 1), ("c", 0)]);
        let targets = ["c", "b", "a"].map(|name| target(name, "192.0.2.1:25", 0));
        let (mut first, mut last) = (0, 0);
        for _ in 0..10_000 {
            let mut targets = targets.clone();
            weights.order(&mut targets, &mut random);
            first += usize::from(&*targets[0].host == "a");
            last += usize::from(&*targets[2].host == "c");
        }
        assert!((7_300..7_700).contains(&first), "{first} of 10,000");
        assert_eq!(last, 10_000);
    }

    #[test]
    fn the_rest_of_a_group_is_drawn_by_weight_too() {
        let mut random = Rng::with_seed(7);
        let weights = weights(&[("a", 1_000), ("b", 3), ("c", 1)]);
        let targets = ["a", "b", "c"].map(|name| target(name, "192.0.2.1:25", 0));
        let mut second = 0;
        for _ in 0..10_000 {
            let mut targets = targets.clone();
            weights.order(&mut targets, &mut random);
            second += usize::from(names(&targets) == ["a", "b", "c"]);
        }
        assert!((7_200..7_700).contains(&second), "{second} of 10,000");
    }

    #[test]
    fn groups_stay_in_order_and_addresses_of_a_host_together() {
        let weights = weights(&[("a", 1), ("b", 1)]);
        let targets = [
            target("a", "192.0.2.1:25", 0),
            target("a", "192.0.2.2:25", 0),
            target("b", "192.0.2.3:25", 0),
            target("c", "192.0.2.4:25", 1),
            target("d", "192.0.2.5:25", 2),
        ];
        let mut random = Rng::with_seed(1);
        let mut orders = [0, 0];
        for _ in 0..200 {
            let mut drawn = targets.clone();
            weights.order(&mut drawn, &mut random);
            let is_first = names(&drawn) == ["a", "a", "b", "c", "d"];
            assert!(is_first || names(&drawn) == ["b", "a", "a", "c", "d"], "{drawn:?}");
            let a: Vec<_> = drawn.iter().filter(|target| &*target.host == "a").map(|target| &target.server).collect();
            assert_eq!(a, [&targets[0].server, &targets[1].server]);
            orders[usize::from(is_first)] += 1;
        }
        assert!(orders.iter().all(|count| *count > 50), "{orders:?}");
    }

    #[test]
    fn without_groups_the_order_is_that_of_the_route() {
        let targets = [target("b", "192.0.2.1:25", 1), target("a", "192.0.2.2:25", 0)];
        let mut drawn = targets.clone();
        Weights::default().order(&mut drawn, &mut Rng::with_seed(1));
        assert_eq!(names(&drawn), ["b", "a"]);
    }
}
