//! What durability costs: puts into the queue beside a plain append with `fdatasync` on the same
//! disk, the index alone, and what is due in it.
//!
//! The folder is the target folder's own, so that it is a disk and not memory. Disk figures swing
//! with everything else that the machine writes; compare within one run.

// The smallest executor that does.
#[path = "../../crates/queue/tests/block_on/mod.rs"]
mod block_on;

mod settings;

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use block_on::block_on;
use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use posthaste_queue::{
    Claim, Draft as _, NewDelivery, NewMessage, Outcome, Owner, Priority, PutError, Queue, RoutingKey,
    log::{LogOptions, LogQueue},
    memory::{MemoryOptions, MemoryQueue},
};

fn main() {
    let mut criterion = settings::criterion();
    puts(&mut criterion);
    memory(&mut criterion);
    due(&mut criterion);
    criterion.final_summary();
}

/// Messages of 1 KiB that become durable, each acknowledged before its writer goes on.
fn puts(criterion: &mut Criterion) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below the target folder");
    let mut group = criterion.benchmark_group("durable put, 1 KiB");
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(2)).sample_size(10);
    group.throughput(Throughput::Elements(1));
    plain_append(&mut group, folder.path());
    for writers in [1, 50] {
        let mut options = LogOptions::default();
        options.index_memory = 2 << 30;
        let queue = LogQueue::open(folder.path().join(writers.to_string()), options).expect("an empty queue");
        group.bench_function(format!("LogQueue, writers: {writers}"), |bencher| {
            bencher.iter_custom(|count| put_from(&queue, writers, count));
        });
    }
    group.finish();
}

/// The floor for one writer: what the disk itself takes for a record of the same size.
fn plain_append(group: &mut BenchmarkGroup<'_, WallTime>, folder: &Path) {
    let mut file = File::create(folder.join("plain")).expect("the folder is ours");
    let record = vec![b'x'; BODY.len() + 200];
    group.bench_function("floor: append and fdatasync, writers: 1", |bencher| {
        bencher.iter(|| {
            file.write_all(&record).expect("the disk has room");
            file.sync_data().expect("the disk works");
        });
    });
}

/// How long it takes until `count` messages are durable, without the start of the writers.
fn put_from(queue: &LogQueue, writers: u64, count: u64) -> Duration {
    let left = AtomicU64::new(count);
    let barrier = Barrier::new(writers as usize + 1);
    let write = || {
        barrier.wait();
        while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            block_on(put(queue)).expect("the queue takes it");
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        barrier.wait();
        let start = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().expect("it writes"));
        start.elapsed()
    })
}

/// The index and the schedule alone, 10,000 messages deep.
fn memory(criterion: &mut Criterion) {
    let mut options = MemoryOptions::default();
    options.memory = usize::MAX;
    let queue = MemoryQueue::new(options);
    let fill = |count: u64| (0..count).for_each(|_| block_on(put(&queue)).expect("it takes everything"));
    fill(10_000);
    let mut group = criterion.benchmark_group("MemoryQueue");
    group.throughput(Throughput::Elements(1));
    group.bench_function("claim and finish", |bencher| {
        bencher.iter_custom(|count| {
            fill(count);
            let start = Instant::now();
            (0..count).for_each(|_| block_on(claim_and_finish(&queue)));
            start.elapsed()
        });
    });
    group.bench_function("put, claim and finish", |bencher| {
        bencher.iter(|| {
            fill(1);
            block_on(claim_and_finish(&queue));
        });
    });
    group.finish();
}

/// A look at 256 classes and a claim from one, with 100,000 deliveries due. The classes should not
/// matter to either.
fn due(criterion: &mut Criterion) {
    const DELIVERIES: u64 = 100_000;
    let mut group = criterion.benchmark_group("MemoryQueue, 100,000 due");
    for classes in [3, DELIVERIES] {
        let mut options = MemoryOptions::default();
        options.memory = usize::MAX;
        let queue = MemoryQueue::new(options);
        for number in 0..DELIVERIES {
            let key = format!("{:06}.example.org", number % classes);
            block_on(put_for(&queue, &key, b"")).expect("it takes everything");
        }
        let whole = block_on(queue.due(None, usize::MAX)).expect("the queue is open");
        let after = &whole[whole.len() / 2];
        group.throughput(Throughput::Elements(whole.len().min(256) as u64));
        group.bench_function(format!("look at 256, classes: {classes}"), |bencher| {
            bencher.iter(|| block_on(queue.due(None, 256)).expect("the queue is open"));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("claim and give back, classes: {classes}"), |bencher| {
            let claim = Claim { from: std::slice::from_ref(after), max: 1, lease: Duration::from_secs(60) };
            bencher.iter(|| {
                let claimed = block_on(queue.claim(claim)).expect("the queue is open").pop().expect("it is due");
                block_on(queue.extend(&claimed.lease, Duration::ZERO)).expect("the lease is good");
            });
        });
    }
    group.finish();
}

async fn put<Q: Queue>(queue: &Q) -> Result<(), PutError> {
    put_for(queue, "example.org", BODY).await
}

async fn put_for<Q: Queue>(queue: &Q, key: &str, body: &'static [u8]) -> Result<(), PutError> {
    let mut draft = queue.put(Some(body.len() as u64)).await?;
    draft.write(Bytes::from_static(body)).await?;
    let key = RoutingKey::new(key).expect("a short name");
    let message = NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(&[b'e'; 150]),
        deliveries: vec![NewDelivery { key, delay: Duration::ZERO, state: Bytes::from_static(b"state") }],
    };
    draft.commit(message).await.map(|_| ())
}

async fn claim_and_finish<Q: Queue>(queue: &Q) {
    let mut claimed = queue.claim_any(1, Duration::from_secs(60)).await.expect("the queue is open");
    let claimed = claimed.pop().expect("it is filled");
    queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.expect("the lease is good");
}

const BODY: &[u8] = &[b'x'; 1_024];
