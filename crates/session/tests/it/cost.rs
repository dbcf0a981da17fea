//! The cost of a session: allocations for each message, and the heap of an idle one.

use std::sync::Arc;

use allocation_counter::measure;
use bytes::{Buf as _, BytesMut};
use posthaste_session::{
    ClientNext, ClientSession, ClientSettings, ServerNext, ServerSession, ServerSettings, Tick, Ticket, Transport,
    Verdict,
};
use posthaste_wire::{Command, frame::SegmentList};

const NOW: Tick = Tick::ORIGIN;
const PIECE: usize = 16 * 1_024;

/// Both sides, the driver's buffers, which are large enough from the start, and the allocations of
/// each side.
struct Conversation {
    client: ClientSession,
    server: ServerSession,
    up: BytesMut,
    down: BytesMut,
    client_allocations: u64,
    server_allocations: u64,
    received: usize,
}

/// Returns the result of a call, and adds its allocations to a sum.
fn counted<T>(sum: &mut u64, call: impl FnOnce() -> T) -> T {
    let mut result = None;
    *sum += measure(|| result = Some(call())).count_total;
    result.expect("it was called")
}

impl Conversation {
    fn open() -> Self {
        let mut conversation = Self {
            client: ClientSession::new(ClientSettings::default()),
            server: ServerSession::new(
                Arc::new(ServerSettings::new("mx.test".parse().expect("a domain"))),
                Transport::Plain,
            ),
            up: BytesMut::with_capacity(8 * PIECE),
            down: BytesMut::with_capacity(PIECE),
            client_allocations: 0,
            server_allocations: 0,
            received: 0,
        };
        conversation.serve();
        conversation.listen(Ticket::GREETING, &[]);
        conversation.exchange(b"EHLO client.test");
        conversation
    }

    fn say(&mut self, line: &[u8]) -> Ticket {
        let command = Command::parse(line).expect("a command");
        let Self { client, up, client_allocations, .. } = self;
        counted(client_allocations, || client.send(NOW, &command, up)).expect("it has a place")
    }

    fn exchange(&mut self, line: &[u8]) {
        let ticket = self.say(line);
        self.serve();
        self.listen(ticket, &[]);
    }

    fn transact(&mut self, content: &[u8]) {
        self.received = 0;
        self.say(b"MAIL FROM:<sender@example.org>");
        self.say(b"RCPT TO:<recipient@example.net>");
        let data = self.say(b"DATA");
        self.serve();
        let end = self.listen(data, content);
        self.listen(end, &[]);
        assert_eq!(self.received, content.len());
    }

    fn listen(&mut self, wanted: Ticket, content: &[u8]) -> Ticket {
        loop {
            let Self { client, down, client_allocations, .. } = self;
            let step = counted(client_allocations, || client.handle_input(NOW, down)).expect("the server behaves");
            let (consumed, mut found, mut body) = (step.consumed, false, false);
            match step.next {
                ClientNext::Reply { to, reply, .. } => {
                    assert!(reply.code().get() < 400, "{reply}");
                    found = to == wanted;
                }
                ClientNext::SendBody { .. } => body = true,
                other => panic!("{other:?}"),
            }
            self.down.advance(consumed);
            if body {
                return self.send_content(content);
            }
            if found {
                return wanted;
            }
        }
    }

    fn send_content(&mut self, content: &[u8]) -> Ticket {
        for mut piece in content.chunks(PIECE) {
            while !piece.is_empty() {
                let mut segments = SegmentList::new();
                let Self { client, client_allocations, .. } = self;
                let taken = counted(client_allocations, || client.payload(NOW, piece, &mut segments)).expect("clean");
                segments.as_slice().iter().for_each(|segment| self.up.extend_from_slice(segment.as_bytes()));
                piece = &piece[taken..];
            }
            self.serve();
        }
        let mut segments = SegmentList::new();
        let Self { client, client_allocations, .. } = self;
        let end = counted(client_allocations, || client.finish_payload(NOW, &mut segments)).expect("clean");
        segments.as_slice().iter().for_each(|segment| self.up.extend_from_slice(segment.as_bytes()));
        self.serve();
        end
    }

    fn serve(&mut self) {
        loop {
            let Self { server, up, down, server_allocations, .. } = self;
            let step = counted(server_allocations, || server.handle_input(NOW, up, down)).expect("used as meant");
            let (consumed, mut asked) = (step.consumed, false);
            match step.next {
                ServerNext::Ask(_) => asked = true,
                ServerNext::Content(range) => self.received += range.len(),
                ServerNext::Flush | ServerNext::NeedInput => {
                    self.up.advance(consumed);
                    // What is read next goes to the front again, as from a socket.
                    assert!(self.up.try_reclaim(4 * PIECE));
                    return;
                }
                other => panic!("{other:?}"),
            }
            self.up.advance(consumed);
            if asked {
                let Self { server, down, server_allocations, .. } = self;
                let answered = counted(server_allocations, || server.answer(NOW, Verdict::Accept(None), down));
                answered.expect("the question is open");
                assert!(self.down.try_reclaim(1_024));
            }
        }
    }
}

#[test]
fn a_message_costs_at_most_four_allocations_in_each_role_whatever_its_size() {
    let mut conversation = Conversation::open();
    // The first message allocates lists that later ones reuse.
    conversation.transact(b"x\r\n");
    for size in [1_024, 100 * 1_024, 1_024 * 1_024] {
        let content = b"a line of text\r\n".repeat(size / 16);
        (conversation.client_allocations, conversation.server_allocations) = (0, 0);
        conversation.transact(&content);
        let found = (conversation.client_allocations, conversation.server_allocations);
        println!("{size} octets: client {}, server {}", found.0, found.1);
        assert!(found.0 <= 4 && found.1 <= 4, "{size} octets: {found:?} allocations");
    }
}

#[test]
fn an_idle_session_has_at_most_1_kib_of_heap() {
    let settings = Arc::new(ServerSettings::new("mx.test".parse().expect("a domain")));
    let mut server = None;
    let held = measure(|| {
        let mut session = ServerSession::new(Arc::clone(&settings), Transport::Plain);
        let mut input = &b"EHLO client.test\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n"[..];
        let mut out = BytesMut::new();
        loop {
            let step = session.handle_input(NOW, input, &mut out).expect("used as meant");
            input = &input[step.consumed..];
            match step.next {
                ServerNext::Ask(_) => session.answer(NOW, Verdict::Accept(None), &mut out).expect("open"),
                ServerNext::Flush => out = BytesMut::new(),
                ServerNext::NeedInput => break,
                other => panic!("{other:?}"),
            }
        }
        server = Some(session);
    });
    println!("{} octets of heap beside {} of its own", held.bytes_current, size_of::<ServerSession>());
    assert!(server.is_some_and(|session| session.is_extended()));
    assert!(held.bytes_current <= 1_024, "{} octets", held.bytes_current);
}
