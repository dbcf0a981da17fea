//! Rules: routes for the mail that meets conditions, and the labels under which the queue keeps
//! such mail.

use std::{borrow::Borrow, collections::HashSet, fmt, net::IpAddr, str::FromStr, sync::Arc};

use posthaste_queue::{MAX_NAME, NameError, RoutingKey};
use posthaste_server::wire::{ForwardPath, ReversePath};
use thiserror::Error;

use crate::{DomainSet, MailboxSet, NetworkSet, Route};

/// The name of a rule. Mail that a rule has chosen by more than its domain is kept in the queue
/// under the domain and this label, so that it finds its route again.
///
/// It has 1 to 32 letters, digits, dots, hyphens and underscores of ASCII. Upper and lower case
/// differ. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

/// The text is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a label of 1 to 32 letters, digits, dots, hyphens and underscores was expected")]
pub struct LabelError;

/// What is known of a message and one of its recipients when their route is chosen.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Facts<'a> {
    /// The recipient. [`RelayOptions::postmaster`](crate::RelayOptions::postmaster) has replaced
    /// this host's postmaster.
    pub recipient: &'a ForwardPath,
    /// The sender. Any client can claim any sender.
    pub sender: &'a ReversePath,
    /// The user that the client has logged in as. `None`: none, or the relay itself sends.
    pub identity: Option<&'a str>,
    /// The address of the client; `127.0.0.1` for one on a local socket. `None`: the application or
    /// the relay itself sends.
    pub client: Option<IpAddr>,
    /// The tag of the campaign that the message belongs to. `None`: it has none.
    pub tag: Option<&'a str>,
}

/// A route for mail that meets all conditions of the rule. `None` as a condition: any. An empty
/// set: no mail meets it.
///
/// No condition gives a right: the policy decides who may send where before a route is chosen. Any
/// client can claim any sender, so choose by identity or client where it matters.
///
/// ```
/// use posthaste_relay::{NextHop, Route, RouteTable, Rule};
/// let mut news = Rule::new("news".parse()?, Route::hosts([("bulk.example.net", 25)]));
/// news.senders = Some(["news.example.org".parse()?].into_iter().collect());
/// news.identities = Some(["marketing".to_owned()].into());
/// let mut routes = RouteTable::empty();
/// routes.push_rule(news)?;
/// routes.push(["*".parse()?], Route::new(NextHop::Mx));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, which no other rule of the table may have.
    pub name: Label,
    /// Where its mail goes.
    pub route: Route,
    /// The domain of the recipient.
    pub domains: Option<DomainSet>,
    /// The recipient. Upper and lower case are the same, in local-parts too.
    pub recipients: Option<MailboxSet>,
    /// The sender, in the same way. The null reverse-path, which reports have, is in no set.
    pub senders: Option<MailboxSet>,
    /// The user that the client has logged in as.
    pub identities: Option<HashSet<String>>,
    /// The address of the client. Mail from the application has none.
    pub clients: Option<NetworkSet>,
    /// The tag of the campaign.
    pub tags: Option<HashSet<String>>,
}

/// A table has a rule of this name already.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is a rule named `{0}` already; give each rule a name of its own")]
pub struct DuplicateRule(pub Label);

impl Label {
    /// The most octets of a label.
    pub const MAX: usize = 32;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let is_good = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_');
        match (1..=Self::MAX).contains(&text.len()) && text.bytes().all(is_good) {
            true => Ok(Self(text.into())),
            false => Err(LabelError),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// So that a map of labels is asked for a text.
impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'a> Facts<'a> {
    /// Makes the facts of a message from the application, without a tag.
    pub const fn new(sender: &'a ReversePath, recipient: &'a ForwardPath) -> Self {
        Self { recipient, sender, identity: None, client: None, tag: None }
    }
}

impl Rule {
    /// Makes a rule without conditions, which has all mail.
    pub const fn new(name: Label, route: Route) -> Self {
        Self {
            name,
            route,
            domains: None,
            recipients: None,
            senders: None,
            identities: None,
            clients: None,
            tags: None,
        }
    }

    /// Returns `true` if nothing but the domain counts. Then the queue needs no label.
    pub(crate) const fn is_by_domain(&self) -> bool {
        self.recipients.is_none()
            && self.senders.is_none()
            && self.identities.is_none()
            && self.clients.is_none()
            && self.tags.is_none()
    }

    /// Returns `true` if mail for a [canonical](crate::domains::canonical) domain may meet it.
    pub(crate) fn has_domain(&self, domain: &str) -> bool {
        self.domains.as_ref().is_none_or(|domains| domains.has(domain))
    }

    /// Returns `true` if mail for a canonical domain meets all conditions.
    pub(crate) fn holds(&self, domain: &str, facts: &Facts<'_>) -> bool {
        let is_one_of = |set: &Option<HashSet<String>>, value: Option<&str>| {
            set.as_ref().is_none_or(|set| value.is_some_and(|value| set.contains(value)))
        };
        // The cheap ones first.
        self.has_domain(domain)
            && is_one_of(&self.identities, facts.identity)
            && is_one_of(&self.tags, facts.tag)
            && self.holds_by_envelope(domain, facts)
    }

    /// Returns `true` if queued mail with the label `kept` meets all conditions. The queue records
    /// neither the user nor the tag: mail of this rule has met those conditions, and other mail is
    /// taken not to meet them.
    pub(crate) fn holds_again(&self, domain: &str, facts: &Facts<'_>, kept: Option<&str>) -> bool {
        let is_recorded = self.identities.is_none() && self.tags.is_none();
        self.has_domain(domain)
            && (is_recorded || kept == Some(self.name.as_str()))
            && self.holds_by_envelope(domain, facts)
    }

    fn holds_by_envelope(&self, domain: &str, facts: &Facts<'_>) -> bool {
        let has_recipient = |set: &MailboxSet| match facts.recipient {
            ForwardPath::Mailbox(mailbox) => set.contains(mailbox),
            ForwardPath::Postmaster => set.has("postmaster", domain),
        };
        let has_sender = |set: &MailboxSet| facts.sender.mailbox().is_some_and(|sender| set.contains(sender));
        let has_client = |set: &NetworkSet| facts.client.is_some_and(|client| set.contains(client));
        self.clients.as_ref().is_none_or(has_client)
            && self.senders.as_ref().is_none_or(has_sender)
            && self.recipients.as_ref().is_none_or(has_recipient)
    }
}

/// Stands between the domain and the label in a key. No domain has it, and no address literal.
const SEPARATOR: char = ' ';

/// The key of mail for a domain, chosen by the rule with this label.
///
/// # Errors
/// They are longer than a key may be.
pub(crate) fn routing_key(domain: &str, label: Option<&Label>) -> Result<RoutingKey, NameError> {
    match label {
        None => RoutingKey::new(domain),
        Some(label) => RoutingKey::new(&format!("{domain}{SEPARATOR}{label}")),
    }
}

/// Stands before the label in the key of mail that an operator has given that label. No label has
/// it.
const PIN: char = '=';

/// The key of mail for a domain that an operator has given this label. `None`: the domain's key.
///
/// # Errors
/// They are longer than a key may be.
pub(crate) fn pinned_key(domain: &str, label: Option<&Label>) -> Result<RoutingKey, NameError> {
    match label {
        None => RoutingKey::new(domain),
        Some(label) => RoutingKey::new(&format!("{domain}{SEPARATOR}{PIN}{label}")),
    }
}

/// Returns `true` if an operator has given this key its label.
pub(crate) fn is_pinned(key: &RoutingKey) -> bool {
    key.as_str().split_once(SEPARATOR).is_some_and(|(_, label)| label.starts_with(PIN))
}

/// Returns `true` if there is a key for this domain and this label.
pub(crate) fn fits_key(domain: &str, label: &Label) -> bool {
    domain.len().saturating_add(SEPARATOR.len_utf8()).saturating_add(label.0.len()) <= MAX_NAME
}

/// The domain of a key, and its label.
pub(crate) fn key_parts(key: &RoutingKey) -> (&str, Option<&str>) {
    match key.as_str().split_once(SEPARATOR) {
        Some((domain, label)) => (domain, Some(label.strip_prefix(PIN).unwrap_or(label))),
        None => (key.as_str(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_so_many_octets_of_a_kind() {
        let long = "x".repeat(33);
        for (text, is_good) in [
            ("a", true),
            ("Bulk_2026.a-b", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("a b", false),
            ("\u{e4}", false),
            ("a\0", false),
        ] {
            assert_eq!(text.parse::<Label>().is_ok(), is_good, "{text:?}");
        }
        assert_eq!("bulk".parse::<Label>().unwrap().to_string(), "bulk");
    }

    #[test]
    fn a_key_has_a_label_up_to_its_bound() {
        let label: Label = "x".repeat(Label::MAX).parse().unwrap();
        for (octets, fits) in [(1, true), (222, true), (223, false), (255, false)] {
            let domain = "d".repeat(octets);
            assert_eq!(fits_key(&domain, &label), fits, "{octets}");
            let key = routing_key(&domain, Some(&label));
            assert_eq!(key.is_ok(), fits, "{octets}");
            if let Ok(key) = key {
                assert_eq!(key_parts(&key), (&*domain, Some(label.as_str())));
            }
            // Without a label the longest domain has a key, and it is the one it had before.
            let key = routing_key(&domain, None).unwrap();
            assert_eq!((key.as_str(), key_parts(&key)), (&*domain, (&*domain, None)));
        }
    }
}
