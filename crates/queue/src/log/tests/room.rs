//! Bounds: of memory, of the disk, of what is kept back.

use std::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use super::{block_on, claim, everything, message, open, options, put, read};
use crate::log::LogOptions;
use crate::{Draft, Full, Lease, LeaseError, ManualClock, Outcome, PutError, Queue};

/// Many more messages than fit into memory: all are there, in order, also after reopening.
#[test]
fn a_queue_larger_than_its_memory_keeps_all_messages() {
    let clock = ManualClock::default();
    let options = LogOptions { index_memory: 20_000, segment_size: 1 << 20, ..options(&clock) };
    let disk = Disk::new();
    let mut queue = open(&disk, &options).unwrap();
    let mut ids = Vec::new();
    for round in 0_u32..3 {
        block_on(async {
            let mut most = 0;
            for at in 0_u32..400 {
                let mut new = message("a", &(round * 400 + at).to_be_bytes());
                new.deliveries[0].delay = Duration::from_secs(u64::from(at % 2) * 60);
                ids.push(put(&queue, new, b"x").await.unwrap());
                most = most.max(queue.stats().await.index_memory);
            }
            assert!(most < 30_000, "{most}");
            let mut listed = Vec::new();
            loop {
                let some = queue.list(listed.last().copied(), usize::MAX).await.unwrap();
                if some.is_empty() {
                    break;
                }
                listed.extend(some.into_iter().map(|each| each.id));
            }
            assert!(listed == ids);
        });
        drop(queue);
        queue = open(&disk, &options).unwrap();
    }
    block_on(async {
        clock.advance(Duration::from_secs(60));
        let mut claimed = 0;
        let begun = std::time::Instant::now();
        while claimed < ids.len() {
            let some = claim(&queue, 7).await;
            if some.is_empty() {
                // Memory has no room before the next checkpoint, which needs a core.
                assert!(begun.elapsed() < Duration::from_secs(60), "{claimed} of {} claimed", ids.len());
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            claimed += some.len();
            for each in some {
                let place = usize::try_from(u32::from_be_bytes(each.state[..].try_into().unwrap())).unwrap();
                assert_eq!(each.lease.message(), ids[place]);
                assert_eq!(read(&queue, &each).await.unwrap(), b"x");
                queue.finish(each.lease, Outcome::Done, Vec::new()).await.unwrap();
            }
            let memory = queue.stats().await.index_memory;
            // A checkpoint may come late, and outcomes do not wait for it: each leaves notes of 64
            // bytes until then.
            assert!(memory < 30_000 + 64 * claimed as u64, "{memory} after {claimed}");
        }
        assert_eq!(claimed, ids.len());
        assert_eq!(queue.stats().await.messages, 0);
    });
}

#[test]
fn drafts_are_bounded_and_share_their_memory() {
    let options = LogOptions { max_drafts: 20, draft_memory: 10_000, ..options(&ManualClock::default()) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        let mut drafts = Vec::new();
        for _ in 0..20 {
            let mut draft = queue.put(None).await.unwrap();
            draft.write(Bytes::from(vec![1; 1200])).await.unwrap();
            let stats = queue.stats().await;
            assert!(stats.draft_memory <= 10_000, "{}", stats.draft_memory);
            drafts.push(draft);
        }
        assert!(matches!(queue.put(None).await, Err(PutError::Full(Full::Drafts { limit: 20 }))));
        let files = || disk.paths().iter().filter(|path| path.starts_with("/queue/bodies")).count();
        assert_eq!(files(), 12, "8 have room in memory");
        drafts.truncate(10);
        assert_eq!(files(), 2);
        for draft in drafts {
            draft.commit(message("a", b"")).await.unwrap();
        }
        let stats = queue.stats().await;
        assert_eq!((stats.draft_memory, stats.drafts, stats.messages), (0, 0, 10));
        for claimed in claim(&queue, 99).await {
            assert_eq!(read(&queue, &claimed).await.unwrap(), [1; 1200]);
            queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.unwrap();
        }
        // The files are removed after the answers.
        block_on(queue.close());
        assert_eq!(files(), 0);
    });
}

#[test]
fn a_body_of_100_mebibytes_is_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { disk_reserve: 0, ..LogOptions::default() };
    let queue = crate::log::LogQueue::open(dir.path(), options).unwrap();
    block_on(async {
        let mut draft = queue.put(Some(100 << 20)).await.unwrap();
        let mut crc = crc32fast::Hasher::new();
        let chunk = Bytes::from((0..1 << 16).map(|at: u32| at.to_le_bytes()[0]).collect::<Vec<_>>());
        let mut most = 0;
        for _ in 0..1600 {
            draft.write(chunk.clone()).await.unwrap();
            crc.update(&chunk);
            most = most.max(queue.stats().await.draft_memory);
        }
        assert!(most <= 256 << 10, "{most}");
        assert_eq!(queue.stats().await.draft_memory, 0);
        draft.commit(message("a", b"")).await.unwrap();
        let claimed = claim(&queue, 1).await.remove(0);
        let mut body = queue.body(claimed.lease.message()).await.unwrap();
        let mut read = crc32fast::Hasher::new();
        while let Some(chunk) = crate::Body::chunk(&mut body).await.unwrap() {
            assert!(chunk.len() <= 1 << 16);
            read.update(&chunk);
        }
        assert_eq!(read.finalize(), crc.finalize());
        assert!(queue.stats().await.index_memory < 2000);
    });
}

#[test]
fn the_reserve_refuses_puts() {
    let options = LogOptions { disk_reserve: 1000, ..options(&ManualClock::default()) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        disk.set_free(Some(1500));
        assert!(matches!(queue.put(Some(600)).await, Err(PutError::Full(Full::Disk { free: 1500, wanted: 1600 }))));
        queue.put(Some(400)).await.unwrap();
        // A small disk keeps back a sixteenth of it.
        disk.set_total(Some(1600));
        queue.put(Some(1400)).await.unwrap();
        assert!(matches!(queue.put(Some(1401)).await, Err(PutError::Full(Full::Disk { free: 1500, wanted: 1501 }))));
        disk.set_free(None);
    });
}

/// The states of one message are bounded together, however they come: what could not be read back
/// must not be written.
#[test]
fn the_states_of_retries_are_bounded_together() {
    let clock = ManualClock::default();
    let options = options(&clock);
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        let mut many = message("a", b"");
        many.deliveries = vec![many.deliveries[0].clone(); 6];
        put(&queue, many, b"x").await.unwrap();
        let retry = |len| Outcome::Retry { delay: Duration::ZERO, state: vec![7; len].into() };
        let mut leases = claim(&queue, 6).await.into_iter().map(|each| each.lease);
        let mut next = || leases.next().unwrap();
        queue.finish(next(), retry(5 << 20), Vec::new()).await.unwrap();
        let lease = next();
        let again = Lease::new(lease.message(), lease.delivery(), lease.generation());
        let refused = queue.finish(lease, retry(5 << 20), Vec::new()).await;
        assert!(matches!(refused, Err(LeaseError::TooLarge(_))), "{refused:?}");
        queue.finish(again, retry(3 << 20), Vec::new()).await.unwrap();
        for _ in 2..6 {
            queue.finish(next(), retry(crate::limits::FAIR_STATE), Vec::new()).await.unwrap();
        }
    });
    let before = block_on(everything(&queue));
    block_on(queue.close());
    assert_eq!(block_on(everything(&open(&disk, &options).unwrap())), before);
}

/// A nearly full disk does not take one message and refuse the next one.
#[test]
fn a_refused_put_is_taken_only_with_more_room_than_the_reserve() {
    let options = LogOptions { disk_reserve: 40_000, ..options(&ManualClock::default()) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        disk.set_free(Some(42_000));
        let mut begun = queue.put(None).await.unwrap();
        disk.set_free(Some(39_999));
        assert!(matches!(queue.put(None).await, Err(PutError::Full(Full::Disk { free: 39_999, wanted: 40_000 }))));
        disk.set_free(Some(49_999));
        assert!(matches!(queue.put(None).await, Err(PutError::Full(Full::Disk { free: 49_999, wanted: 50_000 }))));
        begun.write(vec![1; 5000].into()).await.expect("what has begun goes on");
        disk.set_free(Some(50_000));
        queue.put(None).await.unwrap();
        disk.set_free(None);
        disk.set_files_free(Some(900));
        let refused = queue.put(None).await.err().unwrap();
        assert!(matches!(refused, PutError::Full(Full::Files { free: 900, wanted: 1024 })), "{refused}");
        disk.set_files_free(None);
        begun.commit(message("a", b"")).await.unwrap();
    });
}

/// One message in a hundred stays; the log does not grow with the others.
#[test]
fn stragglers_are_copied_forward() {
    let clock = ManualClock::default();
    let options = LogOptions { segment_size: 16 << 10, ..options(&clock) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        let mut stay = Vec::new();
        for round in 0_u32..2000 {
            let state = round.to_le_bytes();
            put(&queue, message("a", &state), &[7; 700]).await.unwrap();
            let claimed = claim(&queue, 1).await.remove(0);
            let outcome = if round % 100 == 0 {
                stay.push((claimed.lease.message(), state.to_vec()));
                Outcome::Retry { delay: Duration::from_secs(3600), state: Bytes::copy_from_slice(&state) }
            } else {
                Outcome::Done
            };
            queue.finish(claimed.lease, outcome, Vec::new()).await.unwrap();
        }
        let mut patience = 0;
        while queue.stats().await.disk > 100 << 10 {
            patience += 1;
            assert!(patience < 500, "{} octets", queue.stats().await.disk);
            std::thread::sleep(Duration::from_millis(10));
        }
        block_on(queue.close());
        let segments = disk.paths().into_iter().filter(|path| path.starts_with("/queue/log")).count();
        assert!(segments <= 7, "{segments}");
        let queue = open(&disk, &options).unwrap();
        let there: Vec<_> = queue.list(None, 99).await.unwrap();
        let found: Vec<_> = there.iter().map(|each| (each.id, each.deliveries[0].state.to_vec())).collect();
        assert_eq!(found, stay);
        assert!(there.iter().all(|each| each.deliveries[0].attempts == 1 && each.body_len == 700));
        clock.advance(Duration::from_secs(3600));
        for claimed in claim(&queue, 99).await {
            assert_eq!(read(&queue, &claimed).await.unwrap(), [7; 700]);
        }
    });
}

#[test]
fn ids_continue_across_blocks() {
    let options = options(&ManualClock::default());
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        let mut last = None;
        for _ in 0..150_000 {
            let id = queue.put(None).await.unwrap().id();
            assert!(last < Some(id));
            last = Some(id);
        }
        let later = disk.killed();
        drop(queue);
        let queue = open(&later, &options).unwrap();
        assert!(last < Some(queue.put(None).await.unwrap().id()), "an id was given out twice");
    });
}

#[test]
fn a_wall_clock_set_back_delays_no_delivery_and_ages_no_message() {
    let clock = ManualClock::default();
    let options = options(&clock);
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        let mut new = message("a", b"");
        new.deliveries[0].delay = Duration::from_secs(100);
        put(&queue, new, b"x").await.unwrap();
        clock.advance(Duration::from_secs(100));
        let claimed = claim(&queue, 1).await.remove(0);
        let retry = Outcome::Retry { delay: Duration::from_secs(100), state: Bytes::new() };
        queue.finish(claimed.lease, retry, Vec::new()).await.unwrap();
        block_on(queue.close());
        clock.set_wall(std::time::SystemTime::UNIX_EPOCH);
        let queue = open(&disk, &options).unwrap();
        clock.advance(Duration::from_secs(100));
        let claimed = claim(&queue, 1).await.remove(0);
        assert!(claimed.age >= Duration::from_secs(200), "{:?}", claimed.age);
    });
}

/// Writers that never pause do not keep the log from shrinking. They write on until it has shrunk:
/// when that is depends on when the copying thread gets a core.
#[test]
fn stragglers_are_copied_forward_under_load() {
    let options = LogOptions { segment_size: 16 << 10, ..options(&ManualClock::default()) };
    let queue = open(&Disk::new(), &options).unwrap();
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let queue = &queue;
            scope.spawn(move || {
                block_on(async {
                    for round in 0.. {
                        let id = put(queue, message("a", b""), &[7; 700]).await.unwrap();
                        if writer > 0 || round >= 800 || round % 20 > 0 {
                            queue.remove(id).await.unwrap();
                        }
                        let disk = queue.stats().await.disk;
                        if round >= 800 && disk < 1 << 19 {
                            break;
                        }
                        let late = begun.elapsed() > Duration::from_secs(60);
                        assert!(!late, "{disk} octets for 40 messages, of more than 5 million");
                    }
                });
            });
        }
    });
    assert_eq!(block_on(queue.stats()).messages, 40);
}
