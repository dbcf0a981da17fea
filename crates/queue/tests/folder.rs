//! Folders that are not queues, on a real file system.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use std::{env, fs, thread};

use bytes::Bytes;
use posthaste_queue::log::{LogOptions, LogQueue, OpenError};
use posthaste_queue::{Draft, NewDelivery, NewMessage, Owner, Priority, Queue, RoutingKey};

mod block_on;
use block_on::block_on;

fn refused(dir: &Path) -> OpenError {
    LogQueue::open(dir, LogOptions::default()).unwrap_err()
}

#[test]
fn a_folder_with_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear diary").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("letter.txt") && error.to_string().contains("choose an empty folder"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn a_queue_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("posthaste-queue"), "posthaste-queue 9\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, OpenError::Version { found, .. } if found == "posthaste-queue 9"), "{error}");
}

#[test]
fn a_file_in_place_of_a_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    assert!(matches!(refused(&path), OpenError::Io { .. }));
}

#[test]
fn a_folder_is_created_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/queue");
    drop(LogQueue::open(&path, LogOptions::default()).unwrap());
    drop(LogQueue::open(&path, LogOptions::default()).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "mail is private");
    assert_eq!(fs::metadata(path.join("log")).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A child process that is being started has all files open for a moment, the lock included.
#[test]
fn a_closed_queue_is_unlocked_while_child_processes_start() {
    let dir = tempfile::tempdir().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let _ = Command::new("true").status();
            }
        });
        let opened: Vec<_> = (0..100).map(|_| LogQueue::open(dir.path(), LogOptions::default()).map(drop)).collect();
        is_over.store(true, Relaxed);
        for (round, opened) in opened.into_iter().enumerate() {
            opened.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    });
}

/// Every file with its content.
fn everything(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            everything(&path, found)
        } else {
            drop(found.insert(path.clone(), fs::read(&path).unwrap()))
        }
    }
}

/// A queue with a message, in a folder with this mode, and a copy of this program, both where every
/// user may go.
fn queue_and_program(mode: u32) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (queue, program) = (dir.path().join("queue"), dir.path().join("program"));
    let key = RoutingKey::new("example.org").unwrap();
    let deliveries = vec![NewDelivery { key, delay: Duration::ZERO, state: Bytes::new() }];
    let (owner, priority, envelope) = (Owner::default(), Priority::default(), Bytes::new());
    let opened = LogQueue::open(&queue, LogOptions::default()).unwrap();
    block_on(async {
        let mut draft = opened.put(None).await.unwrap();
        draft.write(Bytes::from_static(b"body")).await.unwrap();
        draft.commit(NewMessage { owner, priority, envelope, deliveries }).await.unwrap();
    });
    drop(opened);
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    for (path, mode) in [(dir.path(), 0o755), (&*program, 0o755), (&*queue, mode)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    (dir, queue, program)
}

/// The output of another process that opens the queue. `None`: it could not be started.
fn said(mut command: Command, queue: &Path) -> Option<String> {
    let mut before = BTreeMap::new();
    everything(queue, &mut before);
    let output = command.args(["--exact", "--ignored", "--nocapture", "child"]).env("QUEUE", queue).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut after = BTreeMap::new();
    everything(queue, &mut after);
    assert_eq!(before, after, "the queue is as it was");
    // In the line that names the test.
    said.contains("running 1 test").then_some(said)
}

/// Run by the tests below, in a process of its own.
#[test]
#[ignore = "the other process of the tests below"]
fn child() {
    match LogQueue::open(env::var_os("QUEUE").unwrap(), LogOptions::default()) {
        Ok(_) => println!("opened"),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn a_queue_of_another_user_is_refused() {
    for mode in [0o700, 0o755] {
        let (_dir, queue, program) = queue_and_program(mode);
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY);
        let Some(said) = said(command, &queue) else {
            println!("SKIPPED: only root can become another user");
            return;
        };
        assert!(said.contains("refused: ") && said.contains("this user may write there"), "{said}");
        assert!(said.contains(&*queue.to_string_lossy()), "{said}");
    }
}

#[test]
fn a_read_only_folder_is_refused() {
    let (_dir, queue, program) = queue_and_program(0o755);
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh"]).arg(program);
    let Some(said) = said(command, &queue) else {
        println!("SKIPPED: this user can make no namespace for mounts");
        return;
    };
    assert!(said.contains("refused: ") && said.contains("Read-only file system"), "{said}");
    assert!(said.contains(&*queue.to_string_lossy()), "{said}");
}

const NOBODY: u32 = 65_534;
const READ_ONLY: &str = r#"mount --bind "$QUEUE" "$QUEUE" && mount -o remount,bind,ro "$QUEUE" && exec "$@""#;
