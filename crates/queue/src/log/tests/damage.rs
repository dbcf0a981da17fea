//! A log that is cut anywhere, or has any bit flipped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use super::{DIR, block_on, claim, message, open, options, put, read};
use crate::log::format::frame::{FRAME, SEGMENT_HEADER};
use crate::log::{LogOptions, OpenError};
use crate::{Derived, ManualClock, MessageId, Outcome, Queue};

/// For each length of the log: the messages in the queue, with the size of their bodies.
type Steps = Vec<(u64, Vec<(MessageId, u64)>)>;

/// A small log in one segment: the disk after a kill, the segment's path, its bytes, its steps.
fn small_log(options: &LogOptions) -> (Disk, PathBuf, Vec<u8>, Steps) {
    let disk = Disk::new();
    let queue = open(&disk, options).unwrap();
    let mut steps = Vec::new();
    block_on(async {
        let note = async |steps: &mut Vec<_>| {
            let list = queue.list(None, 99).await.unwrap();
            let there: Vec<_> = list.into_iter().map(|each| (each.id, each.body_len)).collect();
            steps.push((queue.stats().await.disk, there));
        };
        note(&mut steps).await;
        let mut first = None;
        for len in [5, 0, 90] {
            let id = put(&queue, message("a", b"state"), &vec![b'x'; len]).await.unwrap();
            first.get_or_insert(id);
            note(&mut steps).await;
        }
        let mut claimed = claim(&queue, 2).await;
        let derived = vec![Derived { message: message("r", b""), body: Bytes::from_static(b"report") }];
        queue.finish(claimed.remove(0).lease, Outcome::Done, derived).await.unwrap();
        note(&mut steps).await;
        let retry = Outcome::Retry { delay: Duration::from_secs(5), state: Bytes::from_static(b"later") };
        queue.finish(claimed.remove(0).lease, retry, Vec::new()).await.unwrap();
        note(&mut steps).await;
        let last = put(&queue, message("b", b"state"), b"last").await.unwrap();
        note(&mut steps).await;
        queue.hold(last).await.unwrap();
        note(&mut steps).await;
    });
    // As after a kill: without the record of a closed queue.
    let killed = disk.killed();
    let path = killed.paths().into_iter().find(|path| path.starts_with("/queue/log")).unwrap();
    let mut octets = killed.contents(&path);
    let zeros = octets.split_off(usize::try_from(steps.last().unwrap().0).unwrap());
    assert!(!zeros.is_empty() && zeros.iter().all(|octet| *octet == 0), "written ahead");
    killed.set_contents(&path, octets.clone());
    drop(queue);
    (killed, path, octets, steps)
}

/// Closes the queue, and removes the index, so that the log must be read.
fn closed_without_index(disk: &Disk, options: &LogOptions) -> Disk {
    drop(open(disk, options).unwrap());
    let disk = disk.killed();
    disk.forget(&Path::new(DIR).join("index"));
    disk
}

fn one_segment() -> LogOptions {
    LogOptions { segment_size: 1 << 20, ..options(&ManualClock::default()) }
}

#[test]
fn a_log_cut_at_any_byte_keeps_all_records_before() {
    let options = one_segment();
    let (disk, path, octets, steps) = small_log(&options);
    assert_eq!(octets.len() as u64, steps.last().unwrap().0);
    // With and without zeros written ahead, once the header is complete.
    let lens = (0..=octets.len()).map(|len| (len, 0)).chain((SEGMENT_HEADER..=octets.len()).map(|len| (len, 1000)));
    for (len, zeros) in lens {
        let disk = disk.killed();
        disk.set_contents(&path, [&octets[..len], &vec![0; zeros]].concat());
        let queue = open(&disk, &options).unwrap();
        let report = queue.report();
        assert!(report.damaged.is_empty(), "{len}: {report:?}");
        assert!(report.truncated <= len as u64, "zeros are no batch");
        let expected = steps.iter().rev().find(|(end, _)| *end <= len as u64).map(|(_, there)| there.clone());
        block_on(async {
            let there: Vec<_> =
                queue.list(None, 99).await.unwrap().into_iter().map(|each| (each.id, each.body_len)).collect();
            assert_eq!(there, expected.unwrap_or_default(), "cut at {len}");
            for claimed in claim(&queue, 99).await {
                assert_eq!(read(&queue, &claimed).await.unwrap().len() as u64, claimed.body_len);
            }
            // The queue goes on.
            put(&queue, message("c", b""), b"more").await.unwrap();
        });
    }
}

#[test]
fn a_log_with_any_bit_flipped_loses_one_record_at_most() {
    let options = one_segment();
    let (disk, path, octets, steps) = small_log(&options);
    // With the record of a closed queue at the end, all before it is known to be synced.
    let disk = closed_without_index(&disk, &options);
    let closed = disk.contents(&path);
    assert!(closed.len() > octets.len());
    let all = &steps.last().unwrap().1;
    let last_record = closed.len() - FRAME;
    for at in 0..closed.len() {
        for bit in [0, 3, 7] {
            let disk = disk.killed();
            let mut turned = closed.clone();
            turned[at] ^= 1 << bit;
            disk.set_contents(&path, turned.clone());
            let queue = open(&disk, &options).unwrap();
            let report = queue.report().clone();
            let there = block_on(queue.list(None, 99)).unwrap();
            if at < last_record {
                assert_eq!(report.damaged.len(), 1, "octet {at}, bit {bit}: {report:?}");
                assert_eq!(report.truncated, 0, "octet {at}, bit {bit}");
                assert!(block_on(queue.stats()).damaged == 1);
                if at >= SEGMENT_HEADER {
                    let kept = disk.paths().into_iter().any(|path| path.starts_with("/queue/quarantine"));
                    assert!(kept, "octet {at}, bit {bit}: set aside");
                }
            } else {
                assert!(report.damaged.is_empty());
                assert!(report.truncated > 0, "the last record is one that no caller waited for");
            }
            // At most one record is lost, so at most one message is missing, or one that was gone
            // is back.
            let missing = all.iter().filter(|(id, _)| there.iter().all(|each| each.id != *id)).count();
            assert!(missing <= 1, "octet {at}, bit {bit}: {missing} are missing");
            assert!(there.len() <= all.len() + 1, "octet {at}, bit {bit}");
            let known = there.iter().map(|each| each.id).max();
            let next = block_on(put(&queue, message("c", b""), b"more")).unwrap();
            assert!(known < Some(next));
        }
    }
}

#[test]
fn a_body_with_the_bytes_of_a_record_is_not_taken_for_one() {
    let options = one_segment();
    let (disk, path, octets, _) = small_log(&options);
    // What a stranger could send who had seen another segment: only the tag is wrong.
    let foreign: Vec<u8> = octets[64..].to_vec();
    let queue = open(&disk, &options).unwrap();
    let before = block_on(queue.stats()).messages;
    block_on(async {
        put(&queue, message("evil", b""), &foreign).await.unwrap();
        put(&queue, message("good", b""), b"x").await.unwrap();
    });
    drop(queue);
    let disk = closed_without_index(&disk, &options);
    // The record with the hostile body is damaged. The records in that body are not found, because
    // their tag is another segment's.
    let mut turned = disk.contents(&path);
    let body = turned.windows(foreign.len()).rposition(|octets| octets == foreign).unwrap();
    for tag in turned[body..body + foreign.len()].chunks_mut(8) {
        if *tag == octets[24..32] {
            tag[0] ^= 1;
        }
    }
    disk.set_contents(&path, turned);
    let queue = open(&disk, &options).unwrap();
    assert_eq!(queue.report().damaged.len(), 1);
    assert_eq!(block_on(queue.stats()).messages, before + 1);
}

#[test]
fn a_damaged_body_is_never_given_out_whole() {
    let (disk, options) = (Disk::new(), one_segment());
    let queue = open(&disk, &options).unwrap();
    let (small, large) = (vec![b's'; 1000], vec![b'l'; 100_000]);
    block_on(async {
        put(&queue, message("a", b""), &small).await.unwrap();
        put(&queue, message("a", b""), &large).await.unwrap();
    });
    for path in disk.paths() {
        let mut octets = disk.contents(&path);
        if let Some(at) = octets.windows(500).position(|part| part == [b's'; 500] || part == [b'l'; 500]) {
            octets[at + 250] ^= 4;
            disk.set_contents(&path, octets);
        }
    }
    let claimed = block_on(claim(&queue, 9));
    assert_eq!(claimed.len(), 2);
    for claimed in claimed {
        let error = block_on(read(&queue, &claimed)).unwrap_err();
        let crate::Error::Damaged { message, reason } = error else { panic!("{error}") };
        assert_eq!(message, claimed.lease.message());
        assert!(reason.contains("/queue/"), "{reason}");
    }
}

#[test]
fn a_missing_body_holds_its_message() {
    let (disk, options) = (Disk::new(), one_segment());
    let queue = open(&disk, &options).unwrap();
    let id = block_on(put(&queue, message("a", b""), &[b'l'; 100_000])).unwrap();
    block_on(queue.close());
    let path = disk.paths().into_iter().find(|path| path.starts_with("/queue/bodies")).unwrap();
    disk.set_contents(&path, vec![b'l'; 99]);
    let queue = open(&disk, &options).unwrap();
    assert_eq!(queue.report().damaged.len(), 1);
    let listed = block_on(queue.list(None, 9)).unwrap();
    assert!(listed[0].id == id && listed[0].held);
}

/// Nine messages, two of them with bodies in files, and the segments.
pub(super) fn queue_of_nine(options: &LogOptions) -> (Disk, Vec<PathBuf>) {
    let disk = Disk::new();
    let queue = open(&disk, options).unwrap();
    block_on(async {
        for len in [1400, 5000, 1400, 1400, 1400, 5000, 1400, 1400, 1400] {
            put(&queue, message("a", b""), &vec![b'x'; len]).await.unwrap();
        }
    });
    block_on(queue.close());
    let mut segments: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with("/queue/log")).collect();
    segments.sort();
    assert!(segments.len() >= 3);
    (disk, segments)
}

#[test]
fn messages_of_a_missing_segment_are_on_hold_and_it_is_reported_until_they_are_gone() {
    let options = options(&ManualClock::default());
    for at in 0..2 {
        let (disk, segments) = queue_of_nine(&options);
        let octets = disk.contents(&segments[at]);
        disk.forget(&segments[at]);
        for _ in 0..2 {
            let queue = open(&disk, &options).unwrap();
            let damaged: Vec<_> = queue.report().damaged.iter().map(|each| each.path.clone()).collect();
            assert_eq!(damaged, [segments[at].clone()], "{:?}", queue.report());
            block_on(async {
                let (held, good): (Vec<_>, Vec<_>) =
                    queue.list(None, 99).await.unwrap().into_iter().partition(|summary| summary.held);
                assert!(!held.is_empty() && held.iter().all(|summary| summary.body_len == 1400), "{held:?}");
                assert_eq!(held.len() + good.len(), 9);
                let claimed = claim(&queue, 99).await;
                assert_eq!(claimed.len(), good.len());
                for claimed in &claimed {
                    assert_eq!(read(&queue, claimed).await.unwrap().len() as u64, claimed.body_len);
                }
            });
            block_on(queue.close());
        }
        let queue = open(&disk, &options).unwrap();
        block_on(async {
            for held in queue.list(None, 99).await.unwrap().into_iter().filter(|summary| summary.held) {
                queue.remove(held.id).await.unwrap();
            }
            // The queue had their records, if not their bodies.
            for claimed in claim(&queue, 99).await.into_iter().filter(|claimed| claimed.body_len == 5000) {
                queue.finish(claimed.lease, Outcome::Done, Vec::new()).await.unwrap();
            }
        });
        block_on(queue.close());
        let queue = open(&disk, &options).unwrap();
        assert_eq!(queue.report().damaged, []);
        let left = block_on(queue.list(None, 99)).unwrap().len();
        block_on(queue.close());
        // After it is restored, no message comes back.
        crate::log::disk::vfs::Vfs::create(&disk, &segments[at]).unwrap().write_at(&octets, 0).unwrap();
        assert_eq!(block_on(open(&disk, &options).unwrap().list(None, 99)).unwrap().len(), left);
    }
}

#[test]
fn a_missing_segment_holds_more_messages_than_fit_into_memory() {
    let clock = ManualClock::default();
    let options = LogOptions { segment_size: 64 << 10, index_memory: 0, ..options(&clock) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        for _ in 0..900 {
            put(&queue, message("a", b""), &[b'x'; 100]).await.unwrap();
        }
    });
    block_on(queue.close());
    let mut segments: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with("/queue/log")).collect();
    segments.sort();
    disk.forget(&segments[0]);
    for _ in 0..2 {
        let queue = open(&disk, &options).unwrap();
        let damaged: Vec<_> = queue.report().damaged.iter().map(|each| each.path.clone()).collect();
        assert_eq!(damaged, [segments[0].clone()]);
        let listed = block_on(queue.list(None, 1_000)).unwrap();
        let held = listed.iter().filter(|summary| summary.held).count();
        assert_eq!(listed.len(), 900);
        // More than fit into memory, which is 4 KiB at least.
        assert!(held > 200 && held < 900, "{held}");
        block_on(queue.close());
    }
}

#[test]
fn an_index_whose_segment_is_missing_is_set_aside_and_no_body_is_deleted() {
    let options = options(&ManualClock::default());
    let (disk, segments) = queue_of_nine(&options);
    disk.forget(segments.last().unwrap());
    let queue = open(&disk, &options).unwrap();
    let damaged: Vec<_> = queue.report().damaged.iter().map(|each| each.path.clone()).collect();
    assert_eq!(damaged, [Path::new(DIR).join("index")], "{:?}", queue.report());
    let bodies = disk.paths().into_iter().filter(|path| path.extension().is_none() && path.starts_with("/queue"));
    let kept = bodies.filter(|path| path.starts_with("/queue/bodies") || path.starts_with("/queue/quarantine")).count();
    assert_eq!(kept, 2);
    block_on(queue.close());
    assert_eq!(open(&disk, &options).unwrap().report().damaged, [], "it is reported once");
}

#[test]
fn a_folder_of_another_program_is_not_changed() {
    let options = one_segment();
    for (name, octets) in
        [("posthaste-queue", &b"posthaste-queue 2\n"[..]), ("photo.jpg", b"x"), ("log/mail.log", b"x")]
    {
        let disk = Disk::new();
        let path = Path::new(DIR).join(name);
        let vfs: &dyn crate::log::disk::vfs::Vfs = &disk;
        vfs.make_dir(Path::new(DIR)).unwrap();
        vfs.make_dir(&Path::new(DIR).join("log")).unwrap();
        vfs.create(&path).unwrap().write_at(octets, 0).unwrap();
        let refused = open(&disk, &options).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. } | OpenError::Version { .. }), "{refused}");
        assert!(refused.to_string().contains(name) && refused.to_string().len() > 60, "{refused}");
        assert_eq!(disk.paths(), [path], "nothing was made");
    }
}

#[test]
fn a_second_opener_is_refused() {
    let (disk, options) = (Disk::new(), one_segment());
    let queue = open(&disk, &options).unwrap();
    assert!(matches!(open(&disk, &options), Err(OpenError::Locked { .. })));
    block_on(queue.close());
    open(&disk, &options).unwrap();
}

/// Two messages with a file for each body, a draft, and a kill.
fn killed_with_bodies(options: &LogOptions) -> Disk {
    let disk = Disk::new();
    let queue = open(&disk, options).unwrap();
    block_on(async {
        for _ in 0..2 {
            put(&queue, message("a", b""), &[b'x'; 5000]).await.unwrap();
        }
        let mut draft = queue.put(None).await.unwrap();
        crate::Draft::write(&mut draft, Bytes::from_static(&[b'd'; 5000])).await.unwrap();
        let killed = disk.killed();
        drop(draft);
        killed
    })
}

fn in_folder(disk: &Disk, folder: &str) -> usize {
    let folder = Path::new(DIR).join(folder);
    disk.paths().into_iter().filter(|path| path.starts_with(&folder) && path.extension().is_none()).count()
}

#[test]
fn a_log_whose_only_segment_is_gone_or_empty_is_damaged_and_keeps_its_bodies() {
    let options = one_segment();
    for (len, is_index_there) in [(None, true), (None, false), (Some(0), true), (Some(SEGMENT_HEADER), true)] {
        let disk = killed_with_bodies(&options);
        let path = disk.paths().into_iter().find(|path| path.starts_with("/queue/log")).unwrap();
        match len {
            None => disk.forget(&path),
            Some(len) => disk.shorten(&path, len),
        }
        if !is_index_there {
            disk.forget(&Path::new(DIR).join("index"));
        }
        assert_eq!(in_folder(&disk, "bodies"), 3);
        let queue = open(&disk, &options).unwrap();
        let report = queue.report();
        let damaged: Vec<_> = report.damaged.iter().map(|each| each.path.clone()).collect();
        assert_eq!(damaged, [Path::new(DIR).join("log")], "{len:?}: {report:?}");
        assert!(report.damaged[0].what.contains("3 files in bodies/"), "{report:?}");
        assert_eq!((in_folder(&disk, "bodies"), in_folder(&disk, "quarantine")), (0, 3));
        block_on(put(&queue, message("a", b""), b"goes on")).unwrap();
        block_on(queue.close());
        assert_eq!(open(&disk, &options).unwrap().report().damaged, [], "it is reported once");
    }
}

#[test]
fn a_draft_of_a_killed_process_is_no_damage_and_is_removed() {
    let options = one_segment();
    let disk = killed_with_bodies(&options);
    let queue = open(&disk, &options).unwrap();
    assert_eq!((queue.report().damages(), queue.report().orphans, queue.report().messages), (0, 1, 2));
    assert_eq!((in_folder(&disk, "bodies"), in_folder(&disk, "quarantine")), (2, 0));
}

#[test]
fn a_queue_whose_marker_is_damaged_or_missing_says_so_and_is_mended_by_what_it_says() {
    let options = one_segment();
    let marker = Path::new(DIR).join("posthaste-queue");
    for text in
        [None, Some(&b""[..]), Some(b"posthaste"), Some(&[0; 18]), Some(b"pow.has>e-queU% 1\n"), Some(&[b'x'; 40])]
    {
        let disk = killed_with_bodies(&options);
        match text {
            None => disk.forget(&marker),
            Some(text) => disk.set_contents(&marker, text.to_vec()),
        }
        let before = disk.paths();
        let refused = open(&disk, &options).unwrap_err();
        assert!(matches!(&refused, OpenError::Marker { path } if *path == marker), "{text:?}: {refused}");
        let said = refused.to_string();
        assert!(
            said.contains(r"printf 'posthaste-queue 1\n' > /queue/posthaste-queue") && !said.contains("move"),
            "{said}"
        );
        assert_eq!(disk.paths(), before, "nothing was changed");
        let vfs: &dyn crate::log::disk::vfs::Vfs = &disk;
        if text.is_none() {
            vfs.create(&marker).unwrap();
        }
        disk.set_contents(&marker, b"posthaste-queue 1\n".to_vec());
        assert_eq!(open(&disk, &options).unwrap().report().messages, 2);
    }
}
