//! Sends messages of a batch over one connection after another.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use posthaste_tokio::wire::{Mail, Rcpt};

use super::{Done, Message, Opened, Parcel, Pieces, Pipeline};
use crate::{
    Client, ClientOptions, ConnectError, Dial, PoolOptions, Race, Server, Source, Target,
    delivery::{Course, Delivery},
    destination::Used,
    exchange::Entered,
    letter::{Letter, Watch, Way},
};

/// The most messages of one connection that wait to go on to other servers.
const REST: usize = 32;

/// The messages of a batch to one destination: where they come from, how they go, and what is told
/// of them.
pub(super) trait Lane: Send + Sync {
    type Dial: Dial;
    type Source: Source;
    /// Tells messages apart.
    type Tag: Send + Sync;

    /// Takes the next message. `None`: the worker is not needed. `is_idle`: it has none under way.
    fn poll(&self, is_idle: bool, context: &Context<'_>) -> Poll<Option<PostedOf<Self>>>;

    /// Takes back a message that was not sent.
    fn put_back(&self, posted: PostedOf<Self>);

    /// Waits for the right to use a connection. `None`: the destination was closed.
    fn enter(&self) -> impl Future<Output = Option<EnteredOf<'_, Self>>> + Send;

    fn limits(&self) -> &PoolOptions;

    /// How connections are made.
    fn connections(&self) -> (&Self::Dial, &Arc<ClientOptions>);

    /// The servers for a message.
    fn targets(&self, posted: &PostedOf<Self>) -> impl Future<Output = Result<Vec<Target>, ConnectError>> + Send;

    /// What counts the new connections for a message.
    fn watch<'w>(&'w self, posted: &'w PostedOf<Self>, is_ready: &'w AtomicBool) -> Option<Watch<'w>>;

    /// A worker has a connection.
    fn is_ready(&self);

    /// No server could be reached for a message. Returns `false` if the worker is to end.
    fn unreached(&self, posted: PostedOf<Self>, why: ConnectError) -> bool;

    /// The destination was closed before the message was begun.
    fn closed(&self, posted: PostedOf<Self>);

    /// A message has its outcome.
    fn report(&self, posted: PostedOf<Self>, courses: Vec<Course>);

    /// A worker has ended.
    fn left(&self);
}

type PostedOf<L> = Posted<<L as Lane>::Source, <L as Lane>::Tag>;
type EnteredOf<'e, L> = Entered<'e, <<L as Lane>::Dial as Dial>::Stream>;

/// A message of a lane.
pub(super) struct Posted<C, T> {
    pub(super) message: Message<C>,
    /// Its content, if it was read for an attempt that came to nothing.
    pub(super) pieces: Option<Vec<Bytes>>,
    pub(super) tag: T,
}

impl<C: Source, T: Send + Sync> Parcel for Posted<C, T> {
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

impl<C: Source, T: Send + Sync> Source for Posted<C, T> {
    type Content = Opened<C::Content>;

    async fn open(&self) -> io::Result<Self::Content> {
        match &self.pieces {
            Some(pieces) => Ok(Opened::Read(Pieces::new(pieces.clone()))),
            None => Ok(Opened::Fresh(Box::pin(self.message.content.open().await?))),
        }
    }
}

/// A worker's view of its lane: one message that it has, and then those of the lane.
struct Supply<'l, L: Lane> {
    first: Option<PostedOf<L>>,
    lane: &'l L,
    /// Messages without a result.
    under_way: usize,
    /// The most recipients of one transaction.
    most: usize,
    /// A message to more, which goes by itself. No other comes after it.
    later: Option<PostedOf<L>>,
}

/// Nothing of it is pinned.
impl<L: Lane> Unpin for Supply<'_, L> {}

impl<L: Lane> Stream for Supply<'_, L> {
    type Item = PostedOf<L>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PostedOf<L>>> {
        let polled = match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.lane.poll(self.under_way == 0, context),
        };
        match polled {
            Poll::Ready(Some(large)) if large.message.recipients.len() > self.most => {
                self.later = Some(large);
                Poll::Ready(None)
            }
            Poll::Ready(Some(posted)) => {
                self.under_way = self.under_way.saturating_add(1);
                Poll::Ready(Some(posted))
            }
            // A connection without work is for others meanwhile.
            Poll::Pending if self.under_way == 0 => Poll::Ready(None),
            none => none,
        }
    }
}

/// A message that goes on by itself.
struct Single<L: Lane> {
    posted: PostedOf<L>,
    /// How far it is, and the server that was tried. `None`: it was not begun.
    begun: Option<(Delivery, Option<Server>)>,
}

/// Sends messages of a lane.
pub(super) struct Worker<L>(pub(super) Arc<L>);

impl<L: Lane> Worker<L> {
    pub(super) async fn run(self) {
        let mut goes_on = true;
        while goes_on && let Some(first) = poll_fn(|context| self.0.poll(true, context)).await {
            let mut singles = Vec::new();
            if first.message.recipients.len() > self.most() {
                singles.push(Single { posted: first, begun: None });
            } else {
                goes_on = self.over_a_connection(first, &mut singles).await;
            }
            for single in singles {
                goes_on &= self.deliver(single).await;
            }
        }
        self.0.left();
    }

    /// Sends messages over a connection, as many as it takes. Leaves those that go on by
    /// themselves. Returns `false` if the worker is to end.
    async fn over_a_connection(&self, first: PostedOf<L>, singles: &mut Vec<Single<L>>) -> bool {
        let lane = &*self.0;
        let Some(Entered { destination, permit, mut place }) = lane.enter().await else {
            lane.closed(first);
            return true;
        };
        let (mut client, messages) = match destination.shelf.take() {
            Some(Used { client, messages }) => (client, messages),
            None => {
                let is_ready = AtomicBool::new(false);
                match place.hold(&is_ready, self.connect(&first, &is_ready)).await {
                    Ok(client) => (client, 0),
                    Err(error) => return lane.unreached(first, error),
                }
            }
        };
        lane.is_ready();
        let server = client.server().map(|target| target.server.clone());
        let facts = Arc::clone(client.facts());
        let mut supply = Supply { first: Some(first), lane, under_way: 0, most: self.most(), later: None };
        let left = destination.limits.messages.saturating_sub(messages).max(1);
        let mut pipeline = Pipeline::new(&mut client, left);
        while let Some(Done { mut parcel, result, pieces, is_untouched, is_at_break }) =
            pipeline.next(&mut supply).await
        {
            supply.under_way = supply.under_way.saturating_sub(1);
            parcel.pieces = pieces.or(parcel.pieces);
            if is_untouched {
                if is_at_break {
                    singles.push(Single { posted: parcel, begun: None });
                } else {
                    lane.put_back(parcel);
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
                lane.report(parcel, delivery.into_courses());
            }
        }
        let (is_broken, begun) = (pipeline.is_broken(), left.saturating_sub(pipeline.left()));
        drop(pipeline);
        if let Some(unsent) = supply.first {
            lane.put_back(unsent);
        }
        singles.extend(supply.later.map(|posted| Single { posted, begun: None }));
        if is_broken {
            drop(client);
        } else {
            let messages = messages.saturating_add(begun).saturating_sub(1);
            destination.give_back(Used { client, messages }, permit);
        }
        true
    }

    /// The most recipients of one transaction.
    fn most(&self) -> usize {
        self.0.limits().recipients.max(1)
    }

    /// Connects to the first server that is ready for a message.
    async fn connect(
        &self,
        first: &PostedOf<L>,
        is_ready: &AtomicBool,
    ) -> Result<Client<<L::Dial as Dial>::Stream>, ConnectError> {
        let targets = self.0.targets(first).await?;
        let (dial, options) = self.0.connections();
        let mut race = Race::new(&targets, dial.clone(), Arc::clone(options));
        let ready = race.next().await;
        let mut failed = race.failed();
        if let Some(watch) = self.0.watch(first, is_ready) {
            let hosts = failed.iter().filter_map(|(index, error)| Some((targets.get(*index)?, error)));
            hosts.for_each(|(target, error)| watch.count_failed(&target.host, error));
            if let Some((index, client)) = &ready
                && let Some(target) = targets.get(*index)
            {
                watch.count_ready(&target.host, client);
            }
        }
        match ready {
            Some((_, client)) => Ok(client),
            None => Err(failed.pop().map_or(ConnectError::NoAddress, |(_, error)| error)),
        }
    }

    /// Delivers one message as [`Pool::send`](crate::Pool::send) does. Returns `false` if the
    /// worker is to end.
    async fn deliver(&self, Single { posted, begun }: Single<L>) -> bool {
        let lane = &*self.0;
        let Some(Entered { destination, permit, mut place }) = lane.enter().await else {
            match begun {
                Some((delivery, _)) => lane.report(posted, delivery.into_courses()),
                None => lane.closed(posted),
            }
            return true;
        };
        let (dial, options) = lane.connections();
        let to = Way { destination: &destination, dial, options };
        let is_ready = AtomicBool::new(false);
        let delivered = {
            let recipients = posted.message.recipients.iter().collect();
            let watch = lane.watch(&posted, &is_ready);
            let mut letter = Letter { mail: &posted.message.mail, recipients, source: &posted, watch };
            let targets = lane.targets(&posted);
            let delivering = async {
                match begun {
                    None => letter.deliver(&to, permit, targets).await,
                    Some((delivery, tried)) => letter.deliver_rest(delivery, (None, tried), &to, permit, targets).await,
                }
            };
            place.hold(&is_ready, delivering).await
        };
        match delivered {
            Ok(courses) => lane.report(posted, courses),
            Err(error) => return lane.unreached(posted, error),
        }
        true
    }
}
