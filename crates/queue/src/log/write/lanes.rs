//! The two ways to the store's thread.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::log::format::record::Image;
use crate::log::write::segment::NewRecord;
use crate::log::write::slot::DraftSlot;
use crate::{Alteration, Broken, Derived, Error, Lease, LeaseError, MessageId, Outcome, PutError};

/// Two ways to the store's thread. Outcomes go first and are never refused: there is at most one for each lease. Puts are as
/// many as there are drafts, which are bounded where they begin.
#[derive(Default)]
pub(in crate::log) struct Lanes(Mutex<LanesInner>);

#[derive(Default)]
struct LanesInner {
    outcomes: VecDeque<Job>,
    puts: VecDeque<Job>,
    /// The store's thread is to be woken when so many jobs wait; [`None`] while it is busy and will look by itself.
    wanted: Option<usize>,
    stopping: bool,
    closed: Option<Error>,
    /// How often the lanes were opened again. A put that began before has no place in them.
    life: u64,
}

pub(in crate::log) type Answer<T> = oneshot::Sender<T>;

pub(in crate::log) enum Job {
    Put(Box<PutJob>),
    Finish { ends: Vec<(Lease, Outcome)>, derived: Vec<Derived>, answer: Answer<Result<Vec<MessageId>, LeaseError>> },
    Alter { id: MessageId, what: Alteration, answer: Answer<Result<usize, Error>> },
    Remove { id: MessageId, answer: Answer<Result<(), Error>> },
    Ids { answer: Answer<Result<(), PutError>> },
}

/// A message whose body is on stable storage or in the payload.
pub(in crate::log) struct PutJob {
    pub(in crate::log) entry: NewRecord,
    pub(in crate::log) image: Image,
    pub(in crate::log) slot: DraftSlot,
    pub(in crate::log) answer: Answer<Result<MessageId, PutError>>,
}

impl Lanes {
    /// Takes the job, or refuses it when nobody will do it any more. Whether the store's thread is to be woken.
    #[must_use]
    pub(in crate::log) fn push(&self, job: Job) -> bool {
        let mut lanes = self.lock();
        let closed = lanes.stopping.then_some(Error::Closed);
        let outlived = job.life().is_some_and(|life| life != lanes.life).then(outlived);
        if let Some(why) = lanes.closed.clone().or(closed).or(outlived) {
            drop(lanes);
            job.refuse(&why);
            return false;
        }
        match job {
            job @ (Job::Put(_) | Job::Ids { .. }) => lanes.puts.push_back(job),
            job => lanes.outcomes.push_back(job),
        }
        lanes.wanted.is_some_and(|wanted| lanes.len() >= wanted)
    }

    /// Whether so many jobs wait, or nothing more will come. If not, the store's thread is woken when they do.
    pub(in crate::log) fn gather(&self, wanted: usize) -> bool {
        let mut lanes = self.lock();
        let wanted = wanted.min(BATCH_JOBS);
        lanes.wanted = Some(wanted);
        lanes.stopping || lanes.closed.is_some() || lanes.len() >= wanted
    }

    /// How many jobs wait.
    pub(in crate::log) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(in crate::log) fn stop(&self) {
        self.lock().stopping = true;
    }

    pub(in crate::log) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    pub(in crate::log) fn life(&self) -> u64 {
        self.lock().life
    }

    /// Takes jobs again after they were [closed](Self::close).
    pub(in crate::log) fn reopen(&self) {
        let mut lanes = self.lock();
        lanes.closed = None;
        lanes.life = lanes.life.wrapping_add(1);
    }

    /// What fits into a batch, outcomes first; puts only if there is room for what they bring. Unless it is nothing, nobody wakes
    /// the store's thread until this is called again.
    pub(in crate::log) fn take(&self, puts: bool) -> (Vec<Job>, bool) {
        let mut lanes = self.lock();
        let mut octets = 0_usize;
        let mut jobs = Vec::new();
        while octets < BATCH_OCTETS && jobs.len() < BATCH_JOBS {
            let outcome = lanes.outcomes.pop_front();
            let Some(job) = outcome.or_else(|| if puts { lanes.puts.pop_front() } else { None }) else { break };
            octets = octets.saturating_add(job.size());
            jobs.push(job);
        }
        lanes.wanted = jobs.is_empty().then_some(1);
        (jobs, lanes.stopping)
    }

    pub(in crate::log) fn close(&self, why: &Error) {
        let mut lanes = self.lock();
        lanes.closed.get_or_insert_with(|| why.clone());
        let jobs: Vec<_> = lanes.outcomes.drain(..).collect();
        let puts: Vec<_> = lanes.puts.drain(..).collect();
        drop(lanes);
        jobs.into_iter().chain(puts).for_each(|job| job.refuse(why));
    }

    fn lock(&self) -> MutexGuard<'_, LanesInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LanesInner {
    fn len(&self) -> usize {
        self.outcomes.len().saturating_add(self.puts.len())
    }
}

impl Job {
    pub(in crate::log) fn refuse(self, why: &Error) {
        match self {
            Self::Put(put) => tell(put.answer, Err(why.clone().into())),
            Self::Finish { answer, .. } => tell(answer, Err(why.clone().into())),
            Self::Alter { answer, .. } => tell(answer, Err(why.clone())),
            Self::Remove { answer, .. } => tell(answer, Err(why.clone())),
            Self::Ids { answer } => tell(answer, Err(why.clone().into())),
        }
    }

    /// In which life of the lanes it began, if that matters.
    fn life(&self) -> Option<u64> {
        match self {
            Self::Put(put) => Some(put.slot.life),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Put(put) => put.entry.payload.len(),
            Self::Finish { derived, .. } => derived.iter().map(|each| each.body.len()).sum(),
            _ => 0,
        }
    }
}

/// What is said to who began before the lanes were opened again.
pub(in crate::log) fn outlived() -> Error {
    Error::Broken(Broken::new(
        "the queue was opened again after the disk's trouble, and nothing is left of this message; send it again",
    ))
}

/// Who does not wait any more is not told.
pub(in crate::log) fn tell<T>(answer: Answer<T>, value: T) {
    drop(answer.send(value));
}

/// A batch ends where it grows beyond one of these.
const BATCH_OCTETS: usize = 8 << 20;
const BATCH_JOBS: usize = 1024;
