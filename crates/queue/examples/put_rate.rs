//! Measures durable messages a second, beside a plain loop of append and `fdatasync` on the same
//! disk.
//!
//! `cargo run --release -p posthaste-queue --example put_rate -- [FOLDER]` writes into a new folder
//! there for about seven seconds.

#[cfg(unix)]
#[path = "../tests/block_on/mod.rs"]
mod block_on;

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    measure::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("the durable engine needs a Unix disk");
}

#[cfg(unix)]
mod measure {
    use std::error::Error;
    use std::io::Write;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};
    use std::{env, fs, thread};

    use bytes::Bytes;
    use posthaste_queue::log::{LogOptions, LogQueue};
    use posthaste_queue::{Draft, NewDelivery, NewMessage, Outcome, Owner, Priority, PutError, Queue, RoutingKey};

    use crate::block_on::block_on;

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        let parent = env::args_os().nth(1).map_or_else(env::temp_dir, Into::into);
        let dir = parent.join(format!("put-rate-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let done = plain(&dir).and_then(|()| {
            for writers in [1, 50] {
                queue(&dir.join(format!("queue-{writers}")), writers)?;
            }
            Ok(())
        });
        fs::remove_dir_all(&dir)?;
        done
    }

    fn plain(dir: &Path) -> Result<(), Box<dyn Error>> {
        let mut file = fs::File::create(dir.join("plain"))?;
        let record = vec![b'x'; BODY + 200];
        let (start, mut count) = (Instant::now(), 0_u64);
        while start.elapsed() < TIME {
            file.write_all(&record)?;
            file.sync_data()?;
            count += 1;
        }
        println!("append + fdatasync, one at a time: {:8.0}/s", rate(count, start.elapsed()));
        Ok(())
    }

    fn queue(dir: &Path, writers: usize) -> Result<(), Box<dyn Error>> {
        let mut options = LogOptions::default();
        options.index_memory = 2 << 30;
        let queue = LogQueue::open(dir, options)?;
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let body = Bytes::from(vec![b'x'; BODY]);
        let start = Instant::now();
        let put = || -> Result<(), PutError> {
            while !stop.load(Relaxed) {
                block_on(async {
                    let mut draft = queue.put(Some(BODY as u64)).await?;
                    draft.write(body.clone()).await?;
                    draft.commit(message()).await
                })?;
                count.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let failed = thread::scope(|scope| {
            let threads: Vec<_> = (0..writers).map(|_| scope.spawn(put)).collect();
            thread::sleep(TIME);
            stop.store(true, Relaxed);
            threads.into_iter().find_map(|thread| thread.join().ok().and_then(Result::err))
        });
        if let Some(failed) = failed {
            return Err(failed.into());
        }
        let (took, puts) = (start.elapsed(), count.load(Relaxed));
        let stats = block_on(queue.stats());
        println!(
            "{writers:3} writers: put {:8.0}/s, {:.3} fsyncs a message",
            rate(puts, took),
            stats.fsyncs as f64 / puts as f64
        );
        finish(&queue, writers, puts)
    }

    fn finish(queue: &LogQueue, writers: usize, puts: u64) -> Result<(), Box<dyn Error>> {
        let before = block_on(queue.stats()).fsyncs;
        let (start, count) = (Instant::now(), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    while start.elapsed() < TIME / 2 {
                        let claimed = block_on(queue.claim_any(1, Duration::from_secs(60)));
                        let Some(claimed) = claimed.ok().and_then(|mut claimed| claimed.pop()) else {
                            return;
                        };
                        if block_on(queue.finish(claimed.lease, Outcome::Done, Vec::new())).is_ok() {
                            count.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        let (took, finished) = (start.elapsed(), count.load(Relaxed));
        let fsyncs = block_on(queue.stats()).fsyncs.saturating_sub(before);
        println!(
            "{writers:3} writers: claim and finish {:8.0}/s, {:.3} fsyncs a message ({finished} of {puts})",
            rate(finished, took),
            fsyncs as f64 / finished as f64
        );
        Ok(())
    }

    fn message() -> NewMessage {
        let key = RoutingKey::new("example.org").unwrap_or_else(|error| unreachable!("{error}"));
        NewMessage {
            owner: Owner::default(),
            priority: Priority::default(),
            envelope: Bytes::from_static(&[b'e'; 150]),
            deliveries: vec![NewDelivery { key, delay: Duration::ZERO, state: Bytes::from_static(b"state") }],
        }
    }

    fn rate(count: u64, time: Duration) -> f64 {
        count as f64 / time.as_secs_f64()
    }

    const BODY: usize = 1024;
    const TIME: Duration = Duration::from_secs(2);
}
