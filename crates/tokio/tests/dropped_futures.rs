//! `next` may be dropped at every await: nothing is lost and nothing comes twice.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use posthaste_tokio::{
    ClientDriver, ClientEvent, Connection, Content, ServerEvent,
    session::{Ask, ClientSettings, Verdict, server::CloseReason},
    wire::{Command, accepted},
};
use support::{Stutter, driver, once, reply, settings, tls};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsConnector;

#[tokio::test]
async fn a_server_driver_dropped_at_every_await_loses_nothing() {
    for step in [1, 2, 7, 64] {
        let (server_tls, client_tls) = tls();
        let (mut client, server) = tokio::io::duplex(4_096);
        let mut driver = driver(Stutter::new(server, step), settings());
        let serving = tokio::spawn(async move {
            let (mut content, mut asked) = (Vec::new(), Vec::new());
            loop {
                let Some(event) = once(driver.next()).await else { continue };
                match event.unwrap() {
                    ServerEvent::Ask(ask) => {
                        asked.push(std::mem::discriminant(&ask));
                        let is_message = matches!(ask, Ask::Message { .. });
                        let reply = is_message.then(|| accepted!("250 2.0.0 Kept"));
                        driver.answer(Verdict::Accept(reply)).unwrap();
                    }
                    ServerEvent::Content(piece) => content.extend_from_slice(&piece),
                    ServerEvent::StartTls => driver.accept_tls(Arc::clone(&server_tls)).await.unwrap(),
                    ServerEvent::Closed(reason) => return (content, asked.len(), reason),
                    other => panic!("{other:?}"),
                }
            }
        });
        let talking = async {
            assert!(reply(&mut client).await.starts_with("220"));
            client.write_all(b"EHLO c.test\r\n").await.unwrap();
            assert!(reply(&mut client).await.contains("STARTTLS"));
            client.write_all(b"STARTTLS\r\n").await.unwrap();
            assert!(reply(&mut client).await.starts_with("220"));
            let mut client =
                TlsConnector::from(client_tls).connect("mx.test".try_into().unwrap(), client).await.unwrap();
            client.write_all(b"EHLO c.test\r\n").await.unwrap();
            assert!(!reply(&mut client).await.contains("STARTTLS"));
            client.write_all(b"MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n").await.unwrap();
            for code in ["250", "250", "250", "354"] {
                assert!(reply(&mut client).await.starts_with(code));
            }
            client.write_all(b"one\r\n..two\r\n.\r\n").await.unwrap();
            assert_eq!(reply(&mut client).await, "250 2.0.0 Kept\r\n");
            client.write_all(b"QUIT\r\n").await.unwrap();
            assert!(reply(&mut client).await.starts_with("221"));
        };
        tokio::time::timeout(Duration::from_secs(20), talking).await.unwrap();
        let (content, asked, reason) = serving.await.unwrap();
        assert_eq!((content.as_slice(), asked, reason), (&b"one\r\n.two\r\n"[..], 8, CloseReason::Quit), "{step}");
    }
}

#[tokio::test]
async fn a_client_driver_dropped_at_every_await_loses_nothing() {
    for step in [1, 3, 64] {
        let (mut server, ours) = tokio::io::duplex(4_096);
        let serving = tokio::spawn(async move {
            use tokio::io::AsyncReadExt as _;
            let mut heard = Vec::new();
            server.write_all(b"220 mx\r\n").await.unwrap();
            for (upto, said) in [
                ("EHLO c.test\r\n", "250-mx\r\n250 PIPELINING\r\n"),
                ("DATA\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"),
                ("\r\n.\r\n", "250 kept\r\n"),
            ] {
                while !heard.ends_with(upto.as_bytes()) {
                    heard.push(server.read_u8().await.unwrap());
                }
                server.write_all(said.as_bytes()).await.unwrap();
            }
            String::from_utf8(heard).unwrap()
        });
        let mut driver = ClientDriver::new(Connection::new(Stutter::new(ours, step)), ClientSettings::default());
        let mut codes = Vec::new();
        let mut end = None;
        while end.is_none() || codes.len() < 5 {
            match once(driver.next()).await {
                None => {}
                Some(Ok(ClientEvent::Reply { reply, .. })) => {
                    codes.push(reply.code().get());
                    match codes.len() {
                        1 => drop(driver.send(&Command::parse(b"EHLO c.test").unwrap()).unwrap()),
                        2 => {
                            for line in ["MAIL FROM:<>", "RCPT TO:<a@b.test>", "DATA"] {
                                driver.send(&Command::parse(line.as_bytes()).unwrap()).unwrap();
                            }
                        }
                        _ => {}
                    }
                }
                Some(Ok(ClientEvent::SendBody { .. })) => {
                    let content = Bytes::from_static(b"one\r\n.two\r\n");
                    end = Some(driver.send_content(content).await.unwrap());
                    assert!(driver.message_in_doubt());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(!driver.message_in_doubt());
        assert_eq!(codes, [220, 250, 250, 250, 250]);
        let heard = serving.await.unwrap();
        assert_eq!(heard, "EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\none\r\n..two\r\n.\r\n");
    }
}

/// Half a message must never be finished as if it were whole.
#[tokio::test]
async fn content_dropped_half_way_ends_the_conversation() {
    struct Never(bool);
    impl Content for Never {
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Pending;
            }
            Poll::Ready(Some(Ok(Bytes::from_static(b"half\r\n"))))
        }
    }
    let (mut server, ours) = tokio::io::duplex(4_096);
    let mut driver = ClientDriver::new(Connection::new(ours), ClientSettings::default());
    for (said, line) in [
        ("220 mx\r\n", "HELO c.test"),
        ("250 ok\r\n", "MAIL FROM:<>"),
        ("250 ok\r\n", "RCPT TO:<a@b.test>"),
        ("250 ok\r\n", "DATA"),
    ] {
        server.write_all(said.as_bytes()).await.unwrap();
        assert!(matches!(driver.next().await.unwrap(), ClientEvent::Reply { .. }));
        driver.send(&Command::parse(line.as_bytes()).unwrap()).unwrap();
    }
    server.write_all(b"354 go\r\n").await.unwrap();
    assert!(matches!(driver.next().await.unwrap(), ClientEvent::SendBody { .. }));
    assert!(once(driver.send_content(Never(false))).await.is_none());
    assert!(driver.send_content("whole\r\n").await.is_err());
    assert!(driver.send(&Command::Quit).is_err());
    assert!(!driver.message_in_doubt());
}
