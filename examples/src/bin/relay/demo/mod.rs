//! `relay demo`: the whole path on loopback, and an account of every message at its end.

mod content;
mod ledger;
mod loader;
mod next_hop;

use std::{sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use posthaste::client::SystemResolver;
use posthaste::queue::{
    Queue as _,
    log::{LogOptions, LogQueue},
};
use posthaste::relay::{Relay, RelayOptions, RetrySchedule, Route, RouteTable};
use posthaste::server::{Listener, session::ServerSettings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use ledger::Ledger;

/// What the demo does.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The number of messages.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    messages: u32,
    /// The number of connections that send them.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    connections: u32,
}

/// After this long without progress the demo gives up and prints what it knows.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the demo.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("posthaste-demo-").tempdir().map_err(Failure::run)?;
    println!("queue: {}", folder.path().display());
    let ledger = Arc::new(Ledger::new(options.messages));
    let drain = CancellationToken::new();

    let (primary, primary_task) = next_hop::start(&ledger).await?;
    let (secondary, secondary_task) = next_hop::start(&ledger).await?;
    tokio::spawn(kill_half_way(Arc::clone(&ledger), primary_task));

    let queue = LogQueue::open(folder.path(), LogOptions::default()).map_err(Failure::run)?;
    let mut relay_options = RelayOptions::new("relay.test".parse().map_err(Failure::run)?);
    relay_options.policy.relay_from.push("127.0.0.0/8".parse().map_err(Failure::run)?);
    relay_options.routes =
        RouteTable::all(Route::hosts([("[127.0.0.1]", primary.port()), ("[127.0.0.1]", secondary.port())]));
    let second = Duration::from_secs(1);
    let mut retry = RetrySchedule::default();
    retry.waits = vec![second];
    retry.expire_after = PATIENCE * 10;
    retry.warn_after = None;
    relay_options.delivery.retry = retry;
    let observer = ledger::LedgerObserver(Arc::clone(&ledger));
    let relay = Relay::builder(queue, SystemResolver, relay_options).observer(observer).build();
    let listener = Listener::bind(LOOPBACK, ServerSettings::new("relay.test".parse().map_err(Failure::run)?))
        .await
        .map_err(Failure::run)?;
    let address = listener.local_address().map_err(Failure::run)?;
    println!("relay: {address}  next hops: {primary}, then {secondary}  messages: {}", options.messages);
    let relay_task = {
        let (relay, drain) = (relay.clone(), drain.clone());
        tokio::spawn(async move { relay.serve(relay.server().listen(listener), drain.cancelled_owned()).await })
    };

    let bar = ProgressBar::new(u64::from(options.messages));
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} settled  {msg}  {elapsed}").map_err(Failure::run)?;
    bar.set_style(style);
    ledger.start();
    let load = loader::run(address, options.messages, options.connections, Arc::clone(&ledger));
    let load = tokio::spawn(load);
    let complete = watch(&ledger, &bar).await;
    bar.finish_and_clear();
    load.await.map_err(Failure::run)?.map_err(Failure::Run)?;
    drain.cancel();
    relay_task.await.map_err(Failure::run)?.map_err(Failure::run)?;
    // After the drain: the next hop has a message a moment before the queue records it.
    let stats = relay.queue().stats().await;
    secondary_task.abort();
    let left = stats.messages;

    let account = ledger.account(relay.totals(), stats.fsyncs);
    println!("{account}");
    if complete && left == 0 && account.is_clean() {
        println!("no accepted message is lost, and each arrived byte-identical or was reported");
        Ok(())
    } else {
        Err(Failure::Run(format!("the account does not add up; {left} messages are left in the queue")))
    }
}

/// Kills the primary next hop, with all its connections, when half of the messages have arrived.
async fn kill_half_way(ledger: Arc<Ledger>, primary: JoinHandle<()>) {
    ledger.half_way.notified().await;
    primary.abort();
    let _ = primary.await;
    ledger.primary_is_dead();
}

/// Shows the progress until each message has its end, or there is none for [`PATIENCE`].
async fn watch(ledger: &Ledger, bar: &ProgressBar) -> bool {
    let mut last = (0, std::time::Instant::now());
    loop {
        let settled = ledger.settled();
        bar.set_position(settled);
        bar.set_message(format!("{} accepted", ledger.accepted()));
        if ledger.is_complete() {
            return true;
        }
        let moved = settled + ledger.accepted();
        if moved != last.0 {
            last = (moved, std::time::Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A port of loopback that the system chooses.
const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);
