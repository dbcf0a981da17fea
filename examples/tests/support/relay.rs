//! The relay as a process.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, certificate, free_port, wait_for};

/// The account of every relay in these tests.
pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "s3cret pass";
/// The other account, and what `relay verifier` has said of its password.
pub(crate) const SECOND_USER: &str = "second";
pub(crate) const SECOND_PASSWORD: &str = "other pass";
const VERIFIER: &str = "SCRAM-SHA-256$4096:laYJ5dbLRnR09j8UmqPzng==$MA8o9VU/N5MI8LAJL9o+Xpc1baTXH11d6Ki5oU2zpsY=:U15hhrYWWmmSAzvIKINVaWlgPwEGX3EjgiZZRWwXZvo=";

/// What differs between the relays of these tests.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where all mail goes, in order.
    pub(crate) next_hops: Vec<u16>,
    /// `relay_from`: the networks that may relay anywhere without AUTH.
    pub(crate) relay_from: &'static str,
    /// The route's `tls`.
    pub(crate) route_tls: &'static str,
    /// The certificate that proves who a next hop is, for mail that requires TLS.
    pub(crate) authorities: Option<PathBuf>,
    /// With STARTTLS on the MX port, and submission ports besides.
    pub(crate) tls: bool,
    /// Waits between attempts, as in the file.
    pub(crate) retry: &'static str,
    pub(crate) expire_after: &'static str,
    pub(crate) warn_after: &'static str,
    pub(crate) message_size: u64,
    /// Recipients at `gone.test` are routed to a port without a listener.
    pub(crate) gone: bool,
    /// Delivery to the recipients' MX hosts instead of `next_hops`.
    pub(crate) mx: Option<Mx>,
    /// The queue folder; default: inside the relay's own.
    pub(crate) queue: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            next_hops: vec![],
            relay_from: "[\"127.0.0.0/8\"]",
            route_tls: "off",
            authorities: None,
            tls: false,
            retry: "[\"1s\", \"1s\", \"2s\"]",
            expire_after: "1h",
            warn_after: "4h",
            message_size: 2_097_152,
            gone: false,
            mx: None,
            queue: None,
        }
    }
}

/// The name server to ask for MX records, and where the hosts that it names listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mx {
    pub(crate) nameserver: u16,
    pub(crate) port: u16,
    pub(crate) allow_private: bool,
}

/// A relay with its folder. After it is stopped or killed, `start_again` starts it on the same
/// ports and queue.
#[derive(Debug)]
pub(crate) struct Relay {
    folder: TempDir,
    child: Option<Child>,
    /// The MX port.
    pub(crate) port: u16,
    /// Submission with STARTTLS, when there is TLS.
    pub(crate) submission: u16,
    /// Submission with implicit TLS, when there is TLS.
    pub(crate) implicit: u16,
    /// Those of them that it listens on.
    ports: Vec<u16>,
}

/// The program under test.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.stdin(Stdio::null());
    command
}

impl Relay {
    /// Writes the configuration and starts.
    pub(crate) fn start(config: &Config) -> Self {
        let mut relay = Self::prepare(config);
        relay.start_again();
        relay
    }

    /// Writes the configuration.
    pub(crate) fn prepare(config: &Config) -> Self {
        let folder = tempfile::Builder::new().prefix("posthaste-relay-").tempdir().expect("a temporary folder");
        let [port, submission, implicit] = [(); 3].map(|()| free_port());
        let ports = if config.tls { vec![port, submission, implicit] } else { vec![port] };
        let relay = Self { folder, child: None, port, submission, implicit, ports };
        let text = relay.describe(config);
        fs::write(relay.config(), text).expect("the folder is ours");
        relay
    }

    /// The text of relay.toml.
    fn describe(&self, config: &Config) -> String {
        let queue = config.queue.clone().unwrap_or_else(|| self.folder.path().join("queue"));
        let mut lines = vec![
            "hostname = \"relay.test\"".to_owned(),
            format!("queue = {queue:?}"),
            format!("relay_from = {}", config.relay_from),
            "relay_domains = [\"dest.test\", \"sender.test\"]".to_owned(),
        ];
        let mut table = |name: &str, keys: &[(&str, String)]| {
            lines.push(name.to_owned());
            lines.extend(keys.iter().map(|(key, value)| format!("{key} = {value}")));
        };
        let text = |text: &str| format!("{text:?}");
        let local = |port: u16| format!("\"127.0.0.1:{port}\"");
        let listeners = [
            (self.port, "mx", if config.tls { "starttls" } else { "off" }),
            (self.submission, "submission", "starttls"),
            (self.implicit, "submission", "implicit"),
        ];
        for (port, role, tls) in listeners.into_iter().take(if config.tls { 3 } else { 1 }) {
            table("[[listener]]", &[("address", local(port)), ("role", text(role)), ("tls", text(tls))]);
        }
        if config.tls {
            let (certificate, key) = certificate(self.folder.path());
            table("[tls]", &[("certificate", format!("{certificate:?}")), ("key", format!("{key:?}"))]);
            table("[[account]]", &[("name", text(USER)), ("password", text(PASSWORD))]);
            table("[[account]]", &[("name", text(SECOND_USER)), ("verifier", text(VERIFIER))]);
        }
        if config.gone {
            let to = format!("[{}]", local(free_port()));
            table("[[route]]", &[("domains", "[\"gone.test\"]".into()), ("to", to), ("tls", text("off"))]);
        }
        let hops: Vec<String> = config.next_hops.iter().map(|port| local(*port)).collect();
        let to = if config.mx.is_some() { text("mx") } else { format!("[{}]", hops.join(", ")) };
        let keys = [("domains", "[\"*\"]".into()), ("to", to), ("tls", text(config.route_tls))];
        table("[[route]]", &[&keys[..], &[("mailboxes", text("unknown"))]].concat());
        let delivery = [
            ("retry", config.retry.to_owned()),
            ("expire_after", text(config.expire_after)),
            ("warn_after", text(config.warn_after)),
            ("timeout", text("6s")),
        ];
        table("[delivery]", &delivery);
        if let Some(authorities) = &config.authorities {
            table("", &[("authorities", format!("{authorities:?}"))]);
        }
        if let Some(mx) = config.mx {
            table("", &[("mx_port", mx.port.to_string()), ("allow_private", mx.allow_private.to_string())]);
            table("[dns]", &[("servers", format!("[{}]", local(mx.nameserver)))]);
        }
        table("[limits]", &[("message_size", config.message_size.to_string())]);
        lines.join("\n") + "\n"
    }

    /// Starts the program and waits until its ports accept.
    pub(crate) fn start_again(&mut self) {
        self.start_with(program());
    }

    /// Starts it as `program` says, with the arguments that follow, and waits until its ports
    /// accept.
    pub(crate) fn start_with(&mut self, mut program: Command) {
        assert!(self.child.is_none(), "the relay runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("the folder is ours");
        let errors = log.try_clone().expect("a file can be opened twice");
        let child = program.arg("serve").arg("--config").arg(self.config()).stdout(log).stderr(errors).spawn();
        self.child = Some(child.expect("cargo built the relay"));
        wait_for("the relay listens", PATIENCE, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert_eq!(ended, None, "the relay ended instead of listening; its log:\n{}", self.log());
            self.ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()).then_some(())
        });
    }

    /// KILL: no destructor, no flush.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the relay runs");
        child.kill().expect("the child is ours and has not been waited for");
        child.wait().expect("the child is ours");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("the relay runs")), signal).expect("the child is ours");
    }

    /// TERM, and how the relay ended.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// How the relay ended, which it was told to.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the relay runs");
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("the child is ours") {
                return status;
            }
            if std::time::Instant::now() > end {
                child.kill().expect("the child is ours");
                panic!("the relay did not end within {PATIENCE:?} of SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `relay status` prints.
    pub(crate) fn status_text(&self) -> String {
        let output =
            program().arg("status").arg("--config").arg(self.config()).output().expect("cargo built the relay");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What `relay status` prints, as numbers. Empty: it failed.
    pub(crate) fn status(&self) -> BTreeMap<String, u64> {
        self.status_text()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(key, value)| Some((key.into(), value.trim().parse().ok()?)))
            .collect()
    }

    /// Waits until the relay holds `count` messages.
    pub(crate) fn wait_queued(&self, count: u64) {
        let mut last = None;
        let end = std::time::Instant::now() + PATIENCE;
        while last != Some(count) {
            assert!(
                std::time::Instant::now() < end,
                "`relay status` says queued {last:?}, not {count}; it prints {:?}",
                self.status()
            );
            last = self.status().get("queued").copied();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A line of the process's own account of its memory, in octets: `VmHWM`, `VmRSS`.
    pub(crate) fn memory(&self, key: &str) -> u64 {
        let id = self.child.as_ref().expect("the relay runs").id();
        let text = fs::read_to_string(format!("/proc/{id}/status")).expect("the process runs");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        kib.expect("the kernel says so in KiB") * 1024
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("relay.toml")
    }

    pub(crate) fn log(&self) -> String {
        let text = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(8000)..]).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the end of the relay's log\n{}----", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A file that takes what a program prints.
pub(crate) fn output_file(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
