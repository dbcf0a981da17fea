//! Clients that begin with TLS and do not go on, and how TLS ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{self, Names, options, start};
use posthaste_server::{
    Context, Peer, PeerAddress, Refusal, ServerOptions, Service, Tls, converse, session::ServerSettings,
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
