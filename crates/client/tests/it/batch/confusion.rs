//! Servers that get confused by a command that comes before their reply to the end of the content.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use posthaste_client::{ClientOptions, Health, Pool, PoolOptions, Tcp, Tls, session::client::ClientTimeouts};
use posthaste_testkit::script::polite;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::message;
use crate::support::{letters_of, options};

/// What the server does with commands that come too early for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confusion {
    /// Closes without the reply to the content.
    CloseBefore,
    /// Replies to the content and closes.
    CloseAfter,
    /// Replies to the content and says 421 to the rest.
    GoAway,
    /// Replies to the content and refuses MAIL.
    RefuseMail,
    /// Replies to the content and throws away what has come.
    Discard,
    /// Replies to the content twice.
    SayTwice,
    /// Leaves the reply to MAIL out.
    Skip,
    /// Refuses MAIL as a command that it does not know.
    Unknown,
}

use Confusion::*;

struct Server {
    port: u16,
    /// The names of the messages that it has taken.
    taken: Arc<Mutex<Vec<String>>>,
    confused: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// It bears this number of early messages on a connection before it gets confused.
    async fn start(offers: &'static [&'static str], confusion: Confusion, bears: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            taken: Arc::default(),
            confused: Arc::default(),
            connections: Arc::default(),
        };
        let (taken, confused, connections) =
            (Arc::clone(&server.taken), Arc::clone(&server.confused), Arc::clone(&server.connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(converse(stream, offers, confusion, bears, Arc::clone(&taken), Arc::clone(&confused)));
            }
        });
        server
    }
}

async fn converse(
    stream: TcpStream,
    offers: &'static [&'static str],
    confusion: Confusion,
    mut bears: usize,
    taken: Arc<Mutex<Vec<String>>>,
    confused: Arc<AtomicUsize>,
) {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    stream.write_all(b"220 mx.test\r\n").await.unwrap();
    let (mut name, mut in_content, mut skips, mut refuses) = (String::new(), false, false, None::<&str>);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if in_content && line != "." {
            continue;
        }
        if let Some(from) = line.strip_prefix("MAIL FROM:<") {
            name = from.split('@').next().unwrap().to_owned();
        }
        let size = line.strip_prefix("BDAT ").map(|rest| rest.trim_end_matches(" LAST").parse::<usize>().unwrap());
        if let Some(size) = size {
            stream.read_exact(&mut vec![0; size]).await.unwrap();
        }
        let is_end = size.is_some() || std::mem::take(&mut in_content);
        let mut said = polite(line, offers);
        in_content = line == "DATA";
        if let Some(refusal) = refuses {
            if refusal == "503 5.5.1 bad sequence\r\n" && line == "RSET" {
                refuses = None;
            } else {
                said = refusal.to_owned();
                in_content = false;
            }
        }
        if is_end && refuses.is_none() {
            // What is early has come by now.
            tokio::time::sleep(Duration::from_millis(2)).await;
            let mut early = [0; 1];
            let is_early =
                !stream.buffer().is_empty() || stream.get_ref().try_read(&mut early).is_ok_and(|read| read > 0);
            assert!(early == [0], "the buffer has all");
            if is_early && bears == 0 {
                confused.fetch_add(1, Ordering::Relaxed);
                match confusion {
                    CloseBefore => return,
                    CloseAfter | GoAway => {
                        taken.lock().unwrap().push(name);
                        let more: &[u8] = if confusion == GoAway { b"421 4.7.0 bye\r\n" } else { b"" };
                        stream.write_all(&[b"250 ok\r\n", more].concat()).await.unwrap();
                        // A close with unread input would reset the connection.
                        stream.shutdown().await.unwrap();
                        while stream.read(&mut [0; 4_096]).await.is_ok_and(|read| read > 0) {}
                        return;
                    }
                    RefuseMail => refuses = Some("503 5.5.1 bad sequence\r\n"),
                    Unknown => refuses = Some("500 5.5.1 what\r\n"),
                    Discard => {
                        let waiting = stream.buffer().len();
                        stream.consume(waiting);
                    }
                    SayTwice => said += "250 ok\r\n",
                    Skip => skips = true,
                }
            } else {
                bears = bears.saturating_sub(usize::from(is_early));
            }
            taken.lock().unwrap().push(name.clone());
        } else if skips && line.starts_with("MAIL") {
            (said, skips) = (String::new(), false);
        }
        stream.write_all(said.as_bytes()).await.unwrap();
    }
}

fn pool(server: &Server, health: &Health, change: impl FnOnce(&mut ClientOptions)) -> Pool {
    let (mut limits, mut client) = (PoolOptions::default(), options(Tls::Off));
    limits.connections = 1;
    client.health = health.clone();
    client.session.timeouts = ClientTimeouts::all(Duration::from_millis(300));
    change(&mut client);
    Pool::with([("127.0.0.1", server.port)], client, limits, Tcp::default()).unwrap()
}

/// Sends this number of messages. Returns the letters of each, with `?` where it is in doubt.
async fn send(pool: &Pool, numbers: std::ops::Range<usize>) -> Vec<String> {
    let first = numbers.start;
    let mut found = vec![String::new(); numbers.len()];
    let mut batch = pool.send_all(numbers.map(|number| message(number, 1)));
    while let Some((number, delivered)) = batch.next().await {
        let recipients = delivered.unwrap().recipients;
        let doubt = if recipients.iter().any(|recipient| recipient.in_doubt) { "?" } else { "" };
        assert!(found[number].is_empty(), "message {} has one outcome", first + number);
        found[number] = format!("{}{doubt}", letters_of(&recipients));
    }
    found
}

#[tokio::test]
async fn a_server_that_gets_confused_gets_each_message_once_and_one_at_a_time_from_then_on() {
    for offers in [&["PIPELINING"][..], &["PIPELINING", "CHUNKING"]] {
        for confusion in [CloseBefore, CloseAfter, GoAway, RefuseMail, Discard, SayTwice, Skip, Unknown] {
            let (server, health) = (Server::start(offers, confusion, 0).await, Health::default());
            let found = send(&pool(&server, &health, |_| {}), 0..6).await;
            let context = format!("{offers:?} {confusion:?}: {found:?}");
            let taken = |number: usize| {
                let name = format!("m{number}");
                server.taken.lock().unwrap().iter().filter(|taken| **taken == name).count()
            };
            for (number, found) in found.iter().enumerate() {
                match found.as_str() {
                    "A" => assert_eq!(taken(number), 1, "{context} {number}"),
                    // The one message whose content was on its way.
                    "L?" => assert!(number == 0 && confusion == CloseBefore, "{context} {number}"),
                    _ => panic!("{context} {number}"),
                }
            }
            assert_eq!(server.confused.load(Ordering::Relaxed), 1, "{context}");
            let address = posthaste_client::Server::Address(([127, 0, 0, 1], server.port).into());
            assert!(health.breaks_batches(&address), "{context}");
            // Another pool with the same memory.
            let connections = server.connections.load(Ordering::Relaxed);
            assert_eq!(send(&pool(&server, &health, |_| {}), 6..12).await, ["A"; 6], "{context}");
            assert_eq!(server.confused.load(Ordering::Relaxed), 1, "{context}");
            assert_eq!(server.connections.load(Ordering::Relaxed), connections + 1, "{context}");
            assert!((6..12).all(|number| taken(number) == 1), "{context}");
        }
    }
}

/// A server that gets confused later: nothing is sent twice, and what is not in doubt arrives.
#[tokio::test]
async fn a_server_that_gets_confused_late_gets_nothing_twice() {
    for offers in [&["PIPELINING"][..], &["PIPELINING", "CHUNKING"]] {
        for confusion in [CloseBefore, CloseAfter, GoAway, RefuseMail, Unknown] {
            for bears in 1..5 {
                let (server, health) = (Server::start(offers, confusion, bears).await, Health::default());
                let found = send(&pool(&server, &health, |_| {}), 0..12).await;
                let context = format!("{offers:?} {confusion:?} {bears}: {found:?}");
                for (number, found) in found.iter().enumerate() {
                    let name = format!("m{number}");
                    let taken = server.taken.lock().unwrap().iter().filter(|taken| **taken == name).count();
                    match found.as_str() {
                        "A" => assert_eq!(taken, 1, "{context} {number}"),
                        "L?" => assert!(taken <= 1, "{context} {number}"),
                        _ => panic!("{context} {number}"),
                    }
                }
                let in_doubt = found.iter().filter(|found| found.ends_with('?')).count();
                let most = match (confusion, offers) {
                    (CloseBefore, [_]) => 12 / bears,
                    (CloseBefore | CloseAfter, _) => 12,
                    // RSET is refused, and no later reply is believed.
                    (Unknown, [_, _]) => 12,
                    _ => 0,
                };
                assert!(in_doubt <= most, "{context}");
            }
        }
    }
}
