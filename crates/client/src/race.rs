//! Races servers: the first one with which a transaction can begin wins.
//!
//! RFC 8305 races addresses to the end of the TCP handshake. A mail server may get that far and
//! then be silent, in the greeting, after EHLO or in TLS. So this race ends later: when the server
//! is *ready*, after greeting, EHLO, TLS and login.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use posthaste_tokio::Trace;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, oneshot},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    Client, ClientOptions, ConnectError, Dial, Endpoint, HostTls, Server, Stage, Tls,
    client::{Progress, Remote, failure},
    outcome::asks_for_tls,
};

/// The most connections of one race that are under way at once.
const AT_ONCE: usize = 3;
/// How long a server may take until it is ready while another waits for its place. It is longer
/// than the few seconds by which servers delay a greeting to expose impatient clients.
const GIVE_UP: Duration = Duration::from_secs(8);
/// How long a server that has lost may still become ready.
const LINGER: Duration = Duration::from_secs(10);
/// The longest head start, for a server that is known to be slow.
const HEAD_START_AT_MOST: Duration = Duration::from_secs(10);

/// A server to be tried: an address of a host, or its name where a proxy looks it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host, for which a certificate must be valid unless [`tls`](Self::tls) has another name.
    pub host: Arc<str>,
    /// Where it is: its address and port, in general.
    pub server: Server,
    /// The preference of the host, such as that of its MX record: lower values come first.
    pub preference: u16,
    /// The TLS of connections to it. `None`: that of the options, with the name of the host.
    pub tls: Option<HostTls>,
}

impl Target {
    /// A server with the TLS of the options.
    pub fn new(host: impl Into<Arc<str>>, server: impl Into<Server>, preference: u16) -> Self {
        Self { host: host.into(), server: server.into(), preference, tls: None }
    }

    /// The name for which a certificate must be valid.
    fn tls_name(&self) -> &str {
        let own = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        own.unwrap_or(&self.host)
    }

    /// The addresses of a server, looked up within `bound`; or its name, if the dialer resolves
    /// names.
    ///
    /// # Errors
    /// [`ConnectError::Resolve`].
    pub(crate) async fn all<D: Dial>(
        server: &Endpoint,
        preference: u16,
        dial: &D,
        bound: Duration,
    ) -> Result<Vec<Self>, ConnectError> {
        let host = Arc::<str>::from(server.host());
        let servers = if dial.resolves_names() { vec![server.unresolved()] } else { server.resolve(bound).await? };
        Ok(servers.into_iter().map(|server| Self::new(Arc::clone(&host), server, preference)).collect())
    }
}

/// Connects to servers, one after another, and to the next one before the last has failed.
///
/// Servers are tried in their order, with those that failed lately ([`Health`](crate::Health)) at
/// the end. The next server is tried as soon as one fails, or after a head start:
/// [`ClientOptions::head_start`], and twice that between two preferences. A server that is known to
/// take longer has a longer head start, of 10 s at most. So a server that delays its greeting may
/// lose its first message to one of a lower preference.
///
/// At most 3 connections are under way at once. If all 3 are silent and another server waits, the
/// first of them is given up after 8 s. A refused login ends the race: it would be refused again.
///
/// A connection that loses is closed without MAIL. It has 10 s to become ready, for QUIT. If its
/// server was tried before the one that won, it counts as failed unless it becomes ready in that
/// time. A task of tokio waits for that; at most 64 do so for one `Health`, and other connections
/// are closed at once.
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
    progress: Arc<Progress>,
    ready: Ready<S>,
    /// It has lost, and this task goes on with it and notes how it ends.
    lingers: Option<AbortHandle>,
    /// It counts as failed already, since another won that was tried later.
    is_overtaken: bool,
}

type Ready<S> = Pin<Box<dyn Future<Output = Result<Client<S>, ConnectError>> + Send>>;

impl<'t, D: Dial> Race<'t, D> {
    /// Makes a race between these servers; [`next`](Self::next) begins it. A server that is named
    /// twice, with the same TLS, is tried once.
    pub fn new(targets: &'t [Target], dial: D, options: Arc<ClientOptions>) -> Self {
        let mut known: HashMap<&Server, Vec<Option<&HostTls>>> = HashMap::new();
        let mut is_new = |target: &'t Target| {
            let (same, tls) = (known.entry(&target.server).or_default(), target.tls.as_ref());
            let is_new = !same.contains(&tls);
            if is_new {
                same.push(tls);
            }
            is_new
        };
        let servers = targets.iter().enumerate();
        let mut order: Vec<_> = servers.filter(|(_, target)| is_new(target)).map(|(index, _)| index).collect();
        if order.len() > 1 {
            let is_sick = |target: &Target| options.health.is_sick(&target.server);
            order.sort_by_cached_key(|index| targets.get(*index).is_some_and(is_sick));
        }
        let (running, failed) = (Vec::new(), Vec::new());
        Self { targets, dial, options, waiting: order.into(), running, failed, next_at: Instant::now() }
    }

    /// Waits for the next server that is ready, and returns its index with the connection. `None`:
    /// there is no other server.
    ///
    /// The future may be dropped: the next call goes on where it stopped.
    pub async fn next(&mut self) -> Option<(usize, Client<D::Stream>)> {
        loop {
            self.begin();
            let until = match (self.waiting.is_empty(), self.running.first()) {
                (_, None) => return None,
                (true, Some(_)) => None,
                (false, Some(oldest)) if self.running.len() >= AT_ONCE => Some(oldest.begun + GIVE_UP),
                (false, Some(_)) => Some(self.next_at),
            };
            match first(&mut self.running, until).await {
                Some((place, Ok(client))) => return Some((self.win(place), client)),
                Some((place, Err(error))) => {
                    let lost = self.running.remove(place);
                    self.fail(lost.target, error, lost.lingers.is_some());
                }
                None if self.running.len() >= AT_ONCE => {
                    let silent = self.running.remove(0);
                    self.give_up_one(&silent);
                }
                // The head start is over.
                None => {}
            }
        }
    }

    /// Connects again to a server that was ready, with other options, such as without TLS. TLS that
    /// [`Target::tls`] demands stays. While there are other servers, it is given up after 8 s.
    /// `None`: it has failed.
    ///
    /// The future may be dropped; call [`give_up`](Self::give_up) then.
    pub async fn again(&mut self, index: usize, options: &Arc<ClientOptions>) -> Option<Client<D::Stream>> {
        let mut target = self.targets.get(index)?.clone();
        target.tls = target.tls.filter(|own| own.tls.is_demanded());
        let has_others = !self.waiting.is_empty() || !self.running.is_empty();
        self.run(index, &target, options);
        let until = has_others.then(|| Instant::now() + GIVE_UP);
        let place = self.running.len().checked_sub(1)?;
        let outcome = first(self.running.get_mut(place..)?, until).await;
        let this = self.running.pop()?;
        match outcome {
            Some((_, Ok(client))) => return Some(client),
            Some((_, Err(error))) => self.fail(index, error, false),
            None => self.give_up_one(&this),
        }
        None
    }

    /// Closes the connections that are under way. Their servers have failed, but for those that
    /// have not had their head start: these are tried again. The next call of [`next`](Self::next)
    /// goes on with the other servers.
    pub fn give_up(&mut self) {
        for one in std::mem::take(&mut self.running).into_iter().rev() {
            if one.begun.elapsed() < self.options.head_start {
                self.waiting.push_front(one.target);
            } else {
                self.give_up_one(&one);
            }
        }
    }

    /// A server of this race.
    pub fn target(&self, index: usize) -> Option<&'t Target> {
        self.targets.get(index)
    }

    /// The options of its connections.
    pub const fn options(&self) -> &Arc<ClientOptions> {
        &self.options
    }

    /// The servers that have failed since the last call, by index, with the reasons.
    pub fn failed(&mut self) -> Vec<(usize, ConnectError)> {
        std::mem::take(&mut self.failed)
    }

    /// Begins a connection to the next target if it is its turn.
    fn begin(&mut self) {
        let now = Instant::now();
        if self.running.len() >= AT_ONCE || (!self.running.is_empty() && now < self.next_at) {
            return;
        }
        let Some((index, target)) = self.waiting.pop_front().and_then(|at| Some((at, self.targets.get(at)?))) else {
            return;
        };
        let options = Arc::clone(&self.options);
        self.run(index, target, &options);
        let next = self.waiting.front().and_then(|index| self.targets.get(*index));
        self.next_at = now + next.map_or(Duration::ZERO, |next| self.head_start(target, next));
    }

    fn run(&mut self, index: usize, target: &Target, options: &Arc<ClientOptions>) {
        let progress = Arc::new(Progress::default());
        let set_up = SetUp {
            target: target.clone(),
            dial: self.dial.clone(),
            options: Arc::clone(options),
            has_others: !self.waiting.is_empty(),
            progress: Arc::clone(&progress),
        };
        let ready = Box::pin(set_up.run());
        self.running.push(Running {
            target: index,
            begun: Instant::now(),
            progress,
            ready,
            lingers: None,
            is_overtaken: false,
        });
    }

    fn head_start(&self, target: &Target, next: &Target) -> Duration {
        let usual = self.options.head_start;
        let usual = if target.preference == next.preference { usual } else { usual.saturating_mul(2) };
        // Half as much again as it took before.
        let slow = self.options.health.ready_after(&target.server);
        usual.max(slow.saturating_add(slow / 2)).min(HEAD_START_AT_MOST)
    }

    /// Ends the race for now. Returns the index of the target that won.
    fn win(&mut self, place: usize) -> usize {
        let health = &self.options.health;
        let winner = self.running.remove(place);
        if let (Some(target), None) = (self.targets.get(winner.target), &winner.lingers) {
            health.was_ready(&target.server, winner.begun.elapsed(), self.options.head_start);
        }
        for (other, loser) in std::mem::take(&mut self.running).into_iter().enumerate() {
            let (Some(target), None) = (self.targets.get(loser.target), &loser.lingers) else {
                self.running.push(loser);
                continue;
            };
            let is_overtaken = other < place;
            if is_overtaken {
                health.failed(&target.server, &target.host, loser.progress.stage());
            }
            match health.linger() {
                Some(permit) => self.running.push(linger(loser, target, is_overtaken, &self.options, permit)),
                // Its connection is closed, and another is made when it is its turn again.
                None => self.waiting.push_back(loser.target),
            }
        }
        self.next_at = Instant::now();
        winner.target
    }

    fn give_up_one(&mut self, silent: &Running<D::Stream>) {
        let Some(target) = self.targets.get(silent.target) else { return };
        let (waited, stage) = (silent.begun.elapsed(), silent.progress.stage());
        if let Some(task) = &silent.lingers {
            task.abort();
        }
        let server = target.server.clone();
        let dialers = ConnectError::Tcp { server: server.clone(), error: self.dial.too_late(waited) };
        let error = match stage {
            // The dialer does not say that it is the server.
            Stage::Connect if !dialers.is_servers() => dialers,
            _ => ConnectError::TooSlow { server, waited, stage },
        };
        self.fail(silent.target, error, silent.is_overtaken);
    }

    fn fail(&mut self, index: usize, error: ConnectError, is_noted: bool) {
        if let (Some(target), false) = (self.targets.get(index), is_noted)
            && error.is_servers()
        {
            self.options.health.failed(&target.server, &target.host, error.stage());
        }
        if error.is_refused_login() {
            self.waiting.clear();
            self.running.clear();
        }
        self.failed.push((index, error));
        self.next_at = Instant::now();
    }
}

/// A task that waits until a connection that has lost is ready. The race may still take it.
fn linger<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    loser: Running<S>,
    target: &Target,
    is_overtaken: bool,
    options: &Arc<ClientOptions>,
    permit: OwnedSemaphorePermit,
) -> Running<S> {
    let Running { target: index, begun, progress, ready, .. } = loser;
    let (server, host) = (target.server.clone(), Arc::clone(&target.host));
    let lost = server.clone();
    let (options, stage) = (Arc::clone(options), Arc::clone(&progress));
    let (hand_over, taken) = oneshot::channel();
    let task = tokio::spawn(async move {
        let _permit = permit;
        let too_slow =
            || ConnectError::TooSlow { server: server.clone(), waited: begun.elapsed(), stage: stage.stage() };
        let outcome = timeout(LINGER, ready).await.unwrap_or_else(|_| Err(too_slow()));
        match &outcome {
            Ok(_) => {
                if is_overtaken {
                    options.health.recovered(&server);
                }
                options.health.was_ready(&server, begun.elapsed(), options.head_start);
            }
            Err(error) if !is_overtaken && error.is_servers() => {
                options.health.failed(&server, &host, error.stage());
            }
            Err(_) => {}
        }
        if let Err(Ok(client)) = hand_over.send(outcome) {
            client.quit().await;
        }
    });
    let ready = Box::pin(async move {
        let gone = |_| Err(ConnectError::TooSlow { server: lost, waited: LINGER, stage: Stage::Connect });
        taken.await.unwrap_or_else(gone)
    });
    Running { target: index, begun, progress, ready, lingers: Some(task.abort_handle()), is_overtaken }
}

/// Ends connections that have lost and are ready.
impl<D: Dial> Drop for Race<'_, D> {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        for mut one in self.running.drain(..).filter(|one| one.lingers.is_some()) {
            let ready = one.ready.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(Ok(client)) = ready {
                runtime.spawn(client.quit());
            }
        }
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
        Some(until) => timeout_at(until, any).await.ok(),
    }
}

/// A connection that is to be made.
struct SetUp<D> {
    target: Target,
    dial: D,
    options: Arc<ClientOptions>,
    /// Other servers are left to try.
    has_others: bool,
    progress: Arc<Progress>,
}

impl<D: Dial> SetUp<D> {
    /// Connects up to the first transaction, as the options say but without what failed with the
    /// server lately: BDAT, and TLS where that is opportunistic. If opportunistic TLS breaks now,
    /// it connects once more without it.
    async fn run(self) -> Result<Client<D::Stream>, ConnectError> {
        let (server, health) = (&self.target.server, &self.options.health);
        let mut fitting = ClientOptions::clone(&self.options);
        if let Some(own) = &self.target.tls {
            fitting.tls = own.tls.clone();
        }
        if self.has_others {
            fitting.hurry();
        }
        fitting.session.chunking &= !health.breaks_chunking(server);
        let is_optional = matches!(fitting.tls, Tls::Opportunistic(_));
        let mut tls_failure = health.tls_failure(server).filter(|_| is_optional);
        let with_tls = tls_failure.as_ref().map(|_| std::mem::replace(&mut fitting.tls, Tls::Off));
        let (mut started, mut tls_is_suspected) = (self.start(&fitting).await, false);
        if let (Some(with_tls), true) = (with_tls, started.as_ref().is_err_and(lacks_tls)) {
            health.needs_tls(server);
            (fitting.tls, tls_failure) = (with_tls, None);
            started = self.start(&fitting).await;
        }
        if let Err(error) = &started
            && error.suggests_clear()
        {
            (fitting.tls, tls_is_suspected, tls_failure) = (Tls::Off, true, Some(failure(error)));
            let clear = self.start(&fitting).await;
            // Without TLS it takes nothing, so what broke TLS is the reason.
            if !clear.as_ref().is_err_and(lacks_tls) {
                started = clear;
            }
        }
        let mut client = started?;
        client.tls_failure = tls_failure.or(client.tls_failure);
        client.note_facts(Some(self.target));
        client.remote = Some(Remote { health: fitting.health, tls_is_suspected });
        Ok(client)
    }

    async fn start(&self, options: &ClientOptions) -> Result<Client<D::Stream>, ConnectError> {
        self.progress.set(Stage::Connect);
        let server = &self.target.server;
        let trace = options.trace.as_ref().map(Trace::connection);
        trace.iter().for_each(|trace| trace.note(format_args!("connecting to {} at {server}", self.target.host)));
        let dialed = timeout(options.connect_timeout, self.dial.dial(server)).await;
        let stream = dialed.unwrap_or_else(|_| Err(self.dial.too_late(options.connect_timeout)));
        match stream.map_err(|error| ConnectError::Tcp { server: server.clone(), error }) {
            Ok(stream) => Client::begin(stream, self.target.tls_name(), options, &self.progress, trace).await,
            Err(error) => {
                trace.iter().for_each(|trace| trace.note(&error));
                Err(error)
            }
        }
    }
}

/// Returns `true` if a server refuses the session since it has no TLS.
fn lacks_tls(error: &ConnectError) -> bool {
    error.reply().is_some_and(asks_for_tls)
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
