//! A full disk costs no message, and the relay names a queue folder that it cannot use when it
//! starts.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::client::{Reply, Smtp, submit};
use support::relay::{Config, Relay, program};
use support::sink::Sink;
use support::{PATIENCE, token, tool, wait_for};

#[test]
fn a_full_disk_refuses_for_now_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut sink = Sink::start();
    sink.down();
    let relay = Relay::start(&Config {
        next_hops: vec![sink.port],
        queue: Some(disk.path().join("queue")),
        ..Config::default()
    });

    let mut accepted = vec![];
    for _ in 0..5 {
        let token = token();
        submit(relay.port, &token);
        accepted.push(token);
    }
    let filler = disk.fill();

    // Room that the queue has set aside may be used up first.
    let mut client = Smtp::ehlo(relay.port);
    let refusal = (0..300).find_map(|_| {
        let token = token();
        let refusal = transact(&mut client, &token, 16_000);
        if refusal.is_none() {
            accepted.push(token);
        }
        refusal
    });
    let refusal = refusal.expect("300 MiB do not fit");
    assert_eq!(refusal.code, 452, "{refusal:?}");
    assert!(refusal.text.trim_start().starts_with("4.3."), "{refusal:?}");
    client.expect("NOOP", 250);
    client.expect("RSET", 250);

    // Space returns, and with it the service, without a restart.
    fs::remove_file(filler).expect("it was made a moment ago");
    let late = token();
    wait_for("mail is taken again", PATIENCE, || {
        transact(&mut Smtp::ehlo(relay.port), &late, 1).is_none().then_some(())
    });
    accepted.push(late);
    sink.up();
    for token in &accepted {
        assert!(!sink.wait(token, 1).is_empty(), "{token} was acknowledged and has not arrived");
    }
    relay.wait_queued(0);
}

#[test]
fn a_disk_that_is_full_at_the_start_is_survived() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut sink = Sink::start();
    sink.down();
    let mut relay = Relay::start(&Config {
        next_hops: vec![sink.port],
        queue: Some(disk.path().join("queue")),
        ..Config::default()
    });
    let token = token();
    submit(relay.port, &token);
    let filler = disk.fill();
    relay.kill();
    // With a full disk the relay serves what it holds or says why it cannot. It must not harm what
    // it holds.
    let mut child = program().arg("serve").arg("--config").arg(relay.config()).spawn().expect("cargo built the relay");
    std::thread::sleep(Duration::from_secs(3));
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
    fs::remove_file(filler).expect("it was made a moment ago");
    relay.start_again();
    sink.up();
    sink.one(&token);
}

#[test]
fn a_queue_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("the folder is ours");
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).expect("the folder is ours");
    fs::write(foreign.join("accounts.txt"), "another program's").expect("the folder is ours");
    for queue in [file.clone(), file.join("queue"), foreign.clone(), PathBuf::from("/proc/queue")] {
        let relay = Relay::prepare(&Config { next_hops: vec![9], queue: Some(queue.clone()), ..Config::default() });
        let errors = serve_fails(&relay, &queue);
        assert!(errors.contains(&*queue.to_string_lossy()), "{} is not named: {errors}", queue.display());
    }
    assert_eq!(fs::read_to_string(foreign.join("accounts.txt")).expect("it stays as it was"), "another program's");
}

#[test]
fn a_queue_that_another_relay_has_open_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let queue = folder.path().join("queue");
    let config = Config { next_hops: vec![9], queue: Some(queue.clone()), ..Config::default() };
    let first = Relay::start(&config);
    let second = Relay::prepare(&config);
    let errors = serve_fails(&second, &queue);
    assert!(errors.contains(&*queue.to_string_lossy()), "{errors}");
    submit(first.port, &token());
}

/// Sends one message of `lines` lines of 64 octets. Returns the reply that refused it, to any of
/// the commands.
fn transact(client: &mut Smtp, token: &str, lines: usize) -> Option<Reply> {
    for line in
        [format!("MAIL FROM:<snd-{token}@sender.test>"), format!("RCPT TO:<rcp-{token}@dest.test>"), "DATA".into()]
    {
        let reply = client.command(&line);
        if reply.code >= 400 {
            return Some(reply);
        }
    }
    client.send(format!("Subject: {token}\r\n\r\n"));
    client.send("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(lines));
    client.send(".\r\n");
    let end = client.reply();
    (end.code != 250).then_some(end)
}

/// Starts a relay that must not start, and returns what it says.
fn serve_fails(relay: &Relay, queue: &Path) -> String {
    let log = relay.folder().join("errors");
    let errors = support::relay::output_file(&log);
    let mut child = program()
        .arg("serve")
        .arg("--config")
        .arg(relay.config())
        .stderr(errors)
        .spawn()
        .expect("cargo built the relay");
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break status;
        }
        if std::time::Instant::now() > end {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
            panic!("the relay runs with the queue {}", queue.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(!status.success(), "{status}");
    fs::read_to_string(log).expect("it was made a moment ago")
}

/// A file system of its own, in memory. Only root can mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    const SIZE: &str = "size=256m";

    fn mount() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!(
                "SKIPPED: a full disk needs a small file system, and only root can mount one. Run the tests as root once."
            );
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let status = tool("mount")
            .args(["-t", "tmpfs", "-o", Self::SIZE, "tmpfs"])
            .arg(folder.path())
            .status()
            .expect("was found");
        if !status.success() {
            eprintln!("SKIPPED: a full disk needs a small file system, and this machine does not let root mount one.");
            return None;
        }
        Some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk to the last octet. Returns the file to remove to make room again.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).expect("there is room for an empty file");
        let block = vec![0; 65_536];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the relay that has it open is ended a moment later when a test fails.
        let _ = tool("umount").arg("--lazy").arg(self.path()).status();
    }
}
