//! A process that is killed with `SIGKILL` while it writes.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, thread};

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue, OpenError};
use posthaste_queue::{Body, Draft, MessageId, NewDelivery, NewMessage, Outcome, Owner, Priority, Queue, RoutingKey};

mod block_on;
use block_on::block_on;

#[test]
fn what_was_acknowledged_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut living: BTreeMap<MessageId, usize> = BTreeMap::new();
    let mut finished: BTreeSet<MessageId> = BTreeSet::new();
    let mut acknowledged = 0;
    // May be gone without having been said to be.
    let mut tried: BTreeSet<MessageId> = BTreeSet::new();
    for round in 0..8 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(150 + round * 40));
        if round == 0 {
            let refused = LogQueue::open(dir.path(), options()).unwrap_err();
            assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.join().unwrap() {
            // The line that was being written may have lost its end.
            let Some(words) = line.strip_suffix('.') else { continue };
            match words.split_whitespace().collect::<Vec<_>>()[..] {
                ["put", id, len] => {
                    living.insert(id.parse().unwrap(), len.parse().unwrap());
                    acknowledged += 1;
                }
                ["done", id] => {
                    finished.insert(id.parse().unwrap());
                    acknowledged += 1;
                }
                ["try", id] => {
                    tried.insert(id.parse().unwrap());
                }
                _ => {}
            }
        }
        // A claimer may say that it is done before the putter has said that it was put.
        living.retain(|id, _| !finished.contains(id));

        let queue = LogQueue::open(dir.path(), options()).unwrap();
        assert!(queue.report().damaged.is_empty(), "{:?}", queue.report());
        let mut found = BTreeMap::new();
        loop {
            let last = found.last_key_value().map(|(id, _)| *id);
            let list = block_on(queue.list(last, usize::MAX)).unwrap();
            if list.is_empty() {
                break;
            }
            found.extend(list.into_iter().map(|each| (each.id, each.body_len)));
        }
        for (id, len) in &living {
            match found.get(id) {
                Some(found) => assert_eq!(*found, *len as u64),
                None => assert!(tried.contains(id), "round {round}: {id} is lost"),
            }
        }
        assert!(found.keys().all(|id| !finished.contains(id)), "nothing that was finished is back");
        for claimed in block_on(queue.claim_any(usize::MAX, Duration::from_secs(60))).unwrap() {
            let mut body = block_on(queue.body(&claimed.lease)).unwrap();
            let mut len = 0;
            while let Some(chunk) = block_on(body.next()).unwrap() {
                len += chunk.len() as u64;
            }
            assert_eq!(len, claimed.body_len);
        }
        living.retain(|id, _| found.contains_key(id));
        living.extend(found.into_iter().map(|(id, len)| (id, usize::try_from(len).unwrap())));
    }
    println!("{acknowledged} acknowledged, none lost");
    assert!(acknowledged > 50, "{acknowledged}");
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "the other process of the test above"]
fn child() {
    let Some(dir) = env::var_os(FOLDER) else { return };
    let queue = LogQueue::open(dir, options()).unwrap();
    let count = AtomicU64::new(0);
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).unwrap();
        out.flush().unwrap();
    };
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let turn = count.fetch_add(1, Ordering::Relaxed);
                    let len = if turn.is_multiple_of(20) { 300_000 } else { usize::try_from(turn % 5000).unwrap() };
                    let id = block_on(async {
                        let mut draft = queue.put(None).await.unwrap();
                        draft.write(Bytes::from(vec![b'x'; len])).await.unwrap();
                        draft.commit(message()).await.unwrap()
                    });
                    say(format!("put {id} {len}.\n"));
                    if !turn.is_multiple_of(3) {
                        for claimed in block_on(queue.claim_any(1, Duration::from_secs(60))).unwrap() {
                            let id = claimed.lease.message();
                            say(format!("try {id}.\n"));
                            block_on(queue.finish(claimed.lease, Outcome::Done, Vec::new())).unwrap();
                            say(format!("done {id}.\n"));
                        }
                    }
                }
            });
        }
    });
}

fn message() -> NewMessage {
    let key = RoutingKey::new("example.org").unwrap();
    let delivery = NewDelivery { key, delay: Duration::ZERO, state: Bytes::new() };
    NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(b"envelope"),
        deliveries: vec![delivery],
    }
}

fn options() -> LogOptions {
    LogOptions { segment_size: 1 << 20, disk_reserve: 0, ..LogOptions::default() }
}

const FOLDER: &str = "POSTHASTE_QUEUE_KILL_TEST";
const WRITERS: usize = 6;
