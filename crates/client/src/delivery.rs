//! The way of one message from server to server, until each recipient has an answer that counts.
//!
//! RFC 5321 section 5.1 has the addresses tried in order until an attempt succeeds. Here that holds
//! for each recipient. A recipient that a server takes, or refuses for good, is done. With any
//! other answer, or none, it goes on to the next server, whatever stage the server failed at.
//!
//! There is one exception. If the whole content may have left and no answer came, the server may
//! have the message (RFC 1047). Another server would make a duplicate at once, so that recipient is
//! done for now.

use std::{future::Future, io, sync::Arc};

use posthaste_tokio::ClientError;
use tokio::io::{AsyncRead, AsyncWrite};

pub use crate::shelf::{Budget, Keep, Shelf};
use crate::{Client, ClientOptions, Dial, Race, RecipientOutcome, RefusedAt, Sent, ServerFacts, Tls, client::failure};

/// Makes the transactions of a [`Delivery`].
pub trait Transact<S>: Send {
    /// Sends the message to some of its recipients, named by index, in one transaction: to all of
    /// them, or to the first of them that the server takes at once.
    ///
    /// # Errors
    /// The content cannot be read, and nothing was sent. No other server is asked.
    fn transact(
        &mut self,
        client: &mut Client<S>,
        recipients: &[usize],
    ) -> impl Future<Output = io::Result<Transacted>> + Send;

    /// A server is ready. Returns `false` if it must not get the message: it is closed with QUIT,
    /// and the next one is tried. Default: `true`.
    fn admits(&mut self, _client: &Client<S>) -> bool {
        true
    }
}

/// The result of one transaction of a [`Delivery`].
#[derive(Debug)]
pub struct Transacted {
    /// The outcomes of the first recipients that were asked for, in their order.
    pub outcomes: Vec<RecipientOutcome>,
    /// As [`Sent::broken`].
    pub broken: Option<Arc<ClientError>>,
    /// As [`Sent::in_doubt`].
    pub in_doubt: bool,
    /// As [`Sent::chunking_failed`], and the content may go by DATA.
    pub chunking_failed: bool,
    /// Some of the content was read.
    pub has_begun: bool,
}

impl Transacted {
    /// The result of [`Client::transact`]. `has_begun`: some of the content was read; `is_binary`:
    /// the content cannot go by DATA.
    pub fn new<T: AsRef<str>>(sent: Sent<T>, has_begun: bool, is_binary: bool) -> Self {
        Self {
            outcomes: sent.recipients.into_iter().map(|recipient| recipient.outcome).collect(),
            broken: sent.broken,
            in_doubt: sent.in_doubt,
            chunking_failed: sent.chunking_failed && !is_binary,
            has_begun,
        }
    }
}

/// How far one recipient of a [`Delivery`] is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Course {
    /// The last outcome. `None`: no server was asked.
    pub outcome: Option<RecipientOutcome>,
    /// The server of that outcome.
    pub server: Option<Arc<ServerFacts>>,
    /// Why the conversation broke off, where the outcome is [`Lost`](RecipientOutcome::Lost).
    pub broken: Option<Arc<ClientError>>,
    /// The server may have the message although the outcome is [`Lost`](RecipientOutcome::Lost).
    pub in_doubt: bool,
    /// No other server is to be asked in this delivery.
    pub is_settled: bool,
}

/// The state of a message's delivery, apart from the futures that make it: each of them may be
/// dropped, and the delivery goes on with other servers.
#[derive(Debug)]
pub struct Delivery {
    courses: Vec<Course>,
    /// The most recipients of one transaction.
    most: usize,
    /// The transaction that has begun and not ended.
    under_way: Option<(Arc<ServerFacts>, Vec<usize>)>,
    has_delivered: bool,
    is_reached: bool,
}

/// The end of a pass over one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Every open recipient was named, and another message can follow.
    Through,
    /// The server takes no more transactions on this connection, or asks for TLS.
    Worn,
    /// The connection is over.
    Broken(Break),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Break {
    /// It ended before the server can have taken anything of the message, and with no reply about
    /// it but a 421.
    pub says_nothing: bool,
    /// The content went by BDAT, and BDAT failed. It may go by DATA.
    pub chunking: bool,
    /// It ended without any reply, before any content.
    is_mute: bool,
    /// No command can be sent on it.
    is_closed: bool,
}

impl Delivery {
    /// Begins a delivery to this number of recipients, with at most `most` in one transaction.
    pub fn new(recipients: usize, most: usize) -> Self {
        let mut courses = Vec::new();
        courses.resize_with(recipients, Course::default);
        Self { courses, most: most.max(1), under_way: None, has_delivered: false, is_reached: false }
    }

    /// Returns `true` if a recipient has no answer that counts.
    pub fn is_open(&self) -> bool {
        self.is_open_from(0)
    }

    /// Returns `true` if a server has taken the message for a recipient.
    pub const fn has_delivered(&self) -> bool {
        self.has_delivered
    }

    /// Returns `true` if a server was ready, or said something over an earlier connection.
    pub const fn is_reached(&self) -> bool {
        self.is_reached
    }

    /// A server said something.
    pub(crate) const fn note_reached(&mut self) {
        self.is_reached = true;
    }

    /// The recipients, in their order.
    pub fn courses(&self) -> &[Course] {
        &self.courses
    }

    /// The recipients, in their order.
    pub fn into_courses(self) -> Vec<Course> {
        self.courses
    }

    /// Call this after a future of this delivery was dropped. The recipients of the transaction
    /// that it was in go on to the next server, and this is why. Returns the server. `None`: no
    /// transaction was under way.
    pub fn give_up(&mut self, why: ClientError) -> Option<Arc<ServerFacts>> {
        let (server, group) = self.under_way.take()?;
        let why = Arc::new(why);
        for index in group {
            let course = Course {
                outcome: Some(RecipientOutcome::Lost),
                server: Some(Arc::clone(&server)),
                broken: Some(Arc::clone(&why)),
                ..Course::default()
            };
            self.set(index, course);
        }
        Some(server)
    }

    /// Names the open recipients over one connection, in as many transactions as it takes.
    /// Afterwards the connection is `None` unless it can be used again.
    ///
    /// The future may be dropped, and then the connection too: call [`give_up`](Self::give_up).
    pub async fn over<S, T>(&mut self, connection: &mut Option<Client<S>>, transact: &mut T) -> Passed
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        T: Transact<S>,
    {
        let passed = self.pass(connection, transact, &mut 0).await;
        self.is_reached |= !matches!(passed, Passed::Worn | Passed::Broken(Break { says_nothing: true, .. }));
        passed
    }

    /// Tries the servers of a race as they become ready, until no recipient is open. A connection
    /// that can be used again is left in `kept`: the first that delivered, otherwise the first.
    ///
    /// If the server broke off in TLS that is opportunistic, it is tried again without. If BDAT
    /// failed, it is tried again with DATA.
    ///
    /// The future may be dropped. Call [`give_up`](Self::give_up) then, and [`Race::give_up`]; the
    /// next call goes on with the other servers.
    pub async fn through<D: Dial, T: Transact<D::Stream>>(
        &mut self,
        race: &mut Race<'_, D>,
        transact: &mut T,
        kept: &mut Option<Client<D::Stream>>,
    ) {
        while self.is_open() {
            let Some((index, client)) = race.next().await else { return };
            if !transact.admits(&client) {
                client.quit().await;
                continue;
            }
            self.is_reached = true;
            self.at(race, index, client, transact, kept).await;
        }
    }

    /// Tries one server, and again without what failed there: TLS, if the policy leaves that open,
    /// and BDAT.
    async fn at<D: Dial, T: Transact<D::Stream>>(
        &mut self,
        race: &mut Race<'_, D>,
        index: usize,
        client: Client<D::Stream>,
        transact: &mut T,
        kept: &mut Option<Client<D::Stream>>,
    ) {
        let mut options = ClientOptions::clone(race.options());
        if let Some(own) = race.target(index).and_then(|target| target.tls.as_ref()) {
            options.tls = own.tls.clone();
        }
        let (mut tls_failure, mut next, mut opened) = (None, 0, Some(client));
        loop {
            let facts = opened.as_ref().map(|client| Arc::clone(client.facts()));
            let is_tls = facts.as_ref().is_some_and(|facts| facts.tls.is_some());
            let (begun, had_delivered) = (next, self.has_delivered);
            match self.pass(&mut opened, transact, &mut next).await {
                Passed::Broken(Break { chunking: true, .. }) if options.session.chunking => {
                    (options.session.chunking, next) = (false, 0);
                }
                Passed::Broken(Break { is_mute: true, .. })
                    if is_tls && matches!(options.tls, Tls::Opportunistic(_)) =>
                {
                    (options.tls, tls_failure, next) = (Tls::Off, Some(failure(&BROKE_OFF)), 0);
                }
                Passed::Broken(_) => return,
                passed => {
                    let target = facts.and_then(|facts| facts.target.clone());
                    if let (Some(why), Some(target), false) = (&tls_failure, target, self.lacks_tls()) {
                        // It works without TLS, so TLS was what failed.
                        options.health.broke_tls(&target.server, Arc::clone(why));
                    }
                    // Each connection must take one transaction at least, or this would never end.
                    if !(passed == Passed::Worn && begun < next && self.is_open_from(next)) {
                        return keep(kept, opened, !had_delivered && self.has_delivered).await;
                    }
                }
            }
            if !self.is_open() {
                return;
            }
            match race.again(index, &Arc::new(options.clone())).await {
                Some(mut client) => {
                    if let Some(why) = &tls_failure {
                        client.tls_failure = Some(Arc::clone(why));
                        client.note_facts(client.server().cloned());
                    }
                    opened = Some(client);
                }
                None => return,
            }
        }
    }

    /// Names the open recipients from `next` on. Those that were too many for a transaction come
    /// first in the following one.
    async fn pass<S, T>(&mut self, connection: &mut Option<Client<S>>, transact: &mut T, next: &mut usize) -> Passed
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        T: Transact<S>,
    {
        let mut surplus = Surplus::new(self.most);
        loop {
            let open = self.courses.iter().enumerate().skip(*next);
            let open = open.filter(|(_, course)| !course.is_settled).map(|(index, _)| index);
            let group: Vec<_> = surplus.recipients.iter().copied().chain(open).take(surplus.most).collect();
            let Some(client) = connection else { return Passed::Worn };
            if client.transactions_left() == Some(0) || client.lacks_tls {
                if let Some(worn) = connection.take() {
                    worn.quit().await;
                }
                return Passed::Worn;
            }
            if group.is_empty() {
                return Passed::Through;
            }
            let named = group.clone();
            if let Err(broken) = self.transact(client, transact, group, next).await {
                let broke = connection.take().filter(|_| !broken.is_closed);
                if let Some(refusing) = broke {
                    refusing.quit().await;
                }
                return Passed::Broken(broken);
            }
            surplus.take(&self.courses, &named, *next);
        }
    }

    /// Makes one transaction for these recipients, or for the first ones that the server takes at
    /// once.
    async fn transact<S, T: Transact<S>>(
        &mut self,
        client: &mut Client<S>,
        transact: &mut T,
        group: Vec<usize>,
        next: &mut usize,
    ) -> Result<(), Break>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let facts = Arc::clone(client.facts());
        // Recipients without an answer are named, until it is known how many were.
        let (_, group) = self.under_way.insert((Arc::clone(&facts), group));
        let done = transact.transact(client, group).await;
        let group = self.under_way.take().map(|(_, group)| group).unwrap_or_default();
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                let broken = Some(Arc::new(ClientError::Content(error)));
                for index in group {
                    let (outcome, broken) = (Some(RecipientOutcome::Lost), broken.clone());
                    self.set(index, Course { outcome, broken, is_settled: true, ..Course::default() });
                }
                return Ok(());
            }
        };
        let left = group.get(done.outcomes.len()..).unwrap_or_default();
        let through = group.last().map_or(0, |last| last.saturating_add(1));
        *next = left.iter().copied().find(|index| *index >= *next).unwrap_or(through.max(*next));
        self.record(&facts, group, done)
    }

    /// Takes the result of a transaction with this server for these recipients.
    pub(crate) fn record(
        &mut self,
        facts: &Arc<ServerFacts>,
        group: impl IntoIterator<Item = usize>,
        done: Transacted,
    ) -> Result<(), Break> {
        let broken = done.broken.as_deref();
        let is_own = matches!(broken, Some(ClientError::Misuse(_) | ClientError::Content(_)));
        let is_unreadable = matches!(broken, Some(ClientError::Content(_)));
        let end = Break {
            says_nothing: broken.is_some()
                && !done.in_doubt
                && done.outcomes.iter().all(RecipientOutcome::says_nothing),
            is_mute: broken.is_some()
                && !is_own
                && !done.has_begun
                && done.outcomes.iter().all(|outcome| matches!(outcome, RecipientOutcome::Lost)),
            chunking: done.chunking_failed,
            is_closed: broken.is_some(),
        };
        for (index, outcome) in group.into_iter().zip(done.outcomes) {
            self.has_delivered |= matches!(outcome, RecipientOutcome::Accepted(_));
            let is_lost = matches!(outcome, RecipientOutcome::Lost | RecipientOutcome::Postponed);
            let in_doubt = done.in_doubt && matches!(outcome, RecipientOutcome::Lost);
            let is_settled = match &outcome {
                RecipientOutcome::Accepted(_) => true,
                // Content that cannot go by DATA can go to no server that does not know BDAT.
                RecipientOutcome::Refused(_, RefusedAt::Bdat) => !end.chunking,
                outcome => outcome.is_permanent() || in_doubt || (is_lost && is_unreadable),
            };
            let broken = done.broken.clone().filter(|_| is_lost);
            let server = Some(Arc::clone(facts));
            self.set(index, Course { outcome: Some(outcome), server, broken, in_doubt, is_settled });
        }
        if end.is_closed || end.chunking { Err(end) } else { Ok(()) }
    }

    /// Returns `true` if a recipient from `next` on is open.
    fn is_open_from(&self, next: usize) -> bool {
        self.courses.iter().skip(next).any(|course| !course.is_settled)
    }

    /// Returns `true` if the last server of a recipient asks for TLS.
    fn lacks_tls(&self) -> bool {
        let outcomes = self.courses.iter().map(|course| &course.outcome);
        outcomes.into_iter().any(|outcome| matches!(outcome, Some(RecipientOutcome::Refused(_, RefusedAt::InClear))))
    }

    fn set(&mut self, index: usize, course: Course) {
        if let Some(known) = self.courses.get_mut(index) {
            *known = course;
        }
    }
}

/// Recipients that were too many for a transaction, of a pass over one connection.
#[derive(Debug)]
struct Surplus {
    /// In their order. The following transaction names them first.
    recipients: Vec<usize>,
    /// The most recipients of the following transaction: as many as the server took of the last.
    /// While that is no certain limit, it grows again.
    most: usize,
    /// The same without a limit of the server.
    usual: usize,
    /// The number that it took when it was asked for more.
    limit: Option<usize>,
    /// That was the same number twice.
    is_certain: bool,
    /// The number of transactions with too many recipients.
    count: usize,
}

impl Surplus {
    /// The most transactions with too many recipients in one pass.
    const TRANSACTIONS: usize = 1_000;

    const fn new(usual: usize) -> Self {
        Self { recipients: Vec::new(), most: usual, usual, limit: None, is_certain: false, count: 0 }
    }

    /// Takes the outcomes of a transaction that asked for these recipients. Recipients from `next`
    /// on come by themselves.
    fn take(&mut self, courses: &[Course], asked: &[usize], next: usize) {
        let outcome = |index: &usize| courses.get(*index).and_then(|course| course.outcome.as_ref());
        let is_surplus = |index: &usize| outcome(index).is_some_and(RecipientOutcome::is_surplus);
        let accepted =
            asked.iter().filter(|index| matches!(outcome(index), Some(RecipientOutcome::Accepted(_)))).count();
        let later: Vec<_> = asked.iter().copied().filter(|index| *index < next && is_surplus(index)).collect();
        self.recipients.retain(|index| !asked.contains(index));
        // Without progress this would never end.
        if later.is_empty() || accepted == 0 || self.count >= Self::TRANSACTIONS {
            if accepted == asked.len() && !self.is_certain {
                self.most = self.most.saturating_mul(2).min(self.usual);
            }
            return;
        }
        self.is_certain = self.limit.replace(accepted) == Some(accepted);
        self.count = self.count.saturating_add(1);
        self.most = accepted;
        self.recipients.splice(..0, later);
    }
}

/// Why TLS is suspected of a server that breaks off in the first transaction over it.
const BROKE_OFF: &str = "the server broke off in the first transaction over TLS";

/// Keeps one connection for the next message: the first, unless another is better.
async fn keep<S: AsyncRead + AsyncWrite + Unpin>(
    kept: &mut Option<Client<S>>,
    mut opened: Option<Client<S>>,
    is_better: bool,
) {
    if kept.is_none() || (opened.is_some() && is_better) {
        std::mem::swap(kept, &mut opened);
    }
    if let Some(other) = opened {
        other.quit().await;
    }
}
