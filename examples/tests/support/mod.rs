//! What the end-to-end tests share: the programs as processes, a next hop that can misbehave, a
//! client that sends any octets.
//!
//! Each process is ended by its id when its value is dropped, each wait has an end, and all files
//! are in folders that remove themselves. A test that fails prints the end of the relay's log.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod client;
pub(crate) mod configuration;
pub(crate) mod next_hops;
pub(crate) mod program;
pub(crate) mod relay;
pub(crate) mod sink;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an expected event may take. It is far above what it does take: these tests find what is
/// wrong, not what is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of these tests.
pub(crate) fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// A program that these tests need, from the folders where systems keep programs.
pub(crate) fn tool(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).map(|dir| dir.join(name));
    let found = candidates.find(|candidate| candidate.is_file());
    let Some(found) = found else { panic!("{name} is not on this machine: run `cargo xtask test`, which installs it") };
    let mut command = Command::new(found);
    command.stdin(Stdio::null());
    command
}

/// A Python script of these tests, given by its path in this folder.
pub(crate) fn python(script: &str) -> Command {
    let mut command = tool("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(tests_folder().join(script));
    command
}

/// Runs the command to its end and returns what it printed; both outputs are shown when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}

/// Parses what a Python script printed.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

/// A free port, below the range from which the system picks ports for outgoing connections.
///
/// A relay that is killed and started again must find its port free. In that range, a client that
/// connects to a port without a listener may be connected to itself.
pub(crate) fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().expect("no test panics while it holds this");
    // The test programs run one after the other, and several checkouts may test at once.
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    let mut ports = (start..32_000).chain(10_000..start);
    let port = ports.find(|port| !taken.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let port = port.expect("some port of 22,000 is free");
    taken.insert(port);
    port
}

/// Repeats a question until there is an answer.
pub(crate) fn wait_for<T>(what: &str, patience: Duration, mut question: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A certificate for localhost and its key, made once for each folder.
pub(crate) fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !certificate.exists() {
        run(tool("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,DNS:relay.test,IP:127.0.0.1"])
            // A server's own and not an authority's: clients that verify refuse a certificate that
            // is both.
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate));
    }
    (certificate, key)
}

/// A word that occurs in no other message.
pub(crate) fn token() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}x{}x", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Fails unless `arrived` is trace fields followed by `sent`.
pub(crate) fn assert_same_message(name: &str, arrived: &[u8], sent: &[u8]) {
    let added = added(name, arrived, sent, &["Received:", "Authentication-Results:", "Received-SPF:"]);
    assert!(added.starts_with("Received:"), "{name}: no Received field was put in front: {added:?}");
}

/// What stands before `sent` in `arrived`. Fails if it is anything but these header fields.
pub(crate) fn added(name: &str, arrived: &[u8], sent: &[u8], fields: &[&str]) -> String {
    let added = arrived.strip_suffix(sent).unwrap_or_else(|| {
        let tail = &arrived[arrived.len().saturating_sub(sent.len())..];
        let at = tail.iter().zip(sent).position(|(a, b)| a != b).unwrap_or(0);
        let near = |octets: &[u8]| String::from_utf8_lossy(&octets[at.saturating_sub(40)..octets.len().min(at + 40)]).into_owned();
        panic!(
            "{name}: {} octets arrived, {} were sent; counted from the end they differ near\n{:?}\nwhere was sent\n{:?}",
            arrived.len(),
            sent.len(),
            near(tail),
            near(sent)
        )
    });
    let added = String::from_utf8_lossy(added).into_owned();
    for line in added.split_terminator("\r\n") {
        let is_known = fields.iter().any(|field| line.starts_with(field));
        assert!(is_known || line.starts_with([' ', '\t']), "{name}: this was put in front of the message: {line:?}");
    }
    added
}

/// The nine awkward messages: name and octets.
pub(crate) fn corpus() -> Vec<(String, PathBuf, Vec<u8>)> {
    let mut messages: Vec<_> = std::fs::read_dir(tests_folder().join("corpus"))
        .expect("the corpus lies beside the tests")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "eml")
                .then(|| (path.file_stem().expect("has an extension").to_string_lossy().into_owned(), path.clone()))
        })
        .map(|(name, path)| {
            let octets = std::fs::read(&path).expect("was listed a moment ago");
            (name, path, octets)
        })
        .collect();
    messages.sort();
    assert_eq!(messages.len(), 9, "nine messages are in the corpus");
    messages
}

/// A small message that carries the token, with its dots stuffed and its end.
pub(crate) fn data(token: &str) -> String {
    format!(
        "From: <snd-{token}@sender.test>\r\nTo: <rcp-{token}@dest.test>\r\nSubject: {token}\r\nMessage-ID: <{token}@client.test>\r\nDate: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\nHello {token}\r\n.\r\n"
    )
}
