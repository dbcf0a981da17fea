//! What the system lets this process have.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

use crate::config::Config;

/// Descriptors that a client may take: its connection, and the file of a large message.
const A_CLIENT: u64 = 2;
/// Descriptors that each delivery at once may take. It and three silent ones each race three
/// connections at most. Further, an unused connection, one that closes, a query to DNS, and the
/// file of a large message.
const A_DELIVERY: u64 = 16;
/// For each eight clients one more may be about to close, because a new one has taken its place.
const LEAVING: u64 = 8;
/// The queue's files with those in reserve, listeners, the control socket with its clients, clients
/// that are told that there is no room, and the runtime.
const FIXED: u64 = 224;

/// With less the relay may not even have room for one client.
const LEAST: u64 = 64;

/// Why the relay cannot run with these descriptors at all. `None`: it can.
pub(crate) fn obstacle(descriptors: Option<u64>) -> Option<String> {
    let allowed = descriptors.filter(|allowed| *allowed < LEAST)?;
    Some(format!(
        "{allowed} open files are allowed, too few for the queue and one client; allow {LEAST} at least, and 20000 for \
         many clients (LimitNOFILE= of systemd, ulimit -n)"
    ))
}

/// Raises the limit of descriptors as far as the system allows: connections in, connections out and
/// files all need them. Returns the limit; `None`: there is none.
pub(crate) fn raise_descriptors() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer descriptors the relay works too, for fewer connections.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

/// Lowers the configured numbers if there are too few descriptors. Clients beyond them get a 421,
/// and the relay refuses nothing else.
pub(crate) fn fit(config: &mut Config, descriptors: Option<u64>) {
    let (connections, concurrency) = (&mut config.server.connections, &mut config.relay.delivery.concurrency);
    let wanted = (*connections, *concurrency);
    let Some(needed) = shrink(connections, concurrency, descriptors.unwrap_or(u64::MAX)) else { return };
    warn!(
        descriptors,
        needed,
        connections = *connections,
        concurrency = *concurrency,
        "too few open files are allowed for limits.connections {} and delivery.concurrency {}, the relay runs with the lower numbers given here; allow more \
         (LimitNOFILE= of systemd, ulimit -n), or configure less",
        wanted.0,
        wanted.1,
    );
}

/// That the numbers of a configuration are too high for these descriptors, and what the relay would
/// run with. `None`: there are enough.
pub(crate) fn shortage(config: &Config, descriptors: Option<u64>) -> Option<String> {
    let wanted = (config.server.connections, config.relay.delivery.concurrency);
    let ((mut connections, mut concurrency), descriptors) = (wanted, descriptors?);
    let needed = shrink(&mut connections, &mut concurrency, descriptors)?;
    Some(format!(
        "{}: warning: limits.connections {} and delivery.concurrency {} need {needed} descriptors, and here {descriptors} \
         are allowed, for {connections} and {concurrency}; allow more (LimitNOFILE= of systemd, ulimit -n), or configure less",
        config.name, wanted.0, wanted.1,
    ))
}

/// The descriptors that this many clients and deliveries at once may take.
pub(crate) fn needed(connections: usize, concurrency: usize) -> u64 {
    let of = |count: usize, each: u64| u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(each);
    let clients = of(connections, A_CLIENT).saturating_add(of(connections, 1) / LEAVING);
    clients.saturating_add(of(concurrency, A_DELIVERY)).saturating_add(FIXED)
}

/// Lowers both numbers if there are too few descriptors. Returns how many they would have needed.
fn shrink(connections: &mut usize, concurrency: &mut usize, descriptors: u64) -> Option<u64> {
    let needed = needed(*connections, *concurrency);
    if needed <= descriptors {
        return None;
    }
    let rest = descriptors.saturating_sub(FIXED);
    // Deliveries get a third at most, and clients the rest.
    let deliveries = (rest / 3 / A_DELIVERY).max(1);
    *concurrency = usize::try_from(deliveries).unwrap_or(usize::MAX).min(*concurrency);
    let rest = descriptors.saturating_sub(self::needed(0, *concurrency));
    let clients = (rest.saturating_mul(LEAVING) / (A_CLIENT * LEAVING + 1)).max(1);
    *connections = usize::try_from(clients).unwrap_or(usize::MAX).min(*connections);
    Some(needed)
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_is_configured_fits_into_the_descriptors() {
        // Connections, deliveries, descriptors; connections and deliveries then.
        let rows = [
            (1_000, 200, 20_000, 1_000, 200),
            (1_000, 200, 5_549, 1_000, 200),
            (1_000, 200, 5_548, 1_000, 110),
            (1_000, 200, 1_024, 256, 16),
            (1_000, 5, 256, 7, 1),
            (1_000, 200, 64, 1, 1),
            (1, 1, 0, 1, 1),
        ];
        for (connections, concurrency, descriptors, fewer_connections, less_concurrency) in rows {
            let (mut now, mut at_once) = (connections, concurrency);
            let needed = shrink(&mut now, &mut at_once, descriptors);
            let context = format!("{connections} connections, {concurrency} deliveries, {descriptors} descriptors");
            assert_eq!((now, at_once), (fewer_connections, less_concurrency), "{context}: {needed:?}");
        }
    }
}
