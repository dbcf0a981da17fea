//! A queue that forgets everything when it is dropped: for tests and examples.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;

use crate::core::Core;
use crate::index::{Altered, Bounds, End, Index, Message, Moment, Next, Nothing, Totals, Unreadable};
use crate::{
    Alteration, Body, Change, Claim, Claimed, Clock, Derived, Draft, DueClass, Error, Full, Gather, Lease, LeaseError,
    MessageId, NewMessage, Outcome, Page, PutError, Queue, Search, Stats, Summary, SystemClock, TooLarge, limits,
};

/// Limits of a [`MemoryQueue`]: take the default, then assign fields.
#[derive(Clone)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Where it takes the time from. Default: [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// The largest body in bytes. Beyond it: [`PutError::TooLarge`]. Default: 64 MiB.
    pub max_body: u64,
    /// Memory for bodies and index together in bytes. Beyond it: [`PutError::Full`]. Default: 1
    /// GiB.
    pub memory: usize,
    /// Deliveries that may be leased at once. Beyond it: claims return an empty list. Default:
    /// 1,000.
    pub max_leases: usize,
}

/// A queue without durability. It passes the contract suite, except the cases that need stable
/// storage.
pub struct MemoryQueue {
    inner: Arc<Inner>,
}

struct Inner {
    core: Core<Nothing<Vec<Bytes>>>,
    options: MemoryOptions,
    next_id: AtomicU64,
    drafts: AtomicUsize,
    /// Bytes of bodies, drafts included.
    bodies: AtomicUsize,
    puts: AtomicU64,
    finished: AtomicU64,
}

/// A message that a [`MemoryQueue`] is receiving.
pub struct MemoryDraft {
    inner: Arc<Inner>,
    id: MessageId,
    chunks: Vec<Bytes>,
    len: u64,
    /// Its share of `Inner::bodies`.
    counted: usize,
    failed: Option<PutError>,
}

/// Reads a body out of a [`MemoryQueue`].
#[derive(Debug)]
pub struct MemoryBody {
    chunks: std::vec::IntoIter<Bytes>,
    rest: Bytes,
    len: u64,
}

impl MemoryQueue {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        let bounds = Bounds { memory: usize::MAX, leases: options.max_leases };
        let index = Index::new(Nothing::new(), Totals::default(), 0, bounds, 1);
        let inner = Arc::new(Inner {
            core: Core::new(Arc::clone(&options.clock), 0, index),
            options,
            next_id: AtomicU64::new(1),
            drafts: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
            puts: AtomicU64::new(0),
            finished: AtomicU64::new(0),
        });
        let shared = Arc::clone(&inner);
        let timer = thread::Builder::new().name("posthaste-timer".to_owned()).spawn(move || {
            while shared.core.ended().is_none() {
                let pause = shared.core.tick();
                shared.core.bell.wait(pause);
            }
        });
        // Without this thread a due time passes unnoticed until the next operation. The thread ends
        // by itself once the queue has ended.
        drop(timer);
        Self { inner }
    }
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::new()), max_body: 64 << 20, memory: 1 << 30, max_leases: 1_000 }
    }
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new(MemoryOptions::default())
    }
}

impl Queue for MemoryQueue {
    type Draft = MemoryDraft;
    type Body = MemoryBody;

    async fn put(&self, size_hint: Option<u64>) -> Result<MemoryDraft, PutError> {
        let hint = size_hint.unwrap_or(0);
        self.inner.check_body(hint)?;
        self.inner.check_room(usize::try_from(hint).unwrap_or(usize::MAX))?;
        if let Some(why) = self.inner.core.ended() {
            return Err(why.into());
        }
        self.inner.drafts.fetch_add(1, Relaxed);
        let id = MessageId::from_u64(self.inner.next_id.fetch_add(1, Relaxed));
        Ok(MemoryDraft { inner: Arc::clone(&self.inner), id, chunks: Vec::new(), len: 0, counted: 0, failed: None })
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        self.inner.core.claim(claim)
    }

    async fn body(&self, message: MessageId) -> Result<MemoryBody, Error> {
        let found = self.inner.core.with(|index, _| index.get(message))?;
        let message = found.ok_or(Error::NoSuchMessage(message))?;
        Ok(MemoryBody { chunks: message.stored.clone().into_iter(), rest: Bytes::new(), len: message.body_len })
    }

    async fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        self.inner.core.extend(lease, lease_for)
    }

    async fn gather(&self, gather: Gather<'_>) -> Result<Vec<Claimed>, Error> {
        self.inner.core.gather(gather)
    }

    async fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<Vec<MessageId>, LeaseError> {
        limits::check_outcomes(&ends, &derived)?;
        let inner = &*self.inner;
        inner.core.with(|index, now| inner.apply(index, now, ends, derived))?
    }

    async fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
        self.inner.core.due(after, limit)
    }

    async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.inner.core.changed(seen).await
    }

    async fn alter(&self, message: MessageId, what: Alteration) -> Result<usize, Error> {
        let altered = self.inner.core.with(|index, now| index.alter(message, &Altered::new(what, now)))?;
        altered.ok_or(Error::NoSuchMessage(message))
    }

    async fn remove(&self, message: MessageId) -> Result<(), Error> {
        let gone = self.inner.core.with(|index, _| index.take(message))?.ok_or(Error::NoSuchMessage(message))?;
        self.inner.forget(&gone);
        Ok(())
    }

    async fn search(&self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, Error> {
        self.inner.core.search(search, after, limit)
    }

    async fn summary(&self, message: MessageId) -> Result<Summary, Error> {
        self.inner.core.summary(message)
    }

    async fn stats(&self) -> Stats {
        Stats {
            drafts: self.inner.drafts.load(Relaxed) as u64,
            puts: self.inner.puts.load(Relaxed),
            finished: self.inner.finished.load(Relaxed),
            ..self.inner.core.stats()
        }
    }

    async fn close(&self) {
        self.inner.core.end(Error::Closed);
    }
}

impl Drop for MemoryQueue {
    fn drop(&mut self) {
        self.inner.core.end(Error::Closed);
    }
}

impl Inner {
    fn apply(
        &self,
        index: &mut Index<Nothing<Vec<Bytes>>>,
        now: Moment,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<Result<Vec<MessageId>, LeaseError>, Unreadable> {
        let message = ends.first().map(|(lease, _)| lease.message());
        let begun = match index.begin_finish(now, ends)? {
            Ok(begun) => begun,
            Err(error) => return Ok(Err(error)),
        };
        for End { delivery, next, .. } in begun {
            let Some(slot) = message.map(|message| (message, delivery)) else { continue };
            match next {
                None => {
                    if let Some(gone) = index.done(slot)? {
                        self.forget(&gone);
                    }
                }
                Some(next) => index.retry(slot, Next { state: Bytes::copy_from_slice(&next.state), ..next })?,
            }
            self.finished.fetch_add(1, Relaxed);
        }
        let mut ids = Vec::new();
        for each in derived {
            let id = MessageId::from_u64(self.next_id.fetch_add(1, Relaxed));
            self.bodies.fetch_add(each.body.len(), Relaxed);
            let len = each.body.len() as u64;
            index.insert(id, Message::new(each.message, now, len, vec![each.body]))?;
            self.puts.fetch_add(1, Relaxed);
            ids.push(id);
        }
        Ok(Ok(ids))
    }

    fn check_body(&self, actual: u64) -> Result<(), PutError> {
        let limit = self.options.max_body;
        if actual > limit {
            return Err(TooLarge::bytes("the body", limit, actual).into());
        }
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), PutError> {
        let index = self.core.stats().index_memory;
        let used = self.bodies.load(Relaxed).saturating_add(usize::try_from(index).unwrap_or(usize::MAX));
        let (limit, wanted) = (self.options.memory, used.saturating_add(more));
        if wanted > limit {
            return Err(PutError::Full(Full::Memory { limit, wanted }));
        }
        Ok(())
    }

    fn forget(&self, message: &Message<Vec<Bytes>>) {
        self.bodies.fetch_sub(usize::try_from(message.body_len).unwrap_or(0), Relaxed);
    }
}

impl Draft for MemoryDraft {
    fn id(&self) -> MessageId {
        self.id
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), PutError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let len = self.len.saturating_add(chunk.len() as u64);
        let checked = self.inner.check_body(len).and_then(|()| self.inner.check_room(chunk.len()));
        if let Err(error) = checked {
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.inner.bodies.fetch_add(chunk.len(), Relaxed);
        self.counted = self.counted.saturating_add(chunk.len());
        self.len = len;
        self.chunks.push(chunk);
        Ok(())
    }

    async fn commit(mut self, message: NewMessage) -> Result<MessageId, PutError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        limits::check(&message)?;
        let chunks = std::mem::take(&mut self.chunks);
        let (id, len) = (self.id, self.len);
        self.inner.core.with(|index, now| index.insert(id, Message::new(message, now, len, chunks)))?;
        self.counted = 0;
        self.inner.puts.fetch_add(1, Relaxed);
        Ok(id)
    }
}

impl Drop for MemoryDraft {
    fn drop(&mut self) {
        self.inner.bodies.fetch_sub(self.counted, Relaxed);
        self.inner.drafts.fetch_sub(1, Relaxed);
    }
}

impl Stream for MemoryBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        while self.rest.is_empty() {
            match self.chunks.next() {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(None),
            }
        }
        let len = self.rest.len().min(MAX_CHUNK);
        Poll::Ready(Some(Ok(self.rest.split_to(len))))
    }
}

impl Body for MemoryBody {
    fn len(&self) -> u64 {
        self.len
    }
}

impl fmt::Debug for MemoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clock: _, max_body, memory, max_leases } = self;
        f.debug_struct("MemoryOptions")
            .field("max_body", max_body)
            .field("memory", memory)
            .field("max_leases", max_leases)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDraft").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

const MAX_CHUNK: usize = 64 << 10;
