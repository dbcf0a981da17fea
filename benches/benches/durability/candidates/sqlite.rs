//! A database at its best: one connection, whose thread puts all messages that wait into one
//! transaction.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use rusqlite::Connection;

use super::{Candidate, ENVELOPE};

struct Sqlite {
    sender: Mutex<Option<Sender<Put>>>,
    commits: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

type Put = (Bytes, SyncSender<()>);

pub(super) fn open(folder: &Path) -> Box<dyn Candidate> {
    let connection = Connection::open(folder.join("queue.db")).expect("the folder is ours");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE messages (id INTEGER PRIMARY KEY, due INTEGER, envelope BLOB, body BLOB);
             CREATE INDEX due ON messages (due);",
        )
        .expect("an empty database");
    let (sender, receiver) = mpsc::channel();
    let commits = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&commits);
    let thread = thread::Builder::new().name(WORKER.to_owned());
    let thread = thread.spawn(move || run(&connection, &receiver, &count).expect("the disk works"));
    Box::new(Sqlite { sender: Mutex::new(Some(sender)), commits, thread: Some(thread.expect("a thread")) })
}

fn run(connection: &Connection, puts: &Receiver<Put>, commits: &AtomicU64) -> rusqlite::Result<()> {
    let mut insert = connection.prepare("INSERT INTO messages (due, envelope, body) VALUES (?1, ?2, ?3)")?;
    while let Ok(first) = puts.recv() {
        let transaction = connection.unchecked_transaction()?;
        let mut answers = Vec::new();
        for (body, answer) in std::iter::once(first).chain(puts.try_iter()) {
            insert.execute((1, ENVELOPE, &body[..]))?;
            answers.push(answer);
        }
        transaction.commit()?;
        commits.fetch_add(1, Relaxed);
        answers.into_iter().for_each(|answer| answer.send(()).expect("the writer waits"));
    }
    Ok(())
}

impl Candidate for Sqlite {
    fn put(&self, body: &Bytes) {
        let (answer, done) = mpsc::sync_channel(1);
        let sender = self.sender.lock().expect("no writer panics");
        sender.as_ref().expect("it is open").send((body.clone(), answer)).expect("the thread runs");
        drop(sender);
        done.recv().expect("the thread runs");
    }

    /// One for each commit; those of its checkpoints are not known.
    fn syncs(&self) -> u64 {
        self.commits.load(Relaxed)
    }

    fn worker(&self) -> &'static str {
        WORKER
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.sender.get_mut().expect("no writer panics").take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

const WORKER: &str = "sqlite-writer";
