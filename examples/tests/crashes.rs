//! What has been acknowledged is delivered, whenever the relay is killed, stopped or started.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::submit;
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::{json, python, token};

/// The most deliveries that one crash repeats: transactions that were open, or whose outcome was
/// not synced yet.
const DUPLICATES_A_CRASH: u64 = 1_000;

#[test]
fn a_relay_killed_under_load_loses_no_acknowledged_message() {
    const ROUNDS: u32 = 4;
    let mut sink = Sink::start();
    let mut relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let acknowledged_file = relay.folder().join("acknowledged");
    let loader = Loader::start(relay.port, &acknowledged_file, 12);
    for round in 0..ROUNDS {
        // Not the same distance from the start every time.
        std::thread::sleep(Duration::from_millis(1500 + 370 * u64::from(round)));
        relay.kill();
        relay.start_again();
    }
    let summary = loader.finish();
    println!("loader: {summary}");
    let acknowledged = tokens(&acknowledged_file);
    assert!(acknowledged.len() > 50, "the load was too light to tell anything: {summary}");
    let duplicates = all_arrive(&mut sink, &acknowledged);
    relay.wait_queued(0);
    println!("{} acknowledged, none lost, {duplicates} delivered twice in {ROUNDS} crashes", acknowledged.len());
    assert!(duplicates <= DUPLICATES_A_CRASH * u64::from(ROUNDS), "{duplicates} duplicates");
}

#[test]
fn sigterm_drains_and_a_restart_resumes() {
    let mut sink = Sink::start();
    let mut relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let acknowledged_file = relay.folder().join("acknowledged");
    let loader = Loader::start(relay.port, &acknowledged_file, 6);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(2));
        let status = relay.stop();
        assert!(status.success(), "SIGTERM ended the relay with {status}");
        relay.start_again();
    }
    let summary = loader.finish();
    let acknowledged = tokens(&acknowledged_file);
    assert!(acknowledged.len() > 50, "the load was too light to tell anything: {summary}");
    let duplicates = all_arrive(&mut sink, &acknowledged);
    assert_eq!(duplicates, 0, "a relay that was asked to stop finishes what it has begun");
    relay.wait_queued(0);
    assert!(relay.stop().success());
}

#[test]
fn held_messages_survive_any_restart() {
    const MESSAGES: u64 = 30;
    let mut sink = Sink::start();
    sink.down();
    let mut relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    let tokens: Vec<String> = (0..MESSAGES).map(|_| token()).collect();
    for token in &tokens {
        submit(relay.port, token);
    }
    relay.wait_queued(MESSAGES);
    assert!(relay.stop().success());
    relay.start_again();
    relay.wait_queued(MESSAGES);
    relay.kill();
    relay.start_again();
    relay.wait_queued(MESSAGES);
    sink.up();
    for token in &tokens {
        sink.one(token);
    }
    relay.wait_queued(0);
}

/// Waits until every token has arrived and returns how many deliveries were repetitions.
fn all_arrive(sink: &mut Sink, acknowledged: &BTreeSet<String>) -> u64 {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let tally = sink.tally(r"Token: (load-\d+-\d+)");
        let seen = tally["seen"].as_object().expect("sink.py answers with an object");
        let missing: Vec<&String> = acknowledged.iter().filter(|token| !seen.contains_key(*token)).collect();
        if missing.is_empty() {
            return seen.values().filter_map(Value::as_u64).map(|count| count - 1).sum();
        }
        assert!(
            Instant::now() < end,
            "{} of {} acknowledged messages have not arrived, among them {:?}",
            missing.len(),
            acknowledged.len(),
            &missing[..missing.len().min(5)]
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn tokens(file: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(file).expect("the loader wrote it").lines().map(str::to_owned).collect()
}

/// peers/loader.py at work.
struct Loader(Child);

impl Loader {
    fn start(port: u16, acknowledged: &Path, seconds: u32) -> Self {
        let mut command = python("peers/loader.py");
        command.arg(port.to_string()).arg(acknowledged);
        command.args(["--connections", "8", "--limit", "10000", "--pause", "0.01", "--seconds", &seconds.to_string()]);
        Self(command.stdout(Stdio::piped()).spawn().expect("python3 was found a moment ago"))
    }

    /// Waits for its end, which its time limit brings, and returns what it counted.
    fn finish(mut self) -> Value {
        use std::io::Read;
        let mut text = String::new();
        let mut output = self.0.stdout.take().expect("asked for above");
        output.read_to_string(&mut text).expect("the loader prints text");
        json(&text)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
