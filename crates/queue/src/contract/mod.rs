//! The contract of every engine, as a test suite. With the feature `contract`.
//!
//! An engine's tests implement [`Harness`] and call [`run`]. It panics where the contract is
//! broken, after printing the name of the case on the standard error output. Otherwise it returns
//! the cases that it ran and those that it skipped. It polls futures in the ordinary way, so it
//! runs under any executor. A future that never resolves hangs it.
//!
//! The *hooks* are the methods of [`Harness`]. Three are required. The others mostly bring a
//! failure about, such as a crash or a full disk. A hook that the engine or the harness cannot
//! offer returns [`Cannot`] with the reason, and its cases are reported as skipped: name the
//! expected reasons with [`Report::assert_skipped`].
//!
//! ```
//! use std::time::Duration;
//! use posthaste_queue::contract::{self, Cannot, Harness};
//! use posthaste_queue::memory::{MemoryOptions, MemoryQueue};
//! use posthaste_queue::ManualClock;
//!
//! #[derive(Default)]
//! struct Memory(ManualClock);
//!
//! impl Harness for Memory {
//!     type Queue = MemoryQueue;
//!
//!     async fn open(&mut self) -> MemoryQueue {
//!         let mut options = MemoryOptions::default();
//!         options.clock = std::sync::Arc::new(self.0.clone());
//!         MemoryQueue::new(options)
//!     }
//!
//!     async fn reopen(&mut self, _: MemoryQueue) -> Result<MemoryQueue, Cannot> {
//!         Err(Cannot("it is all in memory"))
//!     }
//!
//!     async fn advance(&mut self, by: Duration) {
//!         self.0.advance(by);
//!     }
//! }
//!
//! # fn block_on<T>(future: impl Future<Output = T>) -> T {
//! #     let mut future = std::pin::pin!(future);
//! #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
//! #     loop {
//! #         if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
//! #             return value;
//! #         }
//! #     }
//! # }
//! let report = block_on(contract::run(&mut Memory::default()));
//! report.assert_skipped(&[
//!     "it is all in memory",
//!     "the harness has no disk",
//!     "the harness has no crash",
//!     "the harness has no wall clock",
//!     "the harness sets no bound of leases",
//!     "the queue has one owner at a time",
//! ]);
//! ```

mod cases;
mod classes;
mod durable;
mod faults;
mod gather;
mod limits;
mod manage;
mod owners;
mod report;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

pub use self::report::{Cannot, Report, Skipped};
use crate::{
    Body, Claimed, DeliverySummary, Draft, DueClass, Lease, MessageId, NewDelivery, NewMessage, Owner, Priority,
    PutError, Queue, RoutingKey, Summary,
};

/// What the suite needs of an engine's tests.
///
/// The next [`open`](Self::open) undoes what was done to the disk and to the wall clock.
pub trait Harness {
    /// The engine.
    type Queue: Queue;

    /// A new and empty queue. The previous one is not used again.
    fn open(&mut self) -> impl Future<Output = Self::Queue>;

    /// A new and empty queue with at most `most` leases at once.
    fn open_with_leases(&mut self, most: usize) -> impl Future<Output = Result<Self::Queue, Cannot>> {
        let _ = most;
        std::future::ready(Err(Cannot("the harness sets no bound of leases")))
    }

    /// Closes the queue and opens it again.
    fn reopen(&mut self, queue: Self::Queue) -> impl Future<Output = Result<Self::Queue, Cannot>>;

    /// Lets `by` pass on every clock of the queue. If the clocks run by themselves too, less than a
    /// second may pass between two calls.
    fn advance(&mut self, by: Duration) -> impl Future<Output = ()>;

    /// Ends the queue without closing it, and opens it again. Drafts and bodies of the old queue
    /// may still exist, and be dropped later.
    fn crash(&mut self, queue: Self::Queue, how: Crash) -> impl Future<Output = Result<Self::Queue, Cannot>> {
        drop((queue, how));
        std::future::ready(Err(Cannot("the harness has no crash")))
    }

    /// Puts the storage of the open queue into this state.
    fn set_disk(&mut self, disk: Disk) -> impl Future<Output = Result<(), Cannot>> {
        let _ = disk;
        std::future::ready(Err(Cannot("the harness has no disk")))
    }

    /// Sets the wall clock, and no other clock, to another time.
    fn jump_wall(&mut self, jump: Jump) -> impl Future<Output = Result<(), Cannot>> {
        let _ = jump;
        std::future::ready(Err(Cannot("the harness has no wall clock")))
    }

    /// Opens the same queue once more, as another process does. For engines that several processes
    /// share. Such a process is called an owner here; it has nothing to do with an [`Owner`].
    fn another(&mut self, queue: &Self::Queue) -> impl Future<Output = Result<Self::Queue, Cannot>> {
        let _ = queue;
        std::future::ready(Err(Cannot("the queue has one owner at a time")))
    }

    /// Ends this owner like a killed process: its leases are not given back. The other owners go
    /// on.
    fn kill(&mut self, owner: Self::Queue) -> impl Future<Output = Result<(), Cannot>> {
        drop(owner);
        std::future::ready(Err(Cannot("the queue has one owner at a time")))
    }
}

/// How a queue ends without being closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed. The operating system goes on, and so does the store.
    Process,
    /// The power is cut: what is not on stable storage is lost.
    Power,
}

/// The state of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// It has room and does everything at once.
    Well,
    /// No file grows and none is created, down to the last byte. Existing bytes can be read,
    /// overwritten and removed.
    Full,
    /// Writes reach stable storage only once the disk is [`Well`](Self::Well) again. Reading goes
    /// on.
    Stalled,
    /// Writes and syncs fail. For engines that go on by themselves once the disk is
    /// [`Well`](Self::Well) again.
    Broken,
}

/// Where a wall clock jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// This much later.
    Forward(Duration),
    /// This much earlier.
    Back(Duration),
}

macro_rules! run_all {
    ($harness:ident: $($module:ident { $($case:ident),* $(,)? })*) => {{
        let mut report = Report::default();
        $($(report.add(concat!(stringify!($module), "::", stringify!($case)), $module::$case($harness)).await;)*)*
        report
    }};
}

/// Runs all cases and reports them.
///
/// # Panics
/// Where the engine breaks the contract. The name of the case is printed.
#[must_use = "a case that was skipped shows nowhere else"]
pub async fn run<H: Harness>(harness: &mut H) -> Report {
    run_all!(harness:
        cases {
            commit_claim_finish,
            a_draft_that_is_dropped_leaves_nothing,
            bodies_of_every_size,
            a_stale_lease_writes_nothing,
            an_expired_lease_is_claimable_again,
            a_late_outcome_counts_until_the_next_claim,
            a_lease_can_be_extended,
            a_retry_waits_its_delay,
            several_deliveries_are_independent,
            derived_messages_come_with_the_outcome,
            changed_wakes,
            changed_wakes_those_who_wait,
            changed_loses_nothing,
            age_grows,
            closed_is_closed,
        }
        classes {
            classes_are_listed_by_key_then_priority_then_owner,
            what_is_due_is_listed_after_any_class,
            claims_are_served_in_the_given_order,
            the_longest_due_of_a_class_comes_first,
            a_claim_from_any_class_takes_the_highest_priority,
            a_class_that_is_due_no_more_is_passed_over,
            a_caller_can_serve_owners_in_turn,
            no_owner_starves_in_a_key,
        }
        limits {
            a_message_has_limits,
            an_outcome_has_limits,
            delays_are_cut,
            leases_are_bounded,
            nothing_is_given_when_nothing_is_asked_for,
            a_hint_is_only_a_hint,
        }
        manage {
            hold_and_release,
            remove,
            list_is_paged,
            reschedule,
            reroute,
            a_search_finds_what_it_says,
        }
        gather {
            several_outcomes_are_one_step,
            one_stale_lease_spoils_all,
            what_is_kept_is_due_as_before,
            deliveries_are_gathered_by_their_marks,
            the_last_one_gathers,
            several_outcomes_survive_as_one,
        }
        durable {
            reopening_gives_the_same,
            leases_end_with_the_queue,
            ids_are_never_used_again,
        }
        faults {
            acknowledged_survives_a_kill,
            acknowledged_survives_a_power_cut,
            a_draft_does_not_survive_a_kill,
            a_draft_does_not_survive_a_power_cut,
            an_unanswered_commit_is_whole_or_nothing,
            an_outcome_and_what_it_derives_survive_as_one,
            a_lease_ends_after_a_crash,
            ids_are_never_used_again_after_a_crash,
            a_full_disk_refuses_messages_and_keeps_outcomes,
            a_stalled_disk_keeps_answers_and_gives_claims,
            a_broken_disk_is_told_and_the_queue_goes_on,
            a_wall_clock_that_jumps_moves_nothing,
            a_wall_clock_set_back_over_a_crash_delays_nothing,
        }
        owners {
            what_one_puts_another_delivers,
            two_owners_never_hold_the_same,
            the_later_claim_counts,
            a_lease_that_is_extended_is_so_for_all,
            what_operators_do_is_so_for_all,
            a_dead_owner_s_leases_expire,
            a_dead_owner_s_drafts_are_nothing,
        }
    )
}

/// A message of one owner with one delivery for each key, due at once.
fn message(owner: &str, keys: &[&str]) -> NewMessage {
    let delivery = |key: &&str| NewDelivery {
        key: routing_key(key),
        delay: Duration::ZERO,
        state: Bytes::from(format!("state of {key}")),
    };
    NewMessage {
        owner: Owner::new(owner).expect("a short owner"),
        priority: Priority::default(),
        envelope: Bytes::from(format!("envelope of {owner}")),
        deliveries: keys.iter().map(delivery).collect(),
    }
}

fn routing_key(text: &str) -> RoutingKey {
    RoutingKey::new(text).expect("a short key")
}

fn class(key: &str, priority: i8, owner: &str) -> DueClass {
    let owner = Owner::new(owner).expect("a short owner");
    DueClass { key: routing_key(key), priority: Priority(priority), owner }
}

/// `len` bytes that differ from place to place.
fn octets(len: usize) -> Bytes {
    (0..len).map(|at| u8::try_from(at.wrapping_mul(31).wrapping_add(at >> 8) & 0xff).unwrap_or_default()).collect()
}

async fn put<Q: Queue>(queue: &Q, message: NewMessage, body: &[u8]) -> Result<MessageId, PutError> {
    let mut draft = queue.put(None).await?;
    for chunk in body.chunks(10_000) {
        draft.write(Bytes::copy_from_slice(chunk)).await?;
    }
    assert_eq!(draft.len(), body.len() as u64);
    let id = draft.id();
    let committed = draft.commit(message).await?;
    assert_eq!(committed, id, "a draft's id is the message's");
    Ok(id)
}

async fn claim<Q: Queue>(queue: &Q, max: usize) -> Vec<Claimed> {
    queue.claim_any(max, LEASE).await.expect("claim")
}

/// The one delivery that is due.
async fn claim_one<Q: Queue>(queue: &Q) -> Claimed {
    let mut claimed = claim(queue, 2).await;
    assert_eq!(claimed.len(), 1, "exactly one delivery is due");
    claimed.remove(0)
}

async fn nothing_due<Q: Queue>(queue: &Q) {
    assert!(claim(queue, 1).await.is_empty(), "nothing is due");
}

async fn body<Q: Queue>(queue: &Q, lease: &Lease) -> Vec<u8> {
    let mut body = queue.body(lease.message()).await.expect("body");
    let (len, mut read) = (body.len(), Vec::new());
    while let Some(chunk) = body.chunk().await.expect("chunk") {
        assert!(!chunk.is_empty() && chunk.len() <= 64 << 10, "chunks are small and never empty");
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read.len() as u64, len);
    read
}

/// The future's value if it is ready at once.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Polls a future often enough that one which waits only for a thread would be done.
async fn stays_pending<Q: Queue, T>(queue: &Q, mut future: Pin<&mut impl Future<Output = T>>) -> bool {
    for _ in 0..20 {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return false;
        }
        drop(queue.due(None, 1).await.expect("due"));
    }
    true
}

/// Waits for both at the same time.
async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(|context| {
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(context)
        {
            a = Some(value);
        }
        if b.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(context)
        {
            b = Some(value);
        }
        if a.is_some() && b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (a.expect("the first is done"), b.expect("the second is done"))
}

/// The content of the queue, without what a restart or some milliseconds change.
async fn contents<Q: Queue>(queue: &Q) -> Vec<Summary> {
    let mut list = queue.list(None, 99).await.expect("list");
    for each in &mut list {
        each.age = Duration::from_secs(each.age.as_secs());
        for DeliverySummary { due_in, leased, .. } in &mut each.deliveries {
            *due_in = Duration::from_secs(due_in.as_secs());
            *leased = false;
        }
    }
    list
}

const LEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
