//! Remembers which servers failed lately, and what did not work with them.
//!
//! A server is an address with a port, whatever its names. The memory changes the order in which
//! servers are tried, and how the relay talks to them. It excludes no server: one that failed comes
//! last.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How long a server comes last after its first failure. The time doubles with each further
/// failure.
const SICK: Duration = Duration::from_secs(60);
/// The longest time for which failures put a server last.
const SICK_AT_MOST: Duration = Duration::from_secs(600);
/// How long a server whose time is over still comes last for all deliveries but one, the probe.
const PROBE: Duration = Duration::from_secs(30);
/// How long the relay uses no TLS with a server that broke TLS and took mail without it. So a
/// server that works again gets TLS again within an hour.
const NO_TLS: Duration = Duration::from_secs(3_600);
/// How long a server that broke CHUNKING gets its mail by DATA.
const NO_CHUNKING: Duration = Duration::from_secs(24 * 3_600);
/// The most servers that are remembered. Beyond it, the entries with the least time left are
/// forgotten at once. A stranger who names thousands of dead servers only makes the order of trying
/// worse.
const SERVERS: usize = 4_096;

/// The memory of servers.
#[derive(Debug, Default)]
pub(super) struct Health {
    servers: Mutex<HashMap<SocketAddr, Server>>,
    /// The number of servers that are remembered; 0 spares the lock.
    count: AtomicUsize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Server {
    failures: u32,
    sick_until: Option<Instant>,
    clear_until: Option<Instant>,
    whole_until: Option<Instant>,
}

impl Health {
    /// Returns `true` if the server failed lately. When its time is over, one caller gets `false`
    /// and probes it. The others get `false` after [`answered`](Self::answered).
    pub(super) fn is_sick(&self, server: SocketAddr) -> bool {
        if self.is_empty() {
            return false;
        }
        let (mut servers, now) = (self.servers(), Instant::now());
        let Some(Server { sick_until: Some(until), .. }) = servers.get_mut(&server) else { return false };
        if now < *until {
            return true;
        }
        *until = now + PROBE;
        false
    }

    /// Returns `true` if TLS broke with the server: leave it out where the policy permits.
    pub(super) fn breaks_tls(&self, server: SocketAddr) -> bool {
        self.remembers(server, |server| server.clear_until)
    }

    /// Returns `true` if CHUNKING broke with the server.
    pub(super) fn breaks_chunking(&self, server: SocketAddr) -> bool {
        self.remembers(server, |server| server.whole_until)
    }

    /// The server was unreachable or silent, broke off, or ended the session.
    pub(super) fn failed(&self, server: SocketAddr) {
        self.note(server, |server, now| {
            let wait = SICK.saturating_mul(1 << server.failures.min(8)).min(SICK_AT_MOST);
            server.failures = server.failures.saturating_add(1);
            server.sick_until = Some(now + wait);
        });
    }

    /// The server has answered a whole transaction.
    pub(super) fn answered(&self, server: SocketAddr) {
        if self.is_empty() {
            return;
        }
        let mut servers = self.servers();
        if let Some(known) = servers.get_mut(&server) {
            (known.failures, known.sick_until) = (0, None);
            if known.clear_until.is_none() && known.whole_until.is_none() {
                servers.remove(&server);
                self.count.store(servers.len(), Ordering::Relaxed);
            }
        }
    }

    /// TLS broke with the server, and a transaction without it was completed.
    pub(super) fn broke_tls(&self, server: SocketAddr) {
        self.note(server, |server, now| server.clear_until = Some(now + NO_TLS));
    }

    /// CHUNKING broke with the server.
    pub(super) fn broke_chunking(&self, server: SocketAddr) {
        self.note(server, |server, now| server.whole_until = Some(now + NO_CHUNKING));
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn remembers(&self, server: SocketAddr, until: impl Fn(&Server) -> Option<Instant>) -> bool {
        let known = || self.servers().get(&server).and_then(until);
        !self.is_empty() && known().is_some_and(|until| Instant::now() < until)
    }

    fn note(&self, server: SocketAddr, change: impl FnOnce(&mut Server, Instant)) {
        let (mut servers, now) = (self.servers(), Instant::now());
        if servers.len() >= SERVERS && !servers.contains_key(&server) {
            servers.retain(|_, known| known.last().is_some_and(|last| now < last));
            // Forgets half of them at once, so that few calls search all.
            if servers.len() >= SERVERS {
                let mut ends: Vec<_> = servers.values().filter_map(Server::last).collect();
                let (_, middle, _) = ends.select_nth_unstable(SERVERS / 2);
                let middle = *middle;
                servers.retain(|_, known| known.last().is_some_and(|last| middle < last));
            }
        }
        change(servers.entry(server).or_default(), now);
        self.count.store(servers.len(), Ordering::Relaxed);
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<SocketAddr, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// When the last entry loses its use. Failures count for a while longer: they lengthen the time
    /// of the next one.
    fn last(&self) -> Option<Instant> {
        let sick = self.sick_until.map(|until| until + SICK_AT_MOST);
        [sick, self.clear_until, self.whole_until].into_iter().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(last: u16) -> SocketAddr {
        ([192, 0, 2, 1], last).into()
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_failed_is_sick_for_longer_each_time_and_one_delivery_probes_it() {
        let (health, one) = (Health::default(), server(1));
        assert!(!health.is_sick(one));
        for seconds in [60, 120, 240, 480, 600, 600] {
            health.failed(one);
            pass(seconds - 1).await;
            assert!(health.is_sick(one), "{seconds}");
            pass(1).await;
            assert!(!health.is_sick(one), "{seconds}: one caller probes");
            assert!(health.is_sick(one), "{seconds}: the others wait for the probe");
        }
        health.answered(one);
        assert!(!health.is_sick(one) && health.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_ends_is_made_again() {
        let (health, one) = (Health::default(), server(1));
        health.failed(one);
        pass(60).await;
        assert!(!health.is_sick(one) && health.is_sick(one));
        pass(30).await;
        assert!(!health.is_sick(one) && health.is_sick(one));
    }

    #[tokio::test(start_paused = true)]
    async fn broken_tls_and_chunking_are_tried_again_after_their_time() {
        let (health, one) = (Health::default(), server(1));
        health.broke_tls(one);
        health.broke_chunking(one);
        health.answered(one);
        assert!(health.breaks_tls(one) && health.breaks_chunking(one) && !health.is_sick(one));
        assert!(!health.breaks_tls(server(2)) && !health.breaks_chunking(server(2)));
        pass(3_600).await;
        assert!(!health.breaks_tls(one) && health.breaks_chunking(one));
        pass(23 * 3_600).await;
        assert!(!health.breaks_chunking(one));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_servers_has_a_bound_and_forgets_the_oldest() {
        let health = Health::default();
        health.broke_chunking(server(0));
        for port in 1..=u16::MAX {
            health.failed(server(port));
            assert!(health.servers().len() <= SERVERS);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(health.breaks_chunking(server(0)), "its entry has more time left than the others");
        assert!(health.is_sick(server(u16::MAX)) && !health.is_sick(server(1)));
    }
}
