//! Clients that begin with TLS and do not go on, and how TLS ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{self, Names, options, start};
use posthaste_server::{
    Context, Peer, PeerAddress, Refusal, ServerOptions, Service, Tls, converse,
    rustls::{ClientConfig, ClientConnection},
    session::ServerSettings,
};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_millis(500);

fn settings() -> ServerSettings {
    let mut settings = support::settings();
    settings.timeouts.handshake = DEADLINE;
    settings
}

/// Returns `true` if the server closes within this time.
async fn closes(stream: &mut TcpStream, within: Duration) -> bool {
    let read = timeout(within, stream.read(&mut [0; 64])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn implicit_tls_handshakes_count_against_the_limits_and_time_out() {
    // Loopback has ten times the limit of other addresses.
    for limits in [options(|options| options.connections = 10), options(|options| options.connections_per_network = 1)]
    {
        let (config, client) = tls("mx.test");
        let mut settings = settings();
        // As long as this test needs to fill the server on a machine that is busy.
        settings.timeouts.handshake = Duration::from_secs(3);
        let server = start(settings, Tls::Implicit(config), limits).await;
        let mut silent = Vec::new();
        for octets in 0..10 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            // The start of a ClientHello.
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3][..octets]).await.unwrap();
            silent.push(stream);
        }
        // No 421 before a handshake: the server closes at once.
        let begun = Instant::now();
        let mut refused = TcpStream::connect(server.address).await.unwrap();
        assert!(closes(&mut refused, Duration::from_secs(2)).await);
        assert!(begun.elapsed() < Duration::from_secs(2));
        for stream in &mut silent {
            assert!(closes(stream, Duration::from_secs(10)).await);
        }
        // The silent clients have made room.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        Talk::new(handshake(stream, &client).await).greeted().await;
        server.task.abort();
    }
}

#[tokio::test]
async fn a_handshake_after_starttls_times_out() {
    let server = start(settings(), Tls::StartTls(tls("mx.test").0), ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    // The server's clock starts before its reply has arrived.
    let begun = Instant::now();
    talk.expect("STARTTLS", "220").await;
    // One octet now and then is no progress.
    for octet in [22, 3, 1] {
        let _ = talk.stream.write_all(&[octet]).await;
        tokio::time::sleep(DEADLINE / 4).await;
    }
    assert!(closes(&mut talk.stream, Duration::from_secs(10)).await);
    assert!(begun.elapsed() >= DEADLINE);
}

#[tokio::test]
async fn a_conversation_ends_with_a_close_notify() {
    for starttls in [false, true] {
        let (config, client) = tls("mx.test");
        let tls = if starttls { Tls::StartTls(config) } else { Tls::Implicit(config) };
        let server = start(settings(), tls, ServerOptions::default()).await;
        let connect = async || {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            if starttls {
                let mut talk = Talk::new(stream).greeted().await;
                talk.expect("STARTTLS", "220").await;
                stream = talk.stream;
            }
            handshake(stream, &client).await
        };
        let (mut quits, mut drained) = (connect().await, connect().await);
        quits.write_all(b"QUIT\r\n").await.unwrap();
        // An end without close_notify would be an error of this read.
        let mut said = String::new();
        quits.read_to_string(&mut said).await.unwrap();
        assert!(said.contains("221 "), "{said}");
        // The session is idle now, so the drain ends it.
        let mut drained = Talk::new(&mut drained);
        if !starttls {
            drained.reply().await;
        }
        drained.expect("NOOP", "250").await;
        server.drain.cancel();
        let mut said = String::new();
        drained.stream.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("421 "), "{said}");
        server.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_handshake() {
    for starttls in [false, true] {
        let (config, _) = tls("mx.test");
        let tls = if starttls { Tls::StartTls(config) } else { Tls::Implicit(config) };
        let server = start(support::settings(), tls, ServerOptions::default()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if starttls {
            let mut talk = Talk::new(stream).greeted().await;
            talk.expect("STARTTLS", "220").await;
            stream = talk.stream;
        }
        stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        server.drain.cancel();
        server.task.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "STARTTLS: {starttls}");
        assert!(closes(&mut stream, Duration::from_secs(2)).await);
    }
}

/// A service with settings of its own for each client.
struct OwnSettings;

impl Service for OwnSettings {
    type Handler = Names;

    fn settings(&self, _: &Context) -> Arc<ServerSettings> {
        Arc::new(settings())
    }

    async fn connect(&self, _: &Context) -> Result<Names, Refusal> {
        Ok(Names::default())
    }
}

#[tokio::test]
async fn starttls_depends_on_the_listener_and_not_on_the_service() {
    for has_tls in [false, true] {
        let tls = if has_tls { Tls::StartTls(tls("mx.test").0) } else { Tls::Off };
        let (ours, theirs) = tokio::io::duplex(4_096);
        let server = tokio::spawn(async move {
            let peer = Peer::new(PeerAddress::Local, PeerAddress::Local);
            converse(theirs, peer, &OwnSettings, Arc::new(settings()), tls, std::future::pending()).await
        });
        let mut talk = Talk::new(ours);
        talk.reply().await;
        assert_eq!(talk.ask("EHLO c.test").await.contains("STARTTLS"), has_tls);
        talk.expect("STARTTLS", if has_tls { "220" } else { "502" }).await;
        server.abort();
    }
}

/// A record of TLS.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1], &length[..], payload].concat()
}

/// The first record of a client, which is its ClientHello.
fn client_hello(client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut connection = ClientConnection::new(Arc::clone(client), "mx.test".try_into().unwrap()).unwrap();
    let mut octets = Vec::new();
    connection.write_tls(&mut octets).unwrap();
    octets
}

#[tokio::test]
async fn a_client_hello_in_records_of_one_octet_is_a_client_hello() {
    let (config, client) = tls("mx.test");
    let server = start(support::settings(), Tls::Implicit(config), ServerOptions::default()).await;
    let (ours, mut theirs) = tokio::io::duplex(64 * 1_024);
    let address = server.address;
    let pump = tokio::spawn(async move {
        let mut start = [0; 5];
        theirs.read_exact(&mut start).await.unwrap();
        let mut hello = vec![0; u16::from_be_bytes([start[3], start[4]]).into()];
        theirs.read_exact(&mut hello).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        for octet in hello {
            stream.write_all(&record(22, &[octet])).await.unwrap();
        }
        tokio::io::copy_bidirectional(&mut theirs, &mut stream).await
    });
    Talk::new(handshake(ours, &client).await).greeted().await;
    pump.abort();
}

#[tokio::test]
async fn an_end_or_an_alert_at_any_step_of_a_handshake_ends_the_connection_in_its_time() {
    let (config, client) = tls("mx.test");
    let mut settings = settings();
    // As long as honest clients need on a machine that is busy.
    settings.timeouts.handshake = Duration::from_secs(3);
    let options = options(|options| options.connections_per_network = 1_000);
    let server = start(settings, Tls::Implicit(config), options).await;
    let hello = client_hello(&client);
    let close_notify = record(21, &[1, 0]);
    let steps = [
        close_notify.clone(),
        [close_notify.clone(), hello.clone()].concat(),
        // Within the ClientHello, and behind it.
        [record(22, &hello[5..50]), close_notify.clone()].concat(),
        [hello.clone(), close_notify].concat(),
        [hello.clone(), record(21, &[2, 40])].concat(),
        // Empty records, records of no kind, and what is no TLS at all.
        record(22, b"").repeat(100),
        record(99, b"x"),
        b"EHLO c.test\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![22; 70_000],
    ];
    let mut all = tokio::task::JoinSet::new();
    for (n, octets) in steps.into_iter().enumerate() {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        all.spawn(async move {
            // The server may have closed before it has read everything.
            let _ = stream.write_all(&octets).await;
            let ended = timeout(Duration::from_secs(10), async {
                while matches!(stream.read(&mut [0; 1_024]).await, Ok(1..)) {}
            });
            assert!(ended.await.is_ok(), "step {n}");
        });
    }
    all.join_all().await;
    for half in 1..hello.len() {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&hello[..half]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(closes(&mut stream, Duration::from_secs(5)).await, "{half}");
    }
    let stream = TcpStream::connect(server.address).await.unwrap();
    Talk::new(handshake(stream, &client).await).greeted().await;
}
