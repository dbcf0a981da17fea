//! A thousand strangers who each take what the limits leave them: what the relay holds then, and
//! after they have left.

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use posthaste::client::tls::any_certificate;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use support::relay::{Config, Relay};
use support::token;

const MIB: u64 = 1 << 20;
/// What `limits.connections` says by default.
const CONNECTIONS: usize = 1_000;
/// What the default limits let the whole process hold; `examples/relay.toml` names it.
const MOST: u64 = 256 * MIB;
/// What may be left of it 10 seconds after the last of them has left.
const LEFT: u64 = 32 * MIB;

/// A client that goes on without looking at what it is told.
trait Stranger: Write + Send {
    fn leave(&mut self);
}

impl Stranger for TcpStream {
    fn leave(&mut self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stranger for StreamOwned<ClientConnection, TcpStream> {
    fn leave(&mut self) {
        let _ = self.sock.shutdown(Shutdown::Both);
    }
}

/// Reads until the last line begins like this.
fn hear(stream: &mut impl std::io::Read, last_line: &str) {
    let mut said = Vec::new();
    let mut octets = [0; 4_096];
    loop {
        let read = stream.read(&mut octets).expect("the relay answers");
        said.extend_from_slice(&octets[..read]);
        let text = String::from_utf8_lossy(&said);
        if text.ends_with("\r\n") && text.lines().last().is_some_and(|line| line.starts_with(last_line)) {
            return;
        }
        assert!(read > 0, "{last_line:?} is waited for, and the end came: {text}");
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the relay listens");
    stream.set_read_timeout(Some(Duration::from_secs(50))).expect("it is not zero");
    stream.set_write_timeout(Some(Duration::from_secs(50))).expect("it is not zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

fn clear(port: u16) -> TcpStream {
    let mut stream = connect(port);
    hear(&mut stream, "220 ");
    say(&mut stream, "EHLO c.test\r\n");
    hear(&mut stream, "250 ");
    stream
}

fn encrypted(port: u16, implicit: bool, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = if implicit {
        connect(port)
    } else {
        let mut stream = clear(port);
        say(&mut stream, "STARTTLS\r\n");
        hear(&mut stream, "220 ");
        stream
    };
    let name = "localhost".try_into().expect("it is a name");
    let tls = ClientConnection::new(Arc::clone(config), name).expect("it can be set up");
    let mut stream = StreamOwned::new(tls, stream);
    if implicit {
        hear(&mut stream, "220 ");
    }
    say(&mut stream, "EHLO c.test\r\n");
    hear(&mut stream, "250 ");
    stream
}

/// The relay may have closed, or may not read.
fn say(stream: &mut impl Write, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// RCPTs as long as they can be, each for another mailbox.
fn recipients(count: usize) -> String {
    let local = "l".repeat(55);
    let orcpt = "o".repeat(480);
    let rcpt = |n| {
        format!("RCPT TO:<{n:08}{local}@dest.test> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{orcpt}@dest.test\r\n")
    };
    (0..count).map(rcpt).collect()
}

/// A thousand of these at once.
fn thousand(open: impl Fn(usize) -> Box<dyn Stranger> + Sync) -> Vec<Box<dyn Stranger>> {
    thread::scope(|scope| {
        let open = &open;
        let threads: Vec<_> = (0..20)
            .map(|thread| scope.spawn(move || (thread..CONNECTIONS).step_by(20).map(open).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the relay answers")).collect()
    })
}

fn measure(what: &str, tls: bool, open: impl Fn(&Relay, usize) -> Box<dyn Stranger> + Sync) {
    // Nothing is ever sent on.
    let next_hops = vec![support::free_port()];
    let relay = Relay::start(&Config { next_hops, relay_from: "[]", tls, ..Config::default() });
    drop(clear(relay.port));
    let before = relay.memory("VmRSS");
    let strangers = thousand(|n| open(&relay, n));
    thread::sleep(Duration::from_millis(500));
    let (held, most) = (relay.memory("VmRSS"), relay.memory("VmHWM"));
    for mut stranger in strangers {
        stranger.leave();
    }
    let left = wait(&relay, before);
    println!(
        "{what}: {} MiB before, {} MiB held, at most {} MiB, {} MiB left",
        before / MIB,
        held / MIB,
        most / MIB,
        left / MIB
    );
    assert!(most <= MOST, "{what}: {} MiB", most / MIB);
    assert!(left <= before + LEFT, "{what}: {} MiB are left of {} MiB", left / MIB, most / MIB);
    // It serves on.
    support::client::submit(relay.port, &token());
}

/// What is left within 10 seconds.
fn wait(relay: &Relay, before: u64) -> u64 {
    let mut left = relay.memory("VmRSS");
    for _ in 0..100 {
        left = relay.memory("VmRSS");
        if left <= before + LEFT {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    left
}

fn client_config() -> Arc<ClientConfig> {
    any_certificate().expect("the features choose a provider")
}

#[test]
fn a_thousand_envelopes_of_long_recipients_stay_below_the_bound_and_are_given_back() {
    let batch = recipients(250);
    measure("long RCPTs", false, |relay, _| {
        let mut stream = clear(relay.port);
        say(&mut stream, "MAIL FROM:<a@sender.test>\r\n");
        hear(&mut stream, "250 ");
        say(&mut stream, &batch);
        say(&mut stream, "VRFY x\r\n");
        hear(&mut stream, "252 ");
        Box::new(stream)
    });
}

#[test]
fn a_thousand_unfinished_messages_inside_tls_stay_below_the_bound_and_are_given_back() {
    let (batch, config) = (recipients(60), client_config());
    let content = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(1_200);
    measure("unfinished messages", true, |relay, _| {
        let mut stream = encrypted(relay.port, false, &config);
        say(&mut stream, "MAIL FROM:<a@sender.test>\r\n");
        hear(&mut stream, "250 ");
        say(&mut stream, &batch);
        say(&mut stream, "VRFY x\r\n");
        hear(&mut stream, "252 ");
        say(&mut stream, "DATA\r\n");
        hear(&mut stream, "354 ");
        say(&mut stream, &content);
        Box::new(stream)
    });
}

#[test]
fn a_thousand_unfinished_lines_and_logins_stay_below_the_bound_and_are_given_back() {
    let config = client_config();
    measure("unfinished lines", true, |relay, n| {
        let mut stream = encrypted(relay.implicit, true, &config);
        if n % 2 == 0 {
            say(&mut stream, &format!("NOOP {}", "x".repeat(2_040)));
        } else {
            say(&mut stream, "AUTH PLAIN\r\n");
            hear(&mut stream, "334 ");
            say(&mut stream, &"A".repeat(12_286));
        }
        stream.flush().expect("the relay reads");
        Box::new(stream)
    });
}

#[test]
fn a_thousand_clients_that_read_no_reply_stay_below_the_bound_and_are_given_back() {
    let config = client_config();
    measure("unread replies", true, |relay, _| {
        let mut stream = encrypted(relay.port, false, &config);
        say(&mut stream, "MAIL FROM:<a@sender.test>\r\n");
        hear(&mut stream, "250 ");
        say(&mut stream, &"RCPT TO:<x@dest.test>\r\n".repeat(1_900));
        Box::new(stream)
    });
}

#[test]
fn a_thousand_unfinished_handshakes_stay_below_the_bound_and_are_given_back() {
    measure("unfinished handshakes", true, |relay, n| {
        let mut stream = if n % 2 == 0 {
            connect(relay.implicit)
        } else {
            let mut stream = clear(relay.port);
            say(&mut stream, "STARTTLS\r\n");
            hear(&mut stream, "220 ");
            stream
        };
        // Records of a ClientHello that says that it is 64,000 octets long, and has all but one of
        // them.
        let mut hello = vec![1, 0, 0xfa, 0];
        hello.resize(60_000, 0);
        for record in hello.chunks(16_000) {
            let mut framed = vec![22, 3, 1];
            framed.extend_from_slice(&u16::try_from(record.len()).expect("it is small").to_be_bytes());
            framed.extend_from_slice(record);
            let _ = stream.write_all(&framed);
        }
        Box::new(stream)
    });
}
