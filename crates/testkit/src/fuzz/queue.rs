//! A damaged folder of a queue.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue, OpenError};
use posthaste_queue::{
    Body, Claim, Derived, Draft, DueClass, Error, ManualClock, MessageId, NewDelivery, NewMessage, Outcome, Owner,
    Priority, PutError, Queue, RoutingKey, Summary,
};

use crate::wire::values::Source;

/// Octets that choose places in the files of a small queue and how to damage them. Some damage
/// keeps the checksums right.
///
/// The queue opens, or reports that the folder is no queue. Unless a checksum was forged, every
/// missing or changed message is reported, and no body has other octets. Then the queue continues:
/// a new message is there after the next opening.
///
/// # Panics
/// An invariant does not hold.
pub fn queue(data: &[u8]) {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    let sound = SOUND.get_or_init(Sound::new);
    let mut source = Source::new(data);
    let mut files = sound.files.clone();
    let (mut is_forged, mut is_marker_changed) = (false, false);
    for _ in 0..1 + source.below(6) {
        let file = source.below(files.len());
        is_marker_changed |= files[file].0 == Path::new(MARKER);
        is_forged |= damage(&mut files, file, &mut source);
    }

    let folder = tempfile::tempdir_in(memory()).expect("a temporary folder");
    for (name, octets) in &files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| fs::write(&path, octets)).expect("a file");
    }
    let queue = match LogQueue::open(folder.path(), sound.options.clone()) {
        Ok(queue) => queue,
        Err(OpenError::Version { .. } | OpenError::Foreign { .. } | OpenError::Marker { .. }) if is_marker_changed => {
            return;
        }
        Err(error) => panic!("{error}"),
    };
    if !is_forged {
        sound.compare(&queue);
    }
    let put = wait(goes_on(&queue)).expect("the queue goes on");
    drop(queue);
    let queue = LogQueue::open(folder.path(), sound.options.clone()).expect("it opens again");
    assert_eq!(wait(body(&queue, put)).expect("what was put"), b"more");
}

/// A small queue that has a record of every kind, closed.
struct Sound {
    options: LogOptions,
    /// The files, by their path in the folder.
    files: Vec<(PathBuf, Vec<u8>)>,
    messages: BTreeMap<MessageId, (Summary, Vec<u8>)>,
}

impl Sound {
    fn new() -> Self {
        let mut options = LogOptions::default();
        options.clock = Arc::new(ManualClock::default());
        (options.segment_size, options.inline_body, options.disk_reserve) = (4096, 700, 0);
        let folder = tempfile::tempdir_in(memory()).expect("a temporary folder");
        let queue = LogQueue::open(folder.path(), options.clone()).expect("a queue");
        wait(fill(&queue)).expect("a queue that works");
        let messages = everything(&queue).into_iter().map(|summary| {
            let octets = wait(body(&queue, summary.id)).expect("a body");
            (summary.id, (summary, octets))
        });
        let messages = messages.collect();
        drop(queue);
        let mut files = Vec::new();
        for inside in ["", "log", "bodies"] {
            let entries = fs::read_dir(folder.path().join(inside)).expect("a folder");
            for path in entries.map(|entry| entry.expect("a name").path()).filter(|path| path.is_file()) {
                let name = path.strip_prefix(folder.path()).expect("a path inside").to_owned();
                if name != Path::new("LOCK") {
                    files.push((name, fs::read(&path).expect("a file")));
                }
            }
        }
        files.sort();
        assert!(files.len() >= 5, "marker, index, segments, bodies");
        Self { options, files, messages }
    }

    /// Damage is reported, and what is not reported is unchanged.
    fn compare(&self, queue: &LogQueue) {
        let report = queue.report();
        let is_said = !report.damaged.is_empty() || report.truncated > 0;
        let found: BTreeMap<_, _> = everything(queue).into_iter().map(|summary| (summary.id, summary)).collect();
        for (id, (summary, octets)) in &self.messages {
            assert!(found.get(id) == Some(summary) || is_said, "{id} is {:?}, and nothing is said", found.get(id));
            match wait(body(queue, *id)) {
                Ok(read) => assert!(read == *octets, "{id} is given out with another body"),
                Err(Error::Damaged { .. }) => {}
                Err(error) => assert!(is_said, "{id}: {error}, and nothing is said"),
            }
        }
        let back = found.keys().find(|id| !self.messages.contains_key(id));
        assert!(back.is_none() || is_said, "{back:?} is back, and nothing is said");
    }
}

/// Damages a file. Returns `true` if the damage forges a checksum, which a fault of the disk
/// cannot.
fn damage(files: &mut [(PathBuf, Vec<u8>)], file: usize, source: &mut Source<'_>) -> bool {
    let from = source.below(files.len());
    let other = run(&files[from].1, source).to_vec();
    let octets = &mut files[file].1;
    let at = place(octets.len(), source);
    match source.below(8) {
        0 => octets.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= 1 << source.below(8)),
        1 => octets.iter_mut().skip(at).take(1 + source.below(16)).for_each(|octet| *octet = source.octet()),
        2 => octets.truncate(at),
        3 => octets.iter_mut().skip(at).zip(other).for_each(|(octet, other)| *octet = other),
        4 => drop(octets.splice(at..at, other)),
        5 => drop(octets.drain(at..(at + 1 + source.below(64)).min(octets.len()))),
        6 => octets.iter_mut().skip(at).take(1 + source.below(256)).for_each(|octet| *octet = 0),
        _ => {
            octets.iter_mut().skip(at).take(1 + source.below(8)).for_each(|octet| *octet = source.octet());
            forge(octets);
            return true;
        }
    }
    false
}

/// Corrects the checksums of a segment.
fn forge(octets: &mut [u8]) {
    seal(octets, 0, SEGMENT_HEADER);
    let mut at = SEGMENT_HEADER;
    while let Some(len) = octets.get(at + 8..at + 12) {
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]);
        let end = (at + FRAME).saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        let Some(payload) = octets.get(at + FRAME..end) else { return };
        let crc = crc32fast::hash(payload);
        octets[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
        seal(octets, at, FRAME);
        at = end;
    }
}

/// The last four octets of a header are the checksum of the others. A record has its checksum at
/// its end.
fn seal(octets: &mut [u8], at: usize, len: usize) {
    let Some(header) = octets.get_mut(at..at + len) else { return };
    let (covered, sum) = header.split_at_mut(len - 4);
    sum.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
}

fn place(len: usize, source: &mut Source<'_>) -> usize {
    let number = (0..3).fold(0, |number, _| number << 8 | usize::from(source.octet()));
    number % (len + 1)
}

fn run<'a>(octets: &'a [u8], source: &mut Source<'_>) -> &'a [u8] {
    let at = place(octets.len(), source);
    &octets[at..(at + 16 * source.below(256)).min(octets.len())]
}

async fn fill(queue: &LogQueue) -> Result<(), Error> {
    let mut ids = Vec::new();
    for len in [10, 600, 0, 650, 3000, 600, 699, 600, 2000, 600] {
        ids.push(put(queue, &vec![b'x'; len], Duration::ZERO).await.expect("put"));
    }
    assert_eq!(queue.due(None, 9).await?.len(), 2);
    let mut claimed = queue.claim_any(3, Duration::from_secs(60)).await?.into_iter().map(|each| each.lease);
    let report = Derived { message: message(Duration::ZERO), body: Bytes::from_static(b"report") };
    let retry = Outcome::Retry { delay: Duration::from_secs(9), state: Bytes::from_static(b"later") };
    for (outcome, derived) in [(Outcome::Done, vec![report]), (retry, Vec::new()), (Outcome::Done, Vec::new())] {
        queue.finish(claimed.next().expect("a lease"), outcome, derived).await.expect("finish");
    }
    queue.hold(ids[7]).await?;
    queue.remove(ids[8]).await
}

/// Finishes everything that can be claimed, whatever it contains, and puts a message that stays.
async fn goes_on(queue: &LogQueue) -> Result<MessageId, Error> {
    for _ in 0..99 {
        let due = queue.due(None, 9).await?;
        assert!(due.is_sorted_by(|one, next| one < next), "each class once, in order: {due:?}");
        let claimed = queue.claim(Claim { from: &due, max: 99, lease: Duration::from_secs(60) }).await?;
        assert_eq!(claimed.is_empty(), due.is_empty(), "what is due can be claimed");
        if claimed.is_empty() {
            break;
        }
        for each in claimed {
            let class = DueClass { key: each.key, priority: each.priority, owner: each.owner };
            assert!(due.contains(&class), "{class:?} was not asked for");
            drop(body(queue, each.lease.message()).await);
            queue.finish(each.lease, Outcome::Done, Vec::new()).await.expect("finish");
        }
    }
    Ok(put(queue, b"more", Duration::from_secs(5)).await.expect("put"))
}

async fn put(queue: &LogQueue, body: &[u8], delay: Duration) -> Result<MessageId, PutError> {
    let mut draft = queue.put(None).await?;
    draft.write(Bytes::copy_from_slice(body)).await?;
    draft.commit(message(delay)).await
}

fn message(delay: Duration) -> NewMessage {
    let delivery = |key| NewDelivery {
        key: RoutingKey::new(key).expect("a short key"),
        delay,
        state: Bytes::from_static(b"state"),
    };
    NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(b"envelope"),
        deliveries: vec![delivery("a.example"), delivery("b.example")],
    }
}

async fn body(queue: &LogQueue, id: MessageId) -> Result<Vec<u8>, Error> {
    let mut body = queue.body(id).await?;
    let mut read = Vec::new();
    while let Some(chunk) =
        body.chunk().await.map_err(|error| error.downcast::<Error>().expect("an error of the queue"))?
    {
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

fn everything(queue: &LogQueue) -> Vec<Summary> {
    let mut all: Vec<Summary> = Vec::new();
    loop {
        let page = wait(queue.list(all.last().map(|last| last.id), usize::MAX)).expect("a list");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// A folder in memory, if there is one.
fn memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

const MARKER: &str = "posthaste-queue";
/// FORMAT.md of the queue: octets of a segment's header, and of a record's frame.
const SEGMENT_HEADER: usize = 64;
const FRAME: usize = 36;
