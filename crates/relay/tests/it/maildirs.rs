//! Mail into maildirs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use posthaste_relay::{Route, agent::Maildir};

use crate::{
    agents::{done, routed},
    support::{Client, start},
};

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

fn maildir(root: &Path) -> Route {
    let template = format!("{}/{{domain}}/{{local}}", root.display());
    Route::agent("mailboxes", Maildir::new(&template).unwrap())
}

#[tokio::test]
async fn each_recipient_has_the_message_in_a_folder_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let (options, _) = routed(maildir(root.path()));
    let running = start(options);
    let content = b"Subject: x\r\n\r\n\xe4 body\r\n";
    running.submit("<me@sender.test> BODY=8BITMIME", &["<Jo@agent.test>", "<mo@AGENT.test>"], content).await;
    running.submit("<>", &["<jo@agent.test>"], content).await;
    done(&running, "delivered", 3).await;
    running.end().await;
    for (user, count, delivered_to) in [("jo", 2, "Jo@agent.test"), ("mo", 1, "mo@AGENT.test")] {
        let maildir = root.path().join("agent.test").join(user);
        assert_eq!((names(&maildir.join("tmp")).len(), names(&maildir.join("cur")).len()), (0, 0));
        let mut files: Vec<_> = names(&maildir.join("new")).iter().map(|file| fs::read(file).unwrap()).collect();
        assert_eq!(files.len(), count);
        files.sort_unstable();
        let head = format!("Return-Path: <me@sender.test>\r\nDelivered-To: {delivered_to}\r\n");
        assert_eq!(*files.last().unwrap(), [head.as_bytes(), content].concat());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&maildir), mode(&names(&maildir.join("new"))[0])), (0o700, 0o600));
        }
    }
}

#[tokio::test]
async fn a_mailbox_that_could_lead_elsewhere_is_refused_at_rcpt_and_returned_from_the_queue() {
    let root = tempfile::tempdir().unwrap();
    let below = root.path().join("mail");
    fs::create_dir(&below).unwrap();
    let (mut options, reports) = routed(maildir(&below));
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    let long = "x".repeat(300);
    let bad = ["\"../../out\"", "\"..\"", "\"/etc/x\"", "x", "\".hidden\"", &long];
    let mut client = Client::of(options.clone()).await;
    client.talk(&["EHLO client.test\r\n", "MAIL FROM:<me@sender.test>\r\n"]).await;
    let running = start(options);
    let mut failed = 0;
    for local in bad {
        let said = client.talk(&[&format!("RCPT TO:<{local}@agent.test>\r\n")]).await;
        if local == "x" {
            assert!(said.starts_with("250"), "{local} {said}");
            continue;
        }
        assert!(said.starts_with('5'), "{local} {said}");
        if local.len() < 200 {
            running.submit("<me@sender.test>", &[&format!("<{local}@agent.test>")], b"Subject: x\r\n\r\n").await;
            failed += 1;
        }
    }
    done(&running, "failed", failed).await;
    assert_eq!(reports.all().len(), failed);
    running.end().await;
    assert_eq!(names(root.path()), std::slice::from_ref(&below));
    assert_eq!(names(&below), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_message_that_cannot_be_moved_is_tried_again_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let user = root.path().join("agent.test/jo");
    fs::create_dir_all(user.join("tmp")).unwrap();
    let (options, _) = routed(maildir(root.path()));
    let running = start(options);
    running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
    running.log.wait("deferred", 2).await;
    fs::create_dir(user.join("new")).unwrap();
    done(&running, "delivered", 1).await;
    running.end().await;
    assert_eq!((names(&user.join("tmp")).len(), names(&user.join("new")).len()), (0, 1));
}

#[tokio::test]
async fn mail_waits_for_a_root_that_is_not_there() {
    let root = tempfile::tempdir().unwrap();
    let volume = root.path().join("volume");
    let (options, _) = routed(maildir(&volume));
    let running = start(options);
    running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
    running.log.wait("deferred", 1).await;
    assert!(running.log.of("deferred")[0].text.contains("451 4.3.0"), "{:?}", running.log.all());
    assert!(!volume.exists());
    fs::create_dir(&volume).unwrap();
    done(&running, "delivered", 1).await;
    running.end().await;
}

/// A file system of 1 MiB in memory. Only root can mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: a full disk needs a small file system, and only root can mount one.");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn mail_waits_while_the_disk_is_full() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (options, _) = routed(maildir(disk.0.path()));
    let running = start(options);
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 900 << 10]).unwrap();
    let content: &'static [u8] =
        Box::leak(format!("Subject: x\r\n\r\n{}", "body\r\n".repeat(50_000)).into_boxed_str()).as_bytes();
    running.submit("<me@sender.test>", &["<jo@agent.test>"], content).await;
    running.log.wait("deferred", 2).await;
    let text = &running.log.of("deferred")[0].text;
    assert!(text.contains("452 4.3.1 Out of storage"), "{text}");
    let user = disk.0.path().join("agent.test/jo");
    assert_eq!(names(&user.join("new")).len(), 0);
    fs::remove_file(&filler).unwrap();
    done(&running, "delivered", 1).await;
    running.end().await;
    let file = fs::read(&names(&user.join("new"))[0]).unwrap();
    assert!(file.ends_with(content));
}
