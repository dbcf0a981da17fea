//! Races servers: the first one with which a transaction can begin wins.
//!
//! RFC 8305 races addresses to the end of the TCP handshake. A mail server may get that far and
//! then be silent, in the greeting, after EHLO or in TLS. So this race ends later: when the server
//! is *ready*, after greeting, EHLO, TLS and login.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};

use crate::{Client, ClientOptions, ConnectError, Dial, Endpoint, Stage, Tls, client::Remote};

/// The most connections of one race that are under way at once.
const AT_ONCE: usize = 3;
/// How long a server may take until it is ready while another waits for its place. It is longer
/// than the few seconds by which servers delay a greeting to expose impatient clients.
const GIVE_UP: Duration = Duration::from_secs(8);
/// How long an overtaken server may still show that it is only slow.
const LINGER: Duration = Duration::from_secs(10);
/// How long the end of a connection may take that began after the one that won.
const GOODBYE: Duration = Duration::from_secs(1);
/// The longest head start, for a server that is known to be slow.
const HEAD_START_AT_MOST: Duration = Duration::from_secs(10);

/// A server to be tried: an address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host, for which a certificate must be valid.
    pub host: Arc<str>,
    /// Its address and port.
    pub server: SocketAddr,
    /// The preference of the host, such as that of its MX record: lower values come first.
    pub preference: u16,
}

impl Target {
    /// The addresses of a server.
    pub(crate) fn all(server: &Endpoint, addresses: &[IpAddr], preference: u16) -> Vec<Self> {
        let (host, port) = (Arc::<str>::from(server.host()), server.port());
        let target =
            |address: &IpAddr| Self { host: Arc::clone(&host), server: SocketAddr::new(*address, port), preference };
        addresses.iter().map(target).collect()
    }
}

/// Connects to servers, one after another, and to the next one before the last has failed.
///
/// Servers are tried in their order, with those that failed lately ([`Health`](crate::Health)) at
/// the end. The next server is tried as soon as one fails, or after a head start:
/// [`ClientOptions::head_start`], and twice that between two preferences. A server that is known to
/// take longer has a longer head start, of 10 s at most. At most 3 connections are under way at
/// once. If all 3 are silent and another server waits, the first of them is given up after 8 s.
///
/// A connection that loses is closed without MAIL. If it began after the one that won, it has 1 s
/// to become ready, for QUIT. If it began before, its server has failed, and comes last from now
/// on. Unless it becomes ready within 10 s: then it is only slow.
///
/// A task of tokio waits for each of these ends.
pub struct Race<'t, D: Dial> {
    targets: &'t [Target],
    dial: D,
    options: Arc<ClientOptions>,
    /// Targets that are still to be tried.
    waiting: VecDeque<usize>,
    /// The oldest comes first.
    running: Vec<Running<D::Stream>>,
    failed: Vec<(usize, ConnectError)>,
    /// When the next target may be tried although others run.
    next_at: Instant,
}

/// A connection on its way to its first transaction.
struct Running<S> {
    target: usize,
    begun: Instant,
    ready: Ready<S>,
}

type Ready<S> = Pin<Box<dyn Future<Output = Result<Client<S>, ConnectError>> + Send>>;

impl<'t, D: Dial> Race<'t, D> {
    /// Makes a race between these servers, which nothing has begun yet.
    pub fn new(targets: &'t [Target], dial: D, options: Arc<ClientOptions>) -> Self {
        let mut order: Vec<_> = (0..targets.len()).collect();
        if order.len() > 1 {
            let is_sick = |target: &Target| options.health.is_sick(target.server);
            order.sort_by_cached_key(|index| targets.get(*index).is_some_and(is_sick));
        }
        let (running, failed) = (Vec::new(), Vec::new());
        Self { targets, dial, options, waiting: order.into(), running, failed, next_at: Instant::now() }
    }

    /// Waits for the next server that is ready, and returns its index with the connection. Servers
    /// that lost against it are tried again after those that have not been tried. `None`: there is
    /// no other server.
    ///
    /// The future may be dropped: the next call goes on where it stopped.
    pub async fn next(&mut self) -> Option<(usize, Client<D::Stream>)> {
        loop {
            self.begin();
            let until = match (self.waiting.is_empty(), self.running.first()) {
                (_, None) => return None,
                (true, Some(_)) => None,
                (false, Some(oldest)) if self.running.len() == AT_ONCE => Some(oldest.begun + GIVE_UP),
                (false, Some(_)) => Some(self.next_at),
            };
            match first(&mut self.running, until).await {
                Some((place, Ok(client))) => return Some((self.win(place), client)),
                Some((place, Err(error))) => {
                    let lost = self.running.remove(place);
                    self.fail(lost.target, error);
                }
                None if self.running.len() == AT_ONCE => {
                    let silent = self.running.remove(0);
                    self.give_up_one(&silent);
                }
                // The head start is over.
                None => {}
            }
        }
    }

    /// Closes the connections that are under way: their servers have failed. The next call of
    /// [`next`](Self::next) goes on with the other servers.
    pub fn give_up(&mut self) {
        for silent in std::mem::take(&mut self.running) {
            self.give_up_one(&silent);
        }
    }

    /// The servers that have failed since the last call, by index, with the reasons.
    pub fn failed(&mut self) -> Vec<(usize, ConnectError)> {
        std::mem::take(&mut self.failed)
    }

    /// Begins a connection to the next target if it is its turn.
    fn begin(&mut self) {
        let now = Instant::now();
        if self.running.len() == AT_ONCE || (!self.running.is_empty() && now < self.next_at) {
            return;
        }
        let Some((index, target)) = self.waiting.pop_front().and_then(|at| Some((at, self.targets.get(at)?))) else {
            return;
        };
        let ready = Box::pin(set_up(target.clone(), self.dial.clone(), Arc::clone(&self.options)));
        self.running.push(Running { target: index, begun: now, ready });
        let next = self.waiting.front().and_then(|index| self.targets.get(*index));
        self.next_at = now + next.map_or(Duration::ZERO, |next| self.head_start(target, next));
    }

    fn head_start(&self, target: &Target, next: &Target) -> Duration {
        let usual = self.options.head_start;
        let usual = if target.preference == next.preference { usual } else { usual.saturating_mul(2) };
        // Half as much again as it took before.
        let slow = self.options.health.ready_after(target.server);
        usual.max(slow.saturating_add(slow / 2)).min(HEAD_START_AT_MOST)
    }

    /// Ends the race for now. Returns the index of the target that won.
    fn win(&mut self, place: usize) -> usize {
        let health = &self.options.health;
        let mut running = std::mem::take(&mut self.running);
        let winner = running.remove(place);
        if let Some(target) = self.targets.get(winner.target) {
            health.was_ready(target.server, winner.begun.elapsed(), self.options.head_start);
        }
        for (other, loser) in running.into_iter().enumerate() {
            self.waiting.push_back(loser.target);
            let Some(target) = self.targets.get(loser.target) else { continue };
            if place <= other {
                tokio::spawn(timeout(GOODBYE, async move {
                    if let Ok(client) = loser.ready.await {
                        client.quit().await;
                    }
                }));
                continue;
            }
            health.failed(target.server, &target.host, Stage::Greeting);
            let (health, server, usual) = (health.clone(), target.server, self.options.head_start);
            tokio::spawn(timeout(LINGER, async move {
                if let Ok(client) = loser.ready.await {
                    health.was_ready(server, loser.begun.elapsed(), usual);
                    health.answered(server);
                    client.quit().await;
                }
            }));
        }
        winner.target
    }

    fn give_up_one(&mut self, silent: &Running<D::Stream>) {
        let Some(target) = self.targets.get(silent.target) else { return };
        self.fail(silent.target, ConnectError::TooSlow { address: target.server, waited: silent.begun.elapsed() });
    }

    fn fail(&mut self, index: usize, error: ConnectError) {
        if let Some(target) = self.targets.get(index)
            && error.is_servers()
        {
            self.options.health.failed(target.server, &target.host, error.stage());
        }
        self.failed.push((index, error));
        self.next_at = Instant::now();
    }
}

/// Waits until one of them is ready or has failed. `None`: the time is over.
async fn first<S>(
    running: &mut [Running<S>],
    until: Option<Instant>,
) -> Option<(usize, Result<Client<S>, ConnectError>)> {
    let any = poll_fn(|context| {
        for (place, one) in running.iter_mut().enumerate() {
            if let Poll::Ready(ready) = one.ready.as_mut().poll(context) {
                return Poll::Ready((place, ready));
            }
        }
        Poll::Pending
    });
    match until {
        None => Some(any.await),
        Some(until) => tokio::select! {
            biased;
            ready = any => Some(ready),
            () = sleep_until(until) => None,
        },
    }
}

/// Connects up to the first transaction, as the options say but without what failed with the server
/// lately: BDAT, and TLS where that is opportunistic. If opportunistic TLS breaks now, it connects
/// once more without it.
async fn set_up<D: Dial>(
    target: Target,
    dial: D,
    options: Arc<ClientOptions>,
) -> Result<Client<D::Stream>, ConnectError> {
    let health = &options.health;
    let mut fitting = ClientOptions::clone(&options);
    fitting.session.chunking &= !health.breaks_chunking(target.server);
    if matches!(fitting.tls, Tls::Opportunistic(_)) && health.breaks_tls(target.server) {
        fitting.tls = Tls::Off;
    }
    let (mut started, mut tls_is_suspected) = (start(&target, &dial, &fitting).await, false);
    if started.as_ref().is_err_and(ConnectError::suggests_clear) {
        (fitting.tls, tls_is_suspected) = (Tls::Off, true);
        started = start(&target, &dial, &fitting).await;
    }
    let mut client = started?;
    client.remote = Some(Remote { target, health: fitting.health, tls_is_suspected });
    Ok(client)
}

async fn start<D: Dial>(target: &Target, dial: &D, options: &ClientOptions) -> Result<Client<D::Stream>, ConnectError> {
    let dialed = timeout(options.connect_timeout, dial.dial(target.server)).await;
    let stream = dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|error| ConnectError::Tcp { address: target.server, error })?;
    Client::start(stream, &target.host, options).await
}

impl<D: Dial> fmt::Debug for Race<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Race")
            .field("targets", &self.targets)
            .field("waiting", &self.waiting)
            .field("running", &self.running.iter().map(|one| one.target).collect::<Vec<_>>())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
