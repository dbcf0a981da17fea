//! All limits of the configuration at their documented maximum: everything can be recorded, and
//! nothing is lost.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use support::client::Smtp;
use support::relay::{Config, Relay};
use support::wait_for;

/// A next hop that takes every message. Its replies about all recipients but a message's first have
/// the greatest length.
#[derive(Default)]
struct Host {
    /// Refuses them for good, and does not only defer them.
    is_final: AtomicBool,
    refuses_all: AtomicBool,
    /// What it has taken, and how many recipients each had.
    taken: Mutex<Vec<(Vec<u8>, usize)>>,
}

impl Host {
    fn start() -> (u16, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let host = Arc::new(Self::default());
        let serving = Arc::clone(&host);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let host = Arc::clone(&serving);
                thread::spawn(move || host.serve(stream.expect("a connection")));
            }
        });
        (port, host)
    }

    /// Serves until the client has left.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut stream = std::io::BufWriter::new(stream);
        let words = "\u{20ac}".repeat(330);
        let mut named = 0;
        write!(stream, "220 host.test\r\n").ok()?;
        loop {
            // Replies to what was pipelined leave together.
            if reader.buffer().is_empty() {
                stream.flush().ok()?;
            }
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.get(..4)? {
                "EHLO" => {
                    let extensions = ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 100000000"];
                    extensions.iter().try_for_each(|each| write!(stream, "250-{each}\r\n")).ok()?;
                    write!(stream, "250 HELP\r\n").ok()?;
                }
                "RCPT" => {
                    let is_taken = !self.refuses_all.load(SeqCst) && named == 0;
                    named += 1;
                    match (is_taken, self.is_final.load(SeqCst)) {
                        (true, _) => write!(stream, "250 2.1.5 Ok\r\n"),
                        (false, false) => write!(stream, "450 4.2.1 {words}\r\n"),
                        (false, true) => write!(stream, "550 5.1.1 {words}\r\n"),
                    }
                    .ok()?;
                }
                "DATA" => {
                    write!(stream, "354 Go on\r\n").ok()?;
                    stream.flush().ok()?;
                    let mut content = Vec::new();
                    while !content.ends_with(b"\r\n.\r\n") {
                        if reader.read_until(b'\n', &mut content).ok()? == 0 {
                            return None;
                        }
                    }
                    self.taken.lock().expect("no panic").push((content, named));
                    write!(stream, "250 2.0.0 Taken\r\n").ok()?;
                }
                _ => {
                    named = 0;
                    write!(stream, "250 2.0.0 Ok\r\n").ok()?;
                }
            }
        }
    }

    fn taken(&self) -> Vec<Vec<u8>> {
        self.taken.lock().expect("no panic").iter().map(|(content, _)| content.clone()).collect()
    }
}

/// A relay with all limits at their maximum. It sends reports to the port `senders`, and all else
/// to `port`.
fn relay(port: u16, senders: u16) -> Relay {
    let mut relay = Relay::prepare(&Config { next_hops: vec![port], ..Config::default() });
    let text = format!(
        r#"
hostname = "relay.test"
queue = "queue"
relay_from = ["127.0.0.0/8"]
[[listener]]
address = "127.0.0.1:{}"
[[route]]
domains = ["sender.test"]
to = ["127.0.0.1:{senders}"]
tls = "off"
[[route]]
domains = ["*"]
to = ["127.0.0.1:{port}"]
tls = "off"
[delivery]
retry = ["2s"]
expire_after = "365d"
warn_after = "never"
timeout = "60s"
concurrency = 65535
concurrency_per_site = 65535
[limits]
message_size = 4294967296
returned_size = 4194304
recipients = 10000
connections = 65535
"#,
        relay.port
    );
    fs::write(relay.config(), text).expect("the folder is ours");
    relay.start_again();
    relay
}

/// Submits a message to as many recipients with as long addresses as the relay takes. Returns their
/// number.
fn submit(relay: &Relay, content: &[u8], parameters: &str) -> usize {
    let mut client = Smtp::ehlo(relay.port);
    client.expect(&format!("MAIL FROM:<me@sender.test> {parameters}"), 250);
    let mut taken = 0;
    for group in 0..25 {
        let lines: String = (0..400)
            .map(|n| {
                let local = format!("u{}", group * 400 + n);
                format!("RCPT TO:<{local}@one.test> ORCPT=rfc822;{}{local}@original.test\r\n", "o".repeat(350))
            })
            .collect();
        client.send(lines);
        for _ in 0..400 {
            match client.reply().code {
                250 => taken += 1,
                452 => {}
                other => panic!("{other}\n{}", client.log()),
            }
        }
    }
    client.expect("DATA", 354);
    client.send(content);
    client.send("\r\n.\r\n");
    assert_eq!(client.reply().code, 250, "{}", client.log());
    taken
}

#[test]
fn the_most_recipients_are_deferred_and_refused_with_the_longest_replies() {
    let (port, host) = Host::start();
    let (senders, sender) = Host::start();
    let relay = relay(port, senders);
    let recipients = submit(&relay, b"Subject: x\r\n\r\nthe body", "RET=FULL");
    assert!(recipients > 9_000, "{recipients}");
    let patience = Duration::from_secs(90);
    // A transaction has a hundred recipients, and the first of each hundred is taken, once.
    let firsts = recipients.div_ceil(100);
    wait_for("the first attempt is over", patience, || (host.taken().len() >= firsts).then_some(()));
    wait_for("what came of it is recorded", patience, || (relay.status()["retried"] > 0).then_some(()));
    host.is_final.store(true, SeqCst);
    host.refuses_all.store(true, SeqCst);
    wait_for("the sender hears of it", patience, || (!sender.taken().is_empty()).then_some(()));
    relay.wait_queued(0);
    let delivered = usize::try_from(relay.status()["delivered"]).expect("a small number") - 1;
    let failed = usize::try_from(relay.status()["failed"]).expect("a small number");
    assert_eq!(delivered + failed, recipients, "each recipient has one end");
    assert_eq!(host.taken().len(), delivered, "nothing was sent twice");
    let reports = sender.taken();
    let named: usize = reports.iter().map(|report| count(report, b"\r\nAction: failed\r\n")).sum();
    assert_eq!(named, failed, "every failure is reported once");
    assert_eq!(reports.len(), 1);
}

#[test]
fn the_largest_message_that_may_be_returned_is_reported_with_any_content() {
    let (port, host) = Host::start();
    let (senders, sender) = Host::start();
    host.is_final.store(true, SeqCst);
    host.refuses_all.store(true, SeqCst);
    let relay = relay(port, senders);
    // In quoted-printable three times as long.
    let content = ["Subject: x\r\n\r\n", &format!("{}\r\n", "\u{e9}".repeat(400)).repeat(4_700)].concat();
    assert!((3_700_000..4_194_304).contains(&content.len()));
    let mut client = Smtp::ehlo(relay.port);
    client.expect("MAIL FROM:<me@sender.test> RET=FULL SMTPUTF8 BODY=8BITMIME", 250);
    client.expect("RCPT TO:<gone@one.test>", 250);
    client.expect("DATA", 354);
    client.send(content.as_bytes());
    client.send(".\r\n");
    assert_eq!(client.reply().code, 250);
    wait_for("the sender hears of it", Duration::from_secs(60), || (!sender.taken().is_empty()).then_some(()));
    relay.wait_queued(0);
    let reports = sender.taken();
    assert_eq!(reports.len(), 1);
    assert_eq!(count(&reports[0], b"\r\nAction: failed\r\n"), 1);
}

fn count(octets: &[u8], wanted: &[u8]) -> usize {
    octets.windows(wanted.len()).filter(|window| window == &wanted).count()
}
