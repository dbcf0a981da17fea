//! The inspection program, on a real file system.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod block_on;
#[path = "../examples/inspect/main.rs"]
#[allow(dead_code, reason = "its own main is not called")]
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use block_on::block_on;
use posthaste_queue::log::{LogOptions, LogQueue};
use posthaste_queue::{Draft, MessageId, NewDelivery, NewMessage, Owner, Priority, Queue, RoutingKey};

/// Returns the exit code, and the texts on standard output and standard error.
fn inspect(command: &str, dir: &Path, args: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["inspect".into(), command.into(), dir.into()].into_iter().chain(args.iter().map(Into::into));
    let code = program::run::run(args, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn put(queue: &LogQueue, owner: &str, key: &str, delay: u64, body: &[u8]) -> MessageId {
    let delivery = NewDelivery {
        key: RoutingKey::new(key).unwrap(),
        delay: Duration::from_secs(delay),
        state: b"RCPT\r\n".as_slice().into(),
    };
    let owner = Owner::new(owner).unwrap();
    let envelope = b"MAIL\0".as_slice().into();
    let message = NewMessage { owner, priority: Priority(3), envelope, deliveries: vec![delivery] };
    block_on(async {
        let mut draft = queue.put(None).await.unwrap();
        draft.write(body.to_vec().into()).await.unwrap();
        draft.commit(message).await.unwrap()
    })
}

/// A closed queue of three messages: due, waiting, and on hold with a body in a file of its own.
fn queue(dir: &Path) -> [MessageId; 3] {
    let queue = LogQueue::open(dir, LogOptions::default()).unwrap();
    let one = put(&queue, "alice", "example.org", 0, b"one");
    let two = put(&queue, "bob", "ex\x1b[2Jample.net", 7_200, b"two");
    let three = put(&queue, "alice", "example.net", 0, &[b'3'; 300_000]);
    assert!(block_on(queue.hold(three)).unwrap());
    [one, two, three]
}

fn everything(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
            found.insert(path, None);
        } else {
            found.insert(path.clone(), Some(fs::read(&path).unwrap()));
        }
    }
    found
}

#[test]
fn messages_are_listed_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let [one, two, three] = queue(dir);
    let before = everything(dir);
    let rows: [(&[&str], &[MessageId]); 9] = [
        (&[], &[one, two, three]),
        (&["--owner", "alice"], &[one, three]),
        (&["--key", "example.net"], &[three]),
        (&["--held"], &[three]),
        (&["--due"], &[one]),
        (&["--due", "--key", "example.net"], &[]),
        (&["--owner", "alice", "--json"], &[one, three]),
        (&["--owner", "nobody"], &[]),
        (&["--containing", "RCPT", "--owner", "bob"], &[two]),
    ];
    for (args, expected) in rows {
        let (code, out, err) = inspect("list", dir, args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        let ids: Vec<_> = [one, two, three].into_iter().filter(|id| out.contains(&id.to_string())).collect();
        assert_eq!(ids, expected, "{args:?}: {out}");
        if args.contains(&"--json") {
            for line in out.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object());
            }
            assert!(out.lines().last().unwrap().contains(r#""in_queue":3"#), "{out}");
        } else {
            let total = format!("{} of 3 messages", expected.len());
            assert!(out.lines().last().unwrap().starts_with(&total), "{out}");
            assert!(!out.contains('\x1b'), "a stranger's name moves no cursor: {out}");
        }
    }
    let (_, out, _) = inspect("show", dir, &[&two.to_string()]);
    for part in ["bob", "due in 1h", "RCPT\\r\\n", "MAIL\\x00", ".seg", "3 bytes"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = inspect("show", dir, &[&three.to_string(), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 0 && shown["held"] == true && shown["deliveries"][0]["state"] == "RCPT\\r\\n", "{out}");
    let (code, out, _) = inspect("show", dir, &[&three.to_string(), "--body"]);
    assert!(code == 0 && out == "3".repeat(300_000));
    let (code, _, err) = inspect("show", dir, &["0000000000001"]);
    assert!(code == 1 && err.contains("no message 0000000000001"), "{err}");
    assert!(everything(dir) == before, "looking changed something");
}

#[test]
fn damage_is_found_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let [_, _, three] = queue(dir);
    let (code, out, err) = inspect("verify", dir, &[]);
    assert!(code == 0 && err.is_empty() && out.contains("3 messages") && out.contains("0 findings"), "{out}{err}");

    let segment = fs::read_dir(dir.join("log")).unwrap().next().unwrap().unwrap().path();
    let mut octets = fs::read(&segment).unwrap();
    let at = octets.windows(3).position(|part| part == b"two").unwrap();
    octets[at] ^= 1;
    fs::write(&segment, octets).unwrap();
    fs::write(dir.join("bodies").join(format!("{:016x}", three.as_u64())), "3").unwrap();
    fs::write(dir.join("bodies/00000000000000ff"), "nobody's").unwrap();
    let before = everything(dir);
    let (code, out, _) = inspect("verify", dir, &[]);
    assert_eq!(code, 1, "{out}");
    for part in ["damaged", "unlogged", "body", "settled", "orphan", "quarantine/", "inspect repair"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, dry, _) = inspect("repair", dir, &["--dry-run"]);
    assert!(code == 1 && dry.contains("would be"), "{dry}");
    assert!(everything(dir) == before, "verifying or a dry run changed something");
    let (code, out, err) = inspect("repair", dir, &[]);
    assert!(code == 0 && err.is_empty() && out.contains("0 left"), "{out}{err}");
    assert_eq!(dry.lines().count(), out.lines().count(), "{dry}{out}");
    let (code, out, _) = inspect("verify", dir, &["--json"]);
    assert_eq!(code, 0, "{out}");
    let (code, _, err) = inspect("show", dir, &[&three.to_string(), "--body"]);
    assert!(code == 1 && err.contains("bodies/"), "{err}");
    let queue = LogQueue::open(dir, LogOptions::default()).unwrap();
    assert_eq!(block_on(queue.stats()).messages, 3);
    assert_eq!(block_on(queue.stats()).held, 2);
}

#[test]
fn inspection_refuses_what_it_cannot_read_and_names_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("queue");
    for command in ["list", "verify", "repair"] {
        let (code, _, err) = inspect(command, &dir, &[]);
        assert!(code == 2 && err.contains("no queue in") && err.contains("name the folder"), "{err}");
        assert!(!dir.exists());
    }
    let queue = LogQueue::open(&dir, LogOptions::default()).unwrap();
    for command in ["list", "verify", "repair"] {
        let (code, _, err) = inspect(command, &dir, &[]);
        assert!(code == 2 && err.contains("LOCK") && err.contains("stop that one first"), "{err}");
    }
    drop(queue);
    assert_eq!(inspect("list", &dir, &[]).0, 0);
    assert_eq!(inspect("list", &dir, &["--nonsense"]).0, 2);
}

#[test]
fn help_teaches_each_command() {
    for command in ["list", "show", "verify", "repair"] {
        let (code, out, _) = inspect(command, Path::new("--help"), &[]);
        assert!(code == 0 && out.contains(&format!("inspect {command} /var/spool/posthaste")), "{out}");
    }
}
