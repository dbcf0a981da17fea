//! The parts of messages that go to the same hosts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::AtomicBool},
    task::{Context, Poll},
};

use super::{
    by_domain::{Board, Found, Known, Tag, lock},
    feed::Waiting,
    worker::{Lane, Posted},
};
use crate::{
    ClientOptions, ConnectError, Dial, PoolOptions, Resolver, Source, Target, Unreachable,
    delivery::Course,
    exchange::{Entered, unreachable},
    letter::Watch,
    mx::Demand,
};

/// Messages that wait for each connection beyond the first. With PIPELINING as many go over a
/// connection in the time of its handshakes.
const FOR_EACH: usize = 4;

/// The parts that wait for hosts.
pub(super) struct Line<C> {
    state: Mutex<Parts<C>>,
    waiting: Waiting,
}

struct Parts<C> {
    parts: VecDeque<Posted<Arc<C>, Tag>>,
    workers: usize,
    /// The most workers.
    most: usize,
    /// A worker had a connection.
    is_proven: bool,
}

impl<C> Line<C> {
    pub(super) fn new(most: usize) -> Self {
        let parts = Parts { parts: VecDeque::new(), workers: 0, most, is_proven: false };
        Self { state: Mutex::new(parts), waiting: Waiting::default() }
    }

    /// Appends a part. Returns the number of workers that are to begin.
    pub(super) fn push(&self, posted: Posted<Arc<C>, Tag>) -> usize {
        let mut parts = lock(&self.state);
        parts.parts.push_back(posted);
        let begun = parts.grow();
        drop(parts);
        self.waiting.wake_all();
        begun
    }
}

impl<C> Parts<C> {
    /// Counts the workers that are to begin, and returns their number.
    fn grow(&mut self) -> usize {
        let wanted = match (self.parts.len(), self.is_proven) {
            (0, _) => 0,
            (_, false) => 1,
            (waiting, true) => (waiting / FOR_EACH).saturating_add(1).min(self.most),
        };
        let begun = wanted.saturating_sub(self.workers);
        self.workers = self.workers.saturating_add(begun);
        begun
    }
}

/// The lane of a worker.
pub(super) struct Hosts<'m, R, D: Dial, C> {
    pub(super) board: Arc<Board<'m, R, D, C>>,
    pub(super) line: Arc<Line<C>>,
    pub(super) hosts: Vec<Demand>,
}

impl<'m, R: Resolver, D: Dial, C: Source + 'm> Hosts<'m, R, D, C> {
    fn grow(&self) {
        let begun = lock(&self.line.state).grow();
        self.board.begin_workers(begun, &self.hosts, &self.line);
    }
}

impl<'m, R: Resolver, D: Dial, C: Source + 'm> Lane for Hosts<'m, R, D, C> {
    type Dial = D;
    type Source = Arc<C>;
    type Tag = Tag;

    fn poll(&self, is_idle: bool, context: &Context<'_>) -> Poll<Option<Posted<Arc<C>, Tag>>> {
        let next = lock(&self.line.state).parts.pop_front();
        if next.is_none() && !is_idle {
            self.line.waiting.add(context);
            return Poll::Pending;
        }
        Poll::Ready(next)
    }

    fn put_back(&self, posted: Posted<Arc<C>, Tag>) {
        lock(&self.line.state).parts.push_front(posted);
        self.line.waiting.wake_all();
        self.grow();
    }

    async fn enter(&self) -> Option<Entered<'_, D::Stream>> {
        Some(self.board.mx.enter(&self.hosts).await)
    }

    fn limits(&self) -> &PoolOptions {
        &self.board.mx.options.destination
    }

    fn connections(&self) -> (&D, &Arc<ClientOptions>) {
        (&self.board.mx.dial, &self.board.mx.client)
    }

    async fn targets(&self, posted: &Posted<Arc<C>, Tag>) -> Result<Vec<Target>, ConnectError> {
        Ok(posted.tag.found.servers.targets.clone())
    }

    fn watch<'w>(&'w self, posted: &'w Posted<Arc<C>, Tag>, is_ready: &'w AtomicBool) -> Option<Watch<'w>> {
        let Found { domain, servers, .. } = &*posted.tag.found;
        Some(Watch { published: &self.board.mx.options.published, domain, servers, is_ready })
    }

    fn is_ready(&self) {
        lock(&self.line.state).is_proven = true;
        self.grow();
    }

    /// The first worker's failure is that of all that waits. Another one's shows that the hosts
    /// take no more connections.
    fn unreached(&self, posted: Posted<Arc<C>, Tag>, why: ConnectError) -> bool {
        let mut parts = lock(&self.line.state);
        let others = parts.workers.saturating_sub(1);
        if parts.is_proven && others > 0 {
            parts.most = others;
            parts.parts.push_front(posted);
            drop(parts);
            self.line.waiting.wake_all();
            return false;
        }
        let all: Vec<_> = [posted].into_iter().chain(parts.parts.drain(..)).collect();
        drop(parts);
        let why = Arc::new(Unreachable::Connect(why));
        for Posted { message, tag: Tag { number, places, found }, .. } in all {
            lock(&self.board.state).remember(&found.domain, Known::Failed(Arc::clone(&why)));
            self.board.report(number, &places, message.recipients, unreachable(&why, places.len()));
        }
        true
    }

    /// The next attempt opens the destination again.
    fn closed(&self, posted: Posted<Arc<C>, Tag>) {
        self.put_back(posted);
    }

    fn report(&self, Posted { message, tag, .. }: Posted<Arc<C>, Tag>, courses: Vec<Course>) {
        self.board.report(tag.number, &tag.places, message.recipients, courses);
    }

    fn left(&self) {
        let mut state = lock(&self.board.state);
        let mut parts = lock(&self.line.state);
        parts.workers = parts.workers.saturating_sub(1);
        parts.is_proven &= parts.workers > 0;
        let is_over = parts.workers == 0 && parts.parts.is_empty();
        drop(parts);
        if is_over {
            state.lanes.remove(&self.hosts);
        }
        drop(state);
        self.grow();
    }
}
