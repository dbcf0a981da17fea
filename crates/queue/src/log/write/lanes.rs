//! The lanes: the two job queues of the store's thread.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::log::format::record::Image;
use crate::log::write::segment::NewRecord;
use crate::log::write::slot::DraftSlot;
use crate::{Alteration, Broken, Derived, Error, Lease, LeaseError, MessageId, Outcome, PutError};

/// Two queues of jobs for the store's thread.
///
/// Outcomes go first and are never refused: there is at most one for each lease. Changes by
/// operators are among them, one for each call. There are at most as many puts as drafts, which are
/// bounded where they begin.
#[derive(Default)]
pub(in crate::log) struct Lanes(Mutex<LanesInner>);

#[derive(Default)]
struct LanesInner {
    outcomes: VecDeque<Job>,
    puts: VecDeque<Job>,
    /// The number of waiting jobs at which the store's thread is woken. `None`: it is busy and will
    /// look by itself.
    wanted: Option<usize>,
    stopping: bool,
    closed: Option<Error>,
    /// The number of times that the lanes were opened again. A put that began in an earlier life is
    /// refused.
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

/// A message whose body is in the payload or on stable storage.
pub(in crate::log) struct PutJob {
    pub(in crate::log) entry: NewRecord,
    pub(in crate::log) image: Image,
    pub(in crate::log) slot: DraftSlot,
    pub(in crate::log) answer: Answer<Result<MessageId, PutError>>,
}

impl Lanes {
    /// Takes the job, or refuses it if the lanes are closed. Returns `true` if the store's thread
    /// must be woken.
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

    /// Returns `true` if `wanted` jobs wait, or if no more will come. If not, the store's thread is
    /// woken at that number.
    pub(in crate::log) fn gather(&self, wanted: usize) -> bool {
        let mut lanes = self.lock();
        let wanted = wanted.min(BATCH_JOBS);
        lanes.wanted = Some(wanted);
        lanes.stopping || lanes.closed.is_some() || lanes.len() >= wanted
    }

    /// The number of waiting jobs.
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

    /// Takes jobs again after [`close`](Self::close).
    pub(in crate::log) fn reopen(&self) {
        let mut lanes = self.lock();
        lanes.closed = None;
        lanes.life = lanes.life.wrapping_add(1);
    }

    /// Takes the jobs of one batch, outcomes first. `puts`: puts too. If it returns jobs, pushes do
    /// not wake the store's thread until the next call.
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

    /// The life of the lanes in which the job began. `None`: it does not matter.
    fn life(&self) -> Option<u64> {
        match self {
            Self::Put(put) => Some(put.slot.life),
            Self::Finish { .. } | Self::Alter { .. } | Self::Remove { .. } | Self::Ids { .. } => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Put(put) => put.entry.payload.len(),
            Self::Finish { derived, .. } => derived.iter().map(|each| each.body.len()).sum(),
            Self::Alter { .. } | Self::Remove { .. } | Self::Ids { .. } => 0,
        }
    }
}

/// The error for a draft that began before the lanes were opened again.
pub(in crate::log) fn outlived() -> Error {
    Error::Broken(Broken::new(
        "the queue was opened again after a failure of its disk; nothing of this message is left, send it again",
    ))
}

/// Answers a caller. If the caller no longer waits, the answer is lost.
pub(in crate::log) fn tell<T>(answer: Answer<T>, value: T) {
    drop(answer.send(value));
}

/// A batch ends once it exceeds one of these.
const BATCH_OCTETS: usize = 8 << 20;
const BATCH_JOBS: usize = 1024;
