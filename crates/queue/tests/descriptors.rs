//! A process without free descriptors, on a real file system.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::process::Command;
use std::time::Duration;
use std::{env, iter};

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::{
    Draft, Error, Full, MessageId, NewDelivery, NewMessage, Outcome, Owner, Priority, PutError, Queue, RoutingKey,
};
use rustix::process::{Resource, Rlimit, setrlimit};

mod block_on;
use block_on::block_on;

async fn put(queue: &LogQueue, body: usize) -> Result<MessageId, PutError> {
    let key = RoutingKey::new("example.org").unwrap();
    let deliveries = vec![NewDelivery { key, delay: Duration::ZERO, state: Bytes::new() }];
    let mut draft = queue.put(None).await?;
    draft.write(Bytes::from(vec![b'x'; body])).await?;
    let (owner, priority, envelope) = (Owner::default(), Priority::default(), Bytes::new());
    draft.commit(NewMessage { owner, priority, envelope, deliveries }).await
}

/// Takes all free descriptors, as long as the files live.
fn take_all() -> Vec<File> {
    iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn a_lack_of_descriptors_refuses_calls_and_does_not_stop_the_queue() {
    // A process of its own, because the limit is the process's.
    let mut child = Command::new(env::current_exe().unwrap());
    let output = child.args(["--exact", "--ignored", "--nocapture", "child"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "the process of the test above"]
fn child() {
    let dir = tempfile::tempdir().unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut options = LogOptions::default();
    (options.segment_size, options.inline_body) = (4096, 1500);
    (options.disk_reserve, options.index_memory) = (0, 4096);
    let queue = LogQueue::open(dir.path(), options).unwrap();
    block_on(async {
        put(&queue, 5000).await.unwrap();
        let lease = queue.claim_any(1, Duration::from_secs(60)).await.unwrap().remove(0).lease;
        let taken = take_all();
        // Segments come and go, and the index is written: the reserve is for that.
        for _ in 0..200 {
            put(&queue, 1000).await.unwrap();
        }
        // The descriptors that the previous segment has freed.
        let rest = take_all();
        let refused = put(&queue, 5000).await;
        assert!(matches!(refused, Err(PutError::Full(Full::Scarce(_)))), "{refused:?}");
        let body = queue.body(lease.message()).await;
        assert!(matches!(body, Err(Error::Scarce(_))), "{body:?}");
        queue.finish(lease, Outcome::Done, Vec::new()).await.unwrap();
        drop((taken, rest));
        put(&queue, 5000).await.unwrap();
        let stats = queue.stats().await;
        assert_eq!((stats.broken, stats.reopened, stats.messages), (None, 0, 201));
    });
}
