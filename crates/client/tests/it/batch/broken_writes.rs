//! A server that closes while messages are on their way to it: what it said before counts.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use posthaste_client::{Client, Tls};
use posthaste_testkit::script::{polite, serve, verb};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::message;
use crate::support::{letters_of, options};

/// A stream whose reads give few octets, and whose writes fail once the server has said its last
/// word.
struct Cut {
    stream: DuplexStream,
    is_cut: Arc<AtomicBool>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut few = [0; 8];
        let mut read = ReadBuf::new(&mut few);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        buffer.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Servers with a limit for each connection say 421 and close. Messages that left after that are
/// not in doubt.
#[tokio::test]
async fn a_421_counts_although_a_later_write_fails() {
    for last in ["MAIL", "BDAT"] {
        let is_cut = Arc::new(AtomicBool::new(false));
        let (cuts, mut heard) = (Arc::clone(&is_cut), 0);
        let (stream, _) = serve(
            move |_, line| {
                heard += usize::from(verb(line) == last);
                if heard <= 5 {
                    return polite(line, &["PIPELINING", "CHUNKING"]);
                }
                cuts.store(true, Relaxed);
                "421 4.7.0 enough\r\n<hang>".to_owned()
            },
            None,
        );
        let mut client = Client::start(Cut { stream, is_cut }, "mx.test", &options(Tls::Off)).await.unwrap();
        let mut batch = client.send_all((0..100).map(|number| message(number, 1)));
        let mut found = String::new();
        while let Some((number, sent)) = batch.next().await {
            assert!(!sent.in_doubt, "{last}: message {number} after {found}: {:?}", sent.broken);
            found += &letters_of(&sent.recipients);
        }
        assert_eq!(found.matches('A').count(), 5, "{last}: {found}");
        assert!(found.len() > 20, "{last}: {found}");
    }
}
