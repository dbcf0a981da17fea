//! `next` may be dropped at every await: nothing is lost and nothing comes twice.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::support::{driver, settings};
use bytes::Bytes;
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use posthaste_tokio::{
    ClientDriver, ClientEvent, Connection, Content, ServerEvent,
    session::{Ask, ClientSettings, Verdict, server::CloseReason},
    wire::{Command, accepted},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

/// Every call but the second is told to come back; reads give few octets, and what is written
/// leaves with a flush only, as under TLS.
struct Stutter {
    stream: DuplexStream,
    staged: Vec<u8>,
    again: bool,
    /// Octets of a read or write.
    step: usize,
}

impl Stutter {
    const fn new(stream: DuplexStream, step: usize) -> Self {
        Self { stream, staged: Vec::new(), again: false, step }
    }

    fn stutters(&mut self, context: &Context<'_>) -> bool {
        self.again = !self.again;
        if self.again {
            context.waker().wake_by_ref();
        }
        self.again
    }
}

impl AsyncRead for Stutter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stutters(context) {
            return Poll::Pending;
        }
        let mut few = vec![0; self.step.min(buffer.remaining())];
        let mut read = ReadBuf::new(&mut few);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stutter {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.stutters(context) {
            return Poll::Pending;
        }
        let few = &octets[..octets.len().min(self.step)];
        self.staged.extend_from_slice(few);
        Poll::Ready(Ok(few.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.staged.is_empty() {
            if self.stutters(context) {
                return Poll::Pending;
            }
            let Self { stream, staged, step, .. } = &mut *self;
            let end = staged.len().min(*step);
            let written = ready!(Pin::new(stream).poll_write(context, &staged[..end]))?;
            staged.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Polls once, and drops the future when it is not ready.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let polled = tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    };
    tokio::task::yield_now().await;
    polled
}

#[tokio::test]
async fn a_server_driver_dropped_at_every_await_loses_nothing() {
    for step in [1, 2, 7, 64] {
        let (server_tls, client_tls) = tls("mx.test");
        let (client, server) = tokio::io::duplex(4_096);
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
            let mut talk = Talk::new(client);
            assert!(talk.reply().await.starts_with("220"));
            assert!(talk.ask("EHLO c.test").await.contains("STARTTLS"));
            talk.expect("STARTTLS", "220").await;
            let mut talk = Talk::new(handshake(talk.stream, &client_tls).await);
            assert!(!talk.ask("EHLO c.test").await.contains("STARTTLS"));
            talk.send("MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n").await;
            for code in ["250", "250", "250", "354"] {
                assert!(talk.reply().await.starts_with(code));
            }
            assert_eq!(talk.ask("one\r\n..two\r\n.").await, "250 2.0.0 Kept");
            talk.expect("QUIT", "221").await;
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
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
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
