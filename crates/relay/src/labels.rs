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
pub(crate) struct Known<'a> {
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
        known: Known<'_>,
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
            let Known { identity, client, tag } = known;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NextHop, Route, RouteTable, Rule};

    #[tokio::test]
    async fn the_labels_of_a_message_follow_from_where_it_comes() {
        let mut options = RelayOptions::new("relay.test".parse().unwrap());
        options.routes = RouteTable::empty();
        let rule = |name: &str| Rule::new(name.parse().unwrap(), Route::new(NextHop::Hold));
        let mut jo = rule("jo");
        jo.identities = Some(["jo".to_owned()].into());
        let mut summer = rule("summer");
        summer.tags = Some(["summer".to_owned()].into());
        summer.domains = Some(["d.test".parse().unwrap(), "relay.test".parse().unwrap()].into_iter().collect());
        let mut inside = rule("inside");
        inside.clients = Some("10.0.0.0/8".parse().unwrap());
        for rule in [jo, summer, inside] {
            options.routes.push_rule(rule).unwrap();
        }
        let paths = ["<a@d.test>", "<b@e.test>", "<Postmaster>", "<x@\u{301}a.test>"];
        let recipients = paths.map(|path| path.parse().unwrap()).into();
        let envelope = Envelope::from_commands("<s@s.test> SMTPUTF8".parse().unwrap(), recipients);
        let client = Some("10.1.2.3".parse().unwrap());
        for (identity, client, tag, wanted) in [
            (None, None, None, [""; 4]),
            (None, None, Some("winter"), [""; 4]),
            (None, None, Some("summer"), ["summer", "", "summer", ""]),
            (None, client, Some("summer"), ["summer", "inside", "summer", ""]),
            (Some("jo"), client, Some("summer"), ["jo", "jo", "jo", ""]),
            (Some("amy"), client, None, ["inside", "inside", "inside", ""]),
        ] {
            let known = Known { identity, client, tag };
            let labels = Labels::find(&options, &Hooks::default(), &envelope, known).await.unwrap();
            let label = |path: &ForwardPath| labels.get(path).map_or("", Label::as_str).to_owned();
            let found: Vec<_> = envelope.recipients.iter().map(|rcpt| label(&rcpt.forward_path)).collect();
            assert_eq!(found, wanted, "{identity:?} {client:?} {tag:?}");
        }
    }
}
