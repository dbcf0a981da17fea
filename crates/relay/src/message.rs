//! A message as the queue takes it.

use std::{collections::HashMap, time::Duration};

use posthaste_queue::{NewDelivery, NewMessage, Owner, Priority, RoutingKey};
use posthaste_server::{
    Envelope,
    wire::{Domain, ForwardPath},
};

use crate::record::{Outside, Recipient, Told, encode_recipients};

/// What is known of a message beside its envelope.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// The client that it came from, as a report names it.
    pub(crate) client: Option<String>,
    /// Whether all of the content is ASCII.
    pub(crate) all_ascii: bool,
}

/// A message of an owner, with one delivery for each domain of its recipients, in the order in which they first stand. It is
/// due when its hold is over, and goes by its priority.
pub(crate) fn new_message(
    own_name: &Domain,
    owner: Owner,
    envelope: &Envelope,
    origin: Origin,
) -> Result<NewMessage, Box<dyn std::error::Error + Send + Sync>> {
    let mut groups: Vec<(String, Vec<Recipient>)> = Vec::new();
    let mut index = HashMap::new();
    for rcpt in &envelope.recipients {
        let domain = match &rcpt.forward_path {
            ForwardPath::Mailbox(mailbox) => routing_name(&mailbox.domain()),
            ForwardPath::Postmaster => own_name.as_str().to_ascii_lowercase(),
        };
        let at = *index.entry(domain.clone()).or_insert_with(|| {
            groups.push((domain, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, recipients)) = groups.get_mut(at) {
            recipients.push(Recipient { rcpt: rcpt.clone(), told: Told::default(), last: None });
        }
    }
    let outside = Outside {
        accepted: jiff::Timestamp::now().as_second(),
        all_ascii: origin.all_ascii,
        received_from: origin.client,
        mail: envelope.mail.clone(),
    };
    let delay = outside.held();
    let mut deliveries = Vec::with_capacity(groups.len());
    for (domain, recipients) in groups {
        let state = encode_recipients(&recipients)?;
        deliveries.push(NewDelivery { key: RoutingKey::new(&domain)?, delay, state });
    }
    let priority = Priority(envelope.mail.mt_priority.unwrap_or_default().get());
    Ok(NewMessage { owner, priority, envelope: outside.encode()?, deliveries })
}

/// The priority of a message, and how long it is held.
pub(crate) fn terms(message: &NewMessage) -> (i8, Duration) {
    let held = message.deliveries.first().map_or(Duration::ZERO, |delivery| delivery.delay);
    (message.priority.0, held)
}

/// The domain as the DNS knows it, so that both ways to write one beyond ASCII lead to the same place. What is no domain
/// that the DNS could know stays as it is, and fails there.
fn routing_name(domain: &Domain<&str>) -> String {
    match domain.as_str().is_ascii() {
        true => domain.as_str().to_ascii_lowercase(),
        false => domain.to_a_labels().map_or_else(|_| domain.as_str().to_owned(), |name| name.as_str().to_owned()),
    }
}
