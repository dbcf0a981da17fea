//! The store: the part of a queue that writes the log. Runs on the store's thread.

mod batch;
mod copy;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use self::batch::{Effect, Planned};
use crate::index::between;
use crate::log::checkpoint::{Meta, Work};
use crate::log::disk::whereabouts::Known;
use crate::log::format::frame::Kind;
use crate::log::write::checkpointer::{Checkpointer, Done};
use crate::log::write::pace::Pace;
use crate::log::write::segment::{AppendError, NewRecord, Segments};
use crate::log::write::shared::Shared;

pub(in crate::log) struct Store {
    shared: Arc<Shared>,
    segments: Segments,
    checkpointer: Checkpointer,
    /// The checkpoint contains the log up to here.
    position: (u64, u64),
    /// Outcomes that found no room on the disk. They have begun, so their deliveries cannot change.
    waiting: Vec<Planned>,
    pace: Pace,
}

impl Store {
    pub(in crate::log) fn new(
        shared: Arc<Shared>,
        segments: Segments,
        checkpointer: Checkpointer,
        position: (u64, u64),
    ) -> Self {
        Self { shared, segments, checkpointer, position, waiting: Vec::new(), pace: Pace::default() }
    }

    /// Takes a block of ids before any put asks for one. On a full disk, later.
    pub(in crate::log) fn begin(&mut self) -> Result<(), String> {
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

    /// Runs until the queue is closed or the disk fails. Then all waiting calls are answered.
    ///
    /// # Errors
    /// The segments that must be there when the queue is opened again. The reason has been given to
    /// `Shared::fail`.
    pub(in crate::log) fn run(mut self) -> Result<(), Known> {
        self.serve().map_err(|why| {
            self.shared.fail(&why);
            self.segments.known()
        })
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
            // Puts and copies wait until a checkpoint lets messages leave memory, if one can.
            let is_full = cost >= self.shared.options.index_memory;
            let has_room = !is_full || (self.behind() == 0 && !self.checkpointer.is_busy());
            let pause = if has_room { pause } else { Some(pause.unwrap_or(RETRY_FULL).min(RETRY_FULL)) };
            let (jobs, stopping) = self.shared.lanes.take(has_room);
            if !jobs.is_empty() || !self.waiting.is_empty() {
                let idle = jobs.is_empty();
                self.process(jobs)?;
                if !self.waiting.is_empty() && idle {
                    if stopping {
                        return Err(
                            "the queue was closed while its disk was full; outcomes not written are delivered again"
                                .to_owned(),
                        );
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
                return self.close(cost);
            } else if !(has_room && self.tidy(1)?) {
                self.shared.core.bell.wait(pause);
            }
        }
    }

    /// Prepares a quick next opening. A full disk skips that.
    fn close(&mut self, cost: usize) -> Result<(), String> {
        let closed =
            Planned { entry: NewRecord::new(Kind::Closed, Vec::new(), self.shared.now()), effect: Effect::Closed };
        match self.write(vec![closed]) {
            Err((AppendError::Fatal(why), _)) => return Err(why),
            Err((AppendError::Full(_), _)) => return Ok(()),
            Ok(()) => self.segments.seal().map_err(reason)?,
        }
        self.checkpointer.wait();
        if self.has_room_for_checkpoint(cost) {
            self.begin_checkpoint()?;
            self.checkpointer.wait();
        }
        Ok(())
    }

    fn count(&self) {
        self.shared.counts.disk.store(self.segments.octets(), Relaxed);
    }

    /// Returns `true` if it is time for a checkpoint and the disk has room for it. It is time when
    /// memory fills, the log after the last one grows, or a segment could be removed. `cost`: bytes
    /// of messages in memory. `is_short`: due deliveries found no room there.
    fn wants_checkpoint(&self, cost: usize, is_short: bool) -> bool {
        let (limit, behind) = (self.shared.options.index_memory, self.behind());
        // If most of memory cannot be evicted, one checkpoint after the other would not help.
        let least = if cost < limit { limit / 8 } else { 0 };
        let is_filling = cost > limit / 4 * 3 && behind > least as u64;
        let is_due = is_short
            || is_filling
            || behind > self.segments.size.saturating_mul(REPLAYED_SEGMENTS)
            || self.segments.wants_checkpoint();
        is_due && self.has_room_for_checkpoint(cost)
    }

    /// About how many bytes of the log are not in the checkpoint.
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
        // Both clocks at the instant of the freeze: the index's lock may have been waited for.
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
            self.count();
        }
        Ok(())
    }
}

fn reason(error: AppendError) -> String {
    match error {
        AppendError::Fatal(why) => why,
        AppendError::Full(error) => error.to_string(),
    }
}

/// From this multiple of the ordinary waste on, copying alternates with batches instead of waiting
/// for a pause.
const UNDER_LOAD: u64 = 2;
/// The number of segments that an opening reads, about.
const REPLAYED_SEGMENTS: u64 = 4;
/// Bytes that must be free for a checkpoint, beside those of the messages in memory.
const CHECKPOINT_ROOM: u64 = 4 << 20;
/// How long outcomes without room wait between tries.
const RETRY_FULL: Duration = Duration::from_millis(500);
