//! What the outcomes of an attempt mean: for each recipient, and for the site.

use posthaste_client::{
    ClientError, RecipientOutcome, RefusedAt, ServerFacts,
    delivery::{Course, Delivery},
};
use posthaste_server::wire::{EnhancedCode, Reply, ReplyCode};

use super::super::{
    connect::given_up,
    fit::Fit,
    flow::GaveUp,
    job::{Fate, Job},
    letter::is_local,
    site::Unreachable,
    throttle::Signal,
    words::Words,
};
use crate::{Diagnostic, report::Action};

/// What the outcomes tell of the site. What a server did before another took over does not count.
pub(super) fn signal(delivery: &Delivery) -> Signal {
    let (mut is_lost, mut refused) = (false, None);
    for course in delivery.courses() {
        let host = course.server.as_ref().and_then(|server| server.target.as_ref()).map_or("", |target| &*target.host);
        match &course.outcome {
            Some(RecipientOutcome::Refused(reply, at)) => {
                let words = Words::of(reply, (*at).into());
                is_lost |= reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
                if words.cause.is_throttling() && refused.is_none() {
                    refused = Some(Signal::Refused(words, Diagnostic::reply(host, reply)));
                }
            }
            Some(RecipientOutcome::Lost) => is_lost |= course.broken.as_deref().is_some_and(is_network),
            _ => {}
        }
    }
    match refused {
        Some(refused) => refused,
        None if is_lost => Signal::Lost,
        None if delivery.has_delivered() => Signal::Took,
        None => Signal::Answered,
    }
}

/// Returns `true` if the server or the network ended the conversation, and not the relay.
fn is_network(error: &ClientError) -> bool {
    !matches!(error, ClientError::Content(_) | ClientError::Misuse(_)) && gave_up(error).is_none()
}

/// Recipients that were refused since the site blocks the source are tried again from another one.
pub(super) fn fates(
    job: &Job,
    delivery: Delivery,
    unreachable: Option<&(Unreachable, Words)>,
    blocked: &[usize],
) -> Vec<Fate> {
    let courses = delivery.into_courses().into_iter().enumerate();
    let fate = |(index, course)| match fate(job, index, course, unreachable) {
        Fate::Never(why) if blocked.contains(&index) => Fate::NotNow(why, Words::default()),
        fate => fate,
    };
    courses.map(fate).collect()
}

/// What becomes of a recipient.
fn fate(job: &Job, index: usize, mut course: Course, unreachable: Option<&(Unreachable, Words)>) -> Fate {
    let not_now = |why| Fate::NotNow(why, Words::default());
    let Some(outcome) = course.outcome.take() else {
        return match unreachable {
            Some((Unreachable { diagnostic, is_permanent: true }, _)) => Fate::Never(diagnostic.clone()),
            Some((Unreachable { diagnostic, .. }, words)) => Fate::NotNow(diagnostic.clone(), *words),
            None => not_now(Diagnostic::own(EnhancedCode::new(4, 4, 1), "no host was tried")),
        };
    };
    let target = course.server.as_ref().and_then(|server| server.target.as_ref());
    let host = target.map_or("", |target| &*target.host);
    let is_permanent = outcome.is_permanent();
    match outcome {
        RecipientOutcome::Accepted(reply) => {
            let owes = course.server.as_ref().is_some_and(|server| owes_relayed_report(job, index, server));
            let tls = course.server.as_ref().is_some_and(|server| server.tls.is_some());
            Fate::Delivered { remote: host.to_owned(), reply, tls, owes: owes.then_some(Action::Relayed) }
        }
        // Content that cannot go by DATA can go to no server that refuses BDAT.
        RecipientOutcome::Refused(reply, RefusedAt::Bdat) if course.is_settled => {
            Fate::Never(Diagnostic::reply(host, &reply))
        }
        RecipientOutcome::Refused(reply, RefusedAt::InClear) => not_now(in_clear(host, &course, &reply)),
        RecipientOutcome::Refused(reply, _) if is_permanent => Fate::Never(Diagnostic::reply(host, &reply)),
        RecipientOutcome::Refused(reply, at) => {
            Fate::NotNow(Diagnostic::reply(host, &reply), Words::of(&reply, at.into()))
        }
        RecipientOutcome::Undeliverable(why) => {
            let found = Diagnostic::own(why.enhanced(), why);
            Fate::Never(Diagnostic { remote: Some(host.to_owned()), ..found })
        }
        RecipientOutcome::Unsendable(_) => Fate::Never(Diagnostic::own(EnhancedCode::new(5, 6, 0), outcome)),
        RecipientOutcome::Unreachable(why) => not_now(Diagnostic::own(EnhancedCode::new(4, 4, 1), why)),
        RecipientOutcome::Lost | RecipientOutcome::Postponed => not_now(lost(host, &course)),
    }
}

/// Why a host that asks for TLS got none.
fn in_clear(host: &str, course: &Course, reply: &Reply) -> Diagnostic {
    let failure = course.server.as_ref().and_then(|server| server.tls_failure.as_deref());
    let failure = failure.unwrap_or("TLS is switched off for it");
    let reply = Diagnostic::reply(host, reply).text;
    let text = format!("the host asks for TLS, and there was none: {failure}; without it the host said: {reply}");
    Diagnostic { remote: Some(host.to_owned()), ..Diagnostic::own(EnhancedCode::new(4, 7, 5), text) }
}

/// Why the conversation broke off.
fn lost(host: &str, course: &Course) -> Diagnostic {
    match course.broken.as_deref() {
        Some(error) if course.in_doubt => {
            let text =
                format_args!("{error}, after the whole message: the server may have it, so no other host is asked yet");
            Diagnostic::lost(host, &text)
        }
        // The queue could not read the content, and nothing was sent.
        Some(ClientError::Content(error)) if course.server.is_none() => {
            Diagnostic::own(EnhancedCode::new(4, 3, 0), error)
        }
        Some(error) => gave_up(error).map_or_else(|| Diagnostic::lost(host, error), |gave_up| given_up(host, gave_up)),
        None => Diagnostic::lost(host, &"no answer"),
    }
}

/// Why the relay itself gave the conversation up.
fn gave_up(error: &ClientError) -> Option<GaveUp> {
    let ClientError::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref().copied()
}

/// Returns `true` if the sender is owed a report that this server took the message.
fn owes_relayed_report(job: &Job, index: usize, server: &ServerFacts) -> bool {
    let local = server.target.as_ref().is_some_and(|target| is_local(&target.server));
    let (by, verified) = (job.by(), server.is_verified);
    let fit = Fit { outside: &job.outside, by, server: &server.capabilities, verified, local };
    job.recipients().get(index).is_some_and(|recipient| fit.owes_relayed_report(&recipient.rcpt.borrowed()))
}
