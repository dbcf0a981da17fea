//! What an opening reports of damage: each damage once, and a bounded number.

use std::path::Path;

use super::damage::queue_of_nine;
use super::disk::Disk;
use super::inspect::verify;
use super::{block_on, message, open, options, put};
use crate::log::LogOptions;
use crate::log::disk::vfs::Vfs;
use crate::log::inspect::Trouble;
use crate::{ManualClock, Queue};

const MANY: usize = 1_030;

/// 2,060 messages in one segment, or with a file for each body, and closed.
fn large(inline_body: usize) -> (Disk, LogOptions) {
    let clock = ManualClock::default();
    let options = LogOptions { segment_size: 4 << 20, inline_body, ..options(&clock) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(async {
        for _ in 0..MANY {
            put(&queue, message("a", b""), b"rots").await.unwrap();
            put(&queue, message("a", b""), b"stays").await.unwrap();
        }
    });
    block_on(queue.close());
    (disk, options)
}

fn must_tell(disk: &Disk, options: &LogOptions, many: usize) {
    let queue = open(disk, options).unwrap();
    let report = queue.report();
    let further = (many - 1_000) as u64;
    assert_eq!((report.damaged.len(), report.further, report.damages()), (1_000, further, many as u64));
    assert_eq!(block_on(queue.stats()).damaged, many as u64);
}

#[test]
fn the_report_of_a_missing_bodies_folder_is_bounded() {
    let (disk, options) = large(0);
    for path in disk.paths().into_iter().filter(|path| path.starts_with("/queue/bodies")) {
        disk.forget(&path);
    }
    must_tell(&disk, &options, 2 * MANY);
}

#[test]
fn the_report_of_a_log_damaged_everywhere_is_bounded() {
    let (disk, options) = large(4 << 10);
    disk.forget(Path::new("/queue/index"));
    let log = disk.paths().into_iter().find(|path| path.starts_with("/queue/log")).unwrap();
    let mut octets = disk.contents(&log);
    let mut rotten = 0;
    for at in 0..octets.len() - 4 {
        if octets[at..].starts_with(b"rots") {
            octets[at - 9] ^= 1;
            rotten += 1;
        }
    }
    assert_eq!(rotten, MANY);
    disk.set_contents(&log, octets);
    let (_, findings) = verify(&disk.killed(), &options).unwrap();
    let damaged = findings.iter().filter(|finding| finding.trouble == Trouble::Damaged);
    assert_eq!(damaged.count(), MANY, "nothing is left out there");
    must_tell(&disk, &options, MANY);
}

#[test]
fn the_report_of_foreign_names_is_bounded() {
    let (disk, options) = (Disk::new(), options(&ManualClock::default()));
    block_on(open(&disk, &options).unwrap().close());
    for number in 0..MANY {
        let folder = ["log", "bodies"][number % 2];
        disk.create(format!("/queue/{folder}/stray{number}").as_ref()).unwrap();
    }
    must_tell(&disk, &options, MANY);
}

#[test]
fn damage_found_before_an_index_is_rebuilt_is_reported_once() {
    let options = options(&ManualClock::default());
    let (disk, segments) = queue_of_nine(&options);
    let mut header = disk.contents(&segments[0]);
    header[0] ^= 1;
    disk.set_contents(&segments[0], header);
    let last = segments.last().unwrap();
    let mut octets = disk.contents(last);
    octets.truncate(100);
    disk.set_contents(last, octets);
    let queue = open(&disk, &options).unwrap();
    let mut damaged: Vec<_> = queue.report().damaged.iter().map(|each| each.path.as_path()).collect();
    damaged.sort();
    assert_eq!(damaged, ["/queue/index".as_ref(), segments[0].as_path()], "{:?}", queue.report());
}
