//! The strangers, each kind of which does one thing as fast as its row says.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use posthaste_client::tls::any_certificate;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{
    honest::{address, connect},
    server::Target,
};

/// Octets of one write of lines: as many as the server reads at once.
const WRITE: usize = 16 * 1_024;

/// What strangers do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attack {
    /// A greeting is waited for, these lines are sent, and then one octet in 10 seconds.
    Slow(&'static str),
    /// This many connections a second are begun.
    Connect(u32),
    /// These octets are sent again and again after the opening lines, and replies are read.
    Lines { opening: &'static str, octets: &'static str },
    /// The same, and no reply is read after the opening.
    Deaf { opening: &'static str, octets: &'static str },
    /// Half of a ClientHello is sent.
    HalfHandshake,
    /// Handshakes are finished.
    Handshakes,
    /// Wrong passwords: three a connection, each for this name, or for a name of its own.
    Guess(Option<&'static str>),
}

impl Attack {
    /// Returns `true` if strangers hold what they have, and do little else.
    pub(crate) const fn is_patient(self) -> bool {
        matches!(self, Self::Slow(_) | Self::HalfHandshake)
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strangers {
    /// Connections at a time.
    pub(crate) clients: u32,
    /// Networks, over which the connections are spread.
    pub(crate) networks: u32,
    pub(crate) attack: Attack,
}

/// Attacks for ever, and counts what was done: connections, replies, writes whose replies are not
/// read, handshakes or guesses.
pub(crate) async fn attack(strangers: Strangers, target: Target, done: Arc<AtomicU64>) {
    let Strangers { clients, networks, attack } = strangers;
    if let Attack::Connect(rate) = attack {
        return flood(rate, clients, networks, target.plain, &done).await;
    }
    for number in 0..clients {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            // Guessers change their networks, since each has a few guesses without a wait.
            for round in 0.. {
                let moved = if matches!(attack, Attack::Guess(_)) { round * clients } else { 0 };
                let from = address(30, (number + moved) % networks);
                if once(attack, from, target, &done).await.is_err() {
                    // A refused client comes again, and all of them are no flood of connections.
                    let pause = if attack.is_patient() { 2_000 } else { 200 };
                    sleep(Duration::from_millis(pause + u64::from(number % 300))).await;
                }
            }
        });
        if number % 50 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    std::future::pending().await
}

/// Connections at a rate, of which `most` are open at a time. Each is closed by the server or after
/// 50 ms.
async fn flood(rate: u32, most: u32, networks: u32, to: SocketAddr, done: &Arc<AtomicU64>) {
    let room = Arc::new(tokio::sync::Semaphore::new(most.try_into().unwrap_or(1)));
    let mut ticks = interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    loop {
        ticks.tick().await;
        for _ in 0..rate / 200 {
            let Ok(turn) = Arc::clone(&room).try_acquire_owned() else { break };
            number = (number + 1) % networks;
            let (from, done) = (address(30, number), Arc::clone(done));
            tokio::spawn(async move {
                let _turn = turn;
                if let Ok(mut stream) = connect(from, to).await {
                    done.fetch_add(1, Relaxed);
                    let _ = timeout(Duration::from_millis(50), drain(&mut stream)).await;
                }
            });
        }
    }
}

/// One connection to its end.
async fn once(attack: Attack, from: Ipv4Addr, target: Target, done: &AtomicU64) -> io::Result<()> {
    let is_tls = matches!(attack, Attack::HalfHandshake | Attack::Handshakes);
    let mut stream = connect(from, if is_tls { target.tls } else { target.plain }).await?;
    match attack {
        Attack::Slow(opening) => {
            open(&mut stream, opening).await?;
            loop {
                done.fetch_add(1, Relaxed);
                let pause = Instant::now() + Duration::from_secs(10);
                tokio::select! {
                    () = sleep_until(pause) => stream.write_all(b"x").await?,
                    _ = drain(&mut stream) => return Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
        }
        Attack::Connect(_) => Ok(()),
        Attack::Lines { opening, octets } => {
            open(&mut stream, opening).await?;
            let octets = octets.repeat(WRITE / octets.len());
            let (mut reads, mut writes) = stream.split();
            let writing = async {
                loop {
                    writes.write_all(octets.as_bytes()).await?;
                }
            };
            tokio::select! {
                ended = replies(&mut reads, done) => ended,
                ended = writing => ended,
            }
        }
        Attack::Deaf { opening, octets } => {
            open(&mut stream, opening).await?;
            let octets = octets.repeat(WRITE / octets.len());
            loop {
                stream.write_all(octets.as_bytes()).await?;
                done.fetch_add(1, Relaxed);
            }
        }
        Attack::HalfHandshake => {
            stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half").await?;
            done.fetch_add(1, Relaxed);
            drain(&mut stream).await?;
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        Attack::Handshakes => {
            let connector = TlsConnector::from(any_certificate().map_err(io::Error::other)?);
            let name = "mx.test".try_into().map_err(io::Error::other)?;
            connector.connect(name, stream).await?;
            done.fetch_add(1, Relaxed);
            Ok(())
        }
        Attack::Guess(name) => {
            open(&mut stream, "EHLO x\r\n").await?;
            for _ in 0..3 {
                let guess = done.fetch_add(1, Relaxed).to_string();
                let said = format!("\0{}\0wrong", name.unwrap_or(&guess));
                let line = format!("AUTH PLAIN {}\r\n", base64(said.as_bytes()));
                stream.write_all(line.as_bytes()).await?;
                if !reply(&mut stream).await?.starts_with("535") {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
            }
            Ok(())
        }
    }
}

/// Waits for the greeting, and sends lines one by one.
async fn open(stream: &mut TcpStream, lines: &str) -> io::Result<()> {
    reply(stream).await?;
    for line in lines.split_inclusive('\n') {
        stream.write_all(line.as_bytes()).await?;
        if reply(stream).await?.starts_with(['4', '5']) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
    }
    Ok(())
}

/// A reply that comes alone.
async fn reply(stream: &mut TcpStream) -> io::Result<String> {
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        if stream.read_buf(&mut said).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Reads to the end, and counts lines.
async fn replies(stream: &mut (impl tokio::io::AsyncRead + Unpin), done: &AtomicU64) -> io::Result<()> {
    let mut octets = [0; 4_096];
    loop {
        let read = stream.read(&mut octets).await?;
        let lines = octets.get(..read).unwrap_or_default().iter().filter(|octet| **octet == b'\n').count();
        done.fetch_add(lines.try_into().unwrap_or(0), Relaxed);
        if read == 0 {
            return Ok(());
        }
    }
}

/// Reads to the end.
async fn drain(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<()> {
    let mut octets = [0; 4_096];
    while stream.read(&mut octets).await? > 0 {}
    Ok(())
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = octets.chunks(3).flat_map(|chunk| {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(chunk.get(at).copied().unwrap_or(0)));
        let bits = (a << 16) | (b << 8) | c;
        [18, 12, 6, 0].into_iter().enumerate().map(move |(at, shift)| match at > chunk.len() {
            true => '=',
            false => char::from(DIGITS[(bits >> shift) as usize & 63]),
        })
    });
    digits.collect()
}
