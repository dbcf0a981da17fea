//! What operators and their tools do to a running relay: signals, a log that is not read, files
//! taken away, few descriptors.

mod support;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::client::{Smtp, submit};
use support::relay::{Config, Relay, program};
use support::sink::Sink;
use support::{PATIENCE, token, wait_for};

fn started() -> (Sink, Relay) {
    let sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
    (sink, relay)
}

#[test]
fn signals_without_a_meaning_leave_the_relay_running() {
    let (mut sink, mut relay) = started();
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        relay.signal(signal);
        wait_for(name, PATIENCE, || relay.log().contains(name).then_some(()));
    }
    let token = token();
    submit(relay.port, &token);
    sink.one(&token);
    assert_eq!(relay.stop().code(), Some(0));
}

#[test]
fn the_first_ending_signal_drains_and_the_second_does_not_wait() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let (_sink, mut relay) = started();
        relay.signal(signal);
        assert_eq!(relay.wait().code(), Some(0), "{signal:?}");
    }
    let (_sink, mut relay) = started();
    // In the middle of its content: the drain waits for it.
    let mut client = Smtp::ehlo(relay.port);
    client.open("a@sender.test", "b@dest.test");
    relay.signal(Signal::TERM);
    wait_for("it drains", PATIENCE, || relay.log().contains("drain begun").then_some(()));
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait().code(), Some(130));
}

#[test]
fn a_log_that_is_not_read_blocks_no_mail() {
    const MESSAGES: usize = 2_000;
    let mut sink = Sink::start();
    let relay = Relay::prepare(&Config { next_hops: vec![sink.port], ..Config::default() });
    // A pipe without a reader takes 64 KiB, some hundred messages.
    let mut child = program();
    child.env("RUST_LOG", "debug").arg("serve").arg("--config").arg(relay.config()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("cargo built the relay");
    wait_for("it listens", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", relay.port)).is_ok().then_some(()));
    let began = Instant::now();
    for _ in 0..MESSAGES / 100 {
        let mut client = Smtp::ehlo(relay.port);
        for _ in 0..100 {
            assert_eq!(client.transact("unread").code, 250);
        }
    }
    let taken = sink.wait_within("unread", MESSAGES, Duration::from_secs(120)).len();
    assert_eq!(taken, MESSAGES, "within {:?}", began.elapsed());
    assert!(relay.status_text().contains("state ok"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("the relay is ours");
    let status = wait_for("it ends", Duration::from_secs(20), || child.try_wait().expect("the relay is ours"));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_relay_survives_the_end_of_its_log_reader() {
    let mut sink = Sink::start();
    let relay = Relay::prepare(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut child = program();
    let child = child.arg("serve").arg("--config").arg(relay.config()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("cargo built the relay");
    drop(child.stderr.take());
    wait_for("it listens", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", relay.port)).is_ok().then_some(()));
    let token = token();
    submit(relay.port, &token);
    sink.one(&token);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("the relay is ours");
    assert_eq!(child.wait().expect("the relay is ours").code(), Some(0));
}

#[test]
fn nothing_is_acknowledged_once_the_queue_is_taken_away() {
    for (what, is_removed) in [("queue", false), ("queue/log", false), ("queue/log", true)] {
        let mut sink = Sink::start();
        sink.down();
        let mut relay = Relay::start(&Config { next_hops: vec![sink.port], ..Config::default() });
        let kept = token();
        submit(relay.port, &kept);
        let (path, away) = (relay.folder().join(what), relay.folder().join("away"));
        if is_removed {
            fs::remove_dir_all(&path).expect("the folder is ours");
        } else {
            fs::rename(&path, &away).expect("the folder is ours");
        }
        let mut client = Smtp::ehlo(relay.port);
        for _ in 0..3 {
            client.expect("RSET", 250);
            let refused = attempt(&mut client);
            assert!((400..500).contains(&refused), "{what}: {refused}");
        }
        if what != "queue" {
            assert!(!relay.status_text().contains("state ok"), "{what}: {}", relay.status_text());
        }
        if is_removed {
            assert_eq!(relay.stop().code(), Some(1), "{what}");
            continue;
        }
        fs::rename(&away, &path).expect("the folder is ours");
        wait_for("it goes on", PATIENCE, || relay.status_text().contains("state ok").then_some(()));
        let late = token();
        submit(relay.port, &late);
        sink.up();
        for token in [kept, late] {
            assert!(!sink.wait(&token, 1).is_empty(), "{what}: {token}");
        }
        assert_eq!(relay.stop().code(), Some(0), "{what}");
    }
}

/// The code of the reply that refuses a transaction, or of its end.
fn attempt(client: &mut Smtp) -> u16 {
    for line in ["MAIL FROM:<a@sender.test>", "RCPT TO:<b@dest.test>", "DATA"] {
        let reply = client.command(line);
        if reply.code >= 400 {
            return reply.code;
        }
    }
    client.send(support::data("refused"));
    client.reply().code
}

#[test]
fn the_lock_is_held_although_its_file_was_removed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let queue = folder.path().join("queue");
    let config = Config { next_hops: vec![9], queue: Some(queue.clone()), ..Config::default() };
    let first = Relay::start(&config);
    fs::remove_file(queue.join("LOCK")).expect("the folder is ours");
    let second = Relay::prepare(&config);
    let output = program().arg("serve").arg("--config").arg(second.config()).output().expect("cargo built the relay");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is locked by another process"));
    submit(first.port, &token());
    assert!(first.status_text().contains("state ok"), "the socket is the first one's");
}

#[test]
fn files_of_the_relay_are_closed_to_other_users_with_any_mask() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let queue = folder.path().join("queue");
    let mut relay =
        Relay::prepare(&Config { next_hops: vec![9], tls: true, queue: Some(queue.clone()), ..Config::default() });
    let with_mask = |mode: &str| {
        let mut shell = Command::new("sh");
        shell.stdin(Stdio::null()).args(["-c", &format!("umask {mode}; exec \"$0\" \"$@\"")]);
        shell.arg(program().get_program());
        shell
    };
    relay.start_with(with_mask("000"));
    submit(relay.port, &token());
    let modes = |queue: &std::path::Path| -> Vec<_> {
        let found =
            fs::read_dir(queue).expect("it is there").chain(fs::read_dir(queue.join("log")).expect("it is there"));
        found
            .map(|entry| entry.expect("it is there").path())
            .map(|path| {
                let mode = fs::symlink_metadata(&path).expect("it is there").mode() & 0o077;
                (path, mode)
            })
            .filter(|(_, mode)| *mode != 0)
            .collect()
    };
    assert_eq!(modes(&queue), []);
    assert_eq!(fs::metadata(&queue).expect("it is there").mode() & 0o777, 0o700);
    assert!(relay.stop().success());

    // As an older version has left it, or a backup.
    let set = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    for name in ["LOCK", "index", "sasl.secret", "posthaste-queue"] {
        set(&queue.join(name), 0o644);
    }
    for name in ["log", "bodies"] {
        set(&queue.join(name), 0o755);
    }
    set(&queue, 0o755);
    relay.start_again();
    assert_eq!(modes(&queue), []);
    let log = relay.log();
    assert!(log.contains("others on this host may look into") && log.contains("chmod 700"), "{log}");
    assert!(relay.stop().success());

    set(&queue, 0o777);
    let output = program().arg("serve").arg("--config").arg(relay.config()).output().expect("cargo built the relay");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("every user of this host may write in"));
}

#[test]
fn clients_of_the_control_socket_that_do_not_read_block_no_other_client() {
    let (_sink, relay) = started();
    let socket = relay.folder().join("queue/control.sock");
    // The relay takes mail a moment before it takes orders.
    let began = Instant::now();
    while !socket.exists() && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let idle: Vec<_> = (0..50).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    let began = Instant::now();
    assert!(relay.status_text().contains("state ok"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(idle);
}

#[test]
fn few_descriptors_refuse_clients_and_break_nothing() {
    let mut sink = Sink::start();
    let mut relay = Relay::prepare(&Config { next_hops: vec![sink.port], ..Config::default() });
    let mut shell = Command::new("sh");
    shell.stdin(Stdio::null()).args(["-c", "ulimit -n 256; exec \"$0\" \"$@\""]).arg(program().get_program());
    relay.start_with(shell);
    let log = relay.log();
    assert!(log.contains("too few open files are allowed") && log.contains("ulimit -n"), "{log}");
    let mut crowd: Vec<_> =
        (0..400).filter_map(|_| std::net::TcpStream::connect(("127.0.0.1", relay.port)).ok()).collect();
    let mut greeting = [0; 3];
    // Of a burst 64 are told at a time, and the others are closed without a word.
    let is_told = crowd.iter_mut().any(|client| {
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.read_exact(&mut greeting).is_ok() && &greeting == b"421"
    });
    assert!(is_told, "{}", relay.log());
    assert!(relay.status_text().contains("state ok"));
    drop(crowd);
    let token = token();
    wait_for("it takes clients again", PATIENCE, || {
        let mut client = std::net::TcpStream::connect(("127.0.0.1", relay.port)).ok()?;
        client.read_exact(&mut greeting).ok().filter(|()| &greeting == b"220")
    });
    submit(relay.port, &token);
    sink.one(&token);
    assert_eq!(relay.stop().code(), Some(0));
}
