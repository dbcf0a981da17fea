//! Both sides of the conversation back to back in memory: the cost of a message without sockets,
//! TLS and disks.

mod settings;

use std::{hint::black_box, sync::Arc};

use bytes::{Buf as _, BytesMut};
use criterion::Throughput;
use posthaste_session::{
    ClientNext, ClientSession, ClientSettings, ServerNext, ServerSession, ServerSettings, Tick, Ticket, Transport,
    Verdict,
    wire::{Command, frame::SegmentList},
};

fn main() {
    let mut criterion = settings::criterion();
    let mut group = criterion.benchmark_group("session, 1 recipient, kept");
    for kib in [1, 100] {
        let content = posthaste_benches::content(kib * 1_024, None);
        let mut conversation = Conversation::open();
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: content.len() as u64 });
        group.bench_function(format!("{kib} KiB"), |bencher| {
            bencher.iter(|| conversation.transact(black_box(&content)));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("open and EHLO", |bencher| bencher.iter(Conversation::open));
    group.finish();
    criterion.final_summary();
}

/// A client, a server that accepts every message, and the octets between them.
struct Conversation {
    client: ClientSession,
    server: ServerSession,
    to_server: BytesMut,
    to_client: BytesMut,
    /// Octets of content that the server has received.
    received: usize,
}

impl Conversation {
    /// Greeting and EHLO.
    fn open() -> Self {
        let settings = Arc::new(ServerSettings::new("mx.example.org".parse().expect("a domain")));
        let mut conversation = Self {
            client: ClientSession::new(ClientSettings::default()),
            server: ServerSession::new(settings, Transport::Plain),
            to_server: BytesMut::with_capacity(2 * PIECE),
            to_client: BytesMut::with_capacity(1_024),
            received: 0,
        };
        conversation.run_server();
        conversation.run_client(Ticket::GREETING, &[]);
        let hello = conversation.send(b"EHLO client.example.org");
        conversation.run_server();
        conversation.run_client(hello, &[]);
        conversation
    }

    /// MAIL, RCPT and DATA in one group, then the content.
    fn transact(&mut self, content: &[u8]) {
        self.received = 0;
        self.send(b"MAIL FROM:<sender@example.org> BODY=8BITMIME");
        self.send(b"RCPT TO:<recipient@example.net>");
        let data = self.send(b"DATA");
        self.run_server();
        let end = self.run_client(data, content);
        self.run_client(end, &[]);
        assert_eq!(self.received, content.len());
    }

    fn send(&mut self, line: &[u8]) -> Ticket {
        let command = Command::parse(line).expect("a command");
        self.client.send(NOW, &command, &mut self.to_server).expect("it has a place")
    }

    /// Shows the client the octets of the server up to the expected reply. After a 354 the client
    /// sends the content, and the ticket becomes that of its end.
    fn run_client(&mut self, wanted: Ticket, content: &[u8]) -> Ticket {
        loop {
            let step = self.client.handle_input(NOW, &self.to_client).expect("the server behaves");
            let (consumed, mut found, mut body) = (step.consumed, false, false);
            match step.next {
                ClientNext::Reply { to, reply, .. } => {
                    assert!(reply.code().get() < 400, "{reply}");
                    found = to == wanted;
                }
                ClientNext::SendBody { .. } => body = true,
                other => panic!("{other:?}"),
            }
            self.to_client.advance(consumed);
            if body {
                return self.send_content(content);
            }
            if found {
                return wanted;
            }
        }
    }

    /// Writes the content in pieces of the size of a connection's reads. The copy stands for that
    /// of a socket.
    fn send_content(&mut self, content: &[u8]) -> Ticket {
        for mut piece in content.chunks(PIECE) {
            while !piece.is_empty() {
                let mut segments = SegmentList::new();
                let taken = self.client.payload(NOW, piece, &mut segments).expect("clean content");
                segments.as_slice().iter().for_each(|segment| self.to_server.extend_from_slice(segment.as_bytes()));
                piece = &piece[taken..];
            }
            self.run_server();
        }
        let mut segments = SegmentList::new();
        let end = self.client.finish_payload(NOW, &mut segments).expect("clean content");
        segments.as_slice().iter().for_each(|segment| self.to_server.extend_from_slice(segment.as_bytes()));
        self.run_server();
        end
    }

    /// Lets the server read all input, and accept every command. The client has its replies at
    /// once.
    fn run_server(&mut self) {
        loop {
            let step = self.server.handle_input(NOW, &self.to_server, &mut self.to_client).expect("used as meant");
            let consumed = step.consumed;
            let mut asked = false;
            match step.next {
                ServerNext::Ask(question) => {
                    black_box(question);
                    asked = true;
                }
                ServerNext::Content(range) => self.received += black_box(&self.to_server[range]).len(),
                ServerNext::Flush | ServerNext::NeedInput => {
                    self.to_server.advance(consumed);
                    return;
                }
                other => panic!("{other:?}"),
            }
            self.to_server.advance(consumed);
            if asked {
                self.server.answer(NOW, Verdict::Accept(None), &mut self.to_client).expect("the question is open");
            }
        }
    }
}

const NOW: Tick = Tick::ORIGIN;
const PIECE: usize = 16 * 1_024;
