//! The outcome of each recipient, whatever the server does and wherever it stops.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use crate::support::{connected, letters, options, send};
use bytes::Bytes;
use posthaste_client::{
    Client, ClientError, Tls,
    wire::{Mail, Rcpt},
};
use posthaste_testkit::script::{polite, serve, verb};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

const CONTENT: Bytes = Bytes::from_static(b"Subject: x\r\n\r\n.body\r\n");
const PIPELINING: &[&str] = &["PIPELINING"];

/// Where the server stops, and how; what that means with and without PIPELINING.
#[tokio::test]
async fn the_outcomes_tell_at_which_point_a_server_stopped() {
    for (point, act, piped, single, in_doubt) in [
        ("MAIL FROM:<me@s.test>", "close", "LLL", "LLL", false),
        ("RCPT TO:<u0@d.test>", "close", "LLL", "LLL", false),
        ("RCPT TO:<u1@d.test>", "close", "LLL", "LLL", false),
        ("DATA", "close", "LLL", "LLL", false),
        ("<end>", "close", "LLL", "LLL", true),
        ("MAIL FROM:<me@s.test>", "421 bye\r\n", "MMM", "MMM", false),
        ("RCPT TO:<u0@d.test>", "421 bye\r\n", "RLL", "RLL", false),
        ("RCPT TO:<u1@d.test>", "421 bye\r\n", "LRL", "LRL", false),
        ("DATA", "421 bye\r\n", "DDD", "DDD", false),
        ("<end>", "421 bye\r\n", "CCC", "CCC", false),
        // Nonsense is as good as silence.
        ("RCPT TO:<u1@d.test>", "hello\r\n", "LLL", "LLL", false),
        ("DATA", "250 what\r\n", "LLL", "LLL", false),
        ("<end>", "354 more\r\n", "LLL", "LLL", true),
    ] {
        for (offers, expected) in [(PIPELINING, piped), (&[][..], single)] {
            let script = move |_, line: &str| if line == point { act.to_owned() } else { polite(line, offers) };
            let (stream, _) = serve(script, None);
            let mut client = connected(stream).await;
            let sent = send(&mut client, 3, CONTENT).await;
            let context = format!("{point} {act} {offers:?} {:?}", sent.broken);
            assert_eq!((letters(&sent).as_str(), sent.in_doubt), (expected, in_doubt), "{context}");
            assert!(sent.broken.is_some(), "{context}");
            // Nothing more is said over it.
            assert!(send(&mut client, 1, CONTENT).await.broken.is_some(), "{context}");
        }
    }
}

/// Refusals that leave the connection usable for the next message.
#[tokio::test]
async fn a_refusal_at_any_point_leaves_the_connection_usable() {
    for (point, act, count, expected) in [
        ("MAIL FROM:<me@s.test>", "550 no\r\n", 3, "MMM".to_owned()),
        ("MAIL FROM:<me@s.test>", "450 no\r\n", 350, "M".repeat(350)),
        ("RCPT TO:<u1@d.test>", "550 no\r\n", 3, "ARA".to_owned()),
        ("DATA", "451 no\r\n", 3, "DDD".to_owned()),
        ("<end>", "554 no\r\n", 3, "CCC".to_owned()),
        ("", "", 1_000, "A".repeat(1_000)),
    ] {
        for offers in [PIPELINING, &[]] {
            let mut first = true;
            let script = move |_, line: &str| {
                // After a refused MAIL recipients are out of order.
                let refused_mail = point.starts_with("MAIL") && first;
                let said = match line {
                    line if first && line == point => act.to_owned(),
                    line if refused_mail && matches!(verb(line), "RCPT" | "DATA") => "503 first MAIL\r\n".to_owned(),
                    line => polite(line, offers),
                };
                // The second message begins with the second MAIL or after the first one's RSET.
                first &= !matches!(verb(line), "RSET" | "NOOP");
                said
            };
            let (stream, heard) = serve(script, None);
            let mut client = connected(stream).await;
            let sent = send(&mut client, count, CONTENT).await;
            let context = format!("{point} {count} {offers:?} {:?}", sent.broken);
            assert_eq!((letters(&sent), sent.in_doubt), (expected.clone(), false), "{context}");
            assert!(sent.broken.is_none(), "{context}");
            let before = heard.of(&["MAIL"]).len();
            let _ = send(&mut client, 1, CONTENT).await;
            assert_eq!(heard.of(&["MAIL"]).len(), before + 1, "{context}");
        }
    }
}

#[tokio::test]
async fn a_lone_dot_follows_354_when_every_recipient_was_refused() {
    let script = |_, line: &str| match line {
        "RCPT TO:<u0@d.test>" | "RCPT TO:<u1@d.test>" => "550 no\r\n".to_owned(),
        line => polite(line, PIPELINING),
    };
    let (stream, heard) = serve(script, None);
    let mut client = connected(stream).await;
    let sent = send(&mut client, 2, CONTENT).await;
    assert_eq!((letters(&sent).as_str(), sent.in_doubt, sent.broken.is_none()), ("RR", false, true));
    let other = client.send("me@s.test", ["other@d.test"], CONTENT).await.unwrap();
    assert_eq!(letters(&other), "A");
    assert_eq!(heard.of(&["<end>"]).len(), 2);
}

#[tokio::test]
async fn an_empty_list_of_recipients_sends_nothing() {
    let (stream, heard) = serve(|_, line| polite(line, PIPELINING), None);
    let mut client = connected(stream).await;
    let none: [Rcpt<&str>; 0] = [];
    let sent = client.transact(Mail::parse("<>").unwrap(), &none, CONTENT).await;
    assert!(sent.recipients.is_empty() && sent.broken.is_none());
    assert!(heard.of(&["MAIL"]).is_empty());
    assert_eq!(letters(&send(&mut client, 1, CONTENT).await), "A");
}

/// The server answers in the middle of the content and closes: its words count, and not the write
/// that failed.
#[tokio::test]
async fn a_reply_before_the_end_of_the_content_is_heard() {
    for reply in ["552 5.3.4 too large\r\n", "421 4.3.2 going\r\n"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = [0; 4_096];
            for part in ["220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
                stream.write_all(part.as_bytes()).await.unwrap();
                assert!(stream.read(&mut said).await.unwrap() > 0);
            }
            stream.write_all(reply.as_bytes()).await.unwrap();
            // Closing with content unread resets the connection.
        });
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut client = Client::start(stream, "mx", &options(Tls::Off)).await.unwrap();
        let content = Bytes::from(b"0123456789abcde\r\n".repeat(1 << 20));
        let sent = send(&mut client, 1, content).await;
        assert_eq!((letters(&sent).as_str(), sent.in_doubt), ("C", false), "{:?}", sent.broken);
        assert!(matches!(sent.broken.as_deref(), Some(ClientError::EarlyReply(_))));
    }
}

/// Fails when it is to write the end of the content.
struct FailsAtTheEnd<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for FailsAtTheEnd<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FailsAtTheEnd<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if octets.ends_with(b".\r\n") {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.0).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_in_doubt_from_the_write_of_its_end() {
    let (stream, _) = serve(|_, line| polite(line, PIPELINING), None);
    let mut client = Client::start(FailsAtTheEnd(stream), "mx.test", &options(Tls::Off)).await.unwrap();
    let sent = send(&mut client, 1, CONTENT).await;
    assert_eq!((letters(&sent).as_str(), sent.in_doubt), ("L", true));

    // Content that breaks off before its end is in no doubt, and cannot be finished as if it were
    // whole.
    struct Breaks(bool);
    impl posthaste_client::Content for Breaks {
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
            let fails = std::mem::replace(&mut self.0, true);
            Poll::Ready(Some(if fails { Err(io::ErrorKind::Other.into()) } else { Ok(CONTENT) }))
        }
    }
    let (stream, heard) = serve(|_, line| polite(line, PIPELINING), None);
    let mut client = connected(stream).await;
    let (mail, rcpt) = (Mail::parse("<>").unwrap(), Rcpt::parse("<u0@d.test>").unwrap());
    let sent = client.transact(mail, &[rcpt], Breaks(false)).await;
    assert_eq!((letters(&sent).as_str(), sent.in_doubt), ("L", false));
    assert!(matches!(sent.broken.as_deref(), Some(ClientError::Content(_))));
    assert!(send(&mut client, 1, CONTENT).await.broken.is_some());
    client.quit().await;
    assert!(heard.of(&["<end>", "QUIT"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    for (point, in_doubt) in [("MAIL FROM:<me@s.test>", false), ("DATA", false), ("<end>", true)] {
        let mut silent = false;
        let script = move |_, line: &str| {
            silent |= line == point;
            if silent { String::new() } else { polite(line, PIPELINING) }
        };
        let (stream, _) = serve(script, None);
        let mut client = connected(stream).await;
        let sent = send(&mut client, 1, CONTENT).await;
        assert_eq!((letters(&sent).as_str(), sent.in_doubt), ("L", in_doubt), "{point}");
        assert!(matches!(sent.broken.as_deref(), Some(ClientError::Timeout { .. })));
    }
}
