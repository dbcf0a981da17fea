//! Clients that offer messages, and write down what they are told.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Result},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

/// The longest wait for a reply.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a client that was sent away, or found no server, waits.
const AWAY: Duration = Duration::from_millis(10);

/// All clients of a relay.
#[derive(Debug)]
pub(crate) struct Clients {
    port: u16,
    number: AtomicU64,
    told: Mutex<Told>,
    content: String,
}

/// What clients were told.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    pub(crate) accepted: Vec<u64>,
    /// How often each code came in place of a success; 0 for a connection that ended.
    pub(crate) refused: BTreeMap<u16, usize>,
}

type Connection = BufStream<TcpStream>;

impl Clients {
    pub(crate) fn new(port: u16) -> Arc<Self> {
        let content = format!("Subject: x\r\n\r\n{}.\r\n", "Some words that fill a line.\r\n".repeat(32));
        Arc::new(Self { port, number: AtomicU64::new(0), told: Mutex::default(), content })
    }

    pub(crate) fn told(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Offers messages at this rate a second, or all that it can, over this number of connections.
    pub(crate) async fn offer(self: &Arc<Self>, rate: Option<f64>, connections: usize, time: Duration) {
        let begun = Instant::now();
        let first = self.number.load(Relaxed);
        let mut sessions = JoinSet::new();
        for _ in 0..connections {
            let clients = Arc::clone(self);
            sessions.spawn(async move {
                let mut connection = None;
                while begun.elapsed() < time {
                    let number = clients.number.fetch_add(1, Relaxed);
                    if let Some(rate) = rate {
                        let at = begun + Duration::from_secs_f64((number - first) as f64 / rate);
                        sleep_until(at.min(begun + time)).await;
                    }
                    clients.one(&mut connection, number).await;
                }
            });
        }
        sessions.join_all().await;
    }

    /// Offers one message at a time until one is accepted. Returns how long that took; `None`: too
    /// long.
    pub(crate) async fn until_accepted(&self, patience: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if self.one(&mut None, self.number.fetch_add(1, Relaxed)).await {
                return Some(begun.elapsed());
            }
            sleep(AWAY).await;
        }
        None
    }

    /// Offers a message. Was it accepted?
    async fn one(&self, connection: &mut Option<Connection>, number: u64) -> bool {
        let said = timeout(PATIENCE, self.transact(connection, number)).await;
        let code = said.unwrap_or_else(|elapsed| Err(elapsed.into())).unwrap_or_default();
        if self.note(number, code) {
            return true;
        }
        if code == 421 || code == 0 {
            *connection = None;
            sleep(AWAY).await;
        }
        false
    }

    /// Writes down what was said to a message. Was it accepted?
    fn note(&self, number: u64, code: u16) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if code == 250 {
            told.accepted.push(number);
        } else {
            *told.refused.entry(code).or_default() += 1;
        }
        code == 250
    }

    /// Returns the first code that is no success, or the last one.
    async fn transact(&self, connection: &mut Option<Connection>, number: u64) -> Result<u16> {
        let open = match connection {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
                stream.set_nodelay(true)?;
                let mut fresh = BufStream::new(stream);
                let said = reply(&mut fresh).await?;
                if said != 220 {
                    return Ok(said);
                }
                say(&mut fresh, "EHLO client.test\r\n").await?;
                reply(&mut fresh).await?;
                connection.insert(fresh)
            }
        };
        say(open, &format!("MAIL FROM:<m{number}@s.test>\r\n")).await?;
        let said = reply(open).await?;
        if said != 250 {
            return Ok(said);
        }
        say(open, "RCPT TO:<you@d.test>\r\nDATA\r\n").await?;
        let (rcpt, data) = (reply(open).await?, reply(open).await?);
        if let Some(said) = [rcpt, data].into_iter().find(|code| *code >= 400) {
            // The transaction is still open.
            *connection = None;
            return Ok(said);
        }
        say(open, &self.content).await?;
        reply(open).await
    }
}

async fn say(connection: &mut Connection, text: &str) -> Result<()> {
    connection.write_all(text.as_bytes()).await?;
    connection.flush().await
}

/// The code of the next reply.
async fn reply(connection: &mut Connection) -> Result<u16> {
    let mut line = String::new();
    loop {
        line.clear();
        if connection.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(|| Error::other("no code"));
        }
    }
}
