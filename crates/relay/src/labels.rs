//! The labels of a message's recipients.

use std::{collections::HashMap, net::IpAddr};

use posthaste_server::{
    Envelope,
    wire::{Domain, ForwardPath},
};

use crate::{Facts, Label, RelayOptions, RouteError, RouteQuery, domains::canonical, hooks::Hooks};

/// The labels of recipients whose route has one; mostly none. It has no memory before the first
/// one. A recipient takes the memory of its path, and some 60 octets: those of one message are
/// bounded as its recipients are.
#[derive(Debug, Default)]
pub(crate) struct Labels(HashMap<ForwardPath, Label>);

/// Where a message comes from, as far as it is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct From<'a> {
    pub(crate) identity: Option<&'a str>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) tag: Option<&'a str>,
}

impl Labels {
    pub(crate) fn insert(&mut self, recipient: ForwardPath, label: Label) {
        self.0.insert(recipient, label);
    }

    pub(crate) fn get(&self, recipient: &ForwardPath) -> Option<&Label> {
        self.0.get(recipient)
    }

    /// Finds the labels of all recipients of a message that no client names at RCPT. The postmaster
    /// of this host has been replaced. Without a rule that gives labels, no route is looked for.
    ///
    /// # Errors
    /// A route cannot be found now.
    pub(crate) async fn find(
        options: &RelayOptions,
        hooks: &Hooks,
        envelope: &Envelope,
        from: From<'_>,
    ) -> Result<Self, RouteError> {
        let mut labels = Self::default();
        if !hooks.gives_labels(options) {
            return Ok(labels);
        }
        for rcpt in &envelope.recipients {
            let recipient = &rcpt.forward_path;
            let domain = domain_of(recipient, &options.host_name);
            // A domain that the DNS cannot have fails at its delivery.
            let Some(domain) = canonical(&domain) else { continue };
            let From { identity, client, tag } = from;
            let facts = Facts { recipient, sender: &envelope.mail.reverse_path, identity, client, tag };
            let route = hooks.route(options, &RouteQuery::new(&domain, facts)).await?;
            if let Some(label) = route.and_then(|route| route.label.clone()) {
                labels.insert(recipient.clone(), label);
            }
        }
        Ok(labels)
    }
}

/// The domain of a recipient. `<Postmaster>` is at this host.
pub(crate) fn domain_of<'a>(recipient: &'a ForwardPath, own_name: &'a Domain) -> Domain<&'a str> {
    match recipient {
        ForwardPath::Mailbox(mailbox) => mailbox.domain(),
        ForwardPath::Postmaster => own_name.borrowed(),
    }
}
