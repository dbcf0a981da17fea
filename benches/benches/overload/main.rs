//! A relay is offered ten times what its next hop takes, or all that the machine can offer, while
//! it has too little of something. Is anything lost that it has acknowledged, what does it refuse,
//! how much does it still deliver, and how soon is it well again?
//!
//! ```text
//! cargo build --release -p posthaste-examples --bin relay
//! cargo bench -p posthaste-benches --bench overload
//! cargo bench -p posthaste-benches --bench overload -- disk --seconds=10
//! ```
//!
//! The last one runs the rows whose names have this word, each for 10 seconds in place of 60.
//! The relay is the program, in a process of its own. Clients and next hop are in this process. The
//! small disk and the cgroup need the rights of root, the slow disk needs strace. A row that this
//! machine cannot run says so.

mod hop;
mod offer;
#[path = "../process/mod.rs"]
mod process;
mod relay;

use std::{path::Path, time::Duration};

use hop::Hop;
use offer::Clients;
use relay::{Lack, Relay};
use tokio::time::{Instant, sleep};

/// Messages a second that the next hop takes, and that it is offered.
const PACE: f64 = 300.0;
const OFFERED: f64 = 3_000.0;
/// Connections of clients.
const CONNECTIONS: usize = 100;
/// Connections with which a relay delivers the most.
const FEW: usize = 20;
/// The longest wait for the relay to be well, and from one message that arrives to the next.
const PATIENCE: Duration = Duration::from_secs(60);

struct Row {
    name: &'static str,
    lack: Lack,
    /// Is the next hop paced, and the rate of the clients fixed?
    paced: bool,
}

const ROWS: &[Row] = &[
    Row { name: "paced", lack: Lack::Nothing, paced: true },
    Row { name: "paced, 2,000 deliveries at most", lack: Lack::Depth(2_000), paced: true },
    Row { name: "full CPU", lack: Lack::Nothing, paced: false },
    Row { name: "full disk", lack: Lack::Disk, paced: true },
    Row { name: "slow fsync", lack: Lack::Fsync, paced: true },
    Row { name: "64 descriptors", lack: Lack::Descriptors, paced: true },
    Row { name: "64 MiB, by a cgroup", lack: Lack::Memory, paced: true },
];

fn main() {
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let seconds = std::env::args().find_map(|word| word.strip_prefix("--seconds=")?.parse().ok());
    let time = if is_trial { Duration::from_millis(200) } else { Duration::from_secs(seconds.unwrap_or(60)) };
    let Some(program) = relay::program() else {
        println!("The program is missing: cargo build --release -p posthaste-examples --bin relay");
        return;
    };
    println!("{HEAD}");
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let rows = ROWS.iter().filter(|row| is_wanted(row.name)).take(if is_trial { 1 } else { usize::MAX });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for row in rows {
        if let Err(reason) = runtime.block_on(measure(&program, row, time)) {
            println!("| {} | cannot be run here: {reason} |", row.name);
        }
    }
    if !is_trial && is_wanted("fsyncs") {
        match runtime.block_on(fsyncs(&program, time / 6)) {
            Ok(each) => println!("\nfsyncs of each message, {FEW} connections: {each:.3}"),
            Err(reason) => println!("\nfsyncs cannot be counted here: {reason}"),
        }
    }
}

const HEAD: &str = "\
| the relay | offered | accepted | refused, by code | delivered | lost | twice | delivered a second | % of pace or most \
| memory at most, MiB | mail again after, s | calm after, s |
|---|---|---|---|---|---|---|---|---|---|---|---|";

/// Runs a row, and prints it.
async fn measure(program: &Path, row: &Row, time: Duration) -> Result<(), String> {
    let pace = if row.paced { Duration::from_secs_f64(1.0 / PACE) } else { Duration::ZERO };
    let most = if row.paced { PACE } else { most(program, time / 3).await? };
    let (hop, port) = Hop::start(pace).await;
    let mut relay = Relay::start(program, row.lack, port).await?;
    let clients = Clients::new(relay.port);
    let begun = Instant::now();
    let rate = row.paced.then_some(OFFERED);
    let offering = tokio::spawn({
        let clients = clients.clone();
        async move { clients.offer(rate, CONNECTIONS, time).await }
    });
    sleep(time / 4).await;
    relay.trouble();
    tokio::time::sleep_until(begun + time).await;
    let delivered = hop.count() as f64 / begun.elapsed().as_secs_f64();
    offering.abort();
    let _ = offering.await;
    let told = clients.told();
    // From here on all is well.
    hop.pace(Duration::ZERO);
    relay.relieve();
    let relieved = Instant::now();
    let again = clients.until_accepted(PATIENCE).await;
    while !relay.is_calm(program) && relieved.elapsed() < PATIENCE {
        sleep(Duration::from_millis(100)).await;
    }
    let calm = (relieved.elapsed() < PATIENCE).then(|| relieved.elapsed());
    let accepted = clients.told().accepted;
    let lost = arrive(&hop, &accepted).await;
    let offered = told.accepted.len() + told.refused.values().sum::<usize>();
    let refused: Vec<_> = told.refused.iter().map(|(code, times)| format!("{code}: {times}")).collect();
    let seconds =
        |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
    println!(
        "| {} | {offered} | {} | {} | {} | {lost} | {} | {delivered:.0} | {:.0} | {} | {} | {} |",
        row.name,
        told.accepted.len(),
        refused.join(", "),
        hop.count(),
        hop.twice(),
        100.0 * delivered / most.max(1.0),
        relay.peak() >> 20,
        seconds(again),
        seconds(calm),
    );
    if lost > 0 || again.is_none() || calm.is_none() {
        println!("{}", relay.log());
    }
    Ok(())
}

/// Waits until all of these have arrived, or none does any more. Returns how many have not.
async fn arrive(hop: &Hop, accepted: &[u64]) -> usize {
    let missing = || accepted.iter().filter(|number| !hop.has(**number)).count();
    let (mut last, mut lost) = (Instant::now(), missing());
    while lost > 0 && last.elapsed() < PATIENCE {
        sleep(Duration::from_millis(200)).await;
        let now = missing();
        if now < lost {
            (last, lost) = (Instant::now(), now);
        }
    }
    lost
}

/// The messages a second that a relay delivers to a next hop without a pace, while few clients
/// offer all that they can.
async fn most(program: &Path, time: Duration) -> Result<f64, String> {
    let (hop, port) = Hop::start(Duration::ZERO).await;
    let relay = Relay::start(program, Lack::Nothing, port).await?;
    Clients::new(relay.port).offer(None, FEW, time).await;
    Ok(hop.count() as f64 / time.as_secs_f64())
}

/// How often the relay calls fsync for each message that it takes and delivers.
async fn fsyncs(program: &Path, time: Duration) -> Result<f64, String> {
    let (hop, port) = Hop::start(Duration::ZERO).await;
    let relay = Relay::start(program, Lack::Nothing, port).await?;
    let clients = Clients::new(relay.port);
    clients.offer(None, FEW, time).await;
    let accepted = clients.told().accepted;
    let lost = arrive(&hop, &accepted).await;
    let calls: u64 = relay.status(program, "fsyncs").and_then(|calls| calls.parse().ok()).ok_or("no such line")?;
    Ok(calls as f64 / (accepted.len() - lost).max(1) as f64)
}
