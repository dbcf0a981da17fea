//! The thread that owns the log.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::apply::{Stored, apply};
use super::checkpoint::{Checkpointer, Done, Meta, Snapshot, Work};
use super::draft::Ticket;
use super::format::{
    self, Image, Now, OutcomeRecord, Record, RetryRecord, StoredBody, encode_altered, encode_image, encode_outcome,
};
use super::frame::{FRAME, Kind};
use super::lanes::{Job, PutJob, Reply, answer};
use super::pace::Pace;
use super::scan::{Scan, next_good, read_record};
use super::segment::{AppendError, At, Entry, Segments};
use super::shared::{ID_BLOCK, Shared};
use crate::index::{Altered, Index, Message, Unreadable, after, between};
use crate::{Broken, Derived, Error, Full, Lease, LeaseError, MAX_DELAY, MessageId, Outcome, PutError};

/// A job whose record is ready, with what to do once it is on stable storage.
struct Planned {
    entry: Entry,
    effect: Effect,
}

enum Effect {
    Put {
        image: Image,
        ticket: Ticket,
        reply: Reply<Result<MessageId, PutError>>,
    },
    Finish {
        record: OutcomeRecord,
        ids: Vec<MessageId>,
        reply: Reply<Result<Vec<MessageId>, LeaseError>>,
    },
    Alter {
        id: MessageId,
        what: Altered,
        reply: Reply<Result<usize, Error>>,
    },
    Remove {
        id: MessageId,
        reply: Reply<Result<(), Error>>,
    },
    Ids {
        ceiling: u64,
        replies: Vec<Reply<Result<(), PutError>>>,
    },
    /// A living message was copied forward: nothing changes but its place.
    Moved {
        id: MessageId,
        body: StoredBody,
    },
    Closed,
}

pub(super) struct Store {
    shared: Arc<Shared>,
    segments: Segments,
    checkpointer: Checkpointer,
    /// The log up to here is in the checkpoint.
    position: (u64, u64),
    /// Outcomes that found no room on the disk. They have begun, so nothing about their deliveries changes meanwhile.
    waiting: Vec<Planned>,
    pace: Pace,
}

impl Store {
    pub(super) fn new(
        shared: Arc<Shared>,
        segments: Segments,
        checkpointer: Checkpointer,
        position: (u64, u64),
    ) -> Self {
        Self { shared, segments, checkpointer, position, waiting: Vec::new(), pace: Pace::default() }
    }

    /// Takes up a block of ids, before anybody asks for one. On a full disk it is done later.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        let (entry, ceiling) = self.plan_ids();
        let before = self.shared.ids.ceiling.load(Relaxed);
        match self.segments.append(std::iter::once(&entry), before) {
            Ok(_) => {
                self.shared.ids.ceiling.fetch_max(ceiling, Relaxed);
                self.count();
                Ok(())
            }
            Err(AppendError::Full(_)) => Ok(()),
            Err(AppendError::Fatal(why)) => Err(why),
        }
    }

    /// Until the queue is closed, or the disk fails: then everybody who waits is told.
    ///
    /// # Errors
    /// Why it did not go on.
    pub(super) fn run(mut self) -> Result<(), String> {
        self.serve().inspect_err(|why| self.shared.fail(why))
    }

    fn serve(&mut self) -> Result<(), String> {
        loop {
            if let Some(error) = self.shared.core.ended() {
                return Err(error.to_string());
            }
            if let Some((jobs, pause)) = self.pace.wait(self.shared.core.now())
                && !self.shared.lanes.gather(jobs)
            {
                self.shared.core.bell.wait(Some(pause));
            }
            let pause = self.shared.core.tick();
            while let Some(done) = self.checkpointer.poll() {
                self.checkpointed(done)?;
            }
            let memory = self.shared.core.with(|index, _| Ok((index.cost(), index.is_short_of_room())));
            let (cost, is_short) = memory.map_err(|error| error.to_string())?;
            if !self.checkpointer.is_busy() && self.wants_checkpoint(cost, is_short) {
                self.begin_checkpoint()?;
            }
            // What comes, or is copied, has to wait until a checkpoint lets messages out of memory, if one can.
            let is_full = cost >= self.shared.options.index_memory;
            let has_room = !is_full || (self.behind() == 0 && !self.checkpointer.is_busy());
            let pause = if has_room { pause } else { Some(pause.unwrap_or(RETRY_FULL).min(RETRY_FULL)) };
            let (jobs, stopping) = self.shared.lanes.take(has_room);
            if !jobs.is_empty() || !self.waiting.is_empty() {
                let idle = jobs.is_empty();
                self.process(jobs)?;
                if !self.waiting.is_empty() && idle {
                    if stopping {
                        return Err("the disk stayed full until the queue was closed".to_owned());
                    }
                    self.shared.core.bell.wait(Some(pause.unwrap_or(RETRY_FULL).min(RETRY_FULL)));
                }
                if idle {
                    continue;
                }
                if self.waiting.is_empty() && has_room {
                    self.tidy(UNDER_LOAD)?;
                }
            } else if stopping {
                let closed =
                    Planned { entry: Entry::new(Kind::Closed, Vec::new(), self.shared.now()), effect: Effect::Closed };
                // Both are a courtesy to the next opening; on a full disk it goes without.
                return match self.write(vec![closed]) {
                    Err((AppendError::Fatal(why), _)) => Err(why),
                    Err(_) => Ok(()),
                    Ok(()) => {
                        self.segments.seal().map_err(reason)?;
                        self.checkpointer.wait();
                        if self.has_room_for_checkpoint(cost) {
                            self.begin_checkpoint()?;
                            self.checkpointer.wait();
                        }
                        Ok(())
                    }
                };
            } else if !(has_room && self.tidy(1)?) {
                self.shared.core.bell.wait(pause);
            }
        }
    }

    /// One batch.
    fn process(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let now = self.shared.now();
        let mut planned = mem::take(&mut self.waiting);
        let mut id_replies = Vec::new();
        for job in jobs {
            match job {
                Job::Put(put) => {
                    let PutJob { entry, image, ticket, reply } = *put;
                    planned.push(Planned { entry, effect: Effect::Put { image, ticket, reply } });
                }
                Job::Finish { lease, outcome, derived, reply } => {
                    match self.plan_finish(now, &lease, outcome, derived) {
                        Ok((entry, record, ids)) => {
                            planned.push(Planned { entry, effect: Effect::Finish { record, ids, reply } });
                        }
                        Err(error) => answer(reply, Err(error)),
                    }
                }
                Job::Alter { id, what, reply } => match self.shared.core.with(|index, _| index.get(id)) {
                    Err(error) => answer(reply, Err(error)),
                    Ok(None) => answer(reply, Err(Error::NoSuchMessage(id))),
                    Ok(Some(_)) => {
                        let what = now.as_written(Altered::new(what, now.moment));
                        let entry = Entry::new(Kind::Altered, encode_altered(now, id, &what), now);
                        planned.push(Planned { entry, effect: Effect::Alter { id, what, reply } });
                    }
                },
                Job::Remove { id, reply } => match self.shared.core.with(|index, _| index.begin_remove(id)) {
                    Err(error) => answer(reply, Err(error)),
                    Ok(None) => answer(reply, Err(Error::NoSuchMessage(id))),
                    Ok(Some(())) => {
                        let entry = Entry::new(Kind::Removed, id.as_u64().to_le_bytes().to_vec(), now);
                        planned.push(Planned { entry, effect: Effect::Remove { id, reply } });
                    }
                },
                Job::Ids { reply } => id_replies.push(reply),
            }
        }
        if !id_replies.is_empty() || self.shared.ids.low() {
            // First, so that whatever survives a crash of this batch, its ids are known to be taken.
            let (entry, ceiling) = self.plan_ids();
            planned.insert(0, Planned { entry, effect: Effect::Ids { ceiling, replies: id_replies } });
        }
        if planned.is_empty() {
            return Ok(());
        }
        match self.write(planned) {
            Ok(()) => Ok(()),
            Err((AppendError::Fatal(why), planned)) => {
                self.waiting = planned;
                Err(why)
            }
            Err((AppendError::Full(error), planned)) => self.refuse_puts(&error, planned),
        }
    }

    /// There is no room for everything: perhaps there is for the outcomes alone. Otherwise they wait.
    fn refuse_puts(&mut self, error: &io::Error, planned: Vec<Planned>) -> Result<(), String> {
        let full = PutError::Full(Full::NoSpace(error.to_string().into()));
        let mut rest = Vec::new();
        let before = planned.len();
        for Planned { entry, effect } in planned {
            match effect {
                Effect::Put { reply, .. } => answer(reply, Err(full.clone())),
                Effect::Ids { replies, .. } => replies.into_iter().for_each(|reply| answer(reply, Err(full.clone()))),
                effect => rest.push(Planned { entry, effect }),
            }
        }
        if rest.len() == before || rest.is_empty() {
            self.waiting = rest;
            return Ok(());
        }
        match self.write(rest) {
            Ok(()) => Ok(()),
            Err((AppendError::Full(_), rest)) => {
                self.waiting = rest;
                Ok(())
            }
            Err((AppendError::Fatal(why), rest)) => {
                self.waiting = rest;
                Err(why)
            }
        }
    }

    /// Makes a batch durable, then true in memory, then known.
    fn write(&mut self, mut planned: Vec<Planned>) -> Result<(), (AppendError, Vec<Planned>)> {
        let ceiling = self.shared.ids.ceiling.load(Relaxed);
        let began = self.shared.core.now();
        let places = match self.segments.append(planned.iter().map(|each| &each.entry), ceiling) {
            Ok(places) => places,
            Err(error) => return Err((error, planned)),
        };
        self.count();
        let (took, jobs) = (between(began, self.shared.core.now()), planned.len());
        let mut answers: Vec<Box<dyn FnOnce()>> = Vec::new();
        let mut gone = Vec::new();
        for each in &mut planned {
            // Whatever happens now: its record is there, and names its file.
            if let Effect::Put { ticket, .. } = &mut each.effect {
                ticket.keep();
            }
        }
        // An index that has ended takes nothing; opening the log again will.
        let applied = self.shared.core.with(|index, _| {
            for (planned, at) in planned.into_iter().zip(places) {
                let mut take = |record| {
                    gone.extend(apply(index, &mut self.segments, record, &at)?);
                    Ok::<_, Unreadable>(())
                };
                match planned.effect {
                    Effect::Put { image, ticket, reply } => {
                        let id = image.id;
                        take(Record::Message(image))?;
                        self.shared.counts.puts.fetch_add(1, Relaxed);
                        answers.push(Box::new(move || {
                            drop(ticket);
                            answer(reply, Ok(id));
                        }));
                    }
                    Effect::Finish { record, ids, reply } => {
                        take(Record::Outcome(record))?;
                        self.shared.counts.finished.fetch_add(1, Relaxed);
                        self.shared.counts.puts.fetch_add(ids.len() as u64, Relaxed);
                        answers.push(Box::new(move || answer(reply, Ok(ids))));
                    }
                    Effect::Alter { id, what, reply } => {
                        let concerned = index.alter(id, &what)?.ok_or(Error::NoSuchMessage(id));
                        answers.push(Box::new(move || answer(reply, concerned)));
                    }
                    Effect::Remove { id, reply } => {
                        take(Record::Removed(id))?;
                        answers.push(Box::new(move || answer(reply, Ok(()))));
                    }
                    Effect::Ids { ceiling, replies } => {
                        self.shared.ids.ceiling.fetch_max(ceiling, Relaxed);
                        answers.push(Box::new(move || replies.into_iter().for_each(|reply| answer(reply, Ok(())))));
                    }
                    Effect::Moved { id, body } => moved(index, &mut self.segments, id, body, &at)?,
                    Effect::Closed => {}
                }
            }
            Ok(())
        });
        if applied.is_ok() {
            answers.into_iter().for_each(|answer| answer());
        }
        // Also those that have come back to wait by now.
        self.pace.done(self.shared.core.now(), jobs.saturating_add(self.shared.lanes.len()), took);
        for id in gone {
            // One that stays is an orphan, swept at the next opening.
            drop(self.shared.vfs.remove(&self.shared.body_path(id)));
        }
        Ok(())
    }

    fn plan_finish(
        &self,
        now: Now,
        lease: &Lease,
        outcome: Outcome,
        derived: Vec<Derived>,
    ) -> Result<(Entry, OutcomeRecord, Vec<MessageId>), LeaseError> {
        let slot = (lease.message(), lease.delivery());
        let (born, attempts) = self.shared.core.with(|index, _| {
            if let Err(too_large) = index.check_outcome(slot, &outcome)? {
                return Ok(Err(LeaseError::from(too_large)));
            }
            if let Err(stale) = index.begin_finish(lease) {
                return Ok(Err(LeaseError::from(stale)));
            }
            let born = index.get(slot.0)?.map_or(now.moment, |message| message.born);
            Ok(Ok((born, index.attempts(slot))))
        })??;
        let retry = match outcome {
            Outcome::Done => None,
            Outcome::Retry { delay, state } => {
                let delay = delay.min(MAX_DELAY);
                let attempts = attempts.saturating_add(1);
                Some(RetryRecord { attempts, due: after(now.moment, delay), delay, state })
            }
        };
        let mut ids = Vec::new();
        let mut images = Vec::new();
        for each in derived {
            let id = MessageId::from_u64(self.shared.ids.next.fetch_add(1, Relaxed));
            let mut image = Vec::new();
            let message = Message::new(each.message, now.moment, each.body.len() as u64, ());
            encode_image(&mut image, now, id, &message, crc32fast::hash(&each.body), false);
            image.extend_from_slice(&each.body);
            images.push(image);
            ids.push(id);
        }
        let (id, delivery) = slot;
        let record = OutcomeRecord { id, delivery, generation: lease.generation(), born, retry, derived: Vec::new() };
        let mut payload = Vec::new();
        encode_outcome(&mut payload, now, &record, &images);
        // What is true from now on is what will be read back.
        match format::decode(Kind::Outcome, &payload, now.wall, now) {
            Ok(Record::Outcome(record)) => Ok((Entry::new(Kind::Outcome, payload, now), record, ids)),
            _ => Err(Error::Broken(Broken::new("an outcome that could not be read back was not written")).into()),
        }
    }

    fn count(&self) {
        self.shared.counts.disk.store(self.segments.octets(), Relaxed);
    }

    /// The record that takes up another block of ids, and where that ends.
    fn plan_ids(&self) -> (Entry, u64) {
        let ids = &self.shared.ids;
        let taken = ids.next.load(Relaxed).max(ids.ceiling.load(Relaxed));
        let ceiling = taken.saturating_add(ID_BLOCK);
        (Entry::new(Kind::Ids, ceiling.to_le_bytes().to_vec(), self.shared.now()), ceiling)
    }

    /// Whether it is time for a checkpoint, and there is room for it: memory fills, the log that an opening would read grows, or
    /// a segment could go. `cost` is that of the messages in memory; `is_short` when what is due has no place there.
    fn wants_checkpoint(&self, cost: usize, is_short: bool) -> bool {
        let (limit, behind) = (self.shared.options.index_memory, self.behind());
        // When most of memory cannot be left to the checkpoint, there is no use in one after the other.
        let least = if cost < limit { limit / 8 } else { 0 };
        let is_filling = cost > limit / 4 * 3 && behind > least as u64;
        let is_due = is_short
            || is_filling
            || behind > self.segments.size.saturating_mul(REPLAYED_SEGMENTS)
            || self.segments.wants_checkpoint();
        is_due && self.has_room_for_checkpoint(cost)
    }

    /// About how many octets of the log are not in the checkpoint.
    fn behind(&self) -> u64 {
        let (sequence, len) = self.segments.position();
        let (from, at) = self.position;
        sequence.saturating_sub(from).saturating_mul(self.segments.size).saturating_add(len).saturating_sub(at)
    }

    fn has_room_for_checkpoint(&self, cost: usize) -> bool {
        let wanted = (cost as u64).saturating_add(CHECKPOINT_ROOM);
        self.shared.vfs.room(&self.shared.dir).is_ok_and(|room| room.free >= wanted)
    }

    fn begin_checkpoint(&mut self) -> Result<(), String> {
        let now = self.shared.now();
        let frozen = self.shared.core.with(|index, _| Ok(index.freeze())).map_err(|error| error.to_string())?;
        let next_id = self.shared.ids.ceiling.load(Relaxed);
        let position = self.segments.position();
        // Both clocks at one instant: the index may have been waited for.
        let waited = u64::try_from(between(now.moment, frozen.now).as_millis()).unwrap_or(u64::MAX);
        let wall = now.wall.saturating_add(waited);
        let (tag, totals) = (self.segments.tag(position.0), frozen.totals);
        let meta = Meta { position, tag, now: frozen.now, wall, next_id, totals };
        self.checkpointer.begin(Work { frozen, segments: self.segments.living(), meta });
        Ok(())
    }

    fn checkpointed(&mut self, done: Done) -> Result<(), String> {
        if let Done::Written { segments, meta } = done {
            self.position = meta.position;
            self.segments.checkpointed(&segments, meta.position.0);
            while let Some(gone) = self.segments.drop_oldest().map_err(reason)? {
                self.shared.readers.forget(gone);
            }
            self.shared.counts.disk.store(self.segments.octets(), Relaxed);
        }
        Ok(())
    }

    /// A slice of copying forward, when that is worth it: see [`Segments::worth_copying`]. Whether anything was done.
    fn tidy(&mut self, times: u64) -> Result<bool, String> {
        let Some(oldest) = self.segments.worth_copying(times) else { return Ok(false) };
        let planned = self.plan_copies(oldest).map_err(|error| {
            // Nothing is lost yet: the segment stays, and so do the messages in it.
            let name = super::segment::name(oldest);
            format!("log/{name} could not be read: {error}; check the disk")
        })?;
        if planned.is_empty() {
            return Ok(true);
        }
        match self.write(planned) {
            Ok(()) => Ok(true),
            // Space is short: what could be freed by copying has to wait for space.
            Err((AppendError::Full(_), _)) => Ok(false),
            Err((AppendError::Fatal(why), _)) => Err(why),
        }
    }

    /// Goes on through a segment, and copies what of it lives.
    fn plan_copies(&mut self, sequence: u64) -> io::Result<Vec<Planned>> {
        let now = self.shared.now();
        let file = self.shared.readers.get(sequence)?;
        let mut planned = Vec::new();
        let Some(segment) = self.segments.list.get_mut(&sequence) else { return Ok(planned) };
        let scan = Scan { file: &*file, tag: segment.tag, len: segment.len };
        let mut octets = 0;
        while octets < SLICE_OCTETS && planned.len() < SLICE_MESSAGES && segment.copied_to < segment.len {
            let Some((frame, payload)) = read_record(&scan, segment.copied_to)? else {
                // It was found damaged before, or is now; what lives behind it can be saved still.
                segment.copied_to = next_good(&scan, segment.copied_to, |_| true)?.unwrap_or(segment.len);
                continue;
            };
            segment.copied_to = segment.copied_to.saturating_add((FRAME + payload.len()) as u64);
            octets += payload.len();
            let images = match format::decode(frame.kind, &payload, frame.wall, now) {
                Ok(Record::Message(image)) => vec![image],
                Ok(Record::Outcome(outcome)) => outcome.derived,
                _ => Vec::new(),
            };
            for image in images {
                planned.extend(plan_copy(&self.shared, now, sequence, &image, &payload)?);
            }
        }
        Ok(planned)
    }
}

/// A copy of a message as it is now, if its newest image is in this segment.
fn plan_copy(shared: &Shared, now: Now, sequence: u64, image: &Image, payload: &[u8]) -> io::Result<Option<Planned>> {
    let found = shared.core.with(|index, _| index.get(image.id)).map_err(io::Error::other)?;
    let Some(message) = found.filter(|message| message.stored.sequence == sequence) else { return Ok(None) };
    let stored = &message.stored;
    let mut copy = Vec::with_capacity(payload.len());
    encode_image(&mut copy, now, image.id, &message, stored.crc, stored.inline.is_none());
    let mut inline = None;
    if let (Some(_), Some(at)) = (stored.inline, image.message.stored.inline) {
        inline = Some(copy.len());
        let len = usize::try_from(message.body_len).map_err(io::Error::other)?;
        let body = at.checked_add(len).and_then(|end| payload.get(at..end));
        copy.extend_from_slice(body.ok_or_else(|| io::Error::other("a body in the log is too long"))?);
    }
    let body = StoredBody { crc: stored.crc, inline };
    Ok(Some(Planned { entry: Entry::new(Kind::Message, copy, now), effect: Effect::Moved { id: image.id, body } }))
}

impl Drop for Store {
    fn drop(&mut self) {
        let error = self.shared.core.ended().unwrap_or(Error::Closed);
        for planned in self.waiting.drain(..) {
            match planned.effect {
                Effect::Put { mut ticket, reply, .. } => {
                    // Its record may be on the disk all the same, and would name the file.
                    ticket.keep();
                    drop(ticket);
                    answer(reply, Err(error.clone().into()));
                }
                Effect::Finish { reply, .. } => answer(reply, Err(error.clone().into())),
                Effect::Alter { reply, .. } => answer(reply, Err(error.clone())),
                Effect::Remove { reply, .. } => answer(reply, Err(error.clone())),
                Effect::Ids { replies, .. } => {
                    replies.into_iter().for_each(|reply| answer(reply, Err(error.clone().into())));
                }
                Effect::Moved { .. } | Effect::Closed => {}
            }
        }
    }
}

fn moved(
    index: &mut Index<Snapshot>,
    segments: &mut Segments,
    id: MessageId,
    body: StoredBody,
    at: &At,
) -> Result<(), Unreadable> {
    let stored = Stored::new(body, at);
    let mut old = None;
    index.update(id, |message| old = Some(mem::replace(&mut message.stored, stored)))?;
    if let Some(old) = old {
        segments.subtract(old.sequence, old.len);
        segments.add(stored.sequence, stored.len);
    }
    Ok(())
}

fn reason(error: AppendError) -> String {
    match error {
        AppendError::Fatal(why) => why,
        AppendError::Full(error) => error.to_string(),
    }
}

/// A slice of copying ends where it grows beyond one of these: a few milliseconds.
const SLICE_OCTETS: usize = 1 << 20;
const SLICE_MESSAGES: usize = 256;
/// Copying takes turns with batches, rather than waiting for a pause, from so many times the ordinary waste on.
const UNDER_LOAD: u64 = 2;
/// An opening reads about so many segments of the log.
const REPLAYED_SEGMENTS: u64 = 4;
/// Octets that must be free on the disk for a checkpoint, beside as many as are in memory.
const CHECKPOINT_ROOM: u64 = 4 << 20;
/// How often outcomes that found no room are tried again.
const RETRY_FULL: Duration = Duration::from_millis(500);
