//! A batch to the hosts of domains.
//!
//! A message is split into *parts*, one for each domain of its recipients. A part waits for the
//! look-up of its domain, and then in the lane of its hosts. The workers of that lane send it.
//!
//! A lane begins with one worker, and has more once that has a connection. So hosts that cannot be
//! reached are tried once for all that waits for them.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use posthaste_tokio::wire::Rcpt;
use tokio::time::Instant;

use super::{
    Message,
    hosts::{Hosts, Line},
    send_all::Outbox,
    worker::{Posted, Worker},
};
use crate::{
    Dial, Resolver, SendError, Source, Unreachable,
    delivery::Course,
    exchange::{Shared, by_domain, unreachable},
    mx::{Demand, Servers},
    places::Places,
    send::delivered,
};

/// Look-ups under way at once.
const LOOK_UPS: usize = 100;
/// Look-ups beside them that have been silent for 200 ms.
const SILENT_LOOK_UPS: usize = 900;
/// How long it is remembered what a look-up has found, or that hosts cannot be reached.
const FRESH: Duration = Duration::from_secs(60);
/// Domains that are remembered. Beyond it all are forgotten, and looked up again.
const DOMAINS: usize = 1_024;

/// The messages under way.
pub(super) struct Board<'m, R, D: Dial, C> {
    pub(super) mx: &'m Shared<R, D>,
    /// It has the work that has the board.
    outbox: Weak<Outbox<'m>>,
    look_ups: Places,
    pub(super) state: Mutex<State<C>>,
}

pub(super) struct State<C> {
    /// Messages without an outcome, by number.
    open: HashMap<usize, Open>,
    /// Waits for room among them.
    feeder: Option<Waker>,
    /// Domains that are to be looked up.
    unknown: VecDeque<String>,
    /// Futures that look domains up, or wait for a place to do so.
    looking: usize,
    /// Parts that wait for the look-up of their domain.
    asked: HashMap<String, Vec<Part<C>>>,
    known: HashMap<String, (Instant, Known)>,
    /// Lanes with parts or workers.
    pub(super) lanes: HashMap<Vec<Demand>, Arc<Line<C>>>,
}

/// A message without an outcome.
struct Open {
    recipients: Vec<Option<(Rcpt, Course)>>,
    /// Recipients that have none.
    left: usize,
}

/// The recipients of one domain.
struct Part<C> {
    number: usize,
    /// Their places among the recipients of the message.
    places: Vec<usize>,
    message: Message<Arc<C>>,
}

/// What is known of a domain.
#[derive(Clone)]
pub(super) enum Known {
    Found(Arc<Found>),
    Failed(Arc<Unreachable>),
}

pub(super) struct Found {
    pub(super) domain: String,
    pub(super) servers: Servers,
    hosts: Vec<Demand>,
}

/// What tells a part from others.
pub(super) struct Tag {
    pub(super) number: usize,
    pub(super) places: Vec<usize>,
    pub(super) found: Arc<Found>,
}

pub(super) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'m, R: Resolver, D: Dial, C: Source + 'm> Board<'m, R, D, C> {
    pub(super) fn new(mx: &'m Shared<R, D>, outbox: Weak<Outbox<'m>>) -> Arc<Self> {
        let state = State {
            open: HashMap::new(),
            feeder: None,
            unknown: VecDeque::new(),
            looking: 0,
            asked: HashMap::new(),
            known: HashMap::new(),
            lanes: HashMap::new(),
        };
        let look_ups = Places::new(LOOK_UPS, SILENT_LOOK_UPS);
        Arc::new(Self { mx, outbox, look_ups, state: Mutex::new(state) })
    }

    /// Takes messages while there is room.
    pub(super) async fn feed(self: &Arc<Self>, messages: impl Stream<Item = Message<C>>) {
        let mut messages = pin!(messages);
        let mut number = 0_usize;
        loop {
            poll_fn(|context| self.has_room(context)).await;
            let Some(message) = messages.next().await else { return };
            self.post(number, message);
            number = number.saturating_add(1);
        }
    }

    fn has_room(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.open.len() < self.mx.options.messages.max(1) {
            return Poll::Ready(());
        }
        state.feeder = Some(context.waker().clone());
        Poll::Pending
    }

    fn post(self: &Arc<Self>, number: usize, Message { mail, recipients, content }: Message<C>) {
        if recipients.is_empty() {
            self.outbox.upgrade().iter().for_each(|outbox| outbox.push(number, Err(SendError::NoRecipient)));
            return;
        }
        let domains = by_domain(&recipients);
        let open = Open { recipients: vec![None; recipients.len()], left: recipients.len() };
        lock(&self.state).open.insert(number, open);
        let (content, mut recipients) = (Arc::new(content), recipients.into_iter().map(Some).collect::<Vec<_>>());
        for (domain, places) in domains {
            let named = places.iter().filter_map(|place| recipients.get_mut(*place)?.take()).collect();
            let message = Message { mail: mail.clone(), recipients: named, content: Arc::clone(&content) };
            self.hand_in(domain, Part { number, places, message });
        }
    }

    fn hand_in(self: &Arc<Self>, domain: String, part: Part<C>) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if let Some((until, known)) = state.known.get(&domain)
            && now < *until
        {
            let known = known.clone();
            drop(state);
            return self.pass_on(part, &known);
        }
        if let Some(asked) = state.asked.get_mut(&domain) {
            return asked.push(part);
        }
        state.unknown.push_back(domain.clone());
        state.asked.insert(domain, vec![part]);
        if state.looking < LOOK_UPS.saturating_add(SILENT_LOOK_UPS) {
            state.looking = state.looking.saturating_add(1);
            drop(state);
            self.begin(Arc::clone(self).look_up());
        }
    }

    /// Looks domains up until none waits for it.
    async fn look_up(self: Arc<Self>) {
        while let Some(domain) = self.next_unknown() {
            let mut place = self.look_ups.enter().await;
            let found = place.hold(&AtomicBool::new(false), self.mx.look_up(&domain)).await;
            drop(place);
            let known = match found {
                Ok(servers) => {
                    let hosts = servers.demands();
                    Known::Found(Arc::new(Found { domain: domain.clone(), servers, hosts }))
                }
                Err(why) => Known::Failed(Arc::new(why.into())),
            };
            let parts = {
                let mut state = lock(&self.state);
                state.remember(&domain, known.clone());
                state.asked.remove(&domain).unwrap_or_default()
            };
            parts.into_iter().for_each(|part| self.pass_on(part, &known));
        }
    }

    fn next_unknown(&self) -> Option<String> {
        let mut state = lock(&self.state);
        let next = state.unknown.pop_front();
        if next.is_none() {
            state.looking = state.looking.saturating_sub(1);
        }
        next
    }

    /// Passes a part on to the lane of its hosts.
    fn pass_on(self: &Arc<Self>, Part { number, places, message }: Part<C>, known: &Known) {
        let found = match known {
            Known::Found(found) => Arc::clone(found),
            Known::Failed(why) => {
                let courses = unreachable(why, places.len());
                return self.report(number, &places, message.recipients, courses);
            }
        };
        let (line, begun) = {
            let mut state = lock(&self.state);
            let make = || Arc::new(Line::new(self.mx.options.destination.at_once()));
            let line = Arc::clone(state.lanes.entry(found.hosts.clone()).or_insert_with(make));
            let tag = Tag { number, places, found: Arc::clone(&found) };
            // Under the lock, so that the lane is not forgotten meanwhile.
            let begun = line.push(Posted { message, pieces: None, tag });
            (line, begun)
        };
        self.begin_workers(begun, &found.hosts, &line);
    }

    pub(super) fn begin_workers(self: &Arc<Self>, workers: usize, hosts: &[Demand], line: &Arc<Line<C>>) {
        for _ in 0..workers {
            let (board, line) = (Arc::clone(self), Arc::clone(line));
            let lane = Hosts { board, line, hosts: hosts.to_vec() };
            self.begin(Worker(Arc::new(lane)).run());
        }
    }

    fn begin(&self, work: impl Future<Output = ()> + Send + 'm) {
        if let Some(outbox) = self.outbox.upgrade() {
            outbox.begin(work);
        }
    }

    /// Recipients of a message have their outcomes.
    pub(super) fn report(&self, number: usize, places: &[usize], recipients: Vec<Rcpt>, courses: Vec<Course>) {
        let mut state = lock(&self.state);
        let Some(open) = state.open.get_mut(&number) else { return };
        for (place, course) in places.iter().zip(recipients.into_iter().zip(courses)) {
            if let Some(slot @ None) = open.recipients.get_mut(*place) {
                *slot = Some(course);
                open.left = open.left.saturating_sub(1);
            }
        }
        if open.left > 0 {
            return;
        }
        let whole = state.open.remove(&number);
        let feeder = state.feeder.take();
        drop(state);
        feeder.into_iter().for_each(Waker::wake);
        if let (Some(whole), Some(outbox)) = (whole, self.outbox.upgrade()) {
            outbox.push(number, Ok(delivered(whole.recipients.into_iter().flatten())));
        }
    }
}

impl<C> State<C> {
    pub(super) fn remember(&mut self, domain: &str, known: Known) {
        if self.known.len() >= DOMAINS {
            self.known.clear();
        }
        self.known.insert(domain.to_owned(), (Instant::now() + FRESH, known));
    }
}
