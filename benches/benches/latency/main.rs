//! The time from the commit of a message until its next hop has it. It is measured on an idle
//! relay, at half of the load that it can take, with a silent host, and beside a busy neighbor.
//!
//! ```text
//! cargo bench -p posthaste-benches --bench latency
//! cargo bench -p posthaste-benches --bench latency -- neighbor
//! ```
//!
//! The second one runs the rows whose names have this word. The relay's queue is on the disk, in
//! the system's folder for temporary files. Its next hops are in this process.

mod hops;
mod load;

use std::time::Duration;

use load::Load;

/// What the relay has to do besides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The first of two hosts says nothing.
    SilentHost,
    /// Another owner has any number of messages for another, slow next hop.
    Neighbor,
}

/// The rate of messages.
#[derive(Clone, Copy)]
enum Pace {
    /// Messages a second.
    Fixed(f64),
    /// This part of what the relay can do.
    OfMost(f64),
}

struct Row {
    name: &'static str,
    pace: Pace,
    beside: Beside,
}

const ROWS: &[Row] = &[
    Row { name: "idle", pace: Pace::Fixed(50.0), beside: Beside::Nothing },
    Row { name: "half of its most", pace: Pace::OfMost(0.5), beside: Beside::Nothing },
    Row { name: "one of two hosts silent", pace: Pace::Fixed(50.0), beside: Beside::SilentHost },
    Row { name: "10 a second, alone", pace: Pace::Fixed(10.0), beside: Beside::Nothing },
    Row { name: "10 a second, beside a neighbor", pace: Pace::Fixed(10.0), beside: Beside::Neighbor },
];

fn main() {
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let time = if is_trial { Duration::from_millis(200) } else { Duration::from_secs(20) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    println!("| the relay | messages a second | p50, ms | p90 | p99 | most | late |");
    println!("|---|---|---|---|---|---|---|");
    let is_wanted = |row: &&Row| wanted.is_empty() || wanted.iter().any(|word| row.name.contains(word.as_str()));
    for row in ROWS.iter().filter(is_wanted) {
        runtime.block_on(measure(row, time));
    }
}

/// Runs a row, and prints it.
async fn measure(row: &Row, time: Duration) {
    let rate = match row.pace {
        Pace::Fixed(rate) => rate,
        Pace::OfMost(part) => part * Load::start(Beside::Nothing).await.most(time / 5).await,
    };
    let load = Load::start(row.beside).await;
    // What the relay learns in the first second is not measured.
    load.paced(rate, Duration::from_secs(1).min(time)).await;
    let (took, late) = load.paced(rate, time).await;
    let of = |part: f64| took.get((took.len() as f64 * part) as usize).or(took.last()).copied().unwrap_or_default();
    let [p50, p90, p99, most] = [0.5, 0.9, 0.99, 1.0].map(|part| of(part).as_secs_f64() * 1_000.0);
    println!("| {} | {rate:.0} | {p50:.1} | {p90:.1} | {p99:.1} | {most:.1} | {late} |", row.name);
}
