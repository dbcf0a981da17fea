//! Watches the octets that move on a connection, and bounds the wait for them.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use posthaste_client::{Health, Server};
use thiserror::Error;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    places::{Place, Places, SILENT_FOR, Standing},
    site::Turn,
};

/// How long a connection may be silent and keep its place. Most hosts answer sooner. A slower host
/// loses nothing: its connection takes the place back.
pub(super) const PARK_AFTER: Duration = Duration::from_millis(200);
/// How long a server may be silent and still count as one that answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How often a silent connection looks whether its server has failed with others.
const LOOK: Duration = Duration::from_millis(300);
/// How long all workers of a site may hear nothing from a server that greets, before it counts as
/// failed: one that a route names, and one that DNS names. Some servers look long at a message.
pub(super) const MUTE_CHOSEN: Duration = Duration::from_secs(10);
pub(super) const MUTE_BY_MX: Duration = Duration::from_secs(60);
/// The most patience with a silent server while other connections wait for its room.
const MOST_PATIENCE: Duration = Duration::from_secs(30);
/// The slowest rate of content, in octets a second. Each message extends its attempt by the time
/// that it takes at this rate.
const RATE: u64 = 16 * 1_024;

/// The activity on one connection.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// How often octets moved, in either direction.
    moved: AtomicU64,
    /// How far the current content is: [`NONE`], [`BEGUN`] or [`WHOLE`].
    content: AtomicU8,
    /// Milliseconds by which all contents so far extend the attempt.
    granted: AtomicU64,
    /// The server of the transaction that is under way.
    server: Mutex<Option<Server>>,
    /// What is wrong with the body of the message, if it is not what was accepted.
    damage: Mutex<Option<Box<str>>>,
}

/// No content is under way.
const NONE: u8 = 0;
/// Some of the content may have left.
const BEGUN: u8 = 1;
/// All of the content may have left: the server may have the message.
const WHOLE: u8 = 2;

impl Pulse {
    /// Notes that the body could not be read, if no later attempt can read it either.
    pub(super) fn note_damage(&self, error: &io::Error) {
        let error = error.get_ref().and_then(|error| error.downcast_ref::<posthaste_queue::Error>());
        if let Some(error @ posthaste_queue::Error::Damaged { .. }) = error {
            *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string().into());
        }
    }

    pub(super) fn take_damage(&self) -> Option<Box<str>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn content_begins(&self, octets: u64) {
        self.content.store(BEGUN, Relaxed);
        self.granted.fetch_add((octets / RATE).saturating_mul(1_000), Relaxed);
    }

    pub(super) fn content_is_whole(&self) {
        self.content.store(WHOLE, Relaxed);
    }

    pub(super) fn no_content(&self) {
        self.content.store(NONE, Relaxed);
    }

    /// A transaction begins with this server, or is over.
    pub(super) fn transacts_with(&self, server: Option<Server>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    fn server(&self) -> Option<Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn content_has_begun(&self) -> bool {
        self.content.load(Relaxed) != NONE
    }

    /// How often octets moved, in either direction.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    pub(super) fn beat(&self) {
        self.moved.fetch_add(1, Relaxed);
    }
}

/// A stream that counts its reads and writes.
#[derive(Debug)]
pub(super) struct Metered {
    stream: Wire,
    pulse: Arc<Pulse>,
}

/// What carries the octets.
#[derive(Debug)]
pub(super) enum Wire {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls a method of the stream that there is.
macro_rules! on {
    ($metered:expr, $stream:ident => $call:expr) => {
        match &mut $metered.stream {
            Wire::Tcp($stream) => $call,
            #[cfg(unix)]
            Wire::Unix($stream) => $call,
        }
    };
}

impl Metered {
    pub(super) const fn new(stream: Wire, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse }
    }

    fn count<T>(&self, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.pulse.beat();
        }
        moved
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = on!(self, stream => Pin::new(stream).poll_read(context, into));
        self.count(read)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let written = on!(self, stream => Pin::new(stream).poll_write(context, octets));
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = on!(self, stream => Pin::new(stream).poll_write_vectored(context, slices));
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        // Every stream of the system is.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

/// Why a connection was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum GaveUp {
    /// The time of the attempt is over.
    #[error("the time of one attempt was over before there was an answer")]
    TooLong,
    /// The server was silent while other connections waited for its room, or failed with others.
    #[error("the server was silent while other mail waited")]
    Silent,
}

/// One attempt of a delivery: its place and its time.
#[derive(Debug)]
pub(super) struct Flow<'p> {
    places: &'p Arc<Places>,
    place: &'p mut Option<Place>,
    worker: &'p Turn,
    /// Notified when the connection falls silent, or its server counts as failed.
    silent: &'p Notify,
    /// How long the site may be mute, and where it is noted that a server failed.
    mute: (Duration, Health),
    standing: Standing,
    until: Instant,
    /// How long a server may be silent before it is given up for connections that wait for its
    /// room. It grows fourfold with each attempt, so that a slow but healthy host gets its mail
    /// after some attempts.
    patience: Duration,
    /// The server was silent for so long that the site no longer counts as one that answers.
    pub(super) was_silent: bool,
}

impl<'p> Flow<'p> {
    pub(super) fn new(
        places: &'p Arc<Places>,
        place: &'p mut Option<Place>,
        (worker, silent): (&'p Turn, &'p Notify),
        mute: (Duration, Health),
        standing: Standing,
        time: Duration,
        attempts: u32,
    ) -> Self {
        let now = Instant::now();
        let until = now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(86_400));
        let patience = SILENT_FOR.saturating_mul(4_u32.saturating_pow(attempts)).min(MOST_PATIENCE);
        Self { places, place, worker, silent, mute, standing, until, patience, was_silent: false }
    }

    /// Waits for a place that the delivery may have, unless it has one.
    pub(super) async fn enter(&mut self) {
        if self.standing != Standing::Proven && self.place.as_ref().is_some_and(Place::is_reserved) {
            *self.place = None;
        }
        if self.place.is_none() {
            *self.place = Some(self.places.take(self.standing, &self.worker.site().share).await);
        }
    }

    /// Gives up the place, before work that needs none.
    pub(super) fn leave(&mut self) {
        *self.place = None;
    }

    pub(super) fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }

    /// Does work that moves octets on the connection of this pulse, within the time of the attempt.
    /// The place is parked while no octets move. Before content, this gives up a server that has
    /// failed with others meanwhile if another may get the mail. After all of the content may have
    /// left, this never gives up: the server may have the message. Then the session's own timeouts
    /// end the work.
    ///
    /// The work is pinned by the caller. By value it would be kept once for each call that it goes
    /// through, and a worker's task would be five times as large.
    pub(super) async fn run<F: Future>(&mut self, pulse: &Pulse, work: Pin<&mut F>) -> Result<F::Output, GaveUp> {
        self.enter().await;
        let granted = pulse.granted.load(Relaxed);
        let done = self.watch(pulse, granted, work).await;
        self.resume();
        self.until += Duration::from_millis(pulse.granted.load(Relaxed).saturating_sub(granted));
        done
    }

    /// Returns `true` if the site's limits allow a new connection now.
    pub(super) fn may_dial(&self) -> bool {
        self.worker.may_dial()
    }

    /// A new connection is begun.
    pub(super) fn dials(&self) {
        self.worker.dials();
    }

    fn resume(&mut self) {
        self.worker.is_answered();
        if let Some(place) = self.place.as_mut() {
            place.resume();
        }
    }

    async fn watch<F: Future>(
        &mut self,
        pulse: &Pulse,
        granted: u64,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, GaveUp> {
        let moved = || pulse.moved();
        let (mut seen, mut since) = (moved(), Instant::now());
        let (mut is_parked, mut given_up) = (false, None);
        let timer = sleep_until(self.until.min(since + PARK_AFTER));
        tokio::pin!(timer);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                // Polled right after the work, which makes the octets move.
                () = poll_fn(|_| if moved() == seen { Poll::Pending } else { Poll::Ready(()) }), if is_parked => {
                    (seen, since, is_parked, given_up) = (moved(), Instant::now(), false, None);
                    self.resume();
                    timer.as_mut().reset(since + PARK_AFTER);
                }
                () = until_given_up(&mut given_up), if given_up.is_some() => {
                    // A completed receiver must not be polled again.
                    given_up = None;
                    if !pulse.content_has_begun() {
                        return Err(GaveUp::Silent);
                    }
                }
                () = &mut timer => {
                    let (now, content) = (Instant::now(), pulse.content.load(Relaxed));
                    let more = Duration::from_millis(pulse.granted.load(Relaxed).saturating_sub(granted));
                    let until = self.until + more;
                    if until <= now && content != WHOLE {
                        return Err(GaveUp::TooLong);
                    }
                    let next = if moved() != seen {
                        (seen, since) = (moved(), now);
                        now + PARK_AFTER
                    } else if !is_parked {
                        is_parked = true;
                        self.worker.is_silent(pulse.server());
                        self.silent.notify_one();
                        given_up = self.place.as_mut().and_then(|place| place.park((content == NONE).then_some(self.patience)));
                        now + LOOK
                    } else if content == NONE && self.worker.is_stuck() {
                        return Err(GaveUp::Silent);
                    } else {
                        let (mute, health) = &self.mute;
                        if self.worker.judge(*mute, health) {
                            self.silent.notify_one();
                        }
                        self.was_silent |= now >= since + ANSWERS_WITHIN;
                        now + if content == NONE { LOOK } else { ANSWERS_WITHIN }
                    };
                    timer.as_mut().reset(if content == WHOLE { next } else { next.min(until) });
                }
            }
        }
    }
}

/// Completes when the connection is to be given up. If it never is, this never completes.
pub(super) async fn until_given_up(given_up: &mut Option<oneshot::Receiver<()>>) {
    if let Some(come) = given_up
        && come.await.is_ok()
    {
        return;
    }
    *given_up = None;
    std::future::pending().await
}
