//! A client on the bare session, without this project's I/O: once on a blocking thread, once on
//! tokio. What a conversation does is in one place, `Conversation::advance`; how octets come and go
//! is the rest.
//!
//! ```text
//! cargo run --bin bare_send -- threads 127.0.0.1:2525 a@example.org b@example.net < message
//! cargo run --bin bare_send -- tokio 127.0.0.1:2525 a@example.org b@example.net < message
//! ```
//!
//! The lines of the message end in CRLF.

use std::{
    collections::VecDeque,
    error::Error,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::{Buf as _, BytesMut};
use posthaste::session::{
    ApiMisuse, ClientNext, ClientSession, ClientSettings, Tick,
    client::BodyKind,
    wire::{Command, Reply, frame::SegmentList},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> std::process::ExitCode {
    posthaste_examples::report(run())
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, from, to @ ..] = arguments.as_slice() else {
        return Err("say how: `bare_send threads|tokio ADDRESS FROM TO...`, with the message on standard input".into());
    };
    let address: SocketAddr = address.parse()?;
    let mut content = Vec::new();
    io::stdin().read_to_end(&mut content)?;
    let mut lines = vec!["EHLO localhost".to_owned(), format!("MAIL FROM:<{from}>")];
    lines.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
    let conversation = Conversation::new(lines, content);
    match mode.as_str() {
        "threads" => std::thread::spawn(move || converse(address, conversation)).join().map_err(|_| "a panic")?,
        "tokio" => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(converse_async(address, conversation)),
        _ => Err("the first argument is `threads` or `tokio`".into()),
    }
}

/// A session with its buffers and its clock, and one message. It prints what the server says.
struct Conversation {
    session: ClientSession,
    begun: Instant,
    /// Octets that were read and not consumed.
    input: BytesMut,
    /// Octets to write.
    output: BytesMut,
    to_do: VecDeque<ToDo>,
    content: Vec<u8>,
}

enum ToDo {
    Line(String),
    Content,
}

/// What a conversation waits for.
enum Wait {
    /// Write the output, then read. `Some`: for this long at most.
    Read(Option<Duration>),
    /// Write the output and close.
    Close,
}

impl Conversation {
    fn new(lines: Vec<String>, content: Vec<u8>) -> Self {
        let mut to_do: VecDeque<_> = lines.into_iter().map(ToDo::Line).collect();
        to_do.extend([ToDo::Content, ToDo::Line("QUIT".to_owned())]);
        let session = ClientSession::new(ClientSettings::default());
        Self { session, begun: Instant::now(), input: BytesMut::new(), output: BytesMut::new(), to_do, content }
    }

    fn now(&self) -> Tick {
        Tick::new(self.begun.elapsed())
    }

    /// Goes on until it needs I/O.
    fn advance(&mut self) -> Result<Wait, Failure> {
        loop {
            let now = self.now();
            let step = self.session.handle_input(now, &self.input)?;
            let consumed = step.consumed;
            let (mut wait, mut body) = (None, false);
            match step.next {
                ClientNext::NeedInput => {
                    wait = Some(Wait::Read(self.session.poll_timeout().map(|deadline| deadline.since(now))));
                }
                ClientNext::Reply { reply, .. } => print(&reply.into_owned()),
                ClientNext::Unasked { reply } => return Err(reply.to_string().into()),
                ClientNext::SendBody { .. } => body = true,
                ClientNext::Close => wait = Some(Wait::Close),
                // Neither AUTH nor STARTTLS was sent.
                ClientNext::Challenge(_) | ClientNext::StartTls => {
                    return Err("a challenge or a handshake is due, which was not asked for".into());
                }
            }
            self.input.advance(consumed);
            if body {
                self.send_content()?;
            }
            self.send_what_may_leave()?;
            if let Some(wait) = wait {
                return Ok(wait);
            }
        }
    }

    /// Sends a group of lines with PIPELINING, and one line without: the session knows.
    fn send_what_may_leave(&mut self) -> Result<(), Failure> {
        while let Some(to_do) = self.to_do.front() {
            let now = self.now();
            let sent = match to_do {
                ToDo::Line(line) => {
                    self.session.send(now, &Command::parse(line.as_bytes())?, &mut self.output).map(drop)
                }
                ToDo::Content if self.session.body_kind() == BodyKind::Data => {
                    self.session.send(now, &Command::Data, &mut self.output).map(drop)
                }
                ToDo::Content => {
                    let length = self.content.len() as u64;
                    let begun = self.session.begin_chunk(now, length, true, &mut self.output);
                    if begun.is_ok() {
                        self.send_content()?;
                    }
                    begun
                }
            };
            match sent {
                Ok(()) => drop(self.to_do.pop_front()),
                // A reply has to come first.
                Err(ApiMisuse::NotYet | ApiMisuse::Closed) => return Ok(()),
                // Something before it was refused. What always has a place is QUIT.
                Err(ApiMisuse::OutOfOrder) => drop(self.to_do.pop_front()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Copies the content for simplicity. A program that sends much writes each list in a vectored
    /// write.
    fn send_content(&mut self) -> Result<(), Failure> {
        let now = self.now();
        // A 354 although every recipient was refused: the content is empty then, and the dot alone
        // goes.
        let mut rest = if self.session.accepted_recipients() > 0 { self.content.as_slice() } else { &[] };
        while !rest.is_empty() {
            let mut segments = SegmentList::new();
            let taken = self.session.payload(now, rest, &mut segments)?;
            rest = rest.get(taken..).unwrap_or_default();
            segments.as_slice().iter().for_each(|segment| self.output.extend_from_slice(segment.as_bytes()));
        }
        let mut segments = SegmentList::new();
        self.session.finish_payload(now, &mut segments)?;
        segments.as_slice().iter().for_each(|segment| self.output.extend_from_slice(segment.as_bytes()));
        Ok(())
    }

    /// Takes the result of a read: octets, none at the end of the stream, or an error after the
    /// timeout.
    fn has_read(&mut self, read: io::Result<&[u8]>) -> Result<(), Failure> {
        match read {
            Ok([]) => Err(format!("the server has left: {:?}", self.session.handle_eof()).into()),
            Ok(octets) => {
                self.input.extend_from_slice(octets);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                match self.session.handle_timeout(self.now()) {
                    Some(eof) => Err(format!("the server is silent: {eof:?}").into()),
                    None => Ok(()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn print(reply: &Reply) {
    println!("{}", reply.to_string().trim_end());
}

fn converse(address: SocketAddr, mut conversation: Conversation) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_write_timeout(Some(conversation.session.write_timeout()))?;
    let mut octets = [0; 8_192];
    loop {
        let wait = conversation.advance()?;
        stream.write_all(&conversation.output.split())?;
        let Wait::Read(time) = wait else { return Ok(()) };
        // A time of zero would mean forever.
        stream.set_read_timeout(time.map(|time| time.max(Duration::from_millis(1))))?;
        let read = stream.read(&mut octets).map(|read| &octets[..read]);
        conversation.has_read(read)?;
    }
}

async fn converse_async(address: SocketAddr, mut conversation: Conversation) -> Result<(), Failure> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let mut octets = [0; 8_192];
    loop {
        let wait = conversation.advance()?;
        let write = stream.write_all_buf(&mut conversation.output);
        tokio::time::timeout(conversation.session.write_timeout(), write).await??;
        let Wait::Read(time) = wait else { return Ok(()) };
        let read = match time {
            Some(time) => tokio::time::timeout(time, stream.read(&mut octets)).await,
            None => Ok(stream.read(&mut octets).await),
        };
        let read = read.unwrap_or_else(|late| Err(late.into())).map(|read| &octets[..read]);
        conversation.has_read(read)?;
    }
}
