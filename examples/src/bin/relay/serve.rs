//! `relay serve`.

use std::{io::IsTerminal as _, net::SocketAddr};

use posthaste_client::HickoryResolver;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_relay::{Relay, TracingObserver};
use posthaste_server::{CancellationToken, Listener};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::{Failure, config::Config, control, secret};

/// Runs the relay until it is told to end.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    log_to_stderr();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let resolver = resolver(&config.dns).map_err(Failure::Run)?;
    let options = LogOptions { max_body: config.max_message.saturating_add(64 * 1_024), ..LogOptions::default() };
    let queue = LogQueue::open(&config.queue, options).map_err(Failure::run)?;
    info!(queue = %config.queue.display(), report = ?queue.report(), "queue opened");
    let mut options = config.relay;
    if !config.accounts.is_empty() {
        let secret = secret::load(&config.queue).map_err(Failure::run)?;
        options.accounts = Some(config.accounts.keys(secret).map_err(Failure::run)?);
    }
    let mut listeners = Vec::new();
    for listener in config.listeners {
        let bound = Listener::bind(listener.address, listener.settings, listener.tls).await.map_err(Failure::run)?;
        let address = bound.local_address().map_err(Failure::run)?;
        info!("listening on {address}");
        listeners.push(bound);
    }
    let relay = Relay::new(queue, resolver, options, TracingObserver);
    let drain = CancellationToken::new();
    tokio::spawn(end_on_signal(drain.clone()));
    // Mail does not depend on it.
    let control = control::listen(&config.queue, relay.clone());
    if let Err(error) = &control {
        warn!(%error, "`relay status` will not work; choose a queue folder with a shorter name if that is why");
    }
    let served = relay.serve(listeners, config.server, drain).await;
    drop(control);
    let totals = relay.totals();
    info!(?totals, "ended");
    served.map_err(|error| {
        Failure::Run(format!("{error}; what was acknowledged is safe, start again when the disk is well"))
    })
}

/// What looks names up, by these servers or by those of the system. Nothing is asked yet.
pub(crate) fn resolver(servers: &[SocketAddr]) -> Result<HickoryResolver, String> {
    let system = |error| format!("cannot use the system's DNS servers: {error}; name some in [dns] servers");
    match servers {
        [] => HickoryResolver::system().map_err(system),
        servers => {
            HickoryResolver::with_servers(servers).map_err(|error| format!("{error}; name others in [dns] servers"))
        }
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    subscriber.init();
}

/// The first SIGTERM or SIGINT drains; the second ends the process at once, which the queue survives.
async fn end_on_signal(drain: CancellationToken) {
    let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            warn!(%error, "cannot listen for signals");
            return;
        }
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    info!("draining; once more ends at once");
    drain.cancel();
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    warn!("ended without draining");
    std::process::exit(130);
}
