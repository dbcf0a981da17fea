//! The log engine on a simulated disk.
#![allow(clippy::unwrap_used)]

mod batches;
mod contract;
mod damage;
mod disk;
mod entry;
mod errno;
mod every_error;
mod faults;
mod hostile;
mod index;
mod inspect;
mod ledger;
mod overlay;
mod power;
mod rebuilt;
mod reopen;
mod report;
mod room;
mod rot;
mod whereabouts;

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;

use self::disk::Disk;
use super::{LogOptions, LogQueue, OpenError};
use crate::{
    Claimed, Draft, ManualClock, MessageId, NewDelivery, NewMessage, Owner, Priority, PutError, Queue, RoutingKey,
    Summary,
};

fn options(clock: &ManualClock) -> LogOptions {
    LogOptions {
        clock: Arc::new(clock.clone()),
        segment_size: 4096,
        inline_body: 1500,
        disk_reserve: 0,
        ..LogOptions::default()
    }
}

fn open(disk: &Disk, options: &LogOptions) -> Result<LogQueue, OpenError> {
    LogQueue::open_on(Arc::new(disk.clone()), Path::new(DIR), options.clone())
}

fn message(key: &str, state: &[u8]) -> NewMessage {
    let key = RoutingKey::new(key).unwrap();
    NewMessage {
        owner: Owner::default(),
        priority: Priority::default(),
        envelope: Bytes::from_static(b"envelope"),
        deliveries: vec![NewDelivery { key, delay: Duration::ZERO, state: Bytes::copy_from_slice(state) }],
    }
}

async fn put(queue: &LogQueue, message: NewMessage, body: &[u8]) -> Result<MessageId, PutError> {
    let mut draft = queue.put(None).await?;
    for chunk in body.chunks(1000) {
        draft.write(Bytes::copy_from_slice(chunk)).await?;
    }
    draft.commit(message).await
}

async fn claim(queue: &LogQueue, max: usize) -> Vec<Claimed> {
    queue.claim_any(max, Duration::from_secs(1)).await.unwrap_or_default()
}

async fn read(queue: &LogQueue, claimed: &Claimed) -> Result<Vec<u8>, crate::Error> {
    body_of(queue, claimed.lease.message()).await
}

/// All messages, over all pages.
async fn everything(queue: &LogQueue) -> Vec<Summary> {
    let mut all: Vec<Summary> = Vec::new();
    loop {
        let page = queue.list(all.last().map(|last| last.id), usize::MAX).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// The body of a message, claimable or not.
async fn body_of(queue: &LogQueue, id: MessageId) -> Result<Vec<u8>, crate::Error> {
    let mut body = queue.body(id).await?;
    let mut read = Vec::new();
    while let Some(chunk) =
        crate::Body::chunk(&mut body).await.map_err(|error| error.downcast::<crate::Error>().unwrap())?
    {
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

const DIR: &str = "/queue";
