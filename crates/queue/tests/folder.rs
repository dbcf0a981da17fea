//! Folders that are no queue, on a real file system.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use posthaste_queue::log::{LogOptions, LogQueue, OpenError};

fn refused(dir: &std::path::Path) -> OpenError {
    LogQueue::open(dir, LogOptions::default()).unwrap_err()
}

#[test]
fn somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear diary").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("letter.txt") && error.to_string().contains("choose an empty folder"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn another_version() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("posthaste-queue"), "posthaste-queue 9\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, OpenError::Version { found, .. } if found == "posthaste-queue 9"), "{error}");
}

#[test]
fn a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    assert!(matches!(refused(&path), OpenError::Io { .. }));
}

#[test]
fn made_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/queue");
    drop(LogQueue::open(&path, LogOptions::default()).unwrap());
    drop(LogQueue::open(&path, LogOptions::default()).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "mail is private");
    assert_eq!(fs::metadata(path.join("log")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn read_only() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(dir.path().join("probe"), "").is_ok() {
        println!("skipped: this user may write anywhere");
        return;
    }
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Io { .. }) && error.to_string().contains("may write there"), "{error}");
}
