//! Damage that arises while the queue is open, before the place that an opening would read.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::disk::Disk;
use super::{DIR, block_on, body_of, message, open, options, put};
use crate::log::{LogOptions, LogQueue};
use crate::{Error, ManualClock, MessageId, Queue};

const ROUNDS: u64 = 600;
const BODY: usize = 700;

fn small_segments() -> LogOptions {
    LogOptions { segment_size: 16 << 10, ..options(&ManualClock::default()) }
}

/// Three messages that stay, and where the parts of the second one are.
fn three_that_stay(disk: &Disk, queue: &LogQueue) -> (Vec<MessageId>, PathBuf, [Range<usize>; 2]) {
    let ids = (b'1'..=b'3').map(|each| block_on(put(queue, message("stays", &[each; 50]), &[each; BODY])).unwrap());
    let ids = ids.collect();
    let path = disk.paths().into_iter().find(|path| path.starts_with("/queue/log")).unwrap();
    let octets = disk.contents(&path);
    let find =
        |len: usize, from: usize| from + octets[from..].windows(len).position(|part| part == vec![b'2'; len]).unwrap();
    let state = find(50, 0);
    let body = find(BODY, state + 50);
    (ids, path, [state..state + 50, body..body + BODY])
}

/// Puts and finishes messages, so that the log is copied forward.
fn much_comes_and_goes(queue: &LogQueue) {
    block_on(async {
        for _ in 0..ROUNDS {
            let id = put(queue, message("goes", b""), &[7; BODY]).await.unwrap();
            queue.remove(id).await.unwrap();
        }
    });
}

fn must_shrink(queue: &LogQueue) {
    let disk = || block_on(queue.stats()).disk;
    for _ in 0..500 {
        if disk() <= 100 << 10 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} octets of log for what stays", disk());
}

fn must_be_there(queue: &LogQueue, ids: &[MessageId], is_body_damaged: bool) {
    let there = block_on(queue.list(None, 9)).unwrap();
    assert_eq!(there.iter().map(|each| each.id).collect::<Vec<_>>(), ids);
    for (each, octet) in there.iter().zip(b'1'..=b'3') {
        assert_eq!(each.deliveries[0].state, vec![octet; 50]);
        match block_on(body_of(queue, each.id)) {
            Ok(body) => assert!(body == [octet; BODY] && !(is_body_damaged && octet == b'2')),
            Err(Error::Damaged { .. } | Error::Unreadable { .. }) => assert!(is_body_damaged && octet == b'2'),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn live_messages_of_a_damaged_place_are_copied_and_free_their_segment() {
    for part in 0..2 {
        let (disk, options) = (Disk::new(), small_segments());
        let queue = open(&disk, &options).unwrap();
        let (ids, path, parts) = three_that_stay(&disk, &queue);
        let mut octets = disk.contents(&path);
        octets[parts[part].start + 9] ^= 4;
        disk.set_contents(&path, octets);
        much_comes_and_goes(&queue);
        must_shrink(&queue);
        assert!(!disk.paths().contains(&path), "its segment has gone");
        must_be_there(&queue, &ids, part == 1);
        assert_eq!(block_on(queue.stats()).damaged, 1);
        block_on(queue.close());

        for has_index in [true, false] {
            let disk = disk.killed();
            if !has_index {
                disk.forget(&Path::new(DIR).join("index"));
            }
            let queue = open(&disk, &options).unwrap();
            must_be_there(&queue, &ids, part == 1);
        }
    }
}

/// The place is left as it is: it may be readable another day. All other messages go on.
#[test]
fn an_unreadable_segment_stays_and_the_queue_goes_on() {
    for part in 0..2 {
        let (disk, options) = (Disk::new(), small_segments());
        let queue = open(&disk, &options).unwrap();
        let (ids, path, parts) = three_that_stay(&disk, &queue);
        disk.spoil(&path, parts[part].clone());
        much_comes_and_goes(&queue);
        let stats = || block_on(queue.stats());
        for _ in 0..500 {
            if stats().damaged > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((stats().damaged, stats().reopened), (1, 0));
        must_be_there(&queue, &ids, part == 1);
        if part == 0 {
            must_shrink(&queue);
        } else {
            assert!(disk.paths().contains(&path), "its segment stays");
            disk.spoil(&path, 0..0);
            must_be_there(&queue, &ids, false);
        }
    }
}

/// Copies that found no room are made when there is some.
#[test]
fn copies_refused_by_a_full_disk_are_made_later() {
    let (disk, options) = (Disk::new(), small_segments());
    let queue = open(&disk, &options).unwrap();
    let path = || disk.paths().into_iter().find(|path| path.starts_with("/queue/log"));
    let first = path();
    block_on(async {
        for _ in 0..8 {
            put(&queue, message("stays", b""), &[1; BODY]).await.unwrap();
        }
        let mut go = Vec::new();
        // So few that no checkpoint begins: it would take the room, and outcomes would wait.
        for _ in 0..41 {
            go.push(put(&queue, message("goes", b""), &[7; BODY]).await.unwrap());
        }
        // Room for the records that end messages, but not for copies.
        disk.set_free(Some(4_000));
        for id in go {
            queue.remove(id).await.unwrap();
        }
    });
    thread::sleep(Duration::from_millis(100));
    assert_eq!(path(), first, "nothing could be copied");
    disk.set_free(None);
    much_comes_and_goes(&queue);
    must_shrink(&queue);
    let stats = block_on(queue.stats());
    assert_eq!((stats.messages, stats.damaged), (8, 0));
}
