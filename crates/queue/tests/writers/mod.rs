//! A process with many writers, which prints what was acknowledged, and what must be there after
//! its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{env, io};

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::{
    Body, Draft, MessageId, NewDelivery, NewMessage, Outcome, Owner, Priority, PutError, Queue, RoutingKey,
};

use crate::block_on::block_on;

/// The process. It is killed when this is dropped.
pub(crate) struct Writers {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Length and checksum of the bodies of what must be there.
    living: BTreeMap<MessageId, (u64, u32)>,
    finished: BTreeSet<MessageId>,
    /// Removal was tried, and not confirmed.
    tried: BTreeSet<MessageId>,
    /// Printed after the cut had begun.
    doubtful: BTreeMap<MessageId, (u64, u32)>,
    pub(crate) acknowledged: u64,
    /// Messages printed after the cut had begun that are not there.
    pub(crate) untrue: u64,
    /// Deliveries finished according to the process, and offered again.
    pub(crate) again: u64,
}

impl Writers {
    /// Starts the test named `child` of this program, which has to call [`write`].
    pub(crate) fn start(folder: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            // Only whole lines count: the last one may be cut off, and the test harness prints
            // lines too.
            let lines = output.lines().map_while(Result::ok).filter(|line| line.ends_with('.'));
            lines.for_each(|line| read.lock().unwrap().push(line));
        });
        Self { process, lines, reader: Some(reader) }
    }

    /// The number of lines read so far.
    pub(crate) fn said(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Kills it with `SIGKILL`. Returns its lines.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.end();
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    fn end(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        assert!(ended.is_ok(), "{ended:?}");
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        if self.reader.is_some() {
            self.end();
        }
    }
}

impl Ledger {
    /// Reads the lines. The first `certain` were printed before the cut began. With a real power
    /// cut the later ones would never have been read: they may be true or not.
    pub(crate) fn read(&mut self, lines: &[String], certain: usize) {
        for (at, line) in lines.iter().enumerate() {
            let is_certain = at < certain;
            let words = line.trim_end_matches('.');
            self.acknowledged += u64::from(is_certain && !words.starts_with("try"));
            match words.split_whitespace().collect::<Vec<_>>()[..] {
                ["put", id, len, crc] => {
                    let (id, body) = (id.parse().unwrap(), (len.parse().unwrap(), crc.parse().unwrap()));
                    let before = if is_certain { &mut self.living } else { &mut self.doubtful }.insert(id, body);
                    assert!(before.is_none(), "{id} was given out twice");
                }
                ["done", id] if is_certain => {
                    self.finished.insert(id.parse().unwrap());
                }
                ["try", id] => {
                    self.tried.insert(id.parse().unwrap());
                }
                _ => {}
            }
        }
        // A claimer may print that a message is finished before the putter prints that it was put.
        self.living.retain(|id, _| !self.finished.contains(id));
    }

    /// Checks that all acknowledged messages are there with their whole body, and no finished ones.
    /// Then removes a part, so that the disk does not fill.
    pub(crate) fn check(&mut self, queue: &LogQueue, context: &str) {
        assert!(queue.report().damaged.is_empty(), "{context}: {:?}", queue.report());
        let mut found = BTreeMap::new();
        loop {
            let last = found.last_key_value().map(|(id, _)| *id);
            let page = block_on(queue.list(last, usize::MAX)).unwrap();
            if page.is_empty() {
                break;
            }
            for message in page {
                let (len, crc) = read(queue, message.id).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(len, message.body_len, "{context}");
                found.insert(message.id, (len, crc));
            }
        }
        for (id, body) in &self.living {
            match found.get(id) {
                Some(there) => assert_eq!(there, body, "{context}: {id} has another body"),
                None => assert!(self.tried.contains(id), "{context}: {id} is lost"),
            }
        }
        for (id, body) in std::mem::take(&mut self.doubtful) {
            match found.get(&id) {
                Some(there) => assert_eq!(*there, body, "{context}: {id} has another body"),
                None => self.untrue += u64::from(!self.tried.contains(&id)),
            }
        }
        let back: Vec<_> = found.keys().filter(|id| self.finished.contains(id)).collect();
        assert!(back.is_empty(), "{context}: {back:?} were finished and are back");
        self.again += found.keys().filter(|id| self.tried.contains(id)).count() as u64;
        // A message that is gone stays gone.
        self.finished.extend(std::mem::take(&mut self.tried).into_iter().filter(|id| !found.contains_key(id)));
        self.living = found;
        while self.living.len() > KEPT {
            let Some((id, _)) = self.living.pop_first() else { break };
            block_on(queue.remove(id)).unwrap();
            self.finished.insert(id);
        }
    }
}

fn read(queue: &LogQueue, id: MessageId) -> Result<(u64, u32), posthaste_queue::Error> {
    let mut body = block_on(queue.body(id))?;
    let (mut len, mut crc) = (0, crc32fast::Hasher::new());
    while let Some(chunk) =
        block_on(body.chunk()).map_err(|error| error.downcast::<posthaste_queue::Error>().unwrap())?
    {
        len += chunk.len() as u64;
        crc.update(&chunk);
    }
    Ok((len, crc.finalize()))
}

/// The other process's work, until it is killed or its disk is gone.
pub(crate) fn write() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let Ok(queue) = LogQueue::open(folder, options()) else { return };
    let count = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| while write_one(&queue, count.fetch_add(1, Ordering::Relaxed)).is_ok() {});
        }
    });
}

fn write_one(queue: &LogQueue, turn: u64) -> Result<(), Box<dyn std::error::Error>> {
    let len = if turn.is_multiple_of(40) { 300_000 } else { usize::try_from(turn % 5000)? };
    let body: Vec<u8> = turn.to_le_bytes().into_iter().cycle().take(len).collect();
    let crc = crc32fast::hash(&body);
    let put = block_on(async {
        let mut draft = queue.put(None).await?;
        draft.write(Bytes::from(body)).await?;
        draft.commit(message()).await
    });
    match put {
        Ok(id) => say(&format!("put {id} {len} {crc}.\n"))?,
        Err(PutError::Full(_)) => thread::sleep(Duration::from_millis(5)),
        Err(error) => return Err(error.into()),
    }
    if turn.is_multiple_of(4) {
        return Ok(());
    }
    for claimed in block_on(queue.claim_any(1, Duration::from_secs(60)))? {
        let id = claimed.lease.message();
        say(&format!("try {id}.\n"))?;
        block_on(queue.finish(claimed.lease, Outcome::Done, Vec::new()))?;
        say(&format!("done {id}.\n"))?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

fn message() -> NewMessage {
    let key = RoutingKey::new("example.org").unwrap();
    let delivery = NewDelivery { key, delay: Duration::ZERO, state: Bytes::new() };
    NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(b"envelope"),
        deliveries: vec![delivery],
    }
}

pub(crate) fn options() -> LogOptions {
    let mut options = LogOptions::default();
    (options.segment_size, options.disk_reserve) = (1 << 20, 0);
    options
}

/// The number of rounds, from an environment variable or by default.
pub(crate) fn times(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().map_or(default, |times| times.parse().unwrap())
}

const FOLDER: &str = "POSTHASTE_QUEUE_WRITERS";
const WRITERS: usize = 50;
/// Messages left in the queue from one round to the next.
const KEPT: usize = 300;
