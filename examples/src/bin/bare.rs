//! A server on the bare session, without this project's I/O: once with a thread for each client,
//! once on tokio. What a conversation does is in one place, `Conversation::advance`; how octets
//! come and go is the rest.
//!
//! ```text
//! cargo run --bin bare -- threads 127.0.0.1:2525
//! cargo run --bin bare -- tokio 127.0.0.1:2525
//! ```

use std::{
    error::Error,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, BytesMut};
use posthaste::session::{Ask, ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict, wire::accepted};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn main() -> std::process::ExitCode {
    posthaste_examples::report(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mode, address) = (arguments.next().unwrap_or_default(), arguments.next());
    let address: SocketAddr = address.unwrap_or_else(|| "127.0.0.1:2525".to_owned()).parse()?;
    let settings = Arc::new(ServerSettings::new("localhost".parse()?));
    match mode.as_str() {
        "threads" => threads(address, &settings)?,
        "tokio" => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tasks(address, settings))?
        }
        _ => return Err("say how: `bare threads [ADDRESS]` or `bare tokio [ADDRESS]`".into()),
    }
    Ok(())
}

/// A session with its buffers and its clock. It takes every message and prints its size.
struct Conversation {
    session: ServerSession,
    begun: Instant,
    /// Octets that were read and not consumed.
    input: BytesMut,
    /// Octets to write.
    output: BytesMut,
    /// The message that is being received. A program that serves many clients keeps it on disk.
    content: Vec<u8>,
}

/// What a conversation waits for.
enum Wait {
    /// Write the output, then read. `Some`: for this long at most.
    Read(Option<Duration>),
    /// Write the output.
    Write,
    /// Write the output and close.
    Close,
}

impl Conversation {
    fn new(settings: Arc<ServerSettings>) -> Self {
        let session = ServerSession::new(settings, Transport::Plain);
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { session, begun: Instant::now(), input, output, content: Vec::new() }
    }

    fn now(&self) -> Tick {
        Tick::new(self.begun.elapsed())
    }

    /// Goes on until it needs I/O.
    fn advance(&mut self) -> Result<Wait, Box<dyn Error + Send + Sync>> {
        loop {
            let now = self.now();
            let step = self.session.handle_input(now, &self.input, &mut self.output)?;
            let consumed = step.consumed;
            let (mut wait, mut verdict) = (None, None);
            match step.next {
                ServerNext::NeedInput => {
                    let deadline = self.session.poll_timeout();
                    wait = Some(Wait::Read(deadline.map(|deadline| deadline.since(now))));
                }
                ServerNext::Flush => wait = Some(Wait::Write),
                ServerNext::Close(_) => wait = Some(Wait::Close),
                ServerNext::Content(range) => self.content.extend_from_slice(&self.input[range]),
                ServerNext::ContentRefused(_) | ServerNext::ContentAborted => self.content.clear(),
                ServerNext::ContentSwallowed | ServerNext::Refused => {}
                ServerNext::Ask(ask) => {
                    // The place for an application's decisions. What `ask` borrows lives until the
                    // input changes.
                    let reply = if let Ask::Message { recipients } = ask {
                        println!("a message of {} octets for {recipients}", self.content.len());
                        self.content.clear();
                        Some(accepted!("250 2.0.0 Printed"))
                    } else {
                        None
                    };
                    verdict = Some(Verdict::Accept(reply));
                }
                // A question about an untidy line, such as MAIL or RCPT without angle brackets. It
                // borrows nothing.
                ServerNext::AskMended(_ask) => verdict = Some(Verdict::Accept(None)),
                // STARTTLS is not offered.
                ServerNext::StartTls => return Err("STARTTLS began, which was not offered".into()),
            }
            self.input.advance(consumed);
            if let Some(verdict) = verdict {
                self.session.answer(now, verdict, &mut self.output)?;
            }
            if let Some(wait) = wait {
                return Ok(wait);
            }
        }
    }

    /// Takes the result of a read: octets, none at the end of the stream, or an error after the
    /// timeout.
    fn has_read(&mut self, read: io::Result<&[u8]>) -> io::Result<Over> {
        let now = self.now();
        match read {
            Ok([]) => {
                self.session.handle_eof();
                return Ok(Over::Yes);
            }
            Ok(octets) => self.input.extend_from_slice(octets),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.session.handle_timeout(now, &mut self.output);
            }
            Err(error) => return Err(error),
        }
        Ok(Over::No)
    }
}

#[derive(PartialEq)]
enum Over {
    Yes,
    No,
}

fn threads(address: SocketAddr, settings: &Arc<ServerSettings>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, settings) = (stream?, Arc::clone(settings));
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, settings) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn converse(mut stream: TcpStream, settings: Arc<ServerSettings>) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut conversation = Conversation::new(settings);
    let mut octets = [0; 8_192];
    loop {
        let wait = conversation.advance()?;
        stream.write_all(&conversation.output.split())?;
        match wait {
            Wait::Write => {}
            Wait::Close => return Ok(()),
            Wait::Read(time) => {
                // A time of zero would mean forever.
                stream.set_read_timeout(time.map(|time| time.max(Duration::from_millis(1))))?;
                let read = stream.read(&mut octets).map(|read| &octets[..read]);
                if conversation.has_read(read)? == Over::Yes {
                    return Ok(());
                }
            }
        }
    }
}

async fn tasks(address: SocketAddr, settings: Arc<ServerSettings>) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let ((stream, _), settings) = (listener.accept().await?, Arc::clone(&settings));
        tokio::spawn(async move {
            if let Err(error) = converse_async(stream, settings).await {
                eprintln!("{error}");
            }
        });
    }
}

async fn converse_async(
    mut stream: tokio::net::TcpStream,
    settings: Arc<ServerSettings>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut conversation = Conversation::new(settings);
    let mut octets = [0; 8_192];
    loop {
        let wait = conversation.advance()?;
        stream.write_all(&conversation.output.split()).await?;
        match wait {
            Wait::Write => {}
            Wait::Close => return Ok(()),
            Wait::Read(time) => {
                let read = match time {
                    Some(time) => tokio::time::timeout(time, stream.read(&mut octets)).await,
                    None => Ok(stream.read(&mut octets).await),
                };
                let read = read.unwrap_or_else(|late| Err(late.into())).map(|read| &octets[..read]);
                if conversation.has_read(read)? == Over::Yes {
                    return Ok(());
                }
            }
        }
    }
}
