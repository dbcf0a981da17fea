//! The first of the hosts of a route dies, stops or refuses under load, and comes back. It
//! shows how soon the mail goes on and the host is used again, and what was lost or came twice.
//!
//! ```text
//! cargo bench -p posthaste-benches --bench failover
//! cargo bench -p posthaste-benches --bench failover -- stop
//! ```
//!
//! The second one runs the rows whose names have this word. Each host is a process of its own,
//! which writes down what it takes before it says so. The relay is in this process, with its queue
//! in memory. The queue always has some messages, so that the rate is what the machine can do.

mod host;
mod load;
#[path = "../process/mod.rs"]
mod process;

use std::{path::Path, time::Duration};

use host::{Host, Trouble};
use load::{Load, Tally};
use tokio::time::{Instant, sleep};

/// What happens to the first host.
struct Row {
    name: &'static str,
    trouble: Trouble,
    /// The hosts of the route.
    hosts: usize,
    /// How often it happens.
    times: u32,
}

const ROWS: &[Row] = &[
    Row { name: "killed", trouble: Trouble::Kill, hosts: 2, times: 1 },
    Row { name: "stopped", trouble: Trouble::Stop, hosts: 2, times: 1 },
    Row { name: "refuses", trouble: Trouble::Refuse, hosts: 2, times: 1 },
    Row { name: "killed every 10 s, one of three", trouble: Trouble::Kill, hosts: 3, times: 6 },
    Row { name: "stopped every 10 s, one of three", trouble: Trouble::Stop, hosts: 3, times: 6 },
];

/// How long a row takes.
#[derive(Clone, Copy)]
struct Times {
    /// All hosts are well.
    before: Duration,
    /// The first host is in trouble, and then for as long is not, each time.
    trouble: Duration,
    /// The longest wait until the first host is used again.
    back: Duration,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(process::FLAG) {
        return host::main(&std::env::args().nth(2).unwrap_or_default());
    }
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let (milliseconds, seconds) = (Duration::from_millis, Duration::from_secs);
    let times = match is_trial {
        true => Times { before: milliseconds(200), trouble: milliseconds(200), back: milliseconds(1) },
        false => Times { before: seconds(4), trouble: seconds(5), back: seconds(40) },
    };
    println!("{HEAD}");
    let is_wanted = |row: &&Row| wanted.is_empty() || wanted.iter().any(|word| row.name.contains(word.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for row in ROWS.iter().filter(is_wanted).take(if is_trial { 1 } else { usize::MAX }) {
        runtime.block_on(measure(row, times));
    }
}

const HEAD: &str = "\
| the first host | messages a second, before | in trouble, % of before | 90 % again after, ms | used again after, s \
| accepted | lost | twice | deferred |
|---|---|---|---|---|---|---|---|---|";

/// Runs a row, and prints it.
async fn measure(row: &Row, times: Times) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |number: usize| folder.path().join(number.to_string());
    let mut hosts: Vec<_> = (0..row.hosts).map(|number| Host::start(&path(number))).collect();
    let load = Load::start(&hosts.iter().map(Host::port).collect::<Vec<_>>());
    sleep(times.before / 2).await;
    let well = load.rate(times.before / 2).await;
    let first = hosts.first_mut().expect("a host");
    let begun = Instant::now();
    for _ in 0..row.times {
        first.suffer(row.trouble);
        sleep(times.trouble).await;
        first.recover(row.trouble);
        if row.times > 1 {
            sleep(times.trouble).await;
        }
    }
    let troubled = load.rate_since(begun);
    let back = Instant::now();
    let taken = || std::fs::metadata(path(0)).map_or(0, |file| file.len());
    // What was in its hands comes first, and more than one message shows that it is used.
    sleep(Duration::from_millis(500).min(times.back)).await;
    let before = taken();
    let used = loop {
        match back.elapsed() {
            elapsed if taken() > before => break Some(elapsed),
            elapsed if elapsed > times.back => break None,
            _ => sleep(Duration::from_millis(50)).await,
        }
    };
    let again = load.again_after(begun, 0.9 * well);
    let Tally { accepted, deferred } = load.end().await;
    let took: Vec<_> = (0..row.hosts).flat_map(|number| taken_by(&path(number))).collect();
    let mut known = took.clone();
    known.sort_unstable();
    known.dedup();
    println!(
        "| {} | {well:.0} | {:.0} | {} | {} | {accepted} | {} | {} | {deferred} |",
        row.name,
        100.0 * troubled / well.max(1.0),
        again.map_or_else(|| "never".to_owned(), |again| again.as_millis().to_string()),
        used.map_or_else(|| "never".to_owned(), |used| format!("{:.1}", used.as_secs_f64())),
        accepted.saturating_sub(known.len() as u64),
        took.len() - known.len(),
    );
}

/// The numbers of the messages that a host has taken.
fn taken_by(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
