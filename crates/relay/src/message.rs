//! A message as the queue takes it.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::{self, Write as _},
    time::Duration,
};

use posthaste_queue::{MAX_DELIVERIES, MAX_STATES, NameError, NewDelivery, NewMessage, Owner, Priority, RoutingKey};
use posthaste_server::{
    Envelope,
    wire::{Domain, EncodeError, ForwardPath, Rcpt},
};
use thiserror::Error;

use crate::{
    domains::canonical,
    record::{AROUND, MAX_ROOM, MIN_ROOM, Outside, Recipient, encode_recipients},
};

/// What is known of a message beside its envelope.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The client that it came from, as a report names it.
    pub(crate) client: Option<String>,
    /// Whether all of the content is ASCII.
    pub(crate) all_ascii: bool,
    /// Whether the client had logged in or may relay.
    pub(crate) trusted: bool,
    /// Whether it is a report of this relay that returns a message whole.
    pub(crate) returns_whole: bool,
}

/// Why the outside of a message cannot be kept.
#[derive(Debug, Error)]
pub(crate) enum OutsideError {
    #[error("what came of so many recipients could not be written down; name fewer in one message")]
    TooMany,
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A message of an owner, with one delivery for each domain of its recipients, in the order in
/// which they first stand. It is due when its hold is over, and goes by its priority.
pub(crate) fn new_message(
    own_name: &Domain,
    owner: Owner,
    envelope: &Envelope,
    origin: Origin,
) -> Result<NewMessage, OutsideError> {
    let mut groups: Vec<(String, Vec<Recipient>)> = Vec::new();
    let mut index = HashMap::new();
    for rcpt in &envelope.recipients {
        let domain = match &rcpt.forward_path {
            ForwardPath::Mailbox(mailbox) => routing_name(&mailbox.domain()),
            ForwardPath::Postmaster => routing_name(&own_name.borrowed()),
        };
        let at = *index.entry(domain.clone()).or_insert_with(|| {
            groups.push((domain, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, recipients)) = groups.get_mut(at) {
            recipients.push(Recipient::new(rcpt.clone()));
        }
    }
    let states = groups.iter().map(|(_, recipients)| encode_recipients(recipients, 0));
    let states = states.collect::<Result<Vec<_>, _>>()?;
    let bare = states.iter().fold(0, |sum: usize, state| sum.saturating_add(state.len()));
    let room = room(envelope.recipients.len(), bare).filter(|_| groups.len() <= MAX_DELIVERIES);
    let outside = Outside {
        accepted: jiff::Timestamp::now().as_second(),
        all_ascii: origin.all_ascii,
        trusted: origin.trusted,
        returns_whole: origin.returns_whole,
        room: room.ok_or(OutsideError::TooMany)?,
        received_from: origin.client,
        mail: envelope.mail.clone(),
    };
    let delay = outside.held();
    let mut deliveries = Vec::with_capacity(groups.len());
    for ((domain, _), state) in groups.into_iter().zip(states) {
        deliveries.push(NewDelivery { key: RoutingKey::new(&domain)?, delay, state });
    }
    let priority = Priority(envelope.mail.mt_priority.unwrap_or_default().get());
    Ok(NewMessage { owner, priority, envelope: outside.encode()?, deliveries })
}

/// Octets of what was said that each of so many recipients may keep, whose states take `bare`
/// octets without.
fn room(recipients: usize, bare: usize) -> Option<u16> {
    let share = MAX_STATES.checked_sub(bare)? / recipients.max(1);
    let room = share.checked_sub(AROUND)?.min(MAX_ROOM.into());
    u16::try_from(room).ok().filter(|room| *room >= MIN_ROOM)
}

/// The recipients of a transaction as they are named: whatever comes of them can be written down.
#[derive(Debug, Default)]
pub(crate) struct Named {
    recipients: usize,
    octets: usize,
}

/// The most octets of the RCPT lines of a message: half of what the queue keeps of what came of
/// them.
const MAX_LINES: usize = MAX_STATES / 2;

impl Named {
    /// Counts one more, unless it is too many.
    pub(crate) fn add(&mut self, rcpt: &Rcpt) -> bool {
        let mut counted = Octets(self.octets.saturating_add("RCPT TO:".len()));
        let is_counted = write!(counted, "{rcpt}").is_ok();
        let fits = is_counted && self.recipients < MAX_DELIVERIES && counted.0 <= MAX_LINES;
        if fits {
            *self = Self { recipients: self.recipients.saturating_add(1), octets: counted.0 };
        }
        fits
    }
}

struct Octets(usize);

impl fmt::Write for Octets {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}

/// The priority of a message, and how long it is held.
pub(crate) fn terms(message: &NewMessage) -> (i8, Duration) {
    let held = message.deliveries.first().map_or(Duration::ZERO, |delivery| delivery.delay);
    (message.priority.0, held)
}

/// The domain as the DNS knows it, so that both ways to write one beyond ASCII lead to the same
/// place. What is no domain that the DNS could know stays as it is, and fails there.
fn routing_name(domain: &Domain<&str>) -> String {
    canonical(domain).map_or_else(|| domain.as_str().to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_server::wire::{Command, Mail, ReversePath};

    fn rcpt(path: &str) -> Rcpt {
        let line = format!("RCPT TO:{path}");
        match Command::parse(line.as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => rcpt.into_owned(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn as_many_recipients_as_are_named_can_be_written_down_with_what_was_said() {
        let own_name = "relay.test".parse().unwrap();
        // Short and many, long and some; all in one domain, each in its own.
        for (local, parameters, own_domains) in [
            ("u", "", false),
            ("u", "", true),
            (&*"u".repeat(60), &*format!(" ORCPT=rfc822;{}", "x".repeat(450)), true),
        ] {
            let mut named = Named::default();
            let mut recipients = Vec::new();
            loop {
                let at = recipients.len();
                let domain = if own_domains { format!("d{at}.test") } else { "d.test".to_owned() };
                let rcpt = rcpt(&format!("<{local}{at}@{domain}>{parameters}"));
                if !named.add(&rcpt) {
                    break;
                }
                recipients.push(rcpt);
            }
            assert!(recipients.len() > 5_000);
            let envelope = Envelope::new(Mail::new(ReversePath::Null).into_owned(), recipients);
            let message = new_message(&own_name, Owner::default(), &envelope, Origin::default()).unwrap();
            message.check().unwrap();
            let room = Outside::decode(&message.envelope).unwrap().room;
            assert!(room >= MIN_ROOM);
            // A host with the longest name says as much as it can, of each.
            let why = crate::Diagnostic {
                remote: Some("h".repeat(1_000)),
                status: posthaste_server::wire::EnhancedCode::new(4, 0, 0).unwrap(),
                text: "\u{20ac}".repeat(5_000),
                is_reply: true,
            };
            let last = Some(crate::record::Last { at: Some(0), why });
            let states = message.deliveries.iter().map(|delivery| {
                let mut recipients = crate::record::decode_recipients(&delivery.state).unwrap();
                recipients.iter_mut().for_each(|recipient| recipient.last.clone_from(&last));
                encode_recipients(&recipients, room).unwrap().len()
            });
            assert!(states.sum::<usize>() <= MAX_STATES);
        }
    }

    #[test]
    fn few_recipients_keep_all_that_was_said() {
        assert_eq!(room(1, 40), Some(MAX_ROOM));
        assert_eq!(room(1_000, 1_000 * 500), Some(MAX_ROOM));
        assert!(room(10_000, MAX_LINES).is_some_and(|room| (MIN_ROOM..MAX_ROOM).contains(&room)));
        assert_eq!((room(10_000, MAX_STATES), room(100_000, 0)), (None, None));
    }
}
