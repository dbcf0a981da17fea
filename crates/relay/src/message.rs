//! A message as the queue takes it.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::{self, Write as _},
    time::Duration,
};

use bytes::Bytes;
use posthaste_queue::{MAX_DELIVERIES, MAX_STATES, NameError, NewDelivery, NewMessage, Owner};
use posthaste_server::{
    Envelope,
    wire::{Domain, EncodeError, Rcpt},
};
use thiserror::Error;

use crate::{
    Label,
    domains::canonical,
    labels::{Labels, domain_of},
    rank::Rank,
    record::{AROUND, MAX_ROOM, MIN_ROOM, Outside, Recipient, encode_recipients},
    rule::routing_key,
};

/// The facts about a message that its envelope does not have.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The client that sent it, as a report names it.
    pub(crate) client: Option<String>,
    /// All of the content is ASCII.
    pub(crate) all_ascii: bool,
    /// MAIL says SMTPUTF8, and all header fields are ASCII all the same.
    pub(crate) ascii_fields: bool,
    /// The client had logged in or may relay.
    pub(crate) trusted: bool,
    /// The message is a report of this relay that returns a message whole.
    pub(crate) returns_whole: bool,
    /// The message says `TLS-Required: No`.
    pub(crate) tls_not_required: bool,
    /// The fields that stand before its content.
    pub(crate) front: Bytes,
    /// The campaign that a trusted client has named.
    pub(crate) tag: Option<String>,
    /// The labels of its recipients.
    pub(crate) labels: Labels,
}

/// Why the envelope of a message cannot be recorded.
#[derive(Debug, Error)]
pub(crate) enum OutsideError {
    #[error("too many recipients: their outcomes would not fit into one record; name fewer in one message")]
    TooMany,
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Makes a message of an owner. It has one delivery for each domain and label of the recipients, in
/// the order in which these first appear. It is due when its hold ends, and has the priority and
/// the size of its MAIL.
pub(crate) fn new_message(
    own_name: &Domain,
    owner: Owner,
    envelope: &Envelope,
    origin: Origin,
) -> Result<NewMessage, OutsideError> {
    let mut groups: Vec<(String, Option<&Label>, Vec<Recipient>)> = Vec::new();
    let mut index = HashMap::new();
    for rcpt in &envelope.recipients {
        let domain = routing_name(&domain_of(&rcpt.forward_path, own_name));
        let label = origin.labels.get(&rcpt.forward_path);
        let at = *index.entry((domain.clone(), label)).or_insert_with(|| {
            groups.push((domain, label, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, _, recipients)) = groups.get_mut(at) {
            recipients.push(Recipient::new(rcpt.clone()));
        }
    }
    let states = groups.iter().map(|(_, _, recipients)| encode_recipients(recipients, 0));
    let states = states.collect::<Result<Vec<_>, _>>()?;
    let bare = states.iter().fold(0, |sum: usize, state| sum.saturating_add(state.len()));
    let room = room(envelope.recipients.len(), bare).filter(|_| groups.len() <= MAX_DELIVERIES);
    let outside = Outside {
        accepted: jiff::Timestamp::now().as_second(),
        all_ascii: origin.all_ascii,
        ascii_fields: origin.ascii_fields && origin.front.is_ascii() && !origin.all_ascii,
        trusted: origin.trusted,
        returns_whole: origin.returns_whole,
        tls_not_required: origin.tls_not_required,
        room: room.ok_or(OutsideError::TooMany)?,
        received_from: origin.client,
        mail: envelope.mail.clone(),
        front: origin.front,
    };
    let delay = outside.held();
    let mut deliveries = Vec::with_capacity(groups.len());
    for ((domain, label, _), state) in groups.into_iter().zip(states) {
        deliveries.push(NewDelivery { key: routing_key(&domain, label)?, delay, state });
    }
    let rank = Rank::new(envelope.mail.mt_priority.unwrap_or_default().get(), envelope.mail.size.unwrap_or(0));
    Ok(NewMessage { owner, priority: rank.number(), envelope: outside.encode()?, deliveries })
}

/// The octets of diagnostic text that each recipient may keep. `bare` is the size of all states
/// without such text. `None`: the recipients are too many.
fn room(recipients: usize, bare: usize) -> Option<u16> {
    let share = MAX_STATES.checked_sub(bare)? / recipients.max(1);
    let room = share.checked_sub(AROUND)?.min(MAX_ROOM.into());
    u16::try_from(room).ok().filter(|room| *room >= MIN_ROOM)
}

/// The recipients of a transaction so far. [`Named::add`] refuses those whose outcome could not be
/// recorded.
#[derive(Debug, Default)]
pub(crate) struct Named {
    recipients: usize,
    octets: usize,
    /// The labels of their routes.
    pub(crate) labels: Labels,
}

/// The most octets of all RCPT lines of a message: half of what the queue stores as states.
const MAX_LINES: usize = MAX_STATES / 2;

impl Named {
    /// Counts a recipient. Returns `false`, and does not count it, if it is one too many.
    pub(crate) fn add(&mut self, rcpt: &Rcpt) -> bool {
        let mut counted = Octets(self.octets.saturating_add("RCPT TO:".len()));
        let is_counted = write!(counted, "{rcpt}").is_ok();
        let fits = is_counted && self.recipients < MAX_DELIVERIES && counted.0 <= MAX_LINES;
        if fits {
            (self.recipients, self.octets) = (self.recipients.saturating_add(1), counted.0);
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

/// The octets of a message: its front and the content in the queue.
pub(crate) fn whole_len(front: &Bytes, content: u64) -> u64 {
    u64::try_from(front.len()).unwrap_or(u64::MAX).saturating_add(content)
}

/// The priority of a message without its size, and the time for which it is held.
pub(crate) fn terms(message: &NewMessage) -> (i8, Duration) {
    let held = message.deliveries.first().map_or(Duration::ZERO, |delivery| delivery.delay);
    (Rank::of(message).priority.0, held)
}

/// The domain as the DNS has it, so that both forms of a domain outside ASCII have one key. A
/// domain that the DNS cannot have stays as it is: its delivery fails.
fn routing_name(domain: &Domain<&str>) -> String {
    canonical(domain).map_or_else(|| domain.as_str().to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_server::wire::{Mail, ReversePath};

    #[test]
    fn every_recipient_that_is_taken_can_be_recorded_with_its_diagnostic() {
        let own_name = "relay.test".parse().unwrap();
        // Many short recipients and some long ones; all in one domain, or each in its own.
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
                let rcpt: Rcpt = format!("<{local}{at}@{domain}>{parameters}").parse().unwrap();
                if !named.add(&rcpt) {
                    break;
                }
                recipients.push(rcpt);
            }
            assert!(recipients.len() > 5_000);
            let envelope = Envelope::from_commands(Mail::new(ReversePath::Null).into_owned(), recipients);
            let message = new_message(&own_name, Owner::default(), &envelope, Origin::default()).unwrap();
            message.check().unwrap();
            let room = Outside::decode(&message.envelope).unwrap().room;
            assert!(room >= MIN_ROOM);
            // The host has the longest name, and says as much as it can of each recipient.
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
    fn a_message_has_a_delivery_for_each_domain_and_label() {
        let own_name = "relay.test".parse().unwrap();
        let rcpt = |path: &str| path.parse::<Rcpt>().unwrap();
        let paths =
            ["<a@d.test>", "<b@d.test>", "<c@D.test>", "<a@e.test>", "<Postmaster>", "<d@d.test>", "<x@relay.test>"];
        let envelope = Envelope::from_commands(Mail::new(ReversePath::Null).into_owned(), paths.map(rcpt).into());
        let mut labels = Labels::default();
        for (path, label) in
            [("<b@d.test>", "one"), ("<c@D.test>", "two"), ("<a@e.test>", "one"), ("<d@d.test>", "one")]
        {
            labels.insert(rcpt(path).forward_path, label.parse().unwrap());
        }
        let origin = Origin { labels, ..Origin::default() };
        let message = new_message(&own_name, Owner::default(), &envelope, origin).unwrap();
        message.check().unwrap();
        let deliveries: Vec<_> = message
            .deliveries
            .iter()
            .map(|delivery| {
                let recipients = crate::record::decode_recipients(&delivery.state).unwrap();
                let paths = recipients.iter().map(|one| one.rcpt.forward_path.to_string()).collect::<Vec<_>>();
                (delivery.key.as_str(), paths.join(" "))
            })
            .collect();
        let wanted = [
            ("d.test", "<a@d.test>"),
            ("d.test one", "<b@d.test> <d@d.test>"),
            ("d.test two", "<c@D.test>"),
            ("e.test one", "<a@e.test>"),
            ("relay.test", "<Postmaster> <x@relay.test>"),
        ];
        assert_eq!(deliveries, wanted.map(|(key, paths)| (key, paths.to_owned())));
    }

    #[test]
    fn few_recipients_keep_the_whole_diagnostic() {
        assert_eq!(room(1, 40), Some(MAX_ROOM));
        assert_eq!(room(1_000, 1_000 * 500), Some(MAX_ROOM));
        assert!(room(10_000, MAX_LINES).is_some_and(|room| (MIN_ROOM..MAX_ROOM).contains(&room)));
        assert_eq!((room(10_000, MAX_STATES), room(100_000, 0)), (None, None));
    }
}
