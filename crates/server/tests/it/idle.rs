//! The memory of connections that wait, and the allocations of those that work.

use std::{
    future::pending,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use allocation_counter::{AllocationInfo, measure};
use posthaste_server::{
    Accept, Accepted, Body, Envelope, Handler, Listener, Peer, PeerAddress, Refusal, Server, ServerOptions, accepted,
    session::ServerSettings,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
    sync::mpsc,
    task::yield_now,
};

/// A client that says its lines, one read each, and then waits for ever.
struct Client {
    lines: std::vec::IntoIter<Vec<u8>>,
    idle: Arc<AtomicUsize>,
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(line) = self.lines.next() else {
            self.idle.fetch_add(1, SeqCst);
            return Poll::Pending;
        };
        buffer.put_slice(&line);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Clients(mpsc::UnboundedReceiver<Client>);

impl Accept for Clients {
    type Stream = Client;

    async fn accept(&mut self) -> io::Result<(Client, Peer)> {
        match self.0.recv().await {
            Some(client) => Ok((client, Peer::new(PeerAddress::Local, PeerAddress::Local))),
            None => pending().await,
        }
    }

    fn local_address(&self) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Local)
    }

    fn takes_descriptors(&self) -> bool {
        false
    }
}

/// Its futures are large, as those of an application with a database may be.
struct Large;

impl Handler for Large {
    async fn message(
        &mut self,
        _: &posthaste_server::Context,
        _: Envelope,
        mut body: Body<'_>,
    ) -> Result<Accepted, Refusal> {
        let mut room = [0; 16 * 1_024];
        while let Some(piece) = body.next().await? {
            room[piece.len() % room.len()] = 1;
        }
        assert_eq!(room.iter().sum::<i32>(), 1);
        Ok(accepted!("250 2.0.0 Thrown away"))
    }
}

/// A server on this thread, so that its allocations are counted.
struct Served {
    runtime: Runtime,
    clients: mpsc::UnboundedSender<Client>,
}

impl Served {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (clients, receiver) = mpsc::unbounded_channel();
        let mut settings = ServerSettings::new("mx.test".parse().unwrap());
        settings.limits.forbid_unauthorized_pipelining = false;
        let mut options = ServerOptions::default();
        (options.connections, options.connections_per_network) = (10_000, 10_000);
        runtime.spawn(
            Server::new(|_| async { Ok::<_, Refusal>(Large) })
                .with_options(options)
                .listen(Listener::new(Clients(receiver), settings))
                .serve(),
        );
        let served = Self { runtime, clients };
        // Tables that grow with the number of connections have room for those that are measured.
        served.serve(1_000, &[]);
        served
    }

    /// Serves this many clients that say these lines, until all of them wait.
    fn serve(&self, count: usize, lines: &[&str]) -> AllocationInfo {
        let idle = Arc::new(AtomicUsize::new(0));
        let scripts: Vec<_> = (0..count)
            .map(|_| lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>().into_iter())
            .collect();
        measure(|| {
            self.runtime.block_on(async {
                for lines in scripts {
                    self.clients.send(Client { lines, idle: Arc::clone(&idle) }).ok().unwrap();
                }
                while idle.load(SeqCst) < count {
                    yield_now().await;
                }
            });
        })
    }
}

const HELLO: &str = "EHLO client.test\r\n";
const MESSAGE: [&str; 4] = ["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "DATA\r\n", "Hello\r\n.\r\n"];

#[test]
fn an_idle_connection_holds_at_most_2_5_kib_whatever_its_handlers_futures_take() {
    let served = Served::start();
    for lines in [vec![HELLO], [&[HELLO][..], &MESSAGE].concat()] {
        let held = served.serve(100, &lines).bytes_current / 100;
        println!("{held} bytes after {lines:?}");
        // With the runtime's 256 bytes for a socket that is less than 3 KiB.
        assert!((1..=2_560).contains(&held), "{held} bytes after {lines:?}");
    }
}

/// The allocations of each of eight more, in a conversation of a client.
fn allocations_of_each(served: &Served, more: impl Fn(usize) -> Vec<&'static str>) -> f64 {
    let count = |times| {
        let lines = [vec![HELLO], more(times)].concat();
        served.serve(100, &lines).count_total as f64 / 100.0
    };
    // The first one may allocate what the others use.
    (count(9) - count(1)) / 8.0
}

#[test]
fn a_recipient_allocates_two_buffers_and_its_texts_but_no_future() {
    let served = Served::start();
    let each = allocations_of_each(&served, |recipients| {
        [vec!["MAIL FROM:<a@b.test>\r\n"], vec!["RCPT TO:<c@d.test>\r\n"; recipients]].concat()
    });
    println!("{each} allocations for a recipient");
    // A quarter is the list's growth.
    assert!(each < 3.5, "{each} allocations for a recipient");
}

#[test]
fn a_message_on_a_kept_connection_allocates_one_future() {
    let served = Served::start();
    let each = allocations_of_each(&served, |messages| MESSAGE.repeat(messages));
    println!("{each} allocations for a message");
    assert!(each < 13.5, "{each} allocations for a message");
}
