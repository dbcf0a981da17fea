//! Nothing in clear is taken for something inside TLS, before the handshake or after the end of
//! it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use crate::support::{driver, settings};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use posthaste_tokio::{
    ClientDriver, ClientError, ClientEvent, Connection, ServerEvent,
    session::{
        Ask, ClientSettings, PeerMisbehaved, Transport, Verdict,
        sasl::{
            ChannelBinding, ClientContext, ClientMechanism, ClientStep, Credentials, Nonce, SaslError, ScramKey,
            ServerContext, ServerMechanism, ServerStep, UnknownUsers,
        },
        server::CloseReason,
    },
    wire::{
        Command, Mechanism, MechanismSet, Secret,
        frame::{SegmentList, Stuffer},
    },
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

/// Counts writes.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, SeqCst);
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, SeqCst);
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        Pin::new(&mut self.0).poll_write(context, &all)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn octets_after_starttls_end_the_session() {
    // How much comes with the command, and how much after the reply.
    for (with, after) in [("N", ""), ("NOOP\r\n", ""), ("\r\n", ""), ("", "N"), ("", "NOOP\r\nMAIL FROM:<a@b>\r\n")] {
        let (client, server) = tokio::io::duplex(4_096);
        let mut driver = driver(server, settings());
        let (config, _) = tls("mx.test");
        let serving = tokio::spawn(async move {
            loop {
                match driver.next().await.unwrap() {
                    ServerEvent::Ask(_) => driver.answer(Verdict::Accept(None)).unwrap(),
                    ServerEvent::StartTls => return driver.accept_tls(Arc::clone(&config)).await.is_err(),
                    ServerEvent::Closed(reason) => return reason == CloseReason::ResidueBeforeTls,
                    other => panic!("{other:?}"),
                }
            }
        });
        let mut talk = Talk::new(client).greeted().await;
        talk.send(format!("STARTTLS\r\n{with}")).await;
        let said = talk.reply().await;
        assert!(said.starts_with(if with.is_empty() { "220" } else { "554" }), "{with:?} {said}");
        talk.send(after).await;
        talk.stream.shutdown().await.unwrap();
        assert!(serving.await.unwrap(), "{with:?} {after:?}");
        let mut rest = Vec::new();
        talk.stream.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.starts_with(b"250"), "{rest:?}");
    }
}

#[tokio::test]
async fn octets_after_the_reply_to_starttls_end_the_conversation() {
    for (together, later) in [("2", ""), ("250 AUTH PLAIN\r\n", ""), ("", "250 AUTH PLAIN\r\n")] {
        let (mut server, ours) = tokio::io::duplex(4_096);
        server.write_all(b"220 mx\r\n").await.unwrap();
        let mut driver = ClientDriver::new(Connection::new(ours), ClientSettings::default());
        driver.next().await.unwrap();
        driver.send(&Command::parse(b"EHLO c.test").unwrap()).unwrap();
        server.write_all(b"250-mx\r\n250 STARTTLS\r\n").await.unwrap();
        driver.next().await.unwrap();
        driver.send(&Command::StartTls).unwrap();
        server.write_all(format!("220 go\r\n{together}").as_bytes()).await.unwrap();
        let replied = driver.next().await;
        if !together.is_empty() {
            assert!(matches!(replied, Err(ClientError::Peer(PeerMisbehaved::ResidueBeforeTls))), "{replied:?}");
            continue;
        }
        assert!(matches!(driver.next().await.unwrap(), ClientEvent::StartTls));
        server.write_all(later.as_bytes()).await.unwrap();
        let (_, config) = tls("mx.test");
        assert!(driver.connect_tls(config, "mx.test".try_into().unwrap()).await.is_err());
        assert!(driver.next().await.is_err() || driver.send(&Command::Quit).is_err());
    }
}

/// The end of TLS within content, and then octets in clear.
#[tokio::test]
async fn octets_in_clear_after_the_end_of_tls_are_not_read() {
    let (server_tls, client_tls) = tls("mx.test");
    let (ours, theirs) = tokio::io::duplex(16 * 1_024);
    let serving = tokio::spawn(async move {
        let mut connection = Connection::new(theirs);
        connection.accept_tls(server_tls).await.unwrap();
        let session = posthaste_tokio::session::ServerSession::new(Arc::new(settings()), Transport::Tls);
        let mut driver = posthaste_tokio::ServerDriver::new(connection, session);
        let mut content = Vec::new();
        loop {
            match driver.next().await {
                Ok(ServerEvent::Ask(_)) => driver.answer(Verdict::Accept(None)).unwrap(),
                Ok(ServerEvent::Content(piece)) => content.extend_from_slice(&piece),
                Ok(ServerEvent::Closed(reason)) => return (content, Some(reason)),
                Ok(other) => panic!("{other:?}"),
                Err(_) => return (content, None),
            }
        }
    });
    let mut talk = Talk::new(handshake(ours, &client_tls).await).greeted().await;
    for (line, code) in [("MAIL FROM:<>", "250"), ("RCPT TO:<a@b.test>", "250"), ("DATA", "354")] {
        talk.expect(line, code).await;
    }
    talk.send("inside\r\n").await;
    let (mut raw, mut session) = talk.stream.into_inner();
    session.send_close_notify();
    let mut alert = Vec::new();
    session.write_tls(&mut alert).unwrap();
    raw.write_all(&alert).await.unwrap();
    raw.write_all(b"outside\r\n.\r\n").await.unwrap();
    let (content, reason) = serving.await.unwrap();
    assert_eq!((content.as_slice(), reason), (&b"inside\r\n"[..], Some(CloseReason::Eof)));
}

#[tokio::test]
async fn a_small_message_leaves_with_its_end_in_one_write() {
    let (mut server, ours) = tokio::io::duplex(64 * 1_024);
    let writes = Arc::new(AtomicUsize::new(0));
    let connection = Connection::new(Counted(ours, Arc::clone(&writes)));
    let mut driver = ClientDriver::new(connection, ClientSettings::default());
    for (said, line) in [
        ("220 mx\r\n", "HELO c.test"),
        ("250 ok\r\n", "MAIL FROM:<>"),
        ("250 ok\r\n", "RCPT TO:<a@b.test>"),
        ("250 ok\r\n", "DATA"),
    ] {
        server.write_all(said.as_bytes()).await.unwrap();
        driver.next().await.unwrap();
        driver.send(&Command::parse(line.as_bytes()).unwrap()).unwrap();
    }
    server.write_all(b"354 go\r\n").await.unwrap();
    assert!(matches!(driver.next().await.unwrap(), ClientEvent::SendBody { .. }));
    let before = writes.load(SeqCst);
    driver.send_content("a\r\n.b\r\n..c\r\nlast").await.unwrap();
    assert_eq!(writes.load(SeqCst) - before, 1);
    let mut heard = vec![0; 1_024];
    let read = server.read(&mut heard).await.unwrap();
    assert!(heard[..read].ends_with(b"DATA\r\na\r\n..b\r\n...c\r\nlast\r\n.\r\n"));
}

/// What each side exports is the same, and on another connection it is not.
#[tokio::test]
async fn both_ends_have_one_channel_binding_and_see_the_other_ones_certificate() {
    let (server_tls, client_tls) = tls("mx.test");
    let mut bindings = Vec::new();
    for _ in 0..2 {
        let (ours, theirs) = tokio::io::duplex(16 * 1_024);
        let (mut client, mut server) = (Connection::new(ours), Connection::new(theirs));
        assert!(client.channel_binding().is_none() && client.peer_certificate().is_none());
        let (accepted, connected) = tokio::join!(
            server.accept_tls(Arc::clone(&server_tls)),
            client.connect_tls(Arc::clone(&client_tls), "mx.test".try_into().unwrap())
        );
        accepted.and(connected).unwrap();
        let certificate = client.peer_certificate().unwrap();
        assert_eq!((certificate.fingerprint().len(), server.peer_certificate()), (64, None));
        bindings.push([client.channel_binding().unwrap(), server.channel_binding().unwrap()]);
    }
    let are_one = |one: &ChannelBinding, other: &ChannelBinding| proves(one.clone(), other.clone());
    let [[client, server], [other, _]] = &bindings[..] else { panic!() };
    assert!(are_one(client, server) && !are_one(other, server));
}

/// Returns `true` if a login bound to one convinces a server bound to the other.
fn proves(client: ChannelBinding, server: ChannelBinding) -> bool {
    let mut context = ClientContext::new(Nonce::from_random([1; 18]));
    context.channel_binding = Some(client);
    let who = Credentials {
        authorization_identity: None,
        authentication_identity: "me".to_owned(),
        password: Secret::new("right".to_owned()),
    };
    let offered = MechanismSet::of(&[Mechanism::ScramSha256Plus]);
    let mut client = ClientMechanism::choose(offered, who.into(), context).unwrap();
    let unknown_users = UnknownUsers::new(Secret::new([2; 32]), 4_096);
    let mut context = ServerContext::new(Nonce::from_random([3; 18]), unknown_users);
    context.channel_bindings.push(server);
    let mut server = ServerMechanism::new(Mechanism::ScramSha256Plus, context).unwrap();
    let mut step = server.start(Some(client.initial_response().unwrap().expose()));
    loop {
        step = match step {
            Ok(ServerStep::ScramKey(_)) => server.found(Ok(ScramKey::derive("right", &[7; 16], 4_096).ok())),
            Ok(ServerStep::Challenge(text)) => match client.respond(STANDARD.encode(text).as_bytes()) {
                ClientStep::Respond(text) => server.respond(text.expose().as_bytes()),
                ClientStep::GiveUp(fault) => panic!("{fault}"),
            },
            Ok(ServerStep::Done(_)) => return client.finish().is_ok(),
            Ok(step) => panic!("{step:?}"),
            Err(SaslError::Credentials) => return false,
            Err(error) => panic!("{error}"),
        };
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_go_on_with_the_handshake_is_given_up() {
    let (mut client, server) = tokio::io::duplex(4_096);
    let mut driver = driver(server, settings());
    client.write_all(b"EHLO c.test\r\n").await.unwrap();
    loop {
        match driver.next().await.unwrap() {
            ServerEvent::Ask(ask) => {
                driver.answer(Verdict::Accept(None)).unwrap();
                if matches!(ask, Ask::Hello(_)) {
                    client.write_all(b"STARTTLS\r\n").await.unwrap();
                }
            }
            ServerEvent::StartTls => break,
            other => panic!("{other:?}"),
        }
    }
    let begun = tokio::time::Instant::now();
    let error = driver.accept_tls(tls("mx.test").0).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
}

/// A peer that takes nothing does not keep a connection from its end.
#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_a_peer_that_stopped_reading() {
    let (server_tls, client_tls) = tls("mx.test");
    let (ours, theirs) = tokio::io::duplex(4_096);
    let (mut client, mut server) = (Connection::new(ours), Connection::new(theirs));
    let (accepted, connected) =
        tokio::join!(server.accept_tls(server_tls), client.connect_tls(client_tls, "mx.test".try_into().unwrap()));
    accepted.and(connected).unwrap();
    // What the client does not read fills the pipe.
    let content = vec![b'x'; 64 * 1_024];
    let mut segments = SegmentList::new();
    Stuffer::new().stuff(&content, &mut segments).unwrap();
    let write = tokio::time::timeout(std::time::Duration::from_secs(1), server.write_segments(&segments));
    assert!(write.await.is_err());
    let begun = tokio::time::Instant::now();
    server.close().await;
    assert_eq!(begun.elapsed().as_secs(), 5);
}
