//! The content of a message on its way from the driver to the handler, and whose turn it is.

use std::{
    io, mem,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use posthaste_tokio::{ServerEvent, wire::Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{BodyError, admission::Seat, conversation::Hurried};

/// Reads content through the driver, and remembers how it ended.
pub(crate) struct Source<'d, 'c, 's, S> {
    driver: &'d mut Hurried<'c, 's, S>,
    turn: &'d Turn,
    seat: &'s Seat,
    /// How long the client may send nothing.
    patience: Duration,
    begun: Instant,
    end: End,
}

pub(crate) enum End {
    Open,
    Complete,
    Refused(Refusal),
    Closed,
    Failed(io::ErrorKind),
}

impl<'d, 'c, 's, S: AsyncRead + AsyncWrite + Unpin + Send> Source<'d, 'c, 's, S> {
    /// The content that begins now, for a client that has this seat.
    pub(crate) fn new(driver: &'d mut Hurried<'c, 's, S>, turn: &'d Turn, seat: &'s Seat, patience: Duration) -> Self {
        seat.receives(true);
        Self { driver, turn, seat, patience, begun: Instant::now(), end: End::Open }
    }

    /// How the content ended.
    pub(crate) fn into_end(mut self) -> End {
        mem::replace(&mut self.end, End::Open)
    }

    fn ended(&mut self, end: End) -> Option<Result<Bytes, BodyError>> {
        self.end = end;
        match &self.end {
            End::Open | End::Complete => None,
            End::Refused(refusal) => Some(Err(BodyError::Refused(refusal.clone()))),
            End::Closed => Some(Err(BodyError::Disconnected)),
            End::Failed(kind) => Some(Err(io::Error::from(*kind).into())),
        }
    }
}

impl<S> Drop for Source<'_, '_, '_, S> {
    fn drop(&mut self) {
        self.seat.receives(false);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for Source<'_, '_, '_, S> {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.end {
            End::Open => {}
            End::Complete => return Poll::Ready(None),
            End::Refused(_) | End::Closed | End::Failed(_) => return Poll::Ready(Some(Err(BodyError::Disconnected))),
        }
        this.turn.is_clients(this.patience);
        this.seat.receive(this.begun);
        let event = ready!(this.driver.poll_next(cx));
        // While the handler works on what has come, the client keeps its seat. If it has lost it by
        // now, the session ends here.
        if !this.seat.try_work() {
            return Poll::Pending;
        }
        this.turn.is_handlers();
        Poll::Ready(match event {
            Ok(ServerEvent::Content(piece)) => Some(Ok(piece)),
            Ok(ServerEvent::Ask(_)) => this.ended(End::Complete),
            Ok(ServerEvent::ContentRefused(refusal)) => this.ended(End::Refused(refusal)),
            Ok(
                ServerEvent::ContentSwallowed
                | ServerEvent::ContentAborted
                | ServerEvent::Refused
                | ServerEvent::Reset
                | ServerEvent::StartTls
                | ServerEvent::Closed(_),
            ) => this.ended(End::Closed),
            Err(error) => this.ended(End::Failed(error.kind())),
        })
    }
}

/// From when on the handler is waited for.
///
/// While the handler waits for content, this is the end of the client's time. By then the content
/// has come or the session has ended. A handler that has stopped reading is late after that.
pub(crate) struct Turn(Mutex<Instant>);

/// A time that long after another; in 30 years if the clock does not go that far.
pub(crate) fn after(time: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    time.checked_add(wait).unwrap_or_else(|| time + FAR)
}

impl Default for Turn {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Turn {
    fn is_handlers(&self) {
        self.set(Instant::now());
    }

    fn is_clients(&self, patience: Duration) {
        self.set(after(Instant::now(), patience));
    }

    fn set(&self, from: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = from;
    }

    /// Returns once the handler has been waited for this long without a break.
    pub(crate) async fn has_taken(&self, limit: Duration) {
        loop {
            let late = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let late = after(late, limit);
            if late <= Instant::now() {
                return;
            }
            // The turn may change during the sleep, and no handler is late before this.
            tokio::time::sleep_until(late.min(after(Instant::now(), limit))).await;
        }
    }
}
