//! What an inspection finds, and that it does not change the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::{DIR, block_on, claim, message, open, options, put, read};
use crate::log::disk::vfs::Vfs;
use crate::log::inspect::{
    Finding, InspectError, InspectOptions, Inspection, Repair, Repaired, Trouble, Verified, repair_on, verify_on,
};
use crate::log::{LogOptions, OpenError};
use crate::{ManualClock, MessageId, Outcome, Queue, Search};

fn looking(options: &LogOptions) -> InspectOptions {
    InspectOptions { clock: Arc::clone(&options.clock), ..InspectOptions::default() }
}

pub(super) fn verify(disk: &Disk, options: &LogOptions) -> Result<(Verified, Vec<Finding>), InspectError> {
    let mut findings = Vec::new();
    let vfs = Arc::new(disk.clone());
    let verified = verify_on(vfs, Path::new(DIR), &looking(options), &mut |finding| findings.push(finding))?;
    Ok((verified, findings))
}

fn repair(disk: &Disk, options: &LogOptions, how: Repair) -> (Repaired, Vec<Finding>) {
    let mut done = Vec::new();
    let vfs = Arc::new(disk.clone());
    let repaired = repair_on(vfs, Path::new(DIR), &looking(options), how, &mut |finding| done.push(finding.clone()));
    (repaired.unwrap(), done)
}

fn everything(disk: &Disk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path))).collect()
}

/// A closed queue: messages with bodies in several segments and in files, one on hold, one retried,
/// one gone.
fn closed_queue(options: &LogOptions) -> (Disk, Vec<MessageId>) {
    let disk = Disk::new();
    let queue = open(&disk, options).unwrap();
    let mut ids = Vec::new();
    block_on(async {
        for (at, len) in [1400, 5000, 1400, 10, 1400, 9000, 1400, 1400, 0].into_iter().enumerate() {
            let body = vec![b'a' + u8::try_from(at).unwrap(); len];
            ids.push(put(&queue, message("example.org", b"state"), &body).await.unwrap());
        }
        let mut claimed = claim(&queue, 2).await;
        queue.finish(claimed.remove(0).lease, Outcome::Done, Vec::new()).await.unwrap();
        let retry = Outcome::Retry { delay: Duration::from_secs(60), state: "later".into() };
        queue.finish(claimed.remove(0).lease, retry, Vec::new()).await.unwrap();
        queue.hold(ids[8]).await.unwrap();
    });
    drop(queue);
    (disk, ids[1..].to_vec())
}

fn segments(disk: &Disk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
}

/// Flips a byte in a file that contains `part`.
fn turn(disk: &Disk, folder: &str, part: &[u8]) {
    let found =
        disk.paths().into_iter().filter(|path| path.starts_with(Path::new(DIR).join(folder))).find_map(|path| {
            let octets = disk.contents(&path);
            let at = octets.windows(part.len()).position(|window| window == part)?;
            Some((path, octets, at))
        });
    let (path, mut octets, at) = found.unwrap();
    octets[at + part.len() / 2] ^= 8;
    disk.set_contents(&path, octets);
}

fn troubles(findings: &[Finding]) -> BTreeSet<Trouble> {
    findings.iter().filter(|finding| !finding.is_settled).map(|finding| finding.trouble).collect()
}

#[test]
fn verify_finds_an_intact_queue_intact_and_does_not_change_it() {
    let options = options(&ManualClock::default());
    let (disk, ids) = closed_queue(&options);
    let before = everything(&disk);
    disk.fail(None);

    let (verified, findings) = verify(&disk, &options).unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!((verified.messages, verified.findings), (8, 0));
    assert!(verified.segments >= 3 && verified.records >= 12 && verified.bytes == 5000 + 9000 + 4 * 1400 + 10);

    let vfs = Arc::new(disk.clone());
    let mut inspection = Inspection::open_on(vfs, Path::new(DIR), &looking(&options)).unwrap();
    assert_eq!(inspection.stats().unwrap().messages, 8);
    let listed = inspection.search(&Search::default(), None, 99).unwrap().messages;
    let mut paged = Vec::new();
    while let Some(next) = inspection.search(&Search::default(), paged.last().copied(), 1).unwrap().messages.first() {
        paged.push(next.id);
    }
    assert_eq!(paged, ids);
    for (summary, octet) in listed.iter().zip(b'b'..) {
        let (shown, place) = inspection.show(summary.id).unwrap();
        assert_eq!(&shown, summary);
        let mut body = Vec::new();
        inspection.body(summary.id, &mut body).unwrap();
        assert_eq!(body, vec![octet; usize::try_from(summary.body_len).unwrap()]);
        assert_eq!(crc32fast::hash(&body), place.crc);
        let at = usize::try_from(place.at).unwrap();
        assert_eq!(before[&place.body][at..at + body.len()], body);
        assert!(before.contains_key(&place.segment));
    }
    assert!(matches!(inspection.show(MessageId::from_u64(7)), Err(InspectError::Message(_))));
    drop(inspection);

    // Each of the two inspections only locks a file and a folder.
    assert_eq!(disk.operations(), 4);
    assert!(everything(&disk) == before);
    let queue = open(&disk, &options).unwrap();
    assert_eq!(block_on(queue.list(None, 99)).unwrap(), listed);
}

#[test]
fn verify_finds_only_what_an_opening_mends_in_a_killed_queue() {
    let options = options(&ManualClock::default());
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    block_on(put(&queue, message("a", b""), b"body")).unwrap();
    let disk = disk.killed();
    drop(queue);
    let (verified, findings) = verify(&disk, &options).unwrap();
    assert!(findings.is_empty() && verified.messages == 1, "{findings:?}");
}

/// A way to damage a queue, the findings, and the number of messages that the repair puts on hold.
/// No message is ever lost.
type Row = (&'static str, fn(&Disk), &'static [Trouble], usize);

fn rows() -> [Row; 16] {
    [
        ("an index that is missing", |disk| disk.forget(&index()), &[Trouble::Index], 0),
        (
            "an index of another program",
            |disk| disk.set_contents(&index(), b"SQLite format 3".repeat(9)),
            &[Trouble::Index],
            0,
        ),
        (
            "an index with an octet turned over in each page",
            |disk| {
                let mut octets = disk.contents(&index());
                octets.iter_mut().skip(64).step_by(4096).for_each(|octet| *octet ^= 64);
                disk.set_contents(&index(), octets);
            },
            &[Trouble::Index],
            0,
        ),
        ("a body in a file", |disk| turn(disk, "bodies", &[b'f'; 900]), &[Trouble::Body], 1),
        ("a body that is gone", |disk| disk.forget(&bodies(disk)[0]), &[Trouble::Body], 1),
        ("a body that is cut short", |disk| disk.set_contents(&bodies(disk)[0], vec![b'b'; 17]), &[Trouble::Body], 1),
        (
            "a body in the log",
            |disk| turn(disk, "log", &[b'e'; 900]),
            &[Trouble::Damaged, Trouble::Unlogged, Trouble::Body],
            1,
        ),
        (
            "the frame of a record",
            |disk| {
                // Right before the payload of the message with this body.
                let path = segments(disk).remove(0);
                let mut octets = disk.contents(&path);
                let at = octets.windows(9).position(|part| part == [b'c'; 9]).unwrap();
                octets[at - 150] ^= 1;
                disk.set_contents(&path, octets);
            },
            &[Trouble::Damaged, Trouble::Unlogged],
            0,
        ),
        ("an outcome", |disk| turn(disk, "log", b"later"), &[Trouble::Damaged, Trouble::Unlogged], 0),
        (
            "the header of a segment",
            |disk| {
                let path = segments(disk).remove(0);
                let mut octets = disk.contents(&path);
                octets[20] ^= 1;
                disk.set_contents(&path, octets);
            },
            &[Trouble::Damaged],
            0,
        ),
        (
            "a batch that was being written",
            |disk| {
                let path = segments(disk).pop().unwrap();
                let mut octets = disk.contents(&path);
                octets.extend_from_slice(&[1; 99]);
                disk.set_contents(&path, octets);
            },
            &[Trouble::Torn],
            0,
        ),
        (
            "a segment that was being made",
            |disk| {
                let path = Path::new(DIR).join("log").join(format!("{:016x}.seg", segments(disk).len() + 1));
                Vfs::create(disk, &path).unwrap().write_at(&[0; 30], 0).unwrap();
            },
            &[Trouble::Torn],
            0,
        ),
        (
            "a segment in the middle that is gone",
            |disk| disk.forget(&segments(disk)[1]),
            &[Trouble::Lost, Trouble::Unlogged, Trouble::Body],
            2,
        ),
        (
            "the oldest segment that is gone",
            |disk| disk.forget(&segments(disk)[0]),
            &[Trouble::Lost, Trouble::Unlogged, Trouble::Body],
            2,
        ),
        (
            "the body of no message",
            |disk| drop(Vfs::create(disk, &Path::new(DIR).join("bodies/00000000000000ff")).unwrap()),
            &[Trouble::Orphan],
            0,
        ),
        (
            "files of another program",
            |disk| {
                drop(Vfs::create(disk, &Path::new(DIR).join("bodies/notes")).unwrap());
                drop(Vfs::create(disk, &Path::new(DIR).join("log/notes")).unwrap());
            },
            &[Trouble::Stray],
            0,
        ),
    ]
}

fn index() -> PathBuf {
    Path::new(DIR).join("index")
}

fn bodies(disk: &Disk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with(Path::new(DIR).join("bodies"))).collect()
}

#[test]
fn verify_finds_and_repair_mends_each_damage() {
    let options = options(&ManualClock::default());
    for (name, damage, expected, held) in rows() {
        let (disk, _) = closed_queue(&options);
        let queue = open(&disk, &options).unwrap();
        let sound = block_on(queue.list(None, 99)).unwrap();
        drop(queue);
        damage(&disk);
        let before = everything(&disk);

        let (verified, findings) = verify(&disk, &options).unwrap();
        assert_eq!(troubles(&findings), expected.iter().copied().collect(), "{name}: {findings:#?}");
        let settled = findings.iter().filter(|finding| finding.is_settled).count() as u64;
        assert_eq!((verified.findings, verified.settled), (findings.len() as u64 - settled, settled), "{name}");
        assert!(everything(&disk) == before, "{name}: verifying changed something");

        let dry = repair(&disk, &options, Repair { dry_run: true, ..Repair::default() });
        assert!(everything(&disk) == before, "{name}: a repair that was only tried changed something");
        let done = repair(&disk, &options, Repair::default());
        assert_eq!(dry, done, "{name}");
        let counts: Vec<_> = findings.iter().filter(|finding| !finding.is_settled).collect();
        let lost = counts.iter().filter(|finding| finding.trouble == Trouble::Lost).count();
        assert_eq!((done.0.left, done.1.len()), (lost as u64, counts.len()), "{name}");

        let (verified, findings) = verify(&disk, &options).unwrap();
        assert_eq!(verified.findings, 0, "{name}: {findings:#?}");
        nothing_is_deleted(name, &before, &everything(&disk));

        let queue = open(&disk, &options).unwrap();
        let list = block_on(queue.list(None, 99)).unwrap();
        assert_eq!(list.len(), sound.len(), "{name}");
        for now in &list {
            let mut then = sound.iter().find(|then| then.id == now.id).unwrap().clone();
            then.held = now.held;
            // As the log counts: in milliseconds.
            (then.age, then.deliveries[0].due_in) = (now.age, now.deliveries[0].due_in);
            assert_eq!(*now, then, "{name}");
        }
        assert_eq!(list.iter().filter(|each| each.held).count(), 1 + held, "{name}");
        block_on(async {
            for claimed in claim(&queue, 99).await {
                assert_eq!(read(&queue, &claimed).await.unwrap().len() as u64, claimed.body_len, "{name}");
            }
        });
        drop(queue);
        // Once more from the log alone.
        disk.forget(&index());
        let queue = open(&disk, &options).unwrap();
        let again = block_on(queue.list(None, 99)).unwrap();
        let ids = |list: &[crate::Summary]| list.iter().map(|each| (each.id, each.held)).collect::<Vec<_>>();
        assert_eq!(ids(&again), ids(&list), "{name}");
    }
}

/// The bytes of every file are still in some file.
fn nothing_is_deleted(name: &str, before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, octets) in before.iter().filter(|(path, _)| **path != index()) {
        let kept = after.get(path).is_some_and(|now| now.starts_with(octets))
            || after.values().any(|now| now == octets)
            || after.get(path).is_some_and(|now| {
                let (same, cut) =
                    octets.split_at(now.iter().zip(octets).take_while(|(one, other)| one == other).count());
                after.values().any(|kept| kept.starts_with(cut)) || same.len() == octets.len()
            });
        assert!(kept, "{name}: {} lost something", path.display());
    }
}

#[test]
fn a_repair_keeps_the_end_of_a_message_whose_record_is_damaged() {
    let options = LogOptions { segment_size: 1 << 20, ..options(&ManualClock::default()) };
    let disk = Disk::new();
    let queue = open(&disk, &options).unwrap();
    let (gone, stays) = block_on(async {
        let gone = put(&queue, message("a", b""), b"gone").await.unwrap();
        let stays = put(&queue, message("a", b""), b"stays").await.unwrap();
        queue.remove(gone).await.unwrap();
        (gone, stays)
    });
    drop(queue);
    let path = segments(&disk).remove(0);
    let mut octets = disk.contents(&path);
    let id = gone.as_u64().to_le_bytes();
    let at = octets.windows(8).rposition(|part| part == id).unwrap();
    octets[at] ^= 1;
    disk.set_contents(&path, octets);

    let (_, findings) = verify(&disk, &options).unwrap();
    assert_eq!(troubles(&findings), BTreeSet::from([Trouble::Damaged, Trouble::Ended]), "{findings:#?}");
    repair(&disk, &options, Repair { rebuild_index: true, ..Repair::default() });
    assert_eq!(verify(&disk, &options).unwrap().0.findings, 0);
    let queue = open(&disk, &options).unwrap();
    let list = block_on(queue.list(None, 9)).unwrap();
    assert!(list.len() == 1 && list[0].id == stays);
}

#[test]
fn a_repair_rebuilds_the_index_on_demand() {
    let options = options(&ManualClock::default());
    let (disk, ids) = closed_queue(&options);
    let old = disk.contents(&index());
    let (repaired, done) = repair(&disk, &options, Repair { rebuild_index: true, ..Repair::default() });
    assert!(repaired.index_rebuilt && done.is_empty());
    assert!(disk.contents(&Path::new(DIR).join("quarantine/index.bad")) == old);
    let (verified, findings) = verify(&disk, &options).unwrap();
    assert!(findings.is_empty() && verified.messages == ids.len() as u64, "{findings:?}");
}

#[test]
fn inspection_refuses_folders_without_a_queue_or_with_an_open_one() {
    let options = options(&ManualClock::default());
    let disk = Disk::new();
    assert!(matches!(verify(&disk, &options), Err(InspectError::NoQueue { .. })));
    disk.make_dir(Path::new(DIR)).unwrap();
    assert!(matches!(verify(&disk, &options), Err(InspectError::NoQueue { .. })));
    drop(Vfs::create(&disk, &Path::new(DIR).join("photo.jpg")).unwrap());
    let refused = verify(&disk, &options).unwrap_err();
    assert!(matches!(refused, InspectError::NoQueue { .. }) && refused.to_string().contains(DIR), "{refused}");
    assert_eq!(disk.paths().len(), 1);

    let (disk, _) = closed_queue(&options);
    let queue = open(&disk, &options).unwrap();
    let refused = verify(&disk, &options).unwrap_err();
    assert!(matches!(refused, InspectError::Open(OpenError::Locked { .. })), "{refused}");
    drop(queue);
    verify(&disk, &options).unwrap();
}

#[test]
fn a_repair_interrupted_anywhere_loses_no_message() {
    let options = options(&ManualClock::default());
    let mut random = fastrand::Rng::with_seed(7);
    for (name, damage, _, _) in rows() {
        let mut operations = 0;
        loop {
            operations += random.u64(1..9);
            let (disk, _) = closed_queue(&options);
            damage(&disk);
            disk.cut_after(operations);
            let how = Repair { rebuild_index: true, ..Repair::default() };
            let vfs = Arc::new(disk.clone());
            let was_whole = repair_on(vfs, Path::new(DIR), &looking(&options), how, &mut |_| {}).is_ok();
            let disk = disk.power_cut(&mut random);
            repair(&disk, &options, Repair::default());
            let (verified, findings) = verify(&disk, &options).unwrap();
            assert_eq!(verified.messages, 8, "{name}, cut at {operations}");
            assert!(verified.findings == 0, "{name}, cut at {operations}: {findings:#?}");
            if was_whole {
                break;
            }
        }
    }
}
