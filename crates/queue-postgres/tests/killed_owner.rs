//! Two owners in two processes. One is killed with `SIGKILL` while it holds leases; the other does
//! its work.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use posthaste_queue::{
    Change, Claimed, Draft, LeaseError, NewDelivery, NewMessage, Outcome, Owner, Priority, Queue, RoutingKey,
};
use posthaste_queue_postgres::PostgresQueue;
use tokio_postgres::Config;

mod server;
use server::{Server, block_on};

#[test]
fn the_other_owner_takes_over_from_a_killed_one() {
    let server = Server::start();
    server.execute("public", "CREATE SCHEMA shared");
    let queue = PostgresQueue::open(server.config("shared"), 1_000).unwrap();
    let (mut by_dead, mut by_us, mut taken_over) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut all = BTreeSet::new();
        for _ in 0..MESSAGES {
            let id = block_on(async { queue.put(None).await.unwrap().commit(message()).await.unwrap() });
            all.extend((0..3).map(|delivery| format!("{id}/{delivery}")));
        }
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(SOCKETS, server::sockets(&server))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // It is killed once it has finished something and holds more, with some of its writes under
        // way.
        let mut said: Vec<String> = Vec::new();
        while said.iter().filter(|line| line.starts_with("done ")).count() < 10 + round {
            said.push(lines.next().expect("the child goes on"));
        }
        // Both are at work, and this one holds some.
        let mut done = BTreeSet::new();
        block_on(finish_all(&queue, block_on(queue.claim_any(7, LEASE)).unwrap(), &mut done));
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(lines);

        // The last line may be cut off.
        let of = |what: &str| -> BTreeSet<String> {
            said.iter().filter_map(|line| Some(line.strip_prefix(what)?.strip_suffix('.')?.to_owned())).collect()
        };
        let (held, tried, finished) = (of("held "), of("try "), of("done "));
        let mut seen = Change::default();
        let began = Instant::now();
        while block_on(queue.stats()).messages > 0 {
            assert!(began.elapsed() < LONGEST, "a delivery is left that no owner can claim");
            seen = block_on(queue.changed(seen)).unwrap();
            loop {
                let claimed = block_on(queue.claim_any(7, LEASE)).unwrap();
                if claimed.is_empty() {
                    break;
                }
                block_on(finish_all(&queue, claimed, &mut done));
            }
        }
        let twice: Vec<_> = done.intersection(&finished).collect();
        assert!(twice.is_empty(), "finished by both: {twice:?}");
        for delivery in &all {
            // Outcomes that it was writing when it was killed may have been written.
            let is_done = done.contains(delivery) || finished.contains(delivery) || tried.contains(delivery);
            assert!(is_done, "{delivery} was finished by no owner");
        }
        let unfinished: BTreeSet<_> = held.difference(&finished).cloned().collect();
        taken_over += done.intersection(&unfinished).count();
        by_dead += finished.len();
        by_us += done.len();
    }
    println!(
        "{by_dead} finished by those who were killed, {by_us} by the other, of which {taken_over} were taken over"
    );
    assert!(taken_over > 0, "no owner died with a lease");
}

/// Run by the test above, in a process of its own: claims, and finishes one after the other.
#[test]
#[ignore = "the other process of the test above"]
fn child() {
    let Some(sockets) = env::var_os(SOCKETS) else { return };
    let mut config = Config::new();
    config.host_path(sockets).user("posthaste").dbname("postgres").options("-c search_path=shared");
    let queue = PostgresQueue::open(config, 1_000).unwrap();
    println!();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    let mut seen = Change::default();
    loop {
        let all = block_on(queue.claim_any(30, LEASE)).unwrap();
        if all.is_empty() {
            seen = block_on(queue.changed(seen)).unwrap();
        }
        // All are leased before the first is finished.
        let name = |claimed: &Claimed| format!("{}/{}", claimed.lease.message(), claimed.lease.delivery());
        say(all.iter().map(|claimed| format!("held {}.\n", name(claimed))).collect());
        for claimed in all {
            let delivery = name(&claimed);
            say(format!("try {delivery}.\n"));
            match block_on(queue.finish(claimed.lease, Outcome::Done, Vec::new())) {
                Ok(_) => say(format!("done {delivery}.\n")),
                Err(LeaseError::Stale) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn finish_all(queue: &PostgresQueue, claimed: Vec<Claimed>, done: &mut BTreeSet<String>) {
    for claimed in claimed {
        let delivery = format!("{}/{}", claimed.lease.message(), claimed.lease.delivery());
        match queue.finish(claimed.lease, Outcome::Done, Vec::new()).await {
            Ok(_) => assert!(done.insert(delivery.clone()), "{delivery} was finished twice"),
            Err(LeaseError::Stale) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn message() -> NewMessage {
    let key = |text: &str| RoutingKey::new(text).unwrap();
    let delivery = |text| NewDelivery { key: key(text), delay: Duration::ZERO, state: Bytes::new() };
    NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(b"envelope"),
        deliveries: ["a", "b", "c"].map(delivery).into(),
    }
}

const SOCKETS: &str = "POSTHASTE_QUEUE_POSTGRES_TEST";
/// On the database's clock, which runs in this test.
const LEASE: Duration = Duration::from_secs(2);
const ROUNDS: usize = 4;
const MESSAGES: usize = 40;
/// How long the survivor may take for what is left: a few leases.
const LONGEST: Duration = Duration::from_secs(120);
