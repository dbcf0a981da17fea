//! Connections to the server: driven by the request that uses them, and kept for the next one.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Poll,
    time::Duration,
};

use hyper::{
    Request,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use super::{answer::Answer, request::Outgoing};

/// The most octets of a response's head, and of what is read at a time.
const HEAD: usize = 16 << 10;
/// The most header fields of a response.
const FIELDS: usize = 64;
/// The most connections that are kept. A relay makes 20 at once by default.
const KEPT: usize = 20;

/// A connection to the server. No task drives it: it does nothing between requests.
pub(super) struct Connection {
    sender: SendRequest<Outgoing>,
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    is_over: bool,
}

/// The connections that are kept. Clones of a webhook share them.
#[derive(Default)]
pub(super) struct Pool(Mutex<State>);

#[derive(Default)]
struct State {
    /// Each until it is closed. The one that was used last comes last.
    kept: Vec<(Instant, Connection)>,
    /// A task closes those whose time is over.
    is_swept: bool,
}

impl Connection {
    pub(super) async fn start<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD).max_headers(FIELDS);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Box::pin(driver), is_over: false })
    }

    /// Sends a request, and reads the answer to its end.
    pub(super) async fn ask(&mut self, request: Request<Outgoing>) -> hyper::Result<Answer> {
        let Self { sender, driver, is_over } = self;
        let mut answer = pin!(async { Ok(Answer::of(sender.send_request(request).await?).await) });
        poll_fn(|context| {
            // Its error reaches the answer as well.
            *is_over = *is_over || driver.as_mut().poll(context).is_ready();
            answer.as_mut().poll(context)
        })
        .await
    }

    /// Returns `true` if another request can follow, as far as the server has said.
    async fn is_free(&mut self) -> bool {
        poll_fn(|context| {
            self.is_over = self.is_over || self.driver.as_mut().poll(context).is_ready();
            Poll::Ready(!self.is_over && self.sender.is_ready())
        })
        .await
    }
}

impl Pool {
    /// A connection that the server has not closed. `None`: there is none.
    pub(super) async fn take(&self) -> Option<Connection> {
        loop {
            let (until, mut connection) = self.lock().kept.pop()?;
            if Instant::now() < until && connection.is_free().await {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for this time if another request can follow.
    pub(super) async fn keep(self: &Arc<Self>, mut connection: Connection, idle: Duration) {
        if idle.is_zero() || !connection.is_free().await {
            return;
        }
        let mut state = self.lock();
        if state.kept.len() < KEPT {
            let now = Instant::now();
            state.kept.push((now.checked_add(idle).unwrap_or(now), connection));
            if !std::mem::replace(&mut state.is_swept, true) {
                tokio::spawn(sweep(Arc::downgrade(self)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes connections whose time is over. Returns when the next one is due.
    fn close(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        state.kept.retain(|(until, _)| now < *until);
        let next = state.kept.iter().map(|(until, _)| *until).min();
        state.is_swept = next.is_some();
        next
    }
}

async fn sweep(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close()) {
        sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, DuplexStream, duplex},
        time::advance,
    };

    use super::*;

    async fn pair() -> (Connection, DuplexStream) {
        let (own, peer) = duplex(1_024);
        (Connection::start(own).await.unwrap(), peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_kept_is_closed_when_its_time_is_over() {
        let pool = Arc::<Pool>::default();
        let idle = Duration::from_secs(4);
        let (first, mut first_peer) = pair().await;
        let (second, mut second_peer) = pair().await;
        pool.keep(first, idle).await;
        advance(Duration::from_secs(3)).await;
        pool.keep(second, idle).await;
        assert_eq!(first_peer.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(pool.lock().kept.len(), 1);
        // The other one still works, and is free again.
        let second = pool.take().await.unwrap();
        pool.keep(second, idle).await;
        assert_eq!(second_peer.read(&mut [0]).await.unwrap(), 0);
        assert!(pool.take().await.is_none() && !pool.lock().is_swept);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_has_closed_is_not_used_and_no_more_than_twenty_are_kept() {
        let pool = Arc::<Pool>::default();
        let (connection, peer) = pair().await;
        pool.keep(connection, Duration::from_secs(4)).await;
        drop(peer);
        assert!(pool.take().await.is_none());
        let mut peers = Vec::new();
        for _ in 0..=KEPT {
            let (connection, peer) = pair().await;
            peers.push(peer);
            pool.keep(connection, Duration::from_secs(4)).await;
        }
        assert_eq!(pool.lock().kept.len(), KEPT);
        let (connection, _peer) = pair().await;
        pool.lock().kept.clear();
        pool.keep(connection, Duration::ZERO).await;
        assert!(pool.lock().kept.is_empty());
    }
}
