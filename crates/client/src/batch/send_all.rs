//! The outcomes of messages that are on their way over many connections.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, stream::FuturesUnordered};

use super::{Message, by_domain::Board, feed::Feed};
use crate::{Delivered, Dial, Resolver, SendError, Source, exchange, pool};

/// Messages on their way over the connections of a [`Pool`](crate::Pool) or an [`Mx`](crate::Mx): a
/// [`Stream`] of their outcomes.
///
/// It does what it does while it is polled. If it is dropped, its connections are closed, and the
/// servers may have the messages without an outcome.
///
/// Connections with messages under way stay in use while it is not polled. In the loop over its
/// outcomes another message over the same `Pool` or `Mx` would wait for one of them for ever. Put
/// it into the [stream](crate::Pool::send_stream) of this batch, send it in another task or after
/// the loop, or use another pool.
pub struct SendAll<'p> {
    running: FuturesUnordered<Work<'p>>,
    outbox: Arc<Outbox<'p>>,
}

/// What [`SendAll`] yields: the place of a message, counted from 0, and what came of it.
type Numbered = (usize, Result<Delivered, SendError>);

/// Something that goes on while a batch is polled.
pub(super) type Work<'p> = Pin<Box<dyn Future<Output = ()> + Send + 'p>>;

/// What the work of a batch brings forth.
#[derive(Default)]
pub(super) struct Outbox<'p>(Mutex<Brought<'p>>);

#[derive(Default)]
struct Brought<'p> {
    outcomes: VecDeque<Numbered>,
    work: Vec<Work<'p>>,
}

impl<'p> SendAll<'p> {
    /// Over the connections of a pool.
    pub(crate) fn over<D: Dial, C: Source + 'p>(
        pool: &'p pool::Shared<D>,
        messages: impl Stream<Item = Message<C>> + Send + 'p,
    ) -> Self {
        let outbox = Arc::new(Outbox::default());
        Feed::begin(pool, messages, &outbox);
        Self { running: FuturesUnordered::new(), outbox }
    }

    /// To the hosts of the recipients' domains.
    pub(crate) fn by_domain<R: Resolver, D: Dial, C: Source + 'p>(
        mx: &'p exchange::Shared<R, D>,
        messages: impl Stream<Item = Message<C>> + Send + 'p,
    ) -> Self {
        let outbox = Arc::new(Outbox::default());
        let board = Board::new(mx, Arc::downgrade(&outbox));
        let feeding = Box::pin(async move { board.feed(messages).await }) as Work<'p>;
        Self { running: [feeding].into_iter().collect(), outbox }
    }

    /// Waits for the outcome of the next message that has one, and returns it with the message's
    /// place, counted from 0. `None`: every message has its outcome.
    ///
    /// The future may be dropped: the next call goes on where it stopped.
    pub async fn next(&mut self) -> Option<Numbered> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for SendAll<'_> {
    type Item = Numbered;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Numbered>> {
        let Self { running, outbox } = &mut *self;
        let brought = |running: &mut FuturesUnordered<_>| {
            let mut brought = outbox.lock();
            let has_more = !brought.work.is_empty();
            running.extend(mem::take(&mut brought.work));
            (brought.outcomes.pop_front(), has_more)
        };
        if let (Some(outcome), _) = brought(running) {
            return Poll::Ready(Some(outcome));
        }
        loop {
            let worked = running.poll_next_unpin(context);
            match (worked, brought(running)) {
                (_, (Some(outcome), _)) => return Poll::Ready(Some(outcome)),
                (_, (None, true)) | (Poll::Ready(Some(())), _) => {}
                (Poll::Ready(None), _) => return Poll::Ready(None),
                (Poll::Pending, _) => return Poll::Pending,
            }
        }
    }
}

impl<'p> Outbox<'p> {
    /// A message has its outcome.
    pub(super) fn push(&self, number: usize, result: Result<Delivered, SendError>) {
        self.lock().outcomes.push_back((number, result));
    }

    /// Begins more work.
    pub(super) fn begin(&self, work: impl Future<Output = ()> + Send + 'p) {
        self.lock().work.push(Box::pin(work));
    }

    fn lock(&self) -> MutexGuard<'_, Brought<'p>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SendAll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendAll").field("running", &self.running.len()).finish_non_exhaustive()
    }
}
