//! What a client remembers of servers: which failed lately, and what did not work with them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{Server, Stage, Target};

/// How long a server comes last after its first failure. The time doubles with each further
/// failure.
const SICK: Duration = Duration::from_secs(60);
/// The longest time for which failures put a server last.
const SICK_AT_MOST: Duration = Duration::from_secs(600);
/// How long a server whose time is over still comes last for all deliveries but one, the probe.
const PROBE: Duration = Duration::from_secs(30);
/// How long no TLS is used with a server that broke TLS and took mail without it. So a server that
/// works again gets TLS again within an hour.
const NO_TLS: Duration = Duration::from_secs(3_600);
/// How long a server that broke CHUNKING gets its mail by DATA.
const NO_CHUNKING: Duration = Duration::from_secs(24 * 3_600);
/// How long a server that got confused by a batch gets one transaction at a time.
const NO_BATCHES: Duration = Duration::from_secs(24 * 3_600);
/// How long it counts that a server was slow.
const SLOW: Duration = Duration::from_secs(3_600);
/// The most connections that have lost a race and may still become ready.
const LINGERING: usize = 64;
/// The most servers that are remembered.
const SERVERS: usize = 4_096;

/// A memory of servers, which its clones share. A server is an address with a port, whatever its
/// names. Behind a proxy that resolves names it is a name with a port.
///
/// It changes the order in which servers are tried, and how the client talks to them. It excludes
/// no server: one that failed comes last.
///
/// | what happened | what follows | for how long |
/// |---|---|---|
/// | unreachable, silent, broke off, or ended the session | the server comes last | 60 s, doubled with each further failure in a row, 600 s at most; then one delivery probes it |
/// | refused a whole message for now, for a reason of its own: with 4yz to MAIL, unless for the sender's address (4.1.z), or with 4.3.z | the same | 60 s |
/// | TLS broke, and a transaction without it was completed | no TLS, where the policy permits | 1 h, or until the server asks for TLS |
/// | BDAT failed | content goes by DATA | 24 h |
/// | it got confused by messages that were sent before the replies to others | one transaction at a time | 24 h |
/// | ready after a longer time than its head start | the next server starts later | 1 h |
///
/// It holds 4,096 servers at most. Beyond that, the entries with the least time left are forgotten:
/// a stranger who names thousands of dead servers makes only the order worse.
#[derive(Debug, Clone)]
pub struct Health {
    memory: Arc<Memory>,
    /// How long a server comes last after its first failure, and at most.
    first: Duration,
    most: Duration,
}

#[derive(Debug)]
struct Memory {
    servers: Mutex<HashMap<Server, Entry>>,
    /// The number of servers that are remembered; 0 spares the lock.
    count: AtomicUsize,
    /// Permits for connections that have lost a race and may still become ready.
    lingering: Arc<Semaphore>,
}

impl Default for Health {
    fn default() -> Self {
        Self { memory: Arc::default(), first: SICK, most: SICK_AT_MOST }
    }
}

impl Default for Memory {
    fn default() -> Self {
        let lingering = Arc::new(Semaphore::new(LINGERING));
        Self { servers: Mutex::default(), count: AtomicUsize::default(), lingering }
    }
}

#[derive(Debug, Clone, Default)]
struct Entry {
    host: String,
    failures: u32,
    last_failure: Option<(Instant, Stage)>,
    sick_until: Option<Instant>,
    clear: Option<(Instant, Arc<str>)>,
    whole_until: Option<Instant>,
    single_until: Option<Instant>,
    slow: Option<(Instant, Duration)>,
}

/// What is remembered of one server. Times that are over are zero.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerHealth {
    /// Where it is: its address and port, in general.
    pub server: Server,
    /// The name of a host that had this address. Empty: none is known.
    pub host: String,
    /// Failures in a row.
    pub failures: u32,
    /// The stage of the last failure, and how long it is ago. `None`: it has not failed.
    pub last_failure: Option<(Stage, Duration)>,
    /// For how long it still comes last.
    pub last_for: Duration,
    /// For how long it still gets no TLS, where the policy permits.
    pub no_tls_for: Duration,
    /// For how long it still gets content by DATA.
    pub no_chunking_for: Duration,
    /// For how long it still gets one transaction at a time.
    pub no_batches_for: Duration,
    /// How long it took until a connection was ready. Zero: not longer than the head start.
    pub ready_after: Duration,
}

impl Health {
    /// The same memory for servers that come last for other times than 60 to 600 s: `first` after a
    /// failure, doubled with each further one, and `most` at most. It is for hosts that the
    /// application has chosen, which it wants back soon. A probe costs one delivery a moment.
    pub fn with_times(&self, first: Duration, most: Duration) -> Self {
        Self { memory: Arc::clone(&self.memory), first, most: most.max(first) }
    }

    /// What is remembered, in no order.
    pub fn servers(&self) -> Vec<ServerHealth> {
        let now = Instant::now();
        let left = |until: Option<Instant>| until.map(|until| until.saturating_duration_since(now)).unwrap_or_default();
        let seen = |(server, entry): (&Server, &Entry)| ServerHealth {
            server: server.clone(),
            host: entry.host.clone(),
            failures: entry.failures,
            last_failure: entry.last_failure.map(|(at, stage)| (stage, now.saturating_duration_since(at))),
            last_for: left(entry.sick_until),
            no_tls_for: left(entry.clear_until()),
            no_chunking_for: left(entry.whole_until),
            no_batches_for: left(entry.single_until),
            ready_after: entry.slow.filter(|(until, _)| now < *until).map(|(_, took)| took).unwrap_or_default(),
        };
        self.lock().iter().map(seen).collect()
    }

    /// Returns `true` if the server failed lately. When its time is over, one caller gets `false`
    /// and probes it. The others get `false` after [`answered`](Self::answered).
    pub fn is_sick(&self, server: &Server) -> bool {
        if self.is_empty() {
            return false;
        }
        let (mut servers, now) = (self.lock(), Instant::now());
        let Some(Entry { sick_until: Some(until), .. }) = servers.get_mut(server) else { return false };
        if now < *until {
            return true;
        }
        *until = now + PROBE.min(self.most);
        false
    }

    /// Returns `true` if the server has not failed lately. It takes no probe from others, as
    /// [`is_sick`](Self::is_sick) does.
    pub fn is_well(&self, server: &Server) -> bool {
        !self.remembers(server, |entry| entry.sick_until)
    }

    /// Returns `true` if TLS broke with the server: leave it out where the policy permits.
    pub fn breaks_tls(&self, server: &Server) -> bool {
        self.remembers(server, Entry::clear_until)
    }

    /// Why TLS broke with the server. `None`: it is to be tried.
    pub(crate) fn tls_failure(&self, server: &Server) -> Option<Arc<str>> {
        let known = || self.lock().get(server).and_then(|entry| entry.clear.clone());
        let (until, why) = if self.is_empty() { None } else { known() }?;
        (Instant::now() < until).then_some(why)
    }

    /// Returns `true` if CHUNKING broke with the server.
    pub fn breaks_chunking(&self, server: &Server) -> bool {
        self.remembers(server, |entry| entry.whole_until)
    }

    /// Returns `true` if the server got confused by messages that were sent before the replies to
    /// others.
    pub fn breaks_batches(&self, server: &Server) -> bool {
        self.remembers(server, |entry| entry.single_until)
    }

    /// How long the server took lately until a connection was ready. Zero: not longer than its head
    /// start.
    pub(crate) fn ready_after(&self, server: &Server) -> Duration {
        if self.is_empty() {
            return Duration::ZERO;
        }
        let slow = self.lock().get(server).and_then(|entry| entry.slow);
        slow.filter(|(until, _)| Instant::now() < *until).map(|(_, took)| took).unwrap_or_default()
    }

    /// The server, as an address of this host, was unreachable or silent, broke off, or ended the
    /// session.
    pub fn failed(&self, server: &Server, host: &str, stage: Stage) {
        self.note(server, |entry, now| {
            let wait = self.first.saturating_mul(1 << entry.failures.min(8)).min(self.most);
            entry.failures = entry.failures.saturating_add(1);
            entry.sick_until = Some(now + wait);
            entry.last_failure = Some((now, stage));
            host.clone_into(&mut entry.host);
        });
    }

    /// The server has answered a whole transaction. `is_refusal`: it takes no mail now.
    pub(crate) fn settled(&self, target: &Target, is_refusal: bool) {
        match is_refusal {
            true => self.refused(&target.server, &target.host),
            false => self.answered(&target.server),
        }
    }

    fn refused(&self, server: &Server, host: &str) {
        self.note(server, |entry, now| {
            entry.failures = 1;
            entry.sick_until = Some(now + self.first);
            entry.last_failure = Some((now, Stage::Transaction));
            host.clone_into(&mut entry.host);
        });
    }

    /// The server has answered a whole transaction.
    pub fn answered(&self, server: &Server) {
        self.change(server, |entry| (entry.failures, entry.sick_until, entry.last_failure) = (0, None, None));
    }

    /// TLS broke with the server for this reason, and a transaction without it was completed.
    pub fn broke_tls(&self, server: &Server, why: impl Into<Arc<str>>) {
        let why = why.into();
        self.note(server, |entry, now| entry.clear = Some((now + NO_TLS, why)));
    }

    /// The server asks for TLS, so it is tried again.
    pub fn needs_tls(&self, server: &Server) {
        self.change(server, |entry| entry.clear = None);
    }

    /// CHUNKING broke with the server.
    pub fn broke_chunking(&self, server: &Server) {
        self.note(server, |entry, now| entry.whole_until = Some(now + NO_CHUNKING));
    }

    /// The server got confused by messages that were sent before the replies to others.
    pub fn broke_batch(&self, server: &Server) {
        self.note(server, |entry, now| entry.single_until = Some(now + NO_BATCHES));
    }

    /// A connection was ready after this time. It is remembered if it is longer than the usual head
    /// start.
    pub(crate) fn was_ready(&self, server: &Server, took: Duration, usual: Duration) {
        if usual < took {
            self.note(server, |entry, now| entry.slow = Some((now + SLOW, took)));
        } else {
            self.change(server, |entry| entry.slow = None);
        }
    }

    /// An overtaken server, which counts as failed, has become ready.
    pub(crate) fn recovered(&self, server: &Server) {
        self.change(server, |entry| {
            entry.failures = entry.failures.saturating_sub(1);
            if entry.failures == 0 {
                (entry.sick_until, entry.last_failure) = (None, None);
            }
        });
    }

    /// A permit to go on with a connection that has lost a race. `None`: too many do.
    pub(crate) fn linger(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.memory.lingering).try_acquire_owned().ok()
    }

    fn is_empty(&self) -> bool {
        self.memory.count.load(Ordering::Relaxed) == 0
    }

    fn remembers(&self, server: &Server, until: impl Fn(&Entry) -> Option<Instant>) -> bool {
        let known = || self.lock().get(server).and_then(until);
        !self.is_empty() && known().is_some_and(|until| Instant::now() < until)
    }

    /// Changes what is known of a server, and forgets it if nothing is left.
    fn change(&self, server: &Server, change: impl FnOnce(&mut Entry)) {
        if self.is_empty() {
            return;
        }
        let mut servers = self.lock();
        if let Some(entry) = servers.get_mut(server) {
            change(entry);
            if entry.last().is_none() {
                servers.remove(server);
                self.memory.count.store(servers.len(), Ordering::Relaxed);
            }
        }
    }

    fn note(&self, server: &Server, change: impl FnOnce(&mut Entry, Instant)) {
        let (mut servers, now) = (self.lock(), Instant::now());
        if servers.len() >= SERVERS && !servers.contains_key(server) {
            servers.retain(|_, known| known.last().is_some_and(|last| now < last));
            // Forgets half of them at once, so that few calls search all.
            if servers.len() >= SERVERS {
                let mut ends: Vec<_> = servers.values().filter_map(Entry::last).collect();
                let (_, middle, _) = ends.select_nth_unstable(SERVERS / 2);
                let middle = *middle;
                servers.retain(|_, known| known.last().is_some_and(|last| middle < last));
            }
        }
        change(servers.entry(server.clone()).or_default(), now);
        self.memory.count.store(servers.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Server, Entry>> {
        self.memory.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn clear_until(&self) -> Option<Instant> {
        self.clear.as_ref().map(|(until, _)| *until)
    }

    /// When the last part of it loses its use. Failures count for a while longer: they lengthen the
    /// time of the next one.
    fn last(&self) -> Option<Instant> {
        let sick = self.sick_until.map(|until| until + SICK_AT_MOST);
        let slow = self.slow.map(|(until, _)| until);
        [sick, self.clear_until(), self.whole_until, self.single_until, slow].into_iter().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn server(last: u16) -> Server {
        SocketAddr::from(([192, 0, 2, 1], last)).into()
    }

    fn fail(health: &Health, server: &Server) {
        health.failed(server, "mx.test", Stage::Greeting);
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_failed_is_sick_for_longer_each_time_and_one_delivery_probes_it() {
        let (health, one) = (Health::default(), server(1));
        assert!(!health.is_sick(&one));
        for seconds in [60, 120, 240, 480, 600, 600] {
            fail(&health, &one);
            pass(seconds - 1).await;
            assert!(health.is_sick(&one), "{seconds}");
            pass(1).await;
            assert!(!health.is_sick(&one), "{seconds}: one caller probes");
            assert!(health.is_sick(&one), "{seconds}: the others wait for the probe");
        }
        health.answered(&one);
        assert!(!health.is_sick(&one) && health.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_the_application_has_chosen_is_wanted_back_sooner() {
        let (health, one) = (Health::default(), server(1));
        let soon = health.with_times(Duration::from_secs(5), Duration::from_secs(15));
        for seconds in [5, 10, 15, 15] {
            fail(&soon, &one);
            assert_eq!(health.servers()[0].last_for, Duration::from_secs(seconds), "one memory");
            pass(seconds).await;
            assert!(!soon.is_sick(&one), "{seconds}: one caller probes");
            pass(14).await;
            assert!(soon.is_sick(&one));
            pass(1).await;
            assert!(!soon.is_sick(&one), "{seconds}: a probe that never ends is made again");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_comes_last_for_the_same_time_each_time() {
        let (health, one) = (Health::default(), server(1));
        for _ in 0..5 {
            health.refused(&one, "mx.test");
            pass(59).await;
            assert!(health.is_sick(&one));
            pass(1).await;
            assert!(!health.is_sick(&one));
        }
        health.answered(&one);
        assert!(health.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_ends_is_made_again() {
        let (health, one) = (Health::default(), server(1));
        fail(&health, &one);
        assert!(!health.is_well(&one));
        pass(60).await;
        // A look at it takes no probe.
        assert!(health.is_well(&one) && health.is_well(&one));
        assert!(!health.is_sick(&one) && health.is_sick(&one) && !health.is_well(&one));
        pass(30).await;
        assert!(!health.is_sick(&one) && health.is_sick(&one));
    }

    #[tokio::test(start_paused = true)]
    async fn what_broke_is_tried_again_after_its_time() {
        let (health, one) = (Health::default(), server(1));
        health.broke_tls(&one, "the handshake failed");
        health.broke_chunking(&one);
        health.broke_batch(&one);
        health.answered(&one);
        let broken = |one: &Server| (health.breaks_tls(one), health.breaks_chunking(one), health.breaks_batches(one));
        assert_eq!((broken(&one), health.is_sick(&one)), ((true, true, true), false));
        assert_eq!(broken(&server(2)), (false, false, false));
        pass(3_600).await;
        assert_eq!(broken(&one), (false, true, true));
        health.broke_tls(&one, "the handshake failed");
        assert_eq!(health.tls_failure(&one).as_deref(), Some("the handshake failed"));
        health.needs_tls(&one);
        assert_eq!((broken(&one), health.tls_failure(&one)), ((false, true, true), None));
        pass(23 * 3_600).await;
        assert_eq!(broken(&one), (false, false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_can_be_read() {
        let (health, one) = (Health::default(), server(1));
        fail(&health, &one);
        fail(&health.clone(), &one);
        health.broke_tls(&one, "the handshake failed");
        health.was_ready(&one, Duration::from_secs(3), Duration::from_secs(1));
        pass(20).await;
        let known = health.servers().pop().unwrap();
        assert_eq!((known.server, known.host.as_str(), known.failures), (one, "mx.test", 2));
        assert_eq!(known.last_failure, Some((Stage::Greeting, Duration::from_secs(20))));
        assert_eq!((known.last_for, known.no_tls_for), (Duration::from_secs(100), Duration::from_secs(3_580)));
        assert_eq!((known.no_chunking_for, known.ready_after), (Duration::ZERO, Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_servers_has_a_bound_and_forgets_the_oldest() {
        let health = Health::default();
        health.broke_chunking(&server(0));
        for port in 1..=u16::MAX {
            fail(&health, &server(port));
            assert!(health.lock().len() <= SERVERS);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(health.breaks_chunking(&server(0)), "its entry has more time left than the others");
        assert!(health.is_sick(&server(u16::MAX)) && !health.is_sick(&server(1)));
    }
}
