//! A message as the queue takes it.

use std::{collections::HashMap, time::Duration};

use posthaste_queue::{NewDelivery, NewMessage, Owner, Priority, RoutingKey};
use posthaste_server::{
    Envelope,
    wire::{Domain, ForwardPath},
};

use crate::record::{Outside, Recipient, encode_recipients};

/// A message of an owner, with one delivery for each domain of its recipients, in the order in which they first stand.
pub(crate) fn new_message(
    own_name: &Domain,
    owner: Owner,
    envelope: &Envelope,
) -> Result<NewMessage, Box<dyn std::error::Error + Send + Sync>> {
    let mut groups: Vec<(String, Vec<Recipient>)> = Vec::new();
    let mut index = HashMap::new();
    for rcpt in &envelope.recipients {
        let domain = match &rcpt.forward_path {
            ForwardPath::Mailbox(mailbox) => mailbox.domain().as_str().to_ascii_lowercase(),
            ForwardPath::Postmaster => own_name.as_str().to_ascii_lowercase(),
        };
        let at = *index.entry(domain.clone()).or_insert_with(|| {
            groups.push((domain, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, recipients)) = groups.get_mut(at) {
            recipients.push(Recipient { rcpt: rcpt.clone(), last: None });
        }
    }
    let mut deliveries = Vec::with_capacity(groups.len());
    for (domain, recipients) in groups {
        let state = encode_recipients(&recipients)?;
        deliveries.push(NewDelivery { key: RoutingKey::new(&domain)?, delay: Duration::ZERO, state });
    }
    let outside = Outside { accepted: jiff::Timestamp::now().as_second(), mail: envelope.mail.clone() };
    Ok(NewMessage { owner, priority: Priority::default(), envelope: outside.encode()?, deliveries })
}
