//! What every engine must do, as a test suite that runs.
//!
//! An engine's tests implement [`Harness`] and call [`run`], which panics where the contract is broken. It waits for futures in the
//! ordinary way, so it runs under any executor; an engine that never resolves a future hangs it.

mod cases;
mod durable;
mod manage;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Body, Claimed, Draft, Lease, MessageId, NewDelivery, NewMessage, Owner, Priority, PutError, Queue, RoutingKey,
};

/// What the suite needs to know about an engine.
pub trait Harness {
    /// The engine.
    type Queue: Queue;

    /// A new and empty queue. The one before is not used any more.
    fn open(&mut self) -> impl Future<Output = Self::Queue>;

    /// The same queue opened anew, after closing it or after a crash; `None` if it cannot be, because it lives in memory.
    fn reopen(&mut self, queue: Self::Queue) -> impl Future<Output = Option<Self::Queue>>;

    /// Lets this much time pass for the queue.
    fn advance(&mut self, by: Duration) -> impl Future<Output = ()>;
}

/// Runs all cases.
///
/// # Panics
/// Where the engine breaks the contract.
pub async fn run<H: Harness>(harness: &mut H) {
    cases::commit_claim_finish(harness).await;
    cases::a_draft_that_is_dropped_leaves_nothing(harness).await;
    cases::bodies_of_every_size(harness).await;
    cases::a_message_needs_a_delivery(harness).await;
    cases::a_stale_lease_writes_nothing(harness).await;
    cases::an_expired_lease_is_claimable_again(harness).await;
    cases::a_late_outcome_counts_until_the_next_claim(harness).await;
    cases::a_lease_can_be_extended(harness).await;
    cases::a_retry_waits_its_delay(harness).await;
    cases::several_deliveries_are_independent(harness).await;
    cases::derived_messages_come_with_the_outcome(harness).await;
    cases::owners_take_turns(harness).await;
    cases::priority_then_due(harness).await;
    cases::claims_are_for_keys(harness).await;
    cases::due_keys_are_paged(harness).await;
    cases::changed_wakes(harness).await;
    cases::changed_loses_nothing(harness).await;
    cases::age_grows(harness).await;
    cases::closed_is_closed(harness).await;
    manage::hold_and_release(harness).await;
    manage::remove(harness).await;
    manage::list_is_paged(harness).await;
    manage::reschedule(harness).await;
    manage::reroute(harness).await;
    manage::a_search_finds_what_it_says(harness).await;
    durable::reopening_gives_the_same(harness).await;
    durable::leases_end_with_the_process(harness).await;
    durable::ids_are_never_used_again(harness).await;
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

/// `len` octets that differ from place to place.
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
    let mut body = queue.body(lease).await.expect("body");
    let (len, mut read) = (body.len(), Vec::new());
    while let Some(chunk) = body.next().await.expect("chunk") {
        assert!(!chunk.is_empty() && chunk.len() <= 64 << 10, "chunks are small and never empty");
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read.len() as u64, len);
    read
}

/// Whether the future is ready without waiting.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

const LEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
