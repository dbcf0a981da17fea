//! Who is served when there is not room for all.

use std::{io, net::SocketAddr, time::Duration};

use crate::support::{Names, options, settings, start};
use posthaste_server::{
    Accept, Listener, Peer, PeerAddress, Server, Tls, accepted, handlers,
    test::Client,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::{pki::tls, talk::Talk};
use tokio::{
    io::DuplexStream,
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

/// A client with this address of loopback, which is a network of its own.
async fn from(address: &str, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(server).await.unwrap()
}

/// Makes a network known: a message from it is accepted.
async fn make_known(address: &str, server: SocketAddr) {
    let mut talk = Talk::new(from(address, server).await).greeted().await;
    assert!(talk.message("a@b.test", "x").await.starts_with("250"));
    talk.expect("QUIT", "221").await;
    assert_eq!(talk.reply().await, "<eof>");
}

#[tokio::test]
async fn a_known_client_takes_the_place_of_the_stranger_who_is_idle_for_the_longest_time() {
    let server = start(settings(), Tls::Off, options(|options| options.connections = 3)).await;
    make_known("127.0.0.9", server.address).await;
    let mut strangers = Vec::new();
    for n in 1..=3 {
        strangers.push(Talk::new(from(&format!("127.0.0.{n}"), server.address).await).greeted().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A stranger's time begins again with each command that the server works for.
    strangers[0].expect("MAIL FROM:<a@b.test>", "250").await;
    // No stranger has been idle for long enough to make room for another one.
    let mut refused = Talk::new(from("127.0.0.8", server.address).await);
    assert!(refused.reply().await.starts_with("421 4.3.2 Too many connections"));
    let mut known = Talk::new(from("127.0.0.9", server.address).await).greeted().await;
    assert!(known.message("a@b.test", "x").await.starts_with("250"));
    assert!(strangers[1].reply().await.starts_with("421 4.3.2 Idle while others wait"));
    assert_eq!(strangers[1].reply().await, "<eof>");
    for kept in [0, 2] {
        strangers[kept].expect("NOOP", "250").await;
    }
}

#[tokio::test]
async fn who_logs_in_is_known() {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    let server = start(settings, Tls::Off, options(|options| options.connections = 1)).await;
    let mut user = Talk::new(from("127.0.0.9", server.address).await).greeted().await;
    // `\0me\0right`
    user.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
    user.expect("QUIT", "221").await;
    assert_eq!(user.reply().await, "<eof>");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stranger = Talk::new(from("127.0.0.1", server.address).await).greeted().await;
    Talk::new(from("127.0.0.9", server.address).await).greeted().await;
    assert!(stranger.reply().await.starts_with("421 4.3.2 Idle while others wait"));
}

#[tokio::test]
async fn who_is_being_worked_for_or_sends_content_keeps_its_place() {
    let server = start(settings(), Tls::Off, options(|options| options.connections = 2)).await;
    make_known("127.0.0.9", server.address).await;
    let mut sends = Talk::new(from("127.0.0.1", server.address).await).greeted().await;
    for (line, code) in [("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<a@d.test>", "250"), ("DATA", "354")] {
        sends.expect(line, code).await;
    }
    let mut asks = Talk::new(from("127.0.0.2", server.address).await).greeted().await;
    asks.expect("MAIL FROM:<a@b.test>", "250").await;
    // A handler that decides nothing.
    asks.send("RCPT TO:<late-rcpt@d.test>\r\n").await;
    // Longer than a stranger may wait with a command.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let mut refused = Talk::new(from("127.0.0.3", server.address).await);
    assert!(refused.reply().await.starts_with("421 4.3.2 Too many connections"));
    sends.expect("x\r\n.", "250 2.0.0").await;
    // It is known by now, so it keeps its place for 2 s.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    Talk::new(from("127.0.0.9", server.address).await).greeted().await;
    assert!(sends.reply().await.starts_with("421 4.3.2 Idle while others wait"));
}

#[tokio::test]
async fn half_a_handshake_and_half_a_line_hold_no_place() {
    let (config, _) = tls("mx.test");
    for (offer, begun, farewell) in [
        (Tls::Implicit(config), &b"\x16\x03\x01\x02\x00\x01"[..], "<eof>"),
        (Tls::Off, b"MAIL FROM:<a", "421 4.3.2 Idle while others wait"),
    ] {
        let implicit = matches!(offer, Tls::Implicit(_));
        let server = start(settings(), offer, options(|options| options.connections = 1)).await;
        let mut half = Talk::new(from("127.0.0.1", server.address).await);
        if !implicit {
            half = half.greeted().await;
        }
        half.send(begun).await;
        for _ in 0..22 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !implicit {
                // Octets of a line are no command.
                half.send("a").await;
            }
        }
        // Another stranger.
        let _next = from("127.0.0.2", server.address).await;
        let said = half.reply().await;
        assert!(said.starts_with(farewell), "{said}");
        server.task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn who_fills_the_memory_and_sends_no_more_leaves_when_it_is_needed() {
    let service = handlers::message(async |_, _, body| {
        body.collect(1 << 20).await?;
        Ok(accepted!("250 2.0.0 Taken"))
    });
    let limits = options(|options| options.contents = 100_000);
    let mut honest = Client::connect(service).options(limits).await;
    honest.ehlo().await;
    let mut slow = Vec::new();
    for address in ["198.51.100.1", "203.0.113.1"] {
        let mut client = honest.another_from(address).await;
        client.ehlo().await;
        for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"] {
            assert!(client.says(line).await.code() < 400);
        }
        client.write("x\r\n".repeat(10_000)).await;
        slow.push(client);
    }
    // As long as nothing else needs it, they may take their time.
    honest.wait(Duration::from_secs(30)).await;
    let letter = "\r\n".to_owned() + &"x\r\n".repeat(20_000);
    honest.send("a@b.test", ["c@d.test"], &letter).await.expect("452 4.3.1 Out of memory");
    slow[0].reply().await.expect("421 4.3.2 Idle while others wait");
    honest.send("a@b.test", ["c@d.test"], &letter).await.expect("250 2.0.0 Taken");
    slow[1].write("\r\n.\r\n").await;
    slow[1].reply().await.expect("250 2.0.0 Taken");
}

/// A source of clients for which the system has no descriptor now and then.
struct Scarce(mpsc::Receiver<Option<(DuplexStream, Peer)>>);

impl Accept for Scarce {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Peer)> {
        match self.0.recv().await {
            // EMFILE
            Some(None) => Err(io::Error::from_raw_os_error(24)),
            Some(Some(client)) => Ok(client),
            None => std::future::pending().await,
        }
    }

    fn local_address(&self) -> io::Result<PeerAddress> {
        Ok(PeerAddress::Local)
    }

    fn takes_descriptors(&self) -> bool {
        false
    }
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_lack_of_descriptors_makes_room() {
    let (clients, accepted) = mpsc::channel(1);
    let server = Server::new(Names::default()).listen(Listener::new(Scarce(accepted), settings()));
    let server = tokio::spawn(server.serve());
    let connect = async |address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let (client, accepted) = tokio::io::duplex(4_096);
        clients.send(Some((accepted, Peer::new(address, PeerAddress::Local)))).await.unwrap();
        Talk::new(client).greeted().await
    };
    let mut known = connect("192.0.2.1:1024").await;
    assert!(known.message("a@b.test", "x").await.starts_with("250"));
    let mut strangers = Vec::new();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        strangers.push(connect("198.51.100.1:1024").await);
    }
    // One at a time: the strangers first, although they have been idle for less time.
    for stranger in &mut strangers {
        clients.send(None).await.unwrap();
        assert!(stranger.reply().await.starts_with("421 4.3.2 Idle while others wait"));
        assert_eq!(stranger.reply().await, "<eof>");
    }
    known.expect("NOOP", "250").await;
    clients.send(None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    connect("198.51.100.1:1024").await;
    // The newcomer is the only stranger that is left.
    clients.send(None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    clients.send(None).await.unwrap();
    assert!(known.reply().await.starts_with("421 4.3.2 Idle while others wait"));
    server.abort();
}

/// A server of two seats on a virtual clock, and a client of it whose network is known.
async fn full_with_a_known_client() -> Client {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    let limits = options(|options| {
        options.connections = 2;
        options.logins.burst = 0;
    });
    let mut known = Client::connect(Names::default()).settings(settings).options(limits).await;
    known.ehlo().await;
    for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA", "."] {
        assert!(known.says(line).await.code() < 400);
    }
    known
}

#[tokio::test(start_paused = true)]
async fn a_guess_that_waits_for_its_turn_holds_no_place() {
    let mut known = full_with_a_known_client().await;
    let mut guesser = known.another_from("198.51.100.1").await;
    guesser.ehlo().await;
    // `\0me\0wrong`, which waits for its turn for 2 s.
    guesser.write("AUTH PLAIN AG1lAHdyb25n\r\n").await;
    guesser.wait(Duration::from_secs(1)).await;
    known.ehlo().await;
    let second = known.another().await;
    second.greeting().expect("220");
    guesser.reply().await.expect("421 4.3.2 Idle while others wait");
}

#[tokio::test(start_paused = true)]
async fn content_that_takes_more_than_a_minute_holds_no_place() {
    let mut known = full_with_a_known_client().await;
    let mut sender = known.another_from("198.51.100.2").await;
    sender.ehlo().await;
    for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"] {
        assert!(sender.says(line).await.code() < 400);
    }
    // Content comes all the time, and the known client is never idle for long.
    for second in 0..62 {
        sender.wait(Duration::from_secs(1)).await;
        known.ehlo().await;
        sender.write(format!("{}\r\n", "x".repeat(200))).await;
        if second == 60 {
            known.another_from("198.51.100.3").await.greeting().expect("421 4.3.2 Too many connections");
        }
    }
    known.another_from("198.51.100.3").await.greeting().expect("220");
    sender.reply().await.expect("421 4.3.2 Idle while others wait");
}
