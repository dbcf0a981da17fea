//! What it costs that a message is on stable storage before it is accepted: the queue beside what
//! else one could do, in turn on the same disk.
//!
//! `cargo xtask bench durability`, with `--rounds`, `--seconds` (of each round), `--load TEXT` and
//! `--candidate TEXT` (only those whose name has it in it). Each candidate puts for a short time,
//! then the next one, and so on round after round, because disks swing by the minute: only ratios
//! within a round mean anything. Without `--bench`, as under `cargo test`, everything runs for an
//! instant and nothing is to be read from the figures.

// The smallest executor that does.
#[path = "../../../crates/queue/tests/block_on/mod.rs"]
mod block_on;

mod candidates;
mod cpu;
mod load;
mod report;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::candidates::{CANDIDATES, Named};
use self::load::Round;

fn main() {
    let settings = Settings::from_arguments();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below the target folder");
    println!("{} rounds of {:?} each; median (least - most) of the rounds", settings.rounds, settings.time);
    for kib in [1, 10] {
        let body = body(kib * 1024);
        for writers in [1, 50] {
            let name = format!("{kib} KiB, writers: {writers}");
            if !settings.wants("--load", &name) {
                continue;
            }
            let folder = folder.path().join(format!("{kib}-{writers}"));
            fs::create_dir(&folder).expect("the folder is ours");
            let (probes, rounds) = in_turn(&settings, &folder, &name, writers, &body);
            report::print(&name, &probes, &rounds);
            fs::remove_dir_all(&folder).expect("the folder is ours");
        }
    }
}

struct Settings {
    arguments: Vec<String>,
    rounds: usize,
    time: Duration,
}

impl Settings {
    fn from_arguments() -> Self {
        let mut settings = Self { arguments: std::env::args().collect(), rounds: 1, time: Duration::from_millis(50) };
        if settings.arguments.iter().any(|argument| argument == "--bench") {
            let number = |name: &str, default: f64| {
                settings.option(name).map_or(default, |text| text.parse().expect("a number behind the option"))
            };
            let (rounds, seconds) = (number("--rounds", 7.0), number("--seconds", 1.2));
            settings.rounds = rounds as usize;
            settings.time = Duration::from_secs_f64(seconds);
        }
        settings
    }

    fn option(&self, name: &str) -> Option<&String> {
        let at = self.arguments.iter().position(|argument| argument == name)?;
        self.arguments.get(at + 1)
    }

    /// Returns `true` if a name is to be measured.
    fn wants(&self, option: &str, name: &str) -> bool {
        self.option(option).is_none_or(|wanted| name.contains(wanted.as_str()))
    }
}

/// Every candidate's rounds, by candidate, and what the disk took for a plain sync before each of
/// them.
fn in_turn(
    settings: &Settings,
    folder: &Path,
    name: &str,
    writers: usize,
    body: &Bytes,
) -> (Vec<f64>, Vec<(&'static str, Vec<Round>)>) {
    let mut probes = Vec::new();
    let open = |(name, open): &Named| {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("the folder is ours");
        (*name, open(&folder), Vec::new())
    };
    let wanted = CANDIDATES.iter().filter(|(name, _)| settings.wants("--candidate", name));
    let mut running: Vec<_> = wanted.map(open).collect();
    for number in 1..=settings.rounds {
        for (candidate, put, rounds) in &mut running {
            if writers > 1 && put.is_for_one() {
                continue;
            }
            cpu::settle();
            probes.push(probe(folder));
            let round = load::run(&**put, writers, body, settings.time);
            eprintln!("{name}, round {number} of {}: {:8.0}/s {candidate}", settings.rounds, round.rate);
            rounds.push(round);
        }
    }
    let rounds = running.into_iter().map(|(name, _, rounds)| (name, rounds));
    (probes, rounds.filter(|(_, rounds)| !rounds.is_empty()).collect())
}

/// The median time in milliseconds that a `fdatasync` takes after an append of 4 KiB.
fn probe(folder: &Path) -> f64 {
    let path = folder.join("probe");
    let mut file = File::create(&path).expect("the folder is ours");
    let mut times = [0.0; 9];
    for time in &mut times {
        file.write_all(&[b'x'; 4096]).expect("the disk has room");
        let start = Instant::now();
        file.sync_data().expect("the disk works");
        *time = start.elapsed().as_secs_f64() * 1e3;
    }
    fs::remove_file(path).expect("the file is ours");
    report::Spread::of(times).median
}

/// Octets that no disk can make less of.
fn body(len: usize) -> Bytes {
    let mut seed = 1_u64;
    let octets = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    });
    octets.take(len).collect()
}
