//! One attempt of a delivery to an agent: a next hop in this process.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use posthaste_client::{Content, Resolver};
use posthaste_queue::{Body, Queue};
use posthaste_server::{
    Envelope,
    wire::{ForwardPath, Mailbox, Rcpt, ReplyCode, ReversePath},
};
use tracing::warn;

use super::{
    attempt::conclude,
    connect::given_up,
    flow::{Flow, Pulse},
    job::{Fate, Job, Tried},
    site::{Site, Unreachable},
    throttle::Signal,
    words::{At, Words},
    worker::Crew,
};
use crate::{
    Diagnostic, RelayOptions,
    agent::{AgentContent, AgentHandle, AgentLetter, Answer, Decision, Open},
    message::whole_len,
    report::Action,
    shared::Shared,
};

/// Hands the message to the agent. Returns one fate for each recipient, in their order.
pub(super) async fn run<Q: Queue, R: Resolver>(
    crew: &Crew<Q, R>,
    site: &Site,
    job: &Job,
    agent: &AgentHandle,
    flow: &mut Flow<'_>,
) -> Tried {
    let all = |why: &Diagnostic| job.recipients().iter().map(|_| Fate::NotNow(why.clone(), Words::default())).collect();
    if let Some(why) = site.down() {
        return Tried::Settled(all(&why.diagnostic));
    }
    let pulse = Arc::<Pulse>::default();
    let envelope = envelope(&job.options, job);
    let source = Source { shared: &crew.shared, job, pulse: &pulse };
    let letter = AgentLetter {
        id: job.lease().message(),
        envelope: &envelope,
        age: job.age(),
        attempts: job.attempts,
        octets: whole_len(&job.outside.front, job.body_len),
        source: &source,
    };
    let decided = flow.run(&pulse, pin!(agent.deliver(&letter))).await;
    job.note_damage(pulse.take_damage());
    if flow.was_silent {
        site.mark_silent();
    }
    match decided {
        Ok(decisions) => settle(site, job, agent, decisions, !flow.was_silent),
        // It may have the message all the same: it gets it again.
        Err(gave_up) => {
            let why = given_up(agent.name(), gave_up);
            conclude(site, job, Signal::Lost, false, all(&why))
        }
    }
}

fn settle(site: &Site, job: &Job, agent: &AgentHandle, decisions: Vec<Decision>, answers_soon: bool) -> Tried {
    let (mut takes, mut refused, mut closed) = (false, None, None);
    let fate = |(index, decision): (usize, Decision)| match decision {
        Ok(accepted) => {
            takes = true;
            let rcpt = job.recipients().get(index).map(|recipient| &recipient.rcpt);
            let is_asked = rcpt.and_then(|rcpt| rcpt.notify).is_some_and(|notify| notify.success);
            let owes = is_asked.then_some(Action::Delivered);
            Fate::Delivered { remote: agent.name().to_owned(), reply: accepted.into(), tls: false, owes }
        }
        Err(refusal) if refusal.is_permanent() => Fate::Never(Diagnostic::reply(agent.name(), refusal.reply())),
        Err(refusal) => {
            if let Some(cause) = refusal.cause() {
                warn!(message = %job.lease().message(), agent = agent.name(), cause, "agent deferred a recipient");
            }
            let why = Diagnostic::reply(agent.name(), refusal.reply());
            let words = Words::of(refusal.reply(), At::Message);
            if words.cause.is_throttling() {
                refused = refused.take().or_else(|| Some((words, why.clone())));
            } else if refusal.reply().code() == ReplyCode::SERVICE_NOT_AVAILABLE {
                closed = Some(why.clone());
            }
            Fate::NotNow(why, words)
        }
    };
    let fates = decisions.into_iter().enumerate().map(fate).collect();
    if let Some(diagnostic) = closed {
        let down_for = job.options.delivery.retry.down_for();
        site.mark_down(Unreachable { diagnostic, is_permanent: false }, down_for);
    } else {
        site.mark_up();
    }
    let signal = match refused {
        Some((words, why)) => Signal::Refused(words, why),
        None if takes => Signal::Took,
        None => Signal::Answered,
    };
    let proves = answers_soon && takes && job.outside.mail.reverse_path != ReversePath::Null;
    conclude(site, job, signal, proves, fates)
}

/// The envelope of the recipients that wait.
fn envelope(options: &RelayOptions, job: &Job) -> Envelope {
    let own = |rcpt: &Rcpt| {
        let mut rcpt = rcpt.clone();
        if rcpt.forward_path == ForwardPath::Postmaster
            && let Ok(mailbox) = format!("postmaster@{}", options.host_name).parse::<Mailbox>()
        {
            rcpt.forward_path = ForwardPath::Mailbox(mailbox);
        }
        rcpt
    };
    let recipients = job.recipients().iter().map(|recipient| own(&recipient.rcpt)).collect();
    Envelope::from_commands(job.outside.mail.clone(), recipients)
}

/// Where an agent gets the content from.
struct Source<'s, Q, R> {
    shared: &'s Shared<Q, R>,
    job: &'s Job,
    pulse: &'s Arc<Pulse>,
}

impl<Q: Queue, R: Send + Sync> Open for Source<'_, Q, R> {
    fn open(&self) -> Answer<'_, io::Result<AgentContent>> {
        Box::pin(async {
            let body = self.shared.queue.body(self.job.lease().message()).await.map_err(io::Error::other)?;
            let octets = whole_len(&self.job.outside.front, body.len());
            self.pulse.content_begins(octets);
            let (front, pulse) = (self.job.outside.front.clone(), Arc::clone(self.pulse));
            Ok(AgentContent(Box::pin(Pieces { front, body, octets, pulse })))
        })
    }
}

/// The content for an agent. Each piece counts as movement. The pulse is never told that all of it
/// has left: an agent has no timeouts of its own, so the time of the attempt always ends it.
struct Pieces<B> {
    front: Bytes,
    body: B,
    octets: u64,
    pulse: Arc<Pulse>,
}

impl<B: Body> Content for Pieces<B> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.pulse.beat();
        if !self.front.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.front))));
        }
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        if let Some(Err(error)) = &piece {
            self.pulse.note_damage(error);
        }
        Poll::Ready(piece)
    }

    fn length(&self) -> Option<u64> {
        Some(self.octets)
    }
}
