//! The server while strangers attack it: how honest clients fare beside the time before.
//!
//! ```text
//! cargo bench -p posthaste-benches --bench strangers
//! cargo bench -p posthaste-benches --bench strangers -- slow
//! ```
//!
//! The second one runs the rows whose names have this word. The server is a process of its own, so
//! that its memory and time are its own. The clients are here, in two threads: the honest ones have
//! one of them to themselves. Each client has an address of loopback in a network of its own, and
//! the limits are those of foreign networks.
//!
//! Honest clients send at a steady rate that leaves most of the processor free. So the question is
//! who gets the server's time, and not how much of it a machine has. Every row alternates between
//! time alone and time under attack, and prints medians. A row takes half a minute at most. Needs
//! `/proc`, and 12,000 descriptors a process (`ulimit -n`).

mod attacks;
mod honest;
#[path = "../process/mod.rs"]
mod process;
mod rows;
mod server;

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use attacks::attack;
use honest::{Diary, Seen};
use process::Process;
use rows::{ROWS, Row};
use server::Target;
use tokio::{runtime::Builder, time::sleep};

/// Messages that all honest clients together send in a second.
const RATE: u32 = 500;
/// New clients in a second, each with one message.
const NEWCOMERS: u32 = 20;

/// How long a row takes.
#[derive(Debug, Clone, Copy)]
struct Times {
    pairs: usize,
    /// Of each half of a pair.
    half: Duration,
    /// What comes between an attack and the time alone after it.
    pause: Duration,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(process::FLAG) {
        return server::main(&arguments.next().unwrap_or_default());
    }
    // As criterion does: `cargo bench` says so, and `cargo test` does not.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let wanted: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let milliseconds = Duration::from_millis;
    let times = match is_trial {
        true => Times { pairs: 1, half: milliseconds(300), pause: milliseconds(100) },
        false => Times { pairs: 3, half: milliseconds(2_000), pause: milliseconds(1_500) },
    };
    println!("{HEAD}");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let is_wanted = |row: &&Row| wanted.is_empty() || wanted.iter().any(|word| row.name.contains(word.as_str()));
    let rows = ROWS.iter().filter(is_wanted).take(if is_trial { 1 } else { usize::MAX });
    for row in rows {
        runtime.block_on(measure(row, times));
    }
}

const HEAD: &str = "\
| strangers | done a second | messages a second, alone | attacked | p99, ms, alone | attacked | ratio | refused \
| new clients refused | server CPU, %, alone | attacked | peak, MiB | back after, ms |
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// Runs a row, and prints it.
async fn measure(row: &Row, times: Times) {
    let process = Process::start(&row.connections.to_string());
    let target = Target::of(&process);
    let (known, new) = (Diary::default(), Diary::default());
    let pace = Duration::from_secs(1) * row.honest / RATE;
    let mut clients: Vec<_> = (0..row.honest)
        .map(|number| tokio::spawn(honest::client(number, target.plain, pace, Arc::clone(&known))))
        .collect();
    let newcomers = honest::newcomers(target.plain, Duration::from_secs(1) / NEWCOMERS, Arc::clone(&new));
    clients.push(tokio::spawn(newcomers));
    // Until all are known.
    sleep(times.pause).await;
    let (mut alone, mut attacked, mut rates, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times.pairs {
        alone.push(half(&process, &known, &new, times.half).await);
        let done = Arc::new(AtomicU64::new(0));
        // A runtime of its own, which the end of the attack drops with all of its connections.
        let attackers = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        attackers.spawn(attack(row.strangers, target, Arc::clone(&done)));
        let before = if row.strangers.attack.is_patient() {
            // All of them are there.
            sleep(times.pause * 2).await;
            done.load(Relaxed)
        } else {
            0
        };
        attacked.push(half(&process, &known, &new, times.half).await);
        rates.push((done.load(Relaxed) - before) as f64 / times.half.as_secs_f64());
        attackers.shutdown_background();
        let ended = Instant::now();
        sleep(times.pause).await;
        back.push(back_after(&known, ended, f64::from(RATE)));
    }
    for client in clients {
        client.abort();
    }
    let refused = |halves: &[Half], of: fn(&Half) -> (usize, usize)| {
        let (refused, all) = halves.iter().map(of).fold((0, 0), |sum, half| (sum.0 + half.0, sum.1 + half.1));
        format!("{refused} of {all}")
    };
    let (before, after) = (median(&alone, |half| half.p99), median(&attacked, |half| half.p99));
    println!(
        "| {} | {:.0} | {:.0} | {:.0} | {before:.1} | {after:.1} | {:.2} | {} | {} | {:.0} | {:.0} | {:.1} | {:.0} |",
        row.name,
        median(&rates, |rate| *rate),
        median(&alone, |half| half.rate),
        median(&attacked, |half| half.rate),
        median(&alone.iter().zip(&attacked).collect::<Vec<_>>(), |(alone, attacked)| attacked.p99 / alone.p99),
        refused(&attacked, |half| half.refused),
        refused(&attacked, |half| half.new_refused),
        median(&alone, |half| half.cpu),
        median(&attacked, |half| half.cpu),
        process.peak() as f64 / 1_048_576.0,
        median(&back, |milliseconds| *milliseconds),
    );
    let mut reasons: Vec<_> = attacked.iter().flat_map(|half| &half.reasons).collect();
    reasons.sort();
    reasons.dedup();
    for reason in reasons {
        eprintln!("  {}: {reason}", row.name);
    }
}

/// What was measured in half of a pair.
#[derive(Debug)]
struct Half {
    rate: f64,
    /// In milliseconds, from when a message was due.
    p99: f64,
    /// How many messages were refused, and how many there were.
    refused: (usize, usize),
    new_refused: (usize, usize),
    cpu: f64,
    reasons: Vec<String>,
}

async fn half(process: &Process, known: &Diary, new: &Diary, time: Duration) -> Half {
    let (begun, before) = (Instant::now(), process.time());
    sleep(time).await;
    let (passed, cpu) = (begun.elapsed().as_secs_f64(), process.time() - before);
    let ended = Instant::now();
    let is_within = |due: &Instant| (begun..ended).contains(due);
    let count = |seen: &Seen| {
        let refused = seen.refused.iter().filter(|(due, _)| is_within(due)).count();
        (refused, refused + seen.taken.iter().filter(|(due, _)| is_within(due)).count())
    };
    let new = new.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let done = known.taken.iter().filter(|(due, took)| is_within(&(*due + *took)));
    let mut took: Vec<_> = done.map(|(_, took)| took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let reasons = known.refused.iter().chain(&new.refused).filter(|(due, _)| is_within(due));
    Half {
        rate: took.len() as f64 / passed,
        p99: took.get(took.len() * 99 / 100).copied().unwrap_or(f64::INFINITY),
        refused: count(&known),
        new_refused: count(&new),
        cpu: 100.0 * cpu.as_secs_f64() / passed,
        reasons: reasons.map(|(_, why)| why.clone()).collect(),
    }
}

/// How many milliseconds after the end of an attack messages are taken at nine tenths of their rate
/// again, for 200 ms.
fn back_after(known: &Diary, ended: Instant, rate: f64) -> f64 {
    const STEP: Duration = Duration::from_millis(50);
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let done: Vec<_> = known.taken.iter().map(|(due, took)| *due + *took).filter(|done| *done >= ended).collect();
    let taken = |from: Instant| done.iter().filter(|done| (from..from + 4 * STEP).contains(*done)).count();
    let mut from = ended;
    while (taken(from) as f64) < 0.9 * rate * (4 * STEP).as_secs_f64() {
        from += STEP;
        if from > Instant::now() {
            return f64::INFINITY;
        }
    }
    (from - ended).as_secs_f64() * 1e3
}

fn median<T>(all: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
