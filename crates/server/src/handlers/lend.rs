//! A body for futures that cannot borrow one, such as a closure's.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_core::Stream;

use crate::{Body, BodyError};

/// Runs a future with a body of its own, which asks the true body for each piece. Whatever the
/// future keeps of it is at its end once this returns.
pub(super) async fn lend<F: Future>(mut body: Body<'_>, start: impl FnOnce(Body<'static>) -> F) -> F::Output {
    let desk = Desk(Arc::default());
    let mut future = pin!(start(body.like(Lent(Arc::clone(&desk.0)))));
    poll_fn(|context| {
        loop {
            desk.lock().owner = None;
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(output);
            }
            let mut slot = desk.lock();
            if !slot.wanted {
                // Another task may hold the lent body and ask for a piece.
                slot.owner = Some(context.waker().clone());
                return Poll::Pending;
            }
            drop(slot);
            let Poll::Ready(piece) = Pin::new(&mut body).poll_next(context) else { return Poll::Pending };
            let mut slot = desk.lock();
            slot.wanted = false;
            slot.piece = Some(piece);
            if let Some(reader) = slot.reader.take() {
                drop(slot);
                reader.wake();
            }
        }
    })
    .await
}

/// Where a piece is handed over.
#[derive(Default)]
struct Slot {
    /// The reader waits for a piece.
    wanted: bool,
    /// The piece, or the end of the content.
    piece: Option<Option<Result<Bytes, BodyError>>>,
    reader: Option<Waker>,
    /// The task with the true body, while it waits for something else.
    owner: Option<Waker>,
    /// The true body is gone.
    closed: bool,
}

/// The side with the true body.
struct Desk(Arc<Mutex<Slot>>);

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let mut slot = self.lock();
        slot.closed = true;
        let reader = slot.reader.take();
        drop(slot);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The side that reads.
struct Lent(Arc<Mutex<Slot>>);

impl Stream for Lent {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = slot.piece.take() {
            return Poll::Ready(piece);
        }
        if slot.closed {
            return Poll::Ready(Some(Err(BodyError::Disconnected)));
        }
        slot.wanted = true;
        slot.reader = Some(context.waker().clone());
        let owner = slot.owner.take();
        drop(slot);
        if let Some(owner) = owner {
            owner.wake();
        }
        Poll::Pending
    }
}
