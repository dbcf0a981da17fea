//! The content of a message on its way from the driver to the handler, and who is waited for meanwhile.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use posthaste_tokio::{ServerEvent, wire::Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{BodyError, BodySource, conversation::Hurried};

/// Reads content through the driver, and remembers how it ended.
pub(crate) struct Source<'d, 'c, S> {
    pub(crate) driver: &'d mut Hurried<'c, S>,
    pub(crate) end: End,
    pub(crate) turn: &'d Turn,
}

/// Since when the handler is the one that is waited for; nothing while the client is.
pub(crate) struct Turn(Mutex<Option<Instant>>);

impl Default for Turn {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Turn {
    /// It is the client's until what this returns is dropped, with whatever holds it.
    fn clients(&self) -> impl Drop + Send + '_ {
        struct Clients<'t>(&'t Turn);

        impl Drop for Clients<'_> {
            fn drop(&mut self) {
                self.0.set(Some(Instant::now()));
            }
        }

        self.set(None);
        Clients(self)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Returns once the handler has been waited for this long without a break.
    pub(crate) async fn has_taken(&self, limit: Duration) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match since {
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => tokio::time::sleep_until(since + limit).await,
                // Whenever its turn comes, it will not be over before this.
                None => tokio::time::sleep(limit).await,
            }
        }
    }
}

pub(crate) enum End {
    Open,
    Complete,
    Refused(Refusal),
    Closed,
    Failed(io::ErrorKind),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> BodySource for Source<'_, '_, S> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Option<Bytes>, BodyError>> + Send + '_>> {
        Box::pin(async {
            match self.end {
                End::Open => {}
                End::Complete => return Ok(None),
                End::Refused(_) | End::Closed | End::Failed(_) => return Err(BodyError::Disconnected),
            }
            let clients = self.turn.clients();
            let event = self.driver.next().await;
            drop(clients);
            match event {
                Ok(ServerEvent::Content(piece)) => Ok(Some(piece)),
                Ok(ServerEvent::Ask(_)) => {
                    self.end = End::Complete;
                    Ok(None)
                }
                Ok(ServerEvent::ContentRefused(refusal)) => {
                    self.end = End::Refused(refusal.clone());
                    Err(BodyError::Refused(refusal.into()))
                }
                Ok(_) => {
                    self.end = End::Closed;
                    Err(BodyError::Disconnected)
                }
                Err(error) => {
                    self.end = End::Failed(error.kind());
                    Err(error.into())
                }
            }
        })
    }
}
