//! What the relay takes, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use posthaste_queue::Queue as _;
use posthaste_server::{CancellationToken, Listener, Server, ServerOptions, Tls, session::ServerSettings};
use support::{options, relay};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Sends these lines, each behind the reply to the one before, and gives the last reply.
async fn talk(stream: &mut TcpStream, lines: &[&str]) -> String {
    let mut said = String::new();
    for line in lines {
        stream.write_all(line.as_bytes()).await.unwrap();
        said = reply(stream).await;
    }
    said
}

async fn reply(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n")
        || said.split(|octet| *octet == b'\n').rev().nth(1).is_none_or(|line| line.get(3) == Some(&b'-'))
    {
        let mut octets = [0; 1_024];
        let read = stream.read(&mut octets).await.unwrap();
        assert!(read > 0, "closed behind {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&octets[..read]);
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_message_that_goes_in_circles_is_refused() {
    let (relay, log) = relay(options(&[1]));
    let settings = ServerSettings::new("relay.test");
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), settings, Tls::Off).await.unwrap();
    let address = listener.local_address().unwrap();
    let (server, drain) = (Server::new(relay.service(), ServerOptions::default()), CancellationToken::new());
    let serving = tokio::spawn({
        let drain = drain.clone();
        async move { server.serve(vec![listener], drain).await }
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    reply(&mut stream).await;
    talk(&mut stream, &["EHLO c.test\r\n"]).await;
    for (hops, code) in [(100, "554 5.4.6"), (99, "250 2.0.0")] {
        let content = format!("{}\r\nReceived: in the body\r\n.\r\n", "Received: x\r\n".repeat(hops));
        let lines = ["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@relay.test>\r\n", "DATA\r\n", &content];
        assert!(talk(&mut stream, &lines).await.starts_with(code));
    }
    assert_eq!((log.count("accepted"), relay.queue().stats().await.messages), (1, 1));
    // A refused message leaves nothing: neither room in the queue nor recipients.
    assert_eq!(relay.queue().stats().await.drafts, 0);
    assert!(
        talk(&mut stream, &["MAIL FROM:<a@b.test>\r\n", "RCPT TO:<x@else.test>\r\n"]).await.starts_with("550 5.7.1")
    );
    drain.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_queue_that_has_stopped_refuses_for_now() {
    let (relay, _) = relay(options(&[1]));
    relay.queue().close();
    let settings = ServerSettings::new("relay.test");
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), settings, Tls::Off).await.unwrap();
    let address = listener.local_address().unwrap();
    let server = Server::new(relay.service(), ServerOptions::default());
    let serving = tokio::spawn(async move { server.serve(vec![listener], CancellationToken::new()).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    reply(&mut stream).await;
    let lines = ["EHLO c.test\r\n", "MAIL FROM:<a@b.test>\r\n", "RCPT TO:<a@relay.test>\r\n", "DATA\r\n"];
    assert!(talk(&mut stream, &lines).await.starts_with("451 4.3.0"));
    serving.abort();
}
