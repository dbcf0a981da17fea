//! `relay serve`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use posthaste::client::{
    HickoryResolver, Published, TrustAnchors,
    mta_sts::{HttpsFetch, MtaSts},
};
use posthaste::queue::{
    Queue as _,
    log::{Damage, LogOptions, LogQueue, OpenReport},
};
use posthaste::relay::Relay;
use posthaste::server::{Listener, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Failure,
    config::{Config, Dane, Guards, Policies, ServerCertificates},
    control, limits, log,
    reload::{self, Kept, Live},
    secret,
    usage::{self, MemoryLimits},
    warm_up::Counts,
};

/// Runs the relay until a signal ends it. `path`: where the configuration comes from.
/// `descriptors`: how many it may have.
pub(crate) async fn run(path: Option<PathBuf>, mut config: Config, descriptors: Option<u64>) -> Result<(), Failure> {
    // Other users may not read what the relay makes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    log::start();
    // Before the queue is opened, which may take a while.
    let drain = CancellationToken::new();
    tokio::spawn(Signals::listen().map_err(Failure::run)?.end(drain.clone()));
    let hangup = signal(SignalKind::hangup()).map_err(Failure::run)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    limits::fit(&mut config, descriptors);
    let memory = MemoryLimits::find(config.memory_limit);
    if let Some(shortage) = memory.shortage() {
        warn!("{shortage}");
    }
    let resolver = resolver(&config).map_err(Failure::Run)?;
    let mut options = LogOptions::default();
    // The listeners refuse what is too large, and their limit may change.
    options.max_body = u64::MAX;
    // For each delivery that makes progress there may be three that are silent. Some more are
    // deferred without an attempt.
    let leases = config.relay.delivery.concurrency.saturating_mul(4).saturating_add(128);
    options.max_leases = options.max_leases.max(leases);
    memory.fit(&mut options, &mut config.server);
    let queue = LogQueue::open(&config.queue, options).map_err(Failure::run)?;
    tell(&config.queue, queue.report());
    let mut options = config.relay;
    let kept = |error| Failure::Run(format!("cannot keep MTA-STS policies beside the queue: {error}"));
    options.delivery.published = published(&config.policies, &config.queue).map_err(kept)?;
    if !config.accounts.is_empty() {
        let secret = secret::load(&config.queue).map_err(Failure::run)?;
        options.accounts = Some(config.accounts.keys(secret).map_err(Failure::run)?);
    }
    let (mut listeners, mut settings) = (Vec::new(), Vec::new());
    for listener in config.listeners {
        let bound = Listener::bind(listener.address, listener.settings).await.map_err(Failure::run)?;
        let address = bound.local_address().map_err(Failure::run)?;
        info!("listening on {address}");
        settings.push(Arc::clone(bound.settings()));
        let bound = bound.with_tls(listener.tls).with_proxies(listener.proxies);
        listeners.push(bound.with_xclient(listener.xclient).with_xforward(listener.xforward));
    }
    let published = options.delivery.published.clone();
    let relay = Relay::new(queue, resolver, options);
    let mut counts = Counts::restore(&config.queue, &relay);
    tokio::spawn(usage::report(relay.clone(), memory, descriptors));
    // Mail does not depend on it.
    let control = control::listen(&config.queue, relay.clone());
    if let Err(error) = &control {
        warn!(%error, "control socket not opened, `relay status` will not work; if the path is too long, choose a queue folder with a shorter name");
    }
    let around = {
        let relay = relay.clone();
        move |guards: Guards| guards.around(relay.service())
    };
    let live = Arc::new(Live::new(around(config.guards), settings));
    let certificates = config.certificates.as_ref().map(ServerCertificates::running);
    let kept = Kept { path, fixed: config.fixed, queue: config.queue, published, certificates, descriptors };
    tokio::spawn(reload::run(hangup, relay.clone(), Arc::clone(&live), around, kept, config.written));
    let server = Server::new(live).with_options(config.server);
    let server = listeners.into_iter().fold(server, |server, listener| server.listen(listener));
    let served = tokio::select! {
        served = relay.serve(server, drain.cancelled_owned()) => served,
        never = counts.keep(&relay) => match never {},
    };
    counts.write(&relay);
    drop(control);
    let totals = relay.totals();
    info!(?totals, "ended");
    served.map_err(stopped)?;
    // Closing it was no success if it had stopped before.
    relay.queue().stats().await.broken.map_or(Ok(()), |why| Err(stopped(why)))
}

/// Damages that have a line of their own. The first line has the number of all.
const TOLD: usize = 10;

/// Logs what the opening of the queue found.
fn tell(folder: &Path, report: &OpenReport) {
    let OpenReport { messages, segments, records, truncated, orphans, .. } = report;
    let (queue, damages) = (folder.display(), report.damages());
    info!(%queue, messages, segments, records, truncated, orphans, damages, "queue opened");
    for Damage { path, place, what, .. } in report.damaged.iter().take(TOLD) {
        warn!(path = %path.display(), ?place, what, "queue damaged; look into its folder `quarantine`");
    }
    for warning in &report.warnings {
        warn!("{warning}");
    }
}

/// What looks names up, by the configured servers or by those of the system. Nothing is asked yet.
pub(crate) fn resolver(config: &Config) -> Result<HickoryResolver, String> {
    let resolver = by_servers(&config.dns)?;
    match config.policies.dane {
        Dane::Off => Ok(resolver),
        // The check of the configuration has named servers that cannot be believed.
        Dane::Trust => resolver.trusting().map_err(|error| error.to_string()),
        Dane::Validate => resolver.validating(&TrustAnchors::iana()).map_err(|error| error.to_string()),
    }
}

/// The policies about TLS that mail by MX follows. Those of MTA-STS are kept in a folder of the
/// queue's folder.
fn published(policies: &Policies, queue: &Path) -> std::io::Result<Published> {
    let mut published = Published::default();
    if policies.dane != Dane::Off {
        published = published.with_dane();
    }
    if let Some(verified) = &policies.mta_sts {
        let kept = MtaSts::open(HttpsFetch::with_config(verified), queue.join("mta-sts"))?;
        published = published.with_mta_sts(kept, Arc::clone(verified));
    }
    Ok(published)
}

fn by_servers(servers: &[SocketAddr]) -> Result<HickoryResolver, String> {
    let system = |error| format!("cannot use the system's DNS servers: {error}; name some in [dns] servers");
    match servers {
        [] => HickoryResolver::system().map_err(system),
        servers => {
            HickoryResolver::with_servers(servers).map_err(|error| format!("{error}; name others in [dns] servers"))
        }
    }
}

fn stopped(why: impl std::fmt::Display) -> Failure {
    Failure::Run(format!(
        "the queue had stopped: {why}; acknowledged mail is on the disk; start the relay again when the disk works"
    ))
}

/// The signals that end this process, and those that do nothing.
struct Signals {
    end: [Signal; 3],
    /// Signals that mean something to other programs, and would end this one.
    ignored: [Signal; 2],
    /// SIGXFSZ: a file that would grow too large is an error of that write, and no reason to end.
    _too_large: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let (user_1, user_2) = (SignalKind::user_defined1(), SignalKind::user_defined2());
        let too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        Ok(Self {
            end: [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::quit())?],
            ignored: [signal(user_1)?, signal(user_2)?],
            _too_large: signal(too_large)?,
        })
    }

    /// The first SIGTERM, SIGINT or SIGQUIT drains; the second ends the process at once, which the
    /// queue survives.
    async fn end(mut self, drain: CancellationToken) {
        self.wait().await;
        info!("drain begun; another such signal ends the relay at once");
        drain.cancel();
        self.wait().await;
        warn!("ended without draining");
        log::flush();
        std::process::exit(130);
    }

    /// Waits until a signal ends the relay.
    async fn wait(&mut self) {
        let [terminate, interrupt, quit] = &mut self.end;
        let [user_1, user_2] = &mut self.ignored;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = quit.recv() => return,
                _ = user_1.recv() => "SIGUSR1",
                _ = user_2.recv() => "SIGUSR2",
            };
            info!("{name} does nothing yet; SIGHUP reads the configuration again");
        }
    }
}
