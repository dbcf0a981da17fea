//! Servers that lean on a client's bounds, over TCP, against `Pool` and `Mx`: each message ends in
//! a clear error, in time and in little memory. The servers are threads of their own, so that what
//! they allocate is not counted.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use posthaste_client::{
    Answer, ClientOptions, Delivered, Mx, MxOptions, MxRecord, Pool, ResolveError, Resolver, SendError, Tcp, Tls,
    session::client::ClientTimeouts,
};

use bytes::Bytes;
use posthaste_testkit::unescape::unescape;

use crate::support::options;

/// The reply that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Greeting,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    End,
}

const STAGES: [Stage; 6] = [Stage::Greeting, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::End];

/// A client as its server has it.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn say(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.get_mut().write_all(octets.as_ref())
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    /// Hears the client out.
    fn hear_all(&mut self) -> io::Result<()> {
        loop {
            self.hear()?;
        }
    }

    /// Says the same again and again, until the client closes.
    fn endless(&mut self, octets: &[u8]) -> io::Result<()> {
        let many = octets.repeat(4_096 / octets.len() + 1);
        loop {
            self.say(&many)?;
        }
    }

    /// Goes on as a polite server after this reply, until the next one is due.
    fn go_on(&mut self, mut stage: Stage, until: Option<Stage>) -> io::Result<()> {
        let mut in_content = false;
        loop {
            if stage == Stage::Data {
                in_content = true;
            }
            let line = self.hear()?;
            if in_content {
                if line != ".\r\n" {
                    continue;
                }
                in_content = false;
            }
            stage = match (line.get(..4), stage) {
                (Some("EHLO"), _) => Stage::Ehlo,
                (Some("MAIL"), _) => Stage::Mail,
                (Some("RCPT"), _) => Stage::Rcpt,
                (Some("DATA"), _) => Stage::Data,
                (_, Stage::Data) => Stage::End,
                (_, stage) => stage,
            };
            if Some(stage) == until {
                return Ok(());
            }
            self.say(format!("{} ok\r\n", code(stage)))?;
        }
    }
}

const fn code(stage: Stage) -> &'static str {
    match stage {
        Stage::Greeting => "220",
        Stage::Data => "354",
        Stage::Ehlo | Stage::Mail | Stage::Rcpt | Stage::End => "250",
    }
}

/// What a server says in place of a reply.
type Wrong = fn(&mut Peer, &str) -> io::Result<()>;

/// A server of any number of clients. Returns its port.
fn serve(stage: Stage, wrong: impl Fn(&mut Peer, &str) -> io::Result<()> + Send + Sync + 'static) -> u16 {
    let wrong = Arc::new(wrong);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let wrong = Arc::clone(&wrong);
            thread::spawn(move || -> io::Result<()> {
                let mut peer = Peer(BufReader::new(stream?));
                peer.0.get_ref().set_nodelay(true)?;
                if stage != Stage::Greeting {
                    peer.say("220 mx.test\r\n")?;
                    peer.go_on(Stage::Greeting, Some(stage))?;
                }
                wrong(&mut peer, code(stage))?;
                peer.go_on(stage, None)
            });
        }
    });
    port
}

struct Zone;

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(vec![MxRecord { preference: 10, exchange: "mx.test".to_owned() }].into())
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(vec![[127, 0, 0, 1].into()].into())
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Pool,
    Mx,
}

/// What came of a message, how long it took, and the most bytes on the heap.
type Ended = (String, Duration, u64);

/// Sends one message.
fn send(way: Way, port: u16, client: ClientOptions, content: &Bytes) -> Ended {
    let (mut said, begun) = (String::new(), Instant::now());
    let memory = allocation_counter::measure(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        said = runtime.block_on(async {
            let (from, to, content) = ("me@s.test", ["you@d.test"], content.clone());
            match way {
                Way::Pool => {
                    let pool = Pool::new([("127.0.0.1", port)], client).unwrap();
                    let sent = pool.send(from, to, content).await;
                    pool.close().await;
                    tell(sent)
                }
                Way::Mx => {
                    let mut limits = MxOptions::default();
                    (limits.port, limits.allow_private) = (port, true);
                    let mx = Mx::with(Zone, client, limits, Tcp::default());
                    let sent = mx.send(from, to, content).await;
                    mx.close().await;
                    tell(sent)
                }
            }
        });
    });
    (said, begun.elapsed(), memory.bytes_max)
}

fn tell(sent: Result<Delivered, SendError>) -> String {
    match sent {
        Ok(sent) => sent.recipients[0].to_string(),
        Err(error) => error.to_string(),
    }
}

const CONTENT: Bytes = Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n");

/// The timers of a client whose server takes its time.
const SHORT: Duration = Duration::from_secs(1);
/// The longest that a message may take: two of those timers, and time for a busy machine. Other
/// rows have the usual timers, of minutes, so they end by a bound.
const LONGEST: Duration = Duration::from_secs(15);
/// The most bytes above those of a polite conversation: the 64 KiB of a connection, and the text of
/// a long reply in its outcome.
const MEMORY: u64 = 96 * 1_024;
/// The longest text of an outcome: that of a reply.
const TEXT: usize = 17 * 1_024;
/// Rows that run at once.
const AT_ONCE: usize = 24;

/// The timers of a row.
fn timers(is_slow: bool) -> ClientOptions {
    let mut client = options(Tls::Off);
    if is_slow {
        client.session.timeouts = ClientTimeouts::all(SHORT);
    }
    client
}

/// The bytes of a conversation without any fault.
fn usual() -> u64 {
    let polite = || serve(Stage::Greeting, |peer, _| peer.say("220 mx.test\r\n"));
    let of = |way| {
        let (said, _, memory) = send(way, polite(), timers(false), &CONTENT);
        assert_eq!(said, "<you@d.test>: 250 ok");
        memory
    };
    of(Way::Pool).max(of(Way::Mx))
}

/// Runs rows, some at once, and checks what holds for all: the time, the memory, and one line of
/// text. Each returns its name and what came of it.
fn run<R: Sync>(rows: &[R], usual: u64, one: impl Fn(&R) -> (String, Ended) + Sync) -> Vec<String> {
    let mut said = Vec::new();
    for some in rows.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|row| scope.spawn(|| one(row))).collect();
            for (row, (text, time, memory)) in threads.into_iter().map(|thread| thread.join().unwrap()) {
                assert!(time < LONGEST, "{row}: {time:?}, {text}");
                assert!(memory < usual + MEMORY, "{row}: {memory} bytes and usually {usual}, {text}");
                assert!(text.len() <= TEXT && !text.contains(char::is_control), "{row}: {text:?}");
                said.push(text);
            }
        });
    }
    said
}

fn drip(peer: &mut Peer, code: &str) -> io::Result<()> {
    for octet in code.bytes().chain([b' ']).chain(std::iter::repeat(b'x')) {
        peer.say([octet])?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn binary(peer: &mut Peer, _: &str) -> io::Result<()> {
    let mut choices = posthaste_testkit::choices::Choices::new(7);
    peer.say((0..8_192).flat_map(|_| choices.next_number().to_le_bytes()).collect::<Vec<_>>())
}

fn closed() -> io::Result<()> {
    Err(io::ErrorKind::Other.into())
}

const LONG: &str = "the line is longer than the limit";
const MANY: &str = "the reply has more lines than the limit";
const NO_CODE: &str = "a code from 200 to 599";
const NOT_WELL_FORMED: &str = "the server's reply is malformed";

/// The client's words for what a server says in place of any reply. A code with a hyphen or a space
/// after it counts at the end of the content, however the line goes on: the server has the message.
const WRONGS: &[(&str, Wrong, &str)] = &[
    ("an endless line", |peer, code| peer.say(code).and_then(|()| peer.endless(b" x")), LONG),
    ("endless lines", |peer, code| peer.endless(format!("{code}-X-Y 1\r\n").as_bytes()), MANY),
    ("endless empty lines", |peer, _| peer.endless(b"\r\n"), NO_CODE),
    ("endless line feeds", |peer, _| peer.endless(b"\n"), NOT_WELL_FORMED),
    ("endless NULs", |peer, _| peer.endless(b"\0"), NOT_WELL_FORMED),
    ("endless digits", |peer, _| peer.endless(b"2"), LONG),
    ("a line of 1 MiB", |peer, code| peer.say(format!("{code} {}\r\n", "x".repeat(1 << 20))), LONG),
    ("100,000 lines", |peer, code| peer.say(format!("{code}-x\r\n").repeat(100_000) + code + " x\r\n"), MANY),
    ("1,000 replies", |peer, code| peer.say(format!("{code} a\r\n").repeat(1_000)), "a reply without a command"),
    (
        "all replies at once",
        |peer, code| peer.say(format!("{code} a\r\n250 a\r\n250 a\r\n354 a\r\n250 a\r\n")),
        "a reply",
    ),
    ("binary octets", binary, NOT_WELL_FORMED),
    ("no reply", |peer, _| peer.say("what is this?\r\n"), NO_CODE),
    ("an HTTP server", |peer, _| peer.say("HTTP/1.1 400 Bad Request\r\n\r\n"), NO_CODE),
    ("an alert of TLS", |peer, _| peer.say([21, 3, 3, 0, 2, 2, 40]), NOT_WELL_FORMED),
    ("closes", |_, _| closed(), "closed the connection"),
    ("closes within a reply", |peer, code| peer.say(code).and_then(|()| closed()), "closed the connection"),
    ("silence", |peer, _| peer.hear_all(), "silent"),
    ("an octet at a time", drip, "silent"),
];

#[test]
fn every_hostile_server_ends_in_a_clear_error_in_time_and_in_little_memory() {
    let rows: Vec<_> = WRONGS.iter().flat_map(|wrong| STAGES.map(|stage| (wrong, stage))).collect();
    let rows: Vec<_> =
        rows.into_iter().flat_map(|(it, stage)| [Way::Pool, Way::Mx].map(|way| (it, stage, way))).collect();
    let said = run(&rows, usual(), |((name, wrong, words), stage, way)| {
        let ended = send(*way, serve(*stage, *wrong), timers(*words == "silent"), &CONTENT);
        (format!("{name}, {stage:?}, {way:?}"), ended)
    });
    for (((name, _, words), stage, way), said) in rows.iter().zip(said) {
        let has_it = *stage == Stage::End && ([LONG, MANY].contains(words) || words.starts_with("a reply"));
        let words = if has_it && *name != "endless digits" { "<you@d.test>: 250" } else { words };
        assert!(said.contains(words), "{name}, {stage:?}, {way:?}: {said}");
    }
    assert!(rows.len() > 200, "{}", rows.len());
}

/// The servers against which the session is tested, as far as they say octets and no more.
#[test]
fn every_hostile_server_of_the_session_ends_in_time_and_in_little_memory() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../session/tests/hostile_servers.txt");
    let file = std::fs::read_to_string(file).unwrap();
    let mut rows = Vec::new();
    for line in file.lines().filter(|line| !line.starts_with('#')) {
        let mut cells = line.splitn(3, '|').map(str::trim);
        let (Some(name), Some(place), Some(rest)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let stage = match place {
            "greeting" => Stage::Greeting,
            "ehlo" => Stage::Ehlo,
            "mail" => Stage::Mail,
            "rcpt" => Stage::Rcpt,
            "data" => Stage::Data,
            "end" => Stage::End,
            _ => continue,
        };
        let (script, _) = rest.split_once(" =>").unwrap();
        if script.replace("\\repeat{", "").contains('{') {
            continue;
        }
        let octets = unescape(script.trim());
        rows.extend([Way::Pool, Way::Mx].map(|way| (name, stage, octets.clone(), way)));
    }
    let said = run(&rows, usual(), |(name, stage, octets, way)| {
        let octets = octets.clone();
        let port = serve(*stage, move |peer, _| peer.say(&octets).and_then(|()| peer.hear_all()));
        (format!("{name}, {stage:?}, {way:?}"), send(*way, port, timers(true), &CONTENT))
    });
    assert!(said.len() > 50, "{}", said.len());
}

/// The content does not pile up for a server that reads none of it.
#[test]
fn a_server_that_does_not_read_ends_in_time_and_in_little_memory() {
    let content = Bytes::from(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(1 << 19));
    for way in [Way::Pool, Way::Mx] {
        let said = run(&[way], usual(), |way| {
            let port = serve(Stage::Data, |peer, code| {
                peer.say(format!("{code} go\r\n"))?;
                thread::sleep(LONGEST);
                Ok(())
            });
            (format!("{way:?}"), send(*way, port, timers(true), &content))
        });
        assert!(said[0].contains("silent") || said[0].contains("took"), "{said:?}");
    }
}

/// The message has gone, and its server lets nothing come of QUIT.
#[test]
fn a_server_that_misbehaves_at_quit_has_the_message_and_keeps_the_client_a_moment() {
    let rows: Vec<_> = WRONGS.iter().flat_map(|wrong| [Way::Pool, Way::Mx].map(|way| (wrong, way))).collect();
    let said = run(&rows, usual(), |((name, wrong, _), way)| {
        let wrong = *wrong;
        let port = serve(Stage::End, move |peer, _| {
            peer.say("250 ok\r\n")?;
            peer.hear()?;
            wrong(peer, "221")
        });
        (format!("{name}, QUIT, {way:?}"), send(*way, port, timers(true), &CONTENT))
    });
    said.iter().for_each(|said| assert_eq!(said, "<you@d.test>: 250 ok"));
}
