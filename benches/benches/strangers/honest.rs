//! Honest clients, each with a network of its own, that send messages at a steady rate.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, sleep_until, timeout},
};

/// Messages of one connection.
const PER_CONNECTION: usize = 10;
/// How long a client waits for anything. Beyond it the message counts as refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address of loopback in a /24 of its own, as every client here has: 250 in each block.
pub(crate) fn address(block: u8, number: u32) -> Ipv4Addr {
    let [.., within] = (number % 250).to_be_bytes();
    let [.., beyond] = (number / 250).to_be_bytes();
    Ipv4Addr::new(127, block.wrapping_add(beyond), within, 1)
}

/// Connects from an address. A drop of the stream frees its port at once.
pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.set_zero_linger()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

/// What was seen of the clients.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When a message was due, and how long it took from then.
    pub(crate) taken: Vec<(Instant, Duration)>,
    /// When a message was due that was not taken, and why.
    pub(crate) refused: Vec<(Instant, String)>,
}

/// Where clients write what they have seen.
pub(crate) type Diary = Arc<Mutex<Seen>>;

/// One client, for ever. It is known to the server after its first message.
pub(crate) async fn client(number: u32, to: SocketAddr, pace: Duration, diary: Diary) {
    // Clients are out of step.
    let mut due = Instant::now() + pace.mul_f64(f64::from(number % 97) / 97.0);
    loop {
        if let Err(why) = session(address(1, number), to, &mut due, pace, &diary).await {
            write(&diary).refused.push((due, why));
            due = (due + pace).max(Instant::now());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// New clients at a steady rate, each with one message.
pub(crate) async fn newcomers(to: SocketAddr, pace: Duration, diary: Diary) {
    for number in 0.. {
        let diary = Arc::clone(&diary);
        tokio::spawn(async move {
            let due = Instant::now();
            let sent = async {
                let mut talk = Talk::begin(address(10, number % 5_000), to).await?;
                talk.message().await?;
                talk.ask("QUIT\r\n", 1, "221").await
            };
            match sent.await {
                Ok(()) => write(&diary).taken.push((due, due.elapsed())),
                Err(why) => write(&diary).refused.push((due, why)),
            }
        });
        sleep(pace).await;
    }
}

fn write(diary: &Diary) -> std::sync::MutexGuard<'_, Seen> {
    diary.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection with its messages. `Err`: what the server said or did in place of taking one.
async fn session(
    from: Ipv4Addr,
    to: SocketAddr,
    due: &mut Instant,
    pace: Duration,
    diary: &Diary,
) -> Result<(), String> {
    let mut talk = Talk::begin(from, to).await?;
    for _ in 0..PER_CONNECTION {
        sleep_until((*due).into()).await;
        talk.message().await?;
        write(diary).taken.push((*due, due.elapsed()));
        *due += pace;
    }
    talk.ask("QUIT\r\n", 1, "221").await
}

struct Talk {
    stream: TcpStream,
    said: Vec<u8>,
}

impl Talk {
    async fn begin(from: Ipv4Addr, to: SocketAddr) -> Result<Self, String> {
        let stream = timeout(PATIENCE, connect(from, to)).await.map_err(|_| "no connection in time")?;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        let mut talk = Self { stream, said: Vec::new() };
        talk.ask("", 1, "220").await?;
        talk.ask("EHLO c.test\r\n", 1, "250").await?;
        Ok(talk)
    }

    async fn message(&mut self) -> Result<(), String> {
        self.ask("MAIL FROM:<me@c.test>\r\nRCPT TO:<you@d.test>\r\nDATA\r\n", 3, "354").await?;
        let content = concat!("Subject: x\r\n\r\n", "Some words that fill a line of content.\r\n");
        self.ask(&format!("{}\r\n.\r\n", content.repeat(10)), 1, "250").await
    }

    /// Sends octets and takes a number of replies. The last one begins with `code`.
    async fn ask(&mut self, octets: &str, mut replies: usize, code: &str) -> Result<(), String> {
        let asked = async {
            self.stream.write_all(octets.as_bytes()).await?;
            let mut last = String::new();
            while replies > 0 {
                while let Some(end) = self.said.iter().position(|octet| *octet == b'\n') {
                    let line: Vec<_> = self.said.drain(..=end).collect();
                    last = String::from_utf8_lossy(&line).trim_end().to_owned();
                    let is_whole = line.get(3) != Some(&b'-');
                    replies -= usize::from(is_whole && replies > 0);
                    if is_whole && last.starts_with(['4', '5']) {
                        return Ok(last);
                    }
                }
                if replies > 0 && self.stream.read_buf(&mut self.said).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(last)
        };
        let said = timeout(PATIENCE, asked).await.map_err(|_| "no reply in time")?;
        let said = said.map_err(|error: io::Error| format!("lost: {error}"))?;
        if said.starts_with(code) { Ok(()) } else { Err(said) }
    }
}
