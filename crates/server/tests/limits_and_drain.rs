//! How many clients are served, and how a server ends.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::time::{Duration, Instant};

use posthaste_server::{ServerOptions, Tls};
use support::{Talk, settings, start};

#[tokio::test]
async fn beyond_the_limits_there_is_a_421() {
    // Loopback has ten times the limit of other addresses.
    for options in [
        ServerOptions { connections: 10, ..ServerOptions::default() },
        ServerOptions { connections_per_address: 1, ..ServerOptions::default() },
    ] {
        let server = start(settings(), Tls::Off, options).await;
        let mut served = Vec::new();
        for _ in 0..10 {
            served.push(Talk::connect(server.address).await.greeted().await);
        }
        let mut refused = Talk::connect(server.address).await;
        assert!(refused.reply().await.starts_with("421 4.3.2"));
        assert_eq!(refused.reply().await, "<eof>");
        // Whoever leaves makes room.
        let mut one = served.pop().unwrap();
        one.expect("QUIT", "221").await;
        assert_eq!(one.reply().await, "<eof>");
        tokio::time::sleep(Duration::from_millis(50)).await;
        Talk::connect(server.address).await.greeted().await;
        server.task.abort();
    }
}

#[tokio::test]
async fn a_drain_ends_what_is_idle_and_waits_for_a_message() {
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

#[tokio::test]
async fn a_drain_is_bounded_and_leaves_no_conversation_behind() {
    let options = ServerOptions { drain: Duration::from_millis(200), ..ServerOptions::default() };
    let server = start(settings(), Tls::Off, options).await;
    let mut stuck = Talk::connect(server.address).await.greeted().await;
    for (line, code) in [("MAIL FROM:<a@b.test>", "250"), ("RCPT TO:<a@d.test>", "250"), ("DATA", "354")] {
        stuck.expect(line, code).await;
    }
    let begun = Instant::now();
    server.drain.cancel();
    server.task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(stuck.reply().await, "<eof>");
}

#[tokio::test]
async fn whoever_drops_a_server_ends_its_conversations() {
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    server.task.abort();
    assert_eq!(talk.reply().await, "<eof>");
}
