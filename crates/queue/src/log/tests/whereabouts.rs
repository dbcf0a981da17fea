//! Files are removed, moved or cut by another program while the queue is open.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::Disk;
use super::{block_on, claim, message, open, options, put};
use crate::log::LogQueue;
use crate::{Error, LeaseError, ManualClock, Outcome, PutError, Queue};

const SECOND: Duration = Duration::from_secs(1);

fn newest_segment(disk: &Disk) -> PathBuf {
    disk.paths().into_iter().filter(|path| path.starts_with("/queue/log")).max().unwrap()
}

/// Lets some time pass. Returns `true` if the queue has gone on.
fn goes_on(queue: &LogQueue, clock: &ManualClock) -> bool {
    for _ in 0..200 {
        clock.advance(SECOND);
        std::thread::sleep(Duration::from_millis(2));
        if block_on(queue.stats()).broken.is_none() {
            return true;
        }
    }
    false
}

#[test]
fn no_message_is_acknowledged_into_a_file_without_a_name() {
    let away = Path::new("/away");
    for what in ["/queue", "/queue/log", "a segment"] {
        let (disk, clock) = (Disk::new(), ManualClock::default());
        let queue = open(&disk, &options(&clock)).unwrap();
        block_on(put(&queue, message("a", b""), b"before")).unwrap();
        let lease = block_on(claim(&queue, 1)).remove(0).lease;
        let path = if what.starts_with('/') { PathBuf::from(what) } else { newest_segment(&disk) };
        disk.move_away(&path, away);
        let told = block_on(put(&queue, message("a", b""), b"after")).unwrap_err();
        assert!(matches!(&told, PutError::Broken(why) if why.to_string().contains("put it back")), "{what}: {told}");
        assert!(matches!(block_on(queue.put(None)), Err(PutError::Broken(_))), "{what}");
        let finished = block_on(queue.finish(lease, Outcome::Done, Vec::new()));
        assert!(matches!(finished, Err(LeaseError::Store(Error::Broken(_)))), "{what}: {finished:?}");
        assert!(block_on(queue.stats()).broken.is_some());
        let names = disk.paths();
        assert!(!goes_on(&queue, &clock), "{what}: a new queue was begun");
        assert_eq!(disk.paths(), names, "{what}: nothing was made meanwhile");

        disk.move_away(away, &path);
        assert!(goes_on(&queue, &clock), "{what}: {:?}", block_on(queue.stats()).broken);
        block_on(put(&queue, message("a", b""), b"again")).unwrap();
        drop(queue);
        let queue = open(&disk, &options(&clock)).unwrap();
        // The refused message may be there.
        assert!((2..=3).contains(&block_on(queue.stats()).messages), "{what}");
        assert_eq!(queue.report().damaged, [], "{what}");
    }
}

#[test]
fn stats_report_a_moved_folder_without_a_write() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(put(&queue, message("a", b""), b"before")).unwrap();
    disk.forget(&newest_segment(&disk));
    let why = block_on(queue.stats()).broken.unwrap().to_string();
    assert!(why.contains("/queue/log/") && why.contains("restart the program"), "{why}");
    assert!(!goes_on(&queue, &clock));
    drop(queue);
    // After a new start, what is left is served.
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(put(&queue, message("a", b""), b"after")).unwrap();
}

#[test]
fn a_segment_cut_by_another_program_is_not_written_on() {
    for len in [0, 40, 130] {
        let (disk, clock) = (Disk::new(), ManualClock::default());
        let queue = open(&disk, &options(&clock)).unwrap();
        block_on(put(&queue, message("a", b""), b"before")).unwrap();
        disk.shorten(&newest_segment(&disk), len);
        let told = block_on(put(&queue, message("a", b""), b"after")).unwrap_err();
        assert!(matches!(&told, PutError::Broken(why) if why.to_string().contains("cut to")), "{len}: {told}");
        assert!(!goes_on(&queue, &clock), "{len}");
    }
}

#[test]
fn a_message_whose_body_file_is_removed_is_refused() {
    let (disk, clock) = (Disk::new(), ManualClock::default());
    let queue = open(&disk, &options(&clock)).unwrap();
    block_on(async {
        put(&queue, message("a", b""), b"before").await.unwrap();
        let mut draft = queue.put(None).await.unwrap();
        crate::Draft::write(&mut draft, vec![1; 5000].into()).await.unwrap();
        let body = disk.paths().into_iter().find(|path| path.starts_with("/queue/bodies")).unwrap();
        disk.forget(&body);
        let told = crate::Draft::commit(draft, message("a", b"")).await.unwrap_err();
        assert!(matches!(&told, PutError::Broken(why) if why.to_string().contains("/bodies/")), "{told}");
        // One file is missing; the others are there.
        assert_eq!(queue.stats().await.broken, None);
        put(&queue, message("a", b""), &[1; 5000]).await.unwrap();

        let mut draft = queue.put(None).await.unwrap();
        crate::Draft::write(&mut draft, vec![1; 5000].into()).await.unwrap();
        disk.move_away(Path::new("/queue/bodies"), Path::new("/away"));
        assert!(matches!(crate::Draft::commit(draft, message("a", b"")).await, Err(PutError::Broken(_))));
        assert!(queue.stats().await.broken.is_some(), "no large message is safe");
        assert!(!goes_on(&queue, &clock));
        disk.move_away(Path::new("/away"), Path::new("/queue/bodies"));
        assert!(goes_on(&queue, &clock));
        assert_eq!(queue.stats().await.damaged, 0);
    });
}
