//! A batch of jobs: planned as records, written at once, applied to the index, answered.

use std::io;
use std::mem;
use std::sync::atomic::Ordering::Relaxed;

use super::Store;
use crate::index::{Altered, Message, Unreadable, between};
use crate::log::disk::vfs::refusal;
use crate::log::format::frame::Kind;
use crate::log::format::record::{
    self, Image, Now, OutcomeRecord, Record, StoredBody, encode_altered, encode_image, encode_outcome,
};
use crate::log::write::apply::{apply, moved};
use crate::log::write::lanes::{Answer, Job, PutJob, tell};
use crate::log::write::segment::{AppendError, NewRecord};
use crate::log::write::shared::ID_BLOCK;
use crate::log::write::slot::DraftSlot;
use crate::{Broken, Derived, Error, Lease, LeaseError, MessageId, Outcome, PutError};

/// A job whose record is ready, and what to do once that is on stable storage.
pub(super) struct Planned {
    pub(super) entry: NewRecord,
    pub(super) effect: Effect,
}

pub(super) enum Effect {
    Put {
        image: Image,
        slot: DraftSlot,
        answer: Answer<Result<MessageId, PutError>>,
    },
    Finish {
        record: OutcomeRecord,
        ids: Vec<MessageId>,
        answer: Answer<Result<Vec<MessageId>, LeaseError>>,
    },
    Alter {
        id: MessageId,
        what: Altered,
        answer: Answer<Result<usize, Error>>,
    },
    Remove {
        id: MessageId,
        answer: Answer<Result<(), Error>>,
    },
    Ids {
        ceiling: u64,
        answers: Vec<Answer<Result<(), PutError>>>,
    },
    /// A message was copied forward: only its place changes.
    Moved {
        id: MessageId,
        body: StoredBody,
    },
    Closed,
}

impl Store {
    /// Writes one batch.
    pub(super) fn process(&mut self, jobs: Vec<Job>) -> Result<(), String> {
        let now = self.shared.now();
        let mut planned = mem::take(&mut self.waiting);
        let mut id_answers = Vec::new();
        for job in jobs {
            match job {
                Job::Put(put) => {
                    let PutJob { entry, image, slot, answer } = *put;
                    planned.push(Planned { entry, effect: Effect::Put { image, slot, answer } });
                }
                Job::Finish { ends, derived, answer } => match self.plan_finish(now, ends, derived) {
                    Ok((entry, record, ids)) => {
                        planned.push(Planned { entry, effect: Effect::Finish { record, ids, answer } });
                    }
                    Err(error) => tell(answer, Err(error)),
                },
                Job::Alter { id, what, answer } => match self.shared.core.with(|index, _| index.get(id)) {
                    Err(error) => tell(answer, Err(error)),
                    Ok(None) => tell(answer, Err(Error::NoSuchMessage(id))),
                    Ok(Some(_)) => {
                        let what = now.as_written(Altered::new(what, now.moment));
                        let entry = NewRecord::new(Kind::Altered, encode_altered(now, id, &what), now);
                        planned.push(Planned { entry, effect: Effect::Alter { id, what, answer } });
                    }
                },
                Job::Remove { id, answer } => match self.shared.core.with(|index, _| index.begin_remove(id)) {
                    Err(error) => tell(answer, Err(error)),
                    Ok(None) => tell(answer, Err(Error::NoSuchMessage(id))),
                    Ok(Some(())) => {
                        let entry = NewRecord::new(Kind::Removed, id.as_u64().to_le_bytes().to_vec(), now);
                        planned.push(Planned { entry, effect: Effect::Remove { id, answer } });
                    }
                },
                Job::Ids { answer } => id_answers.push(answer),
            }
        }
        if !id_answers.is_empty() || self.shared.ids.low() {
            // First, so that after a crash in this batch its ids are known to be taken.
            let (entry, ceiling) = self.plan_ids();
            planned.insert(0, Planned { entry, effect: Effect::Ids { ceiling, answers: id_answers } });
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

    /// The disk has no room for all: refuses the puts and writes the outcomes alone. If there is no
    /// room for them either, they wait.
    fn refuse_puts(&mut self, error: &io::Error, planned: Vec<Planned>) -> Result<(), String> {
        let full = PutError::Full(refusal(&self.shared.dir, error));
        let mut rest = Vec::new();
        let before = planned.len();
        for Planned { entry, effect } in planned {
            match effect {
                Effect::Put { answer, .. } => tell(answer, Err(full.clone())),
                Effect::Ids { answers, .. } => answers.into_iter().for_each(|answer| tell(answer, Err(full.clone()))),
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

    /// Makes a batch durable, applies it to the index, and answers.
    pub(super) fn write(&mut self, mut planned: Vec<Planned>) -> Result<(), (AppendError, Vec<Planned>)> {
        let ceiling = self.shared.ids.ceiling.load(Relaxed);
        let began = self.shared.core.now();
        let places = match self.segments.append(planned.iter().map(|each| &each.entry), ceiling) {
            Ok(places) => places,
            Err(error) => return Err((error, planned)),
        };
        self.count();
        let (took, jobs) = (between(began, self.shared.core.now()), planned.len());
        let mut tells: Vec<Box<dyn FnOnce()>> = Vec::new();
        let mut gone = Vec::new();
        for each in &mut planned {
            // From here on the record may be on the disk, and it names the file.
            if let Effect::Put { slot, .. } = &mut each.effect {
                slot.keep();
            }
        }
        // An index that has ended takes no records; the next opening reads them.
        let applied = self.shared.core.with(|index, _| {
            for (planned, at) in planned.into_iter().zip(places) {
                let mut take = |record| {
                    gone.extend(apply(index, &mut self.segments, record, &at)?);
                    Ok::<_, Unreadable>(())
                };
                match planned.effect {
                    Effect::Put { image, slot, answer } => {
                        let id = image.id;
                        take(Record::Message(image))?;
                        self.shared.counts.puts.fetch_add(1, Relaxed);
                        tells.push(Box::new(move || {
                            drop(slot);
                            tell(answer, Ok(id));
                        }));
                    }
                    Effect::Finish { record, ids, answer } => {
                        self.shared.counts.finished.fetch_add(record.ends.len() as u64, Relaxed);
                        take(Record::Outcome(record))?;
                        self.shared.counts.puts.fetch_add(ids.len() as u64, Relaxed);
                        tells.push(Box::new(move || tell(answer, Ok(ids))));
                    }
                    Effect::Alter { id, what, answer } => {
                        let concerned = index.alter(id, &what)?.ok_or(Error::NoSuchMessage(id));
                        tells.push(Box::new(move || tell(answer, concerned)));
                    }
                    Effect::Remove { id, answer } => {
                        take(Record::Removed(id))?;
                        tells.push(Box::new(move || tell(answer, Ok(()))));
                    }
                    Effect::Ids { ceiling, answers } => {
                        self.shared.ids.ceiling.fetch_max(ceiling, Relaxed);
                        tells.push(Box::new(move || answers.into_iter().for_each(|answer| tell(answer, Ok(())))));
                    }
                    Effect::Moved { id, body } => moved(index, &mut self.segments, id, body, &at)?,
                    Effect::Closed => {}
                }
            }
            Ok(())
        });
        if applied.is_ok() {
            tells.into_iter().for_each(|tell| tell());
        }
        // Counts the jobs that arrived in the meantime too.
        self.pace.done(self.shared.core.now(), jobs.saturating_add(self.shared.lanes.len()), took);
        for id in gone {
            // A file that cannot be removed is an orphan: the next opening removes it.
            drop(self.shared.vfs.remove(&self.shared.body_path(id)));
        }
        Ok(())
    }

    fn plan_finish(
        &self,
        now: Now,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<(NewRecord, OutcomeRecord, Vec<MessageId>), LeaseError> {
        let id = ends.first().map(|(lease, _)| lease.message()).ok_or(LeaseError::Stale)?;
        let (born, ends) = self.shared.core.with(|index, _| {
            let begun = match index.begin_finish(now.moment, ends)? {
                Ok(begun) => begun,
                Err(error) => return Ok(Err(error)),
            };
            let born = index.get(id)?.map_or(now.moment, |message| message.born);
            Ok(Ok((born, begun)))
        })??;
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
        let record = OutcomeRecord { id, born, ends, derived: Vec::new() };
        let mut payload = Vec::new();
        encode_outcome(&mut payload, now, &record, &images);
        // What is applied is what will be read back.
        match record::decode(Kind::Outcome, &payload, now.wall, now) {
            Ok(Record::Outcome(record)) => Ok((NewRecord::new(Kind::Outcome, payload, now), record, ids)),
            _ => Err(Error::Broken(Broken::new(
                "the record of an outcome could not be decoded and was not written; report this as a bug",
            ))
            .into()),
        }
    }

    /// The record that takes another block of ids, and its ceiling.
    pub(super) fn plan_ids(&self) -> (NewRecord, u64) {
        let ids = &self.shared.ids;
        let taken = ids.next.load(Relaxed).max(ids.ceiling.load(Relaxed));
        let ceiling = taken.saturating_add(ID_BLOCK);
        (NewRecord::new(Kind::Ids, ceiling.to_le_bytes().to_vec(), self.shared.now()), ceiling)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let error = self.shared.core.ended().unwrap_or(Error::Closed);
        for planned in self.waiting.drain(..) {
            match planned.effect {
                Effect::Put { mut slot, answer, .. } => {
                    // The record may be on the disk, and names the file.
                    slot.keep();
                    drop(slot);
                    tell(answer, Err(error.clone().into()));
                }
                Effect::Finish { answer, .. } => tell(answer, Err(error.clone().into())),
                Effect::Alter { answer, .. } => tell(answer, Err(error.clone())),
                Effect::Remove { answer, .. } => tell(answer, Err(error.clone())),
                Effect::Ids { answers, .. } => {
                    answers.into_iter().for_each(|answer| tell(answer, Err(error.clone().into())));
                }
                Effect::Moved { .. } | Effect::Closed => {}
            }
        }
    }
}
