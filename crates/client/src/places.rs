//! The right to be under way, which passes on while no server is ready.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

/// How long work may have no server that is ready, and keep its place. Most servers are ready
/// sooner. A slower one loses nothing: its work goes on without a place.
const SILENT: Duration = Duration::from_millis(200);

/// Bounds what is under way at once: by its places, and by the room for what gave its place up.
#[derive(Debug)]
pub(crate) struct Places {
    places: Semaphore,
    room: Semaphore,
}

/// A place, or while it is held without a server a part of the room. Dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Place<'p> {
    permit: Option<SemaphorePermit<'p>>,
    /// `None`: there is no bound.
    room: Option<&'p Semaphore>,
}

impl Places {
    /// Makes this number of places and this much room, at least one of each.
    pub(crate) fn new(places: usize, room: usize) -> Self {
        let permits = |number: usize| Semaphore::new(number.clamp(1, Semaphore::MAX_PERMITS));
        Self { places: permits(places), room: permits(room) }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Place<'_> {
        // The semaphore is never closed.
        Place { permit: self.places.acquire().await.ok(), room: Some(&self.room) }
    }
}

impl Place<'_> {
    /// A place where there is no bound.
    pub(crate) const fn unbounded() -> Place<'static> {
        Place { permit: None, room: None }
    }

    /// Does work. If no server is ready after 200 ms, the place goes to other work, and this goes
    /// on in the room. If that is full, the place stays.
    pub(crate) async fn hold<T>(&mut self, is_ready: &AtomicBool, work: impl Future<Output = T>) -> T {
        let Some(room) = self.room else { return work.await };
        let mut work = pin!(work);
        if let Ok(done) = timeout(SILENT, &mut work).await {
            return done;
        }
        if !is_ready.load(Relaxed)
            && let Ok(permit) = room.try_acquire()
        {
            self.permit = Some(permit);
        }
        work.await
    }
}
