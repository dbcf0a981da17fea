//! How many clients are served, and how a server ends.

use std::time::Duration;

use crate::support::{Names, options, settings, start};
use posthaste_server::{
    ServerOptions, Tls,
    test::Client,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::talk::Talk;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn connections_beyond_the_limits_get_a_421() {
    // Loopback has ten times the limit of other addresses.
    for limits in [options(|options| options.connections = 10), options(|options| options.connections_per_network = 1)]
    {
        let server = start(settings(), Tls::Off, limits).await;
        let mut served = Vec::new();
        for _ in 0..10 {
            served.push(Talk::connect(server.address).await.greeted().await);
        }
        let mut refused = Talk::connect(server.address).await;
        assert!(refused.reply().await.starts_with("421 4.3.2"));
        assert_eq!(refused.reply().await, "<eof>");
        // A client that leaves makes room.
        let mut one = served.pop().unwrap();
        one.expect("QUIT", "221").await;
        assert_eq!(one.reply().await, "<eof>");
        tokio::time::sleep(Duration::from_millis(50)).await;
        Talk::connect(server.address).await.greeted().await;
        server.task.abort();
    }
}

/// Over a real port, which a drain closes.
#[tokio::test]
async fn a_drain_ends_idle_sessions_and_waits_for_a_message() {
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut idle = Talk::connect(server.address).await.greeted().await;
    let mut busy = Talk::connect(server.address).await.greeted().await;
    for (line, code) in [("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<a@d.test>", "250"), ("DATA", "354")] {
        busy.expect(line, code).await;
    }
    server.drain.cancel();
    assert!(idle.reply().await.starts_with("421 4.3.2"));
    assert_eq!(idle.reply().await, "<eof>");
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
    busy.expect("x\r\n.", "250 2.0.0").await;
    assert!(busy.reply().await.starts_with("421 4.3.2"));
    server.task.await.unwrap();
    assert_eq!(server.names.seen.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_drain_says_421_to_every_session_that_it_cuts() {
    let mut settings = settings();
    settings.offers.chunking = true;
    let names = Names::default();
    let mut first = Client::connect(names.clone()).settings(settings).await;
    let mut cut = Vec::new();
    for lines in [
        &["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>", "DATA"][..],
        &["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>"],
        &["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>"],
        &["MAIL FROM:<a@b.test>"],
    ] {
        let mut client = first.another().await;
        client.ehlo().await;
        for line in lines {
            assert!(client.says(line).await.code() < 400);
        }
        cut.push(client);
    }
    cut[0].write("half a message\r\n").await;
    cut[1].write("BDAT 100\r\nhalf a chunk").await;
    cut[2].write("BDAT 7\r\nchunk\r\n").await;
    // A handler that decides nothing.
    cut[3].write("RCPT TO:<late-rcpt@d.test>\r\n").await;
    first.wait(Duration::from_secs(1)).await;
    let begun = Instant::now();
    first.drain();
    first.drained().await;
    assert_eq!(begun.elapsed().as_secs(), ServerOptions::default().drain.as_secs());
    cut[2].reply().await.expect("250 2.0.0 Chunk");
    for client in &mut cut {
        client.reply().await.expect("421 4.3.2");
        client.closed().await;
    }
    assert!(names.seen.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_does_not_hold_a_drain() {
    let mut settings = settings();
    settings.limits.idle_commands = u32::MAX;
    let limits = options(|options| options.drain = Duration::from_secs(3_600));
    let mut deaf = Client::connect(Names::default()).settings(settings).options(limits).await;
    let lines = "NOOP\r\n".repeat(10_000);
    while timeout(Duration::from_millis(500), deaf.write(&lines)).await.is_ok() {}
    let begun = Instant::now();
    deaf.drain();
    deaf.drained().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn dropping_the_serve_future_ends_all_sessions() {
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    server.task.abort();
    assert!(talk.reply().await.starts_with("421 4.3.2"));
    assert_eq!(talk.reply().await, "<eof>");
}

/// Networks within loopback, each of which has ten times the limit.
#[tokio::test]
async fn connections_are_counted_by_network() {
    let mut limits = options(|options| options.connections_per_network = 1);
    limits.networks.ipv4_prefix = 24;
    let server = start(settings(), Tls::Off, limits).await;
    let from = async |address: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        Talk::new(socket.connect(server.address).await.unwrap())
    };
    let mut served = Vec::new();
    for n in 0..10 {
        served.push(from(&format!("127.0.1.{}", n + 1)).await.greeted().await);
    }
    assert!(from("127.0.1.99").await.reply().await.starts_with("421 4.3.2"));
    from("127.0.2.1").await.greeted().await;
}

#[tokio::test]
async fn a_nearly_full_server_hurries_its_clients() {
    let mut settings = settings();
    settings.timeouts.command = Duration::from_secs(4);
    let server = start(settings, Tls::Off, options(|options| options.connections = 20)).await;
    let mut clients = Vec::new();
    for _ in 0..15 {
        clients.push(Talk::connect(server.address).await.greeted().await);
    }
    // Clients that have waited all along hurry too.
    tokio::time::sleep(Duration::from_millis(600)).await;
    clients[0].expect("NOOP", "250").await;
    clients.push(Talk::connect(server.address).await.greeted().await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    // Clients leave until half of the room is free. Then the others have their time again.
    let mut left = 0;
    for talk in &mut clients {
        match timeout(Duration::from_millis(20), talk.reply()).await {
            Ok(said) => {
                assert!(said.starts_with("421 4.4.2"), "{said}");
                left += 1;
            }
            Err(_) => talk.expect("NOOP", "250").await,
        }
    }
    assert!((6..=15).contains(&left), "{left}");
    let mut talk = Talk::connect(server.address).await.greeted().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    talk.expect("NOOP", "250").await;
}

/// As [`posthaste_server`] counts them: two places in a list, and the texts.
fn long_recipient(n: usize) -> String {
    format!("RCPT TO:<{n}@d.test> ORCPT=rfc822;{}@d.test", "x".repeat(480))
}

#[tokio::test]
async fn envelopes_share_one_budget_and_give_it_back() {
    let mut settings = settings();
    settings.offers.dsn = true;
    let server = start(settings, Tls::Off, options(|options| options.envelopes = 50_000)).await;
    let fills = async || {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        let mut taken = 0;
        loop {
            let said = talk.ask(&long_recipient(taken)).await;
            if said.starts_with("452 4.3.1") {
                return (talk, taken);
            }
            assert!(said.starts_with("250"), "{said}");
            taken += 1;
        }
    };
    let (mut greedy, most) = fills().await;
    assert!((50..100).contains(&most), "{most}");
    // Each connection keeps its own room.
    let (_other, own) = fills().await;
    assert!((20..most / 2 + 10).contains(&own), "{own} {most}");
    // The transaction that was put off goes on.
    greedy.expect("DATA", "354").await;
    greedy.expect("x\r\n.", "250").await;
    for give_back in ["RSET", "EHLO c.test", "QUIT"] {
        let (mut talk, again) = fills().await;
        assert_eq!(again, most, "before {give_back}");
        talk.ask(give_back).await;
        if give_back == "QUIT" {
            assert_eq!(talk.reply().await, "<eof>");
            tokio::time::sleep(Duration::from_millis(50)).await;
        } else {
            // It is open, and stays so.
            std::mem::forget(talk);
        }
    }
    let (talk, again) = fills().await;
    assert_eq!(again, most, "after QUIT");
    drop(talk);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fills().await.1, most, "after a close");
}

#[tokio::test(start_paused = true)]
async fn timeouts_and_paces_at_their_most_wait_for_ever() {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    let timeouts = &mut settings.timeouts;
    timeouts.verdict = Duration::MAX;
    timeouts.command = Duration::MAX;
    timeouts.content_block = Duration::MAX;
    timeouts.write = Duration::MAX;
    let limits = options(|options| options.logins.pace = Duration::MAX);
    let mut client = Client::connect(Names::default()).settings(settings).options(limits).await;
    client.ehlo().await;
    client.send("good@b.test", ["a@d.test"], "x\r\n").await.expect("250");
    client.login("a", "b").await.expect("535");
    client.wait(Duration::from_secs(12 * 60)).await;
    client.says("NOOP").await.expect("250");
}
