//! One attempt of a delivery: its recipients go from one host to the next until each of them has an
//! answer that counts.
//!
//! RFC 5321 section 5.1 has the addresses tried in order until an attempt succeeds. Here that holds
//! for each recipient. A recipient that a server takes, or refuses for good, is done. With any
//! other answer, or none, it goes on to the next address, whatever stage the server failed at.
//!
//! There is one exception. If the whole content may have left and no answer came, the server may
//! have the message (RFC 1047). Another host would make a duplicate at once, so those recipients
//! wait for the next attempt.
//!
//! The order is that of the hosts, but no server is waited for alone: they are raced until one is
//! ready ([`Race`]), and those that failed lately come last. The time of one attempt covers all of
//! it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use posthaste_client::{
    ClientError, ConnectError, Content, Race, RecipientOutcome, RefusedAt, Resolver, Server, Stage, Target, Tls,
};
use posthaste_queue::{Body, Queue};
use posthaste_server::wire::{BodyType, EnhancedCode, ReversePath};
use tracing::{debug, info};

use super::{
    connect::{Connected, Dialer, Way, given_up, targets, why_back},
    fit::Fit,
    flow::{Flow, GaveUp, Pulse},
    job::{Fate, Guard, Job},
    lookup::{self, Found},
    site::{ASKED_LATELY, Site, Unreachable},
    worker::Crew,
};
use crate::Diagnostic;

/// Tries to deliver to every recipient of the job. Returns one fate for each, in their order. It
/// leaves a connection behind if another message can follow on it.
pub(super) async fn run<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    job: &Job,
    connection: &mut Option<Connected>,
    flow: &mut Flow<'_>,
) -> Vec<Fate> {
    let mut courses = Vec::with_capacity(job.recipients().len());
    courses.resize_with(job.recipients().len(), || Course::Open(None));
    let mut attempt = Attempt { crew, site, job, flow, courses, has_delivered: false };
    let tried = attempt.over_kept(connection).await;
    let unreachable = match attempt.is_open() {
        true => attempt.over_hosts(tried.as_ref(), connection).await,
        false => None,
    };
    if attempt.flow.was_silent {
        site.mark_silent();
    } else if attempt.has_delivered && job.outside.mail.reverse_path != ReversePath::Null {
        site.mark_proven();
    }
    attempt.courses.into_iter().map(|course| course.fate(unreachable.as_ref())).collect()
}

struct Attempt<'a, 'p, Q, R> {
    crew: &'a Crew<Q, R>,
    site: &'a Site,
    job: &'a Job,
    flow: &'a mut Flow<'p>,
    /// One for each recipient.
    courses: Vec<Course>,
    has_delivered: bool,
}

/// How far a recipient is.
#[derive(Debug)]
enum Course {
    /// It goes on to the next host. The reason is that of the last host, if one was asked.
    Open(Option<Diagnostic>),
    Settled(Fate),
}

impl Course {
    fn fate(self, unreachable: Option<&Unreachable>) -> Fate {
        match (self, unreachable) {
            (Self::Settled(fate), _) => fate,
            (Self::Open(Some(why)), _) => Fate::NotNow(why),
            (Self::Open(None), Some(Unreachable { diagnostic, is_permanent: true })) => Fate::Never(diagnostic.clone()),
            (Self::Open(None), Some(Unreachable { diagnostic, .. })) => Fate::NotNow(diagnostic.clone()),
            (Self::Open(None), None) => Fate::NotNow(Diagnostic::own(EnhancedCode::new(4, 4, 1), "no host was tried")),
        }
    }
}

/// The end of a pass over one connection.
#[derive(Debug, Clone, Copy)]
enum Passed {
    /// Every open recipient was named, and another message can follow.
    Through,
    /// The server takes no more transactions on it, and it is closed.
    Worn,
    /// The connection is over.
    Broken(Break),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, Default)]
struct Break {
    /// It ended before the server can have taken anything of the message, and with no reply about
    /// it but a 421.
    says_nothing: bool,
    /// It ended without any reply, before any content.
    is_mute: bool,
    /// The content went by BDAT, and BDAT failed. It may go by DATA.
    chunking: bool,
    /// No command can be sent on it.
    is_closed: bool,
}

impl<Q: Queue, R: Resolver> Attempt<'_, '_, Q, R> {
    fn is_open(&self) -> bool {
        self.is_open_from(0)
    }

    /// Returns `true` if a recipient from `next` on is open.
    fn is_open_from(&self, next: usize) -> bool {
        self.courses.iter().skip(next).any(|course| matches!(course, Course::Open(_)))
    }

    /// Tries the kept connection, if the message may take it. Returns the server if it is not to be
    /// asked again in this attempt. It may be asked again if it closed the connection without a
    /// reply about the message.
    async fn over_kept(&mut self, connection: &mut Option<Connected>) -> Option<Server> {
        let connected = connection.take()?;
        if !connected.verified && self.job.guard() != Guard::Any {
            connected.close().await;
            return None;
        }
        self.site.mark_up();
        let (server, mut next) = (connected.server.clone(), 0);
        *connection = Some(connected);
        match self.pass(connection, &mut next).await {
            Passed::Worn | Passed::Broken(Break { chunking: true, .. } | Break { says_nothing: true, .. }) => None,
            Passed::Through | Passed::Broken(_) => Some(server),
        }
    }

    /// Tries one address after another. Returns the reason if no server could be reached.
    async fn over_hosts(&mut self, tried: Option<&Server>, connection: &mut Option<Connected>) -> Option<Unreachable> {
        let (crew, site) = (self.crew, self.site);
        // The site is not marked down again. Otherwise a site that always has a delivery due would
        // never be tried again.
        if let Some(why) = site.down() {
            return Some(why);
        }
        let Some(route) = site.route(&crew.shared) else {
            let text = format_args!("there is no route for {}", self.job.domain());
            let diagnostic = Diagnostic::own(EnhancedCode::new(5, 4, 4), text);
            return Some(Unreachable { diagnostic, is_permanent: true });
        };
        let found = match site.found(ASKED_LATELY) {
            Some(found) => found,
            None => {
                self.flow.leave();
                match lookup::find(crew, site, route, ASKED_LATELY).await {
                    Ok(found) => found,
                    Err(why) => return Some(why),
                }
            }
        };
        let guard = self.job.guard();
        let ways: &[bool] = match guard {
            Guard::Any => &[false],
            Guard::May => &[true, false],
            Guard::Must => &[true],
        };
        let mut unreachable = None;
        for guarded in ways {
            // The reason against the way before says nothing of this one.
            unreachable = found.missing.clone();
            let way = match Way::of(&crew.shared, route, *guarded) {
                Ok(way) => way,
                Err(why) => {
                    unreachable = Some(why);
                    continue;
                }
            };
            let is_reached = self.race(&found, &way, tried, connection, &mut unreachable).await;
            let is_reached = is_reached || tried.is_some();
            if is_reached {
                return None;
            }
        }
        // Mail that asks for less may still get through: what stops guarded mail says nothing of
        // the site.
        if let (Some(why), true) = (&unreachable, guard != Guard::Must) {
            debug!(site = site.name(), diagnostic = %why.diagnostic, "site marked down, no host reached");
            site.mark_down(why.clone(), crew.shared.options.delivery.retry.down_for());
        }
        unreachable
    }

    /// Tries the servers as they become ready. Returns `true` if one became ready.
    async fn race(
        &mut self,
        found: &Found,
        way: &Way,
        tried: Option<&Server>,
        connection: &mut Option<Connected>,
        unreachable: &mut Option<Unreachable>,
    ) -> bool {
        let shared = &self.crew.shared;
        let mut targets = targets(found, tried);
        targets.retain(|target| {
            let comes_back = shared.listeners.are_reached_at(&target.server, None);
            if comes_back {
                Unreachable::add(unreachable, why_back(&target.host));
            }
            !comes_back
        });
        let dialer = Dialer { listeners: shared.listeners.clone(), pulse: Arc::default() };
        let mut race = Race::new(&targets, dialer.clone(), way.options(shared));
        let mut is_reached = false;
        while self.is_open() && !self.flow.is_over() {
            // An earlier server may have had the content.
            dialer.pulse.no_content();
            let ready = self.flow.run(&dialer.pulse, race.next()).await;
            let gave_up = ready.as_ref().err().copied();
            if gave_up.is_some() {
                race.give_up();
            }
            for (index, error) in race.failed() {
                let Some(Target { host, .. }) = targets.get(index) else { continue };
                let why = match (&error, gave_up) {
                    (ConnectError::TooSlow { .. }, Some(gave_up)) => {
                        Unreachable { diagnostic: given_up(host, gave_up), is_permanent: false }
                    }
                    _ => way.why_not(host, &error),
                };
                Unreachable::add(unreachable, why);
            }
            let (index, client) = match ready {
                Ok(Some(ready)) => ready,
                Ok(None) => break,
                Err(_) => continue,
            };
            let Some(target) = targets.get(index) else { break };
            if let Some(why) = way.rules_out(&target.host, &client) {
                client.quit().await;
                Unreachable::add(unreachable, why);
                continue;
            }
            is_reached = true;
            self.site.mark_up();
            if client.is_tls_suspected() {
                debug!(host = &*target.host, server = %target.server, "TLS failed, trying again without it");
            }
            let connected = Connected::new(client, target, way.guarded, &dialer);
            self.at(&mut race, (index, target), connected, way.clone(), connection).await;
        }
        is_reached
    }

    /// Tries one server, and again without what failed there: TLS, if the policy leaves that open,
    /// and BDAT.
    async fn at(
        &mut self,
        race: &mut Race<'_, Dialer>,
        (index, target): (usize, &Target),
        connected: Connected,
        mut way: Way,
        connection: &mut Option<Connected>,
    ) {
        let (server, mut tls_is_suspected) = (&target.server, false);
        let dialer = Dialer { listeners: self.crew.shared.listeners.clone(), pulse: Arc::clone(&connected.pulse) };
        let (mut next, mut opened) = (0, Some(connected));
        loop {
            let is_tls = opened.as_ref().is_some_and(|connected| connected.client.is_tls());
            let (begun, had_delivered) = (next, self.has_delivered);
            match self.pass(&mut opened, &mut next).await {
                Passed::Broken(Break { chunking: true, .. }) if way.chunking => (way.chunking, next) = (false, 0),
                Passed::Broken(Break { is_mute: true, .. }) if is_tls && way.may_go_in_clear() => {
                    debug!(host = &*target.host, %server, "connection lost in TLS, trying again without it");
                    (way.tls, tls_is_suspected, next) = (Tls::Off, true, 0);
                }
                Passed::Broken(_) => return,
                passed => {
                    if tls_is_suspected {
                        // It works without TLS, so TLS was what failed.
                        self.crew.shared.health.broke_tls(server);
                    }
                    // Each connection must take one transaction at least, or this would never end.
                    if !(matches!(passed, Passed::Worn) && begun < next && self.is_open_from(next)) {
                        return keep(connection, opened, !had_delivered && self.has_delivered).await;
                    }
                }
            }
            if !self.is_open() || self.flow.is_over() {
                return;
            }
            dialer.pulse.no_content();
            let options = way.options(&self.crew.shared);
            match self.flow.run(&dialer.pulse, race.again(index, &options)).await {
                Ok(Some(client)) => opened = Some(Connected::new(client, target, way.guarded, &dialer)),
                Ok(None) => return,
                Err(_) => return race.give_up(),
            }
        }
    }

    /// Names the open recipients from `next` on, in as many transactions as it takes. Afterwards
    /// the connection is `None` unless it can be used again.
    async fn pass(&mut self, connection: &mut Option<Connected>, next: &mut usize) -> Passed {
        let most = self.crew.shared.options.delivery.recipients_per_transaction.max(1);
        loop {
            let open = self.courses.iter().enumerate().skip(*next);
            let open = open.filter(|(_, course)| matches!(course, Course::Open(_))).map(|(index, _)| index);
            let group: Vec<_> = open.take(most).collect();
            let Some(connected) = connection else { return Passed::Worn };
            if connected.client.transactions_left() == Some(0) {
                if let Some(worn) = connection.take() {
                    worn.close().await;
                }
                return Passed::Worn;
            }
            if group.is_empty() {
                return Passed::Through;
            }
            if let Err(broken) = self.transact(connected, &group, next).await {
                let broke = connection.take().filter(|_| !broken.is_closed);
                if let Some(refusing) = broke {
                    refusing.close().await;
                }
                return Passed::Broken(broken);
            }
        }
    }

    /// Makes one transaction for these recipients, or for the first ones that the server takes at
    /// once.
    async fn transact(&mut self, connected: &mut Connected, group: &[usize], next: &mut usize) -> Result<(), Break> {
        let (crew, job) = (self.crew, self.job);
        let Connected { client, host, server, verified, pulse } = connected;
        let fit = Fit { outside: &job.outside, by: job.by(), server: client.capabilities(), verified: *verified };
        let recipients = || group.iter().filter_map(|index| job.recipients().get(*index));
        let forward: Vec<_> = recipients().map(|it| fit.ascii(it.rcpt.forward_path.mailbox())).collect();
        let fitted = recipients().zip(&forward).map(|(it, ascii)| fit.rcpt(it.rcpt.borrowed(), ascii.as_ref()));
        let mut named: Vec<_> = fitted.collect();
        named.truncate(client.recipients_at_once(&named));
        let owed: Vec<_> = recipients().map(|it| fit.owes_relayed_report(&it.rcpt.borrowed())).collect();
        let reverse_path = &job.outside.mail.reverse_path;
        let ascii_sender = fit.ascii(reverse_path.mailbox());
        let sender =
            ascii_sender.as_ref().map_or(reverse_path.borrowed(), |ascii| ReversePath::Mailbox(ascii.borrowed()));
        let mail = fit.mail(sender);
        *next = group.get(named.len()).or(group.last().map(|last| last + 1).as_ref()).copied().unwrap_or(*next);
        let body = match crew.shared.queue.body(job.lease()).await {
            Ok(body) => body,
            Err(error) => {
                // The queue could read the body for no other host either.
                let diagnostic = Diagnostic::own(EnhancedCode::new(4, 3, 0), error);
                for index in group.iter().take(named.len()) {
                    self.set(*index, Course::Settled(Fate::NotNow(diagnostic.clone())));
                }
                return Ok(());
            }
        };
        pulse.no_content();
        let sent = match self
            .flow
            .run(pulse, client.transact(mail, &named, QueuedContent { body, pulse, has_begun: false }))
            .await
        {
            Ok(sent) => sent,
            Err(gave_up) => {
                let why = given_up(host, gave_up);
                for index in group.iter().take(named.len()) {
                    self.set(*index, Course::Open(Some(why.clone())));
                }
                // Many recipients take long, however well a server is.
                if !self.has_delivered || gave_up != GaveUp::TooLong {
                    crew.shared.health.failed(server, host, Stage::Transaction);
                }
                return Err(Break { is_closed: true, ..Break::default() });
            }
        };
        if sent.in_doubt {
            info!(message = %job.lease().message(), %host, "end of content not answered, a duplicate is possible");
        }
        let broken = sent.broken.as_ref();
        let is_binary = job.outside.mail.body == Some(BodyType::BinaryMime);
        let cause = Break {
            says_nothing: sent.says_nothing(),
            is_mute: broken.is_some_and(|error| !matches!(error, ClientError::Misuse(_) | ClientError::Content(_)))
                && !pulse.content_has_begun()
                && sent.recipients.iter().all(|recipient| matches!(recipient.outcome, RecipientOutcome::Lost)),
            chunking: sent.chunking_failed && !is_binary,
            is_closed: broken.is_some(),
        };
        for ((index, recipient), owes_report) in group.iter().zip(sent.recipients).zip(owed) {
            let outcome = recipient.outcome;
            self.has_delivered |= matches!(outcome, RecipientOutcome::Accepted(_));
            let doubt = sent.in_doubt && matches!(outcome, RecipientOutcome::Lost);
            let course = match outcome {
                RecipientOutcome::Refused(reply, RefusedAt::Bdat) if cause.chunking => {
                    Course::Open(Some(Diagnostic::reply(host, &reply)))
                }
                // Binary content cannot go by DATA.
                RecipientOutcome::Refused(reply, RefusedAt::Bdat) => {
                    Course::Settled(Fate::Never(Diagnostic::reply(host, &reply)))
                }
                outcome => course(host, outcome, owes_report, sent.broken.as_ref(), doubt),
            };
            self.set(*index, course);
        }
        if cause.is_closed || cause.chunking { Err(cause) } else { Ok(()) }
    }

    fn set(&mut self, index: usize, course: Course) {
        if let Some(known) = self.courses.get_mut(index) {
            *known = course;
        }
    }
}

/// Keeps one connection for the next message: the first, unless another is better.
async fn keep(connection: &mut Option<Connected>, mut opened: Option<Connected>, is_better: bool) {
    if connection.is_none() || (opened.is_some() && is_better) {
        std::mem::swap(connection, &mut opened);
    }
    if let Some(other) = opened {
        other.close().await;
    }
}

fn course(
    host: &str,
    outcome: RecipientOutcome,
    owes_report: bool,
    broken: Option<&ClientError>,
    in_doubt: bool,
) -> Course {
    let is_permanent = outcome.is_permanent();
    match outcome {
        RecipientOutcome::Accepted(reply) => {
            Course::Settled(Fate::Delivered { remote: host.to_owned(), reply, owes_report })
        }
        RecipientOutcome::Refused(reply, _) if is_permanent => {
            Course::Settled(Fate::Never(Diagnostic::reply(host, &reply)))
        }
        RecipientOutcome::Refused(reply, _) => Course::Open(Some(Diagnostic::reply(host, &reply))),
        RecipientOutcome::Undeliverable(why) => {
            let found = Diagnostic::own(why.enhanced(), why);
            Course::Settled(Fate::Never(Diagnostic { remote: Some(host.to_owned()), ..found }))
        }
        RecipientOutcome::Unsendable(_) => {
            Course::Settled(Fate::Never(Diagnostic::own(EnhancedCode::new(5, 6, 0), outcome)))
        }
        RecipientOutcome::Lost | RecipientOutcome::Postponed => match broken {
            Some(error) if in_doubt => {
                let text = format_args!(
                    "{error}, after the whole message: the server may have it, so no other host is asked yet"
                );
                Course::Settled(Fate::NotNow(Diagnostic::lost(host, &text)))
            }
            // Content that the queue cannot read, it can read for no host.
            Some(error @ ClientError::Content(_)) => Course::Settled(Fate::NotNow(Diagnostic::lost(host, error))),
            Some(error) => Course::Open(Some(Diagnostic::lost(host, error))),
            None => Course::Open(Some(Diagnostic::lost(host, &"no answer"))),
        },
    }
}

/// A queued body as content to send. It tells the pulse how far it is.
struct QueuedContent<'p, B> {
    body: B,
    pulse: &'p Pulse,
    has_begun: bool,
}

impl<B: Body> Content for QueuedContent<'_, B> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.pulse.content_begins(self.body.len());
        }
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        if piece.is_none() {
            // The last piece leaves after this.
            self.pulse.content_is_whole();
        }
        Poll::Ready(piece)
    }

    fn length(&self) -> Option<u64> {
        Some(self.body.len())
    }
}
