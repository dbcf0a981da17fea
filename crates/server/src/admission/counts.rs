//! How many connections each network has.

use std::{collections::HashMap, net::IpAddr};

use crate::{Networks, ServerOptions};

/// The most connections: in all, of a network, and of a wider network.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) all: usize,
    network: Limit,
    prefix: Limit,
}

#[derive(Debug)]
struct Limit {
    most: usize,
    networks: Networks,
}

/// The networks that a client counts for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) network: IpAddr,
    prefix: IpAddr,
    /// How many times the usual number its networks may have.
    factor: usize,
}

/// The connections of each network that has some.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) by_network: HashMap<IpAddr, usize>,
    pub(super) by_prefix: HashMap<IpAddr, usize>,
}

/// How many times as many connections may come from loopback, where a proxy may run.
const LOOPBACK: usize = 10;

impl Limits {
    pub(super) const fn new(options: &ServerOptions) -> Self {
        Self {
            all: options.connections,
            network: Limit { most: options.connections_per_network, networks: options.networks },
            prefix: Limit { most: options.connections_per_prefix, networks: options.prefixes },
        }
    }

    pub(super) const fn counted(&self, address: IpAddr) -> Counted {
        let factor = if address.to_canonical().is_loopback() { LOOPBACK } else { 1 };
        Counted { network: self.network.networks.of(address), prefix: self.prefix.networks.of(address), factor }
    }
}

impl Counts {
    /// Counts a client.
    ///
    /// # Errors
    /// The limit that its networks have reached. It is not counted.
    pub(super) fn add(&mut self, counted: Counted, limits: &Limits) -> Result<(), &'static str> {
        let Counted { network, prefix, factor } = counted;
        let is_full = |counts: &HashMap<IpAddr, usize>, key, limit: &Limit| {
            counts.get(&key).copied().unwrap_or_default() >= limit.most.saturating_mul(factor)
        };
        if is_full(&self.by_network, network, &limits.network) {
            return Err("connections_per_network");
        }
        if is_full(&self.by_prefix, prefix, &limits.prefix) {
            return Err("connections_per_prefix");
        }
        *self.by_network.entry(network).or_default() += 1;
        *self.by_prefix.entry(prefix).or_default() += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, counted: Counted) {
        for (counts, key) in [(&mut self.by_network, counted.network), (&mut self.by_prefix, counted.prefix)] {
            if let Some(count) = counts.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        }
    }
}
