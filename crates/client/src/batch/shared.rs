//! Many messages over the connections of a pool.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use posthaste_tokio::wire::{Mail, Rcpt};

use super::{Done, Message, Opened, Parcel, Pieces, Pipeline};
use crate::{
    Client, ConnectError, Delivered, Dial, Race, SendError, Server, Source,
    delivery::{Course, Delivery},
    destination::Used,
    letter::Letter,
    pool::Shared,
    send::delivered,
};

/// The most messages of one connection that wait to go on to other servers.
const REST: usize = 32;

/// Messages on their way over the connections of a [`Pool`](crate::Pool): a [`Stream`] of their
/// outcomes.
///
/// It does what it does while it is polled. If it is dropped, its connections are closed, and the
/// server may have the messages without an outcome.
pub struct SendAll<'p> {
    workers: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send + 'p>>>,
    results: Arc<Results>,
}

/// What [`SendAll`] yields: the place of a message, counted from 0, and what came of it.
type Numbered = (usize, Result<Delivered, SendError>);

#[derive(Debug, Default)]
struct Results(Mutex<VecDeque<Numbered>>);

impl<'p> SendAll<'p> {
    pub(crate) fn new<D: Dial, C: Source + 'p>(
        shared: &'p Shared<D>,
        messages: impl Stream<Item = Message<C>> + Send + 'p,
    ) -> Self {
        let (feed, results) = (Arc::new(Feed::new(messages)), Arc::new(Results::default()));
        let worker = |_| {
            let worker = Worker { shared, feed: Arc::clone(&feed), results: Arc::clone(&results) };
            Box::pin(worker.run()) as Pin<Box<dyn Future<Output = ()> + Send + 'p>>
        };
        Self { workers: (0..shared.destination.limits.at_once()).map(worker).collect(), results }
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
        loop {
            if let Some(result) = self.results.lock().pop_front() {
                return Poll::Ready(Some(result));
            }
            let worked = self.workers.poll_next_unpin(context);
            let result = self.results.lock().pop_front();
            match (worked, result) {
                (_, Some(result)) => return Poll::Ready(Some(result)),
                (Poll::Ready(Some(())), None) => {}
                (Poll::Ready(None), None) => return Poll::Ready(None),
                (Poll::Pending, None) => return Poll::Pending,
            }
        }
    }
}

impl Results {
    fn push(&self, number: usize, result: Result<Delivered, SendError>) {
        self.lock().push_back((number, result));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Numbered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SendAll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendAll").field("connections", &self.workers.len()).finish_non_exhaustive()
    }
}

/// The messages that no connection has, for all workers.
struct Feed<M, C>(Mutex<Fed<M, C>>);

struct Fed<M, C> {
    /// `None`: it has ended.
    messages: Option<Pin<Box<M>>>,
    next: usize,
    /// Messages that a connection did not send.
    back: VecDeque<Posted<C>>,
    waiting: Arc<Waiting>,
}

/// Workers that wait for a message. The stream keeps one waker, and wakes all of them: the one that
/// asked last may be busy.
#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let all = std::mem::take(&mut *self.lock());
        all.into_iter().for_each(Waker::wake);
    }
}

impl<M: Stream<Item = Message<C>>, C> Feed<M, C> {
    fn new(messages: M) -> Self {
        let (back, waiting) = (VecDeque::new(), Arc::default());
        Self(Mutex::new(Fed { messages: Some(Box::pin(messages)), next: 0, back, waiting }))
    }

    fn put_back(&self, posted: Posted<C>) {
        let mut fed = self.lock();
        fed.back.push_back(posted);
        Arc::clone(&fed.waiting).wake();
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Posted<C>>> {
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
                Poll::Ready(Some(Posted { number, message, pieces: None }))
            }
            Poll::Ready(None) => {
                *messages = None;
                waiting.wake();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let mut waiting = waiting.lock();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fed<M, C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's view of the feed: one message that it has, and then those of the feed.
struct First<'f, M, C>(Option<Posted<C>>, &'f Feed<M, C>);

/// Nothing of it is pinned.
impl<M, C> Unpin for First<'_, M, C> {}

impl<M: Stream<Item = Message<C>>, C> Stream for First<'_, M, C> {
    type Item = Posted<C>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Posted<C>>> {
        match self.0.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.1.poll(context),
        }
    }
}

/// A message of the feed.
struct Posted<C> {
    number: usize,
    message: Message<C>,
    /// Its content, if it was read for an attempt that came to nothing.
    pieces: Option<Vec<Bytes>>,
}

impl<C: Source> Parcel for Posted<C> {
    type Content = Opened<C::Content>;

    fn mail(&self) -> &Mail {
        &self.message.mail
    }

    fn recipients(&self) -> &[Rcpt] {
        &self.message.recipients
    }

    fn open(&mut self) -> impl Future<Output = io::Result<Self::Content>> + Send {
        Source::open(&*self)
    }
}

impl<C: Source> Source for Posted<C> {
    type Content = Opened<C::Content>;

    async fn open(&self) -> io::Result<Self::Content> {
        match &self.pieces {
            Some(pieces) => Ok(Opened::Read(Pieces::new(pieces.clone()))),
            None => Ok(Opened::Fresh(Box::pin(self.message.content.open().await?))),
        }
    }
}

/// A message that goes on by itself.
struct Single<C> {
    posted: Posted<C>,
    /// How far it is, and the server that was tried. `None`: it was not begun.
    begun: Option<(Delivery, Option<Server>)>,
}

/// Sends messages of the feed over one connection after another.
struct Worker<'p, D: Dial, M, C> {
    shared: &'p Shared<D>,
    feed: Arc<Feed<M, C>>,
    results: Arc<Results>,
}

impl<D: Dial, M: Stream<Item = Message<C>> + Send, C: Source> Worker<'_, D, M, C> {
    async fn run(self) {
        while let Some(first) = poll_fn(|context| self.feed.poll(context)).await {
            let singles = if first.message.recipients.len() > self.shared.destination.limits.recipients.max(1) {
                vec![Single { posted: first, begun: None }]
            } else {
                self.over_a_connection(first).await
            };
            for single in singles {
                self.deliver(single).await;
            }
        }
    }

    /// Sends messages over a connection, as many as it takes. Returns those that go on by
    /// themselves.
    async fn over_a_connection(&self, first: Posted<C>) -> Vec<Single<C>> {
        let Shared { destination, .. } = self.shared;
        let Some(permit) = destination.permit().await else {
            self.results.push(first.number, Err(SendError::Closed));
            return Vec::new();
        };
        let (mut client, messages) = match destination.shelf.take() {
            Some(Used { client, messages }) => (client, messages),
            None => match self.connect().await {
                Ok(client) => (client, 0),
                Err(error) => {
                    self.results.push(first.number, Err(error.into()));
                    return Vec::new();
                }
            },
        };
        let server = client.server().map(|target| target.server.clone());
        let facts = Arc::clone(client.facts());
        let mut singles = Vec::new();
        let mut source = First(Some(first), &self.feed);
        let left = destination.limits.messages.saturating_sub(messages).max(1);
        let mut pipeline = Pipeline::new(&mut client, left);
        while let Some(Done { mut parcel, result, pieces, is_untouched, is_at_break }) =
            pipeline.next(&mut source).await
        {
            parcel.pieces = pieces.or(parcel.pieces);
            if is_untouched {
                if is_at_break {
                    singles.push(Single { posted: parcel, begun: None });
                } else {
                    self.feed.put_back(parcel);
                }
                continue;
            }
            // The same server may take it by DATA.
            let tried = server.clone().filter(|_| !result.chunking_failed);
            let mut delivery = Delivery::new(parcel.message.recipients.len(), destination.limits.recipients);
            // How the connection ended concerns all of its messages.
            let _ = delivery.record(&facts, 0..parcel.message.recipients.len(), result);
            delivery.note_reached();
            if delivery.is_open() {
                singles.push(Single { posted: parcel, begun: Some((delivery, tried)) });
                if singles.len() >= REST {
                    pipeline.stop();
                }
            } else {
                self.report(parcel, delivery.into_courses());
            }
        }
        let (is_broken, begun) = (pipeline.is_broken(), left.saturating_sub(pipeline.left()));
        drop(pipeline);
        if let Some(unsent) = source.0 {
            self.feed.put_back(unsent);
        }
        if is_broken {
            drop(client);
        } else {
            let messages = messages.saturating_add(begun).saturating_sub(1);
            destination.give_back(Used { client, messages }, permit);
        }
        singles
    }

    /// Connects to the first server that is ready.
    async fn connect(&self) -> Result<Client<D::Stream>, ConnectError> {
        let targets = self.shared.targets().await?;
        let mut race = Race::new(&targets, self.shared.dial.clone(), Arc::clone(&self.shared.client));
        match race.next().await {
            Some((_, client)) => Ok(client),
            None => Err(race.failed().pop().map_or(ConnectError::NoAddress, |(_, error)| error)),
        }
    }

    /// Delivers one message as [`Pool::send`](crate::Pool::send) does.
    async fn deliver(&self, Single { posted, begun }: Single<C>) {
        let to = self.shared.way();
        let Some(permit) = to.destination.permit().await else {
            let result = match begun {
                Some((delivery, _)) => return self.report(posted, delivery.into_courses()),
                None => Err(SendError::Closed),
            };
            return self.results.push(posted.number, result);
        };
        let recipients = posted.message.recipients.iter().collect();
        let mut letter = Letter { mail: &posted.message.mail, recipients, source: &posted, watch: None };
        let courses = match begun {
            None => letter.deliver(&to, permit, self.shared.targets()).await,
            Some((delivery, tried)) => {
                letter.deliver_rest(delivery, (None, tried), &to, permit, self.shared.targets()).await
            }
        };
        match courses {
            Ok(courses) => self.report(posted, courses),
            Err(error) => self.results.push(posted.number, Err(error.into())),
        }
    }

    fn report(&self, Posted { number, message, .. }: Posted<C>, courses: Vec<Course>) {
        self.results.push(number, Ok(delivered(message.recipients.into_iter().zip(courses))));
    }
}
