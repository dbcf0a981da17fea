//! The messages of a batch over a pool.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    task::{Context, Poll, Wake, Waker},
};

use futures_util::Stream;

use super::{
    Message,
    send_all::Outbox,
    worker::{Lane, Posted, Worker},
};
use crate::{
    ClientOptions, ConnectError, Delivered, Dial, PoolOptions, SendError, Source, Target, delivery::Course,
    exchange::Entered, letter::Watch, places::Place, pool::Shared, send::delivered,
};

/// The messages that no connection has, for all workers.
pub(super) struct Feed<'p, D: Dial, M, C> {
    pool: &'p Shared<D>,
    fed: Mutex<Fed<M, C>>,
    /// It has the workers that have the feed.
    outbox: Weak<Outbox<'p>>,
    itself: Weak<Self>,
}

struct Fed<M, C> {
    /// `None`: it has ended.
    messages: Option<Pin<Box<M>>>,
    next: usize,
    /// Messages that a connection did not send.
    back: VecDeque<Posted<C, usize>>,
    waiting: Arc<Waiting>,
    /// Workers that have begun. Each takes the place of a connection.
    workers: usize,
}

/// Workers that wait for a message. The stream keeps one waker, and wakes all of them: the one that
/// asked last may be busy.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<Waker>>);

impl Waiting {
    pub(super) fn add(&self, context: &Context<'_>) {
        let mut waiting = self.lock();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }

    pub(super) fn wake_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

impl<'p, D: Dial, M: Stream<Item = Message<C>> + Send + 'p, C: Source + 'p> Feed<'p, D, M, C> {
    /// Begins with one worker.
    pub(super) fn begin(pool: &'p Shared<D>, messages: M, outbox: &Arc<Outbox<'p>>) {
        let messages = Some(Box::pin(messages));
        let fed = Mutex::new(Fed { messages, next: 0, back: VecDeque::new(), waiting: Arc::default(), workers: 0 });
        let feed = Arc::new_cyclic(|itself| {
            let (outbox, itself) = (Arc::downgrade(outbox), Weak::clone(itself));
            Self { pool, fed, outbox, itself }
        });
        feed.begin_worker();
    }

    /// Begins another worker, if there may be one.
    fn begin_worker(&self) {
        let (Some(feed), Some(outbox)) = (self.itself.upgrade(), self.outbox.upgrade()) else { return };
        let mut fed = self.lock();
        if fed.workers < self.pool.destination.limits.at_once() {
            fed.workers = fed.workers.saturating_add(1);
            drop(fed);
            outbox.begin(Worker(feed).run());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fed<M, C>> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next message.
    fn take(&self, context: &Context<'_>) -> Poll<Option<Posted<C, usize>>> {
        let mut fed = self.lock();
        if let Some(posted) = fed.back.pop_front() {
            return Poll::Ready(Some(posted));
        }
        let Fed { messages, waiting, next, .. } = &mut *fed;
        let Some(stream) = messages else { return Poll::Ready(None) };
        let waiting = Arc::clone(waiting);
        match stream.as_mut().poll_next(&mut Context::from_waker(&Waker::from(Arc::clone(&waiting)))) {
            Poll::Ready(Some(message)) => {
                let number = *next;
                *next = number.saturating_add(1);
                Poll::Ready(Some(Posted { message, pieces: None, tag: number }))
            }
            Poll::Ready(None) => {
                *messages = None;
                waiting.wake_all();
                Poll::Ready(None)
            }
            Poll::Pending => {
                waiting.add(context);
                Poll::Pending
            }
        }
    }

    fn push(&self, number: usize, result: Result<Delivered, SendError>) {
        if let Some(outbox) = self.outbox.upgrade() {
            outbox.push(number, result);
        }
    }
}

impl<'p, D: Dial, M: Stream<Item = Message<C>> + Send + 'p, C: Source + 'p> Lane for Feed<'p, D, M, C> {
    type Dial = D;
    type Source = C;
    type Tag = usize;

    /// Workers begin as messages come: one that takes a message begins the next.
    fn poll(&self, is_idle: bool, context: &Context<'_>) -> Poll<Option<Posted<C, usize>>> {
        let polled = self.take(context);
        if is_idle && matches!(polled, Poll::Ready(Some(_))) {
            self.begin_worker();
        }
        polled
    }

    fn put_back(&self, posted: Posted<C, usize>) {
        let mut fed = self.lock();
        fed.back.push_back(posted);
        fed.waiting.wake_all();
    }

    async fn enter(&self) -> Option<Entered<'_, D::Stream>> {
        let destination = Arc::clone(&self.pool.destination);
        let permit = destination.permit().await?;
        Some(Entered { destination, permit, place: Place::unbounded() })
    }

    fn limits(&self) -> &PoolOptions {
        &self.pool.destination.limits
    }

    fn connections(&self) -> (&D, &Arc<ClientOptions>) {
        (&self.pool.dial, &self.pool.client)
    }

    async fn targets(&self, _: &Posted<C, usize>) -> Result<Vec<Target>, ConnectError> {
        self.pool.targets().await
    }

    fn watch<'w>(&'w self, _: &'w Posted<C, usize>, _: &'w AtomicBool) -> Option<Watch<'w>> {
        None
    }

    fn is_ready(&self) {}

    fn unreached(&self, posted: Posted<C, usize>, why: ConnectError) -> bool {
        self.push(posted.tag, Err(why.into()));
        true
    }

    fn closed(&self, posted: Posted<C, usize>) {
        self.push(posted.tag, Err(SendError::Closed));
    }

    fn report(&self, Posted { message, tag, .. }: Posted<C, usize>, courses: Vec<Course>) {
        self.push(tag, Ok(delivered(message.recipients.into_iter().zip(courses))));
    }

    fn left(&self) {}
}
