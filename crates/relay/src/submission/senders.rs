//! The addresses that users may send from.

use std::{collections::HashMap, future::Future};

use posthaste_server::{Context, Refusal, wire::Mailbox};

use crate::{MailboxSet, domains::canonical, recipients::key};

/// Decides which addresses a user may send from. [`SenderTable`] decides by lists; an application's
/// own implementation may ask a database.
///
/// The decision is part of the server's [verdict](posthaste_server::Handler) on MAIL, and on the
/// message for each address in its header, 100 at most. Its time counts toward the verdict's
/// timeout. A panic is logged, and refuses with 451.
pub trait Senders: Send + Sync + 'static {
    /// Returns `true` if a client that has logged in with this identity may send from a mailbox. It
    /// is asked about the reverse-path, unless that is null, and about the mailboxes in the From
    /// and Sender fields.
    ///
    /// # Errors
    /// The refusal of MAIL or of the message.
    fn may_use(
        &self,
        cx: &Context,
        identity: &str,
        sender: &Mailbox,
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;
}

/// The addresses that users may send from, by identity.
///
/// Upper and lower case are the same in addresses, and differ in identities. An address with a
/// detail, such as `jo+list@example.org`, is another one: a set has it by itself or by its domain.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SenderTable {
    /// The rule for identities without an entry. Default: any.
    pub others: SenderRule,
    entries: HashMap<String, MailboxSet>,
}

/// The addresses that a user may send from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SenderRule {
    /// Any address.
    #[default]
    Any,
    /// The identity, if it is an address. Otherwise none.
    Own,
}

impl SenderTable {
    /// Lets an identity use these addresses, and itself if it is an address. It replaces an entry
    /// of the same identity.
    pub fn push(&mut self, identity: &str, addresses: MailboxSet) {
        self.entries.insert(identity.to_owned(), addresses);
    }

    /// Returns `true` if an identity may use an address.
    pub fn contains(&self, identity: &str, sender: &Mailbox) -> bool {
        self.is_any(identity)
            || is_own(identity, sender)
            || self.entries.get(identity).is_some_and(|addresses| addresses.contains(sender))
    }

    /// Returns `true` if an identity may use all addresses.
    pub(crate) fn is_any(&self, identity: &str) -> bool {
        self.others == SenderRule::Any && (self.entries.is_empty() || !self.entries.contains_key(identity))
    }
}

/// Returns `true` if the identity is the address.
fn is_own(identity: &str, sender: &Mailbox) -> bool {
    let form =
        |mailbox: &Mailbox| canonical(&mailbox.domain()).map(|domain| key(&mailbox.unquoted_local_part(), &domain));
    let own = identity.parse().ok().and_then(|own: Mailbox| form(&own));
    own.is_some() && own == form(sender)
}

impl Senders for SenderTable {
    async fn may_use(&self, _: &Context, identity: &str, sender: &Mailbox) -> Result<bool, Refusal> {
        Ok(self.contains(identity, sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_uses_its_own_address_and_those_of_its_entry() {
        let mut table = SenderTable { others: SenderRule::Own, ..SenderTable::default() };
        let entry = ["list@a.test", "b.test"].map(|text| text.parse().unwrap());
        table.push("Jo@a.test", entry.into_iter().collect());
        table.push("robot", ["c.test".parse().unwrap()].into_iter().collect());
        for (identity, sender, may) in [
            ("Jo@a.test", "jo@A.test", true),
            ("Jo@a.test", "\"jo\"@a.test", true),
            ("Jo@a.test", "LIST@a.test", true),
            ("Jo@a.test", "any@b.test", true),
            ("Jo@a.test", "any@x.b.test", false),
            ("Jo@a.test", "jo+x@a.test", false),
            ("Jo@a.test", "you@a.test", false),
            // An identity is compared as it is, and an address is not.
            ("jo@a.test", "list@a.test", false),
            ("jo@a.test", "jo@a.test", true),
            ("jo@b\u{fc}cher.test", "jo@xn--bcher-kva.test", true),
            ("robot", "x@c.test", true),
            ("robot", "robot@a.test", false),
            ("other", "other@a.test", false),
            ("a b@c", "b@c", false),
        ] {
            assert_eq!(table.contains(identity, &sender.parse().unwrap()), may, "{identity} {sender}");
        }
        assert!(!table.is_any("other") && !table.is_any("robot"));
    }

    #[test]
    fn without_a_rule_only_identities_with_an_entry_are_limited() {
        let mut table = SenderTable::default();
        table.push("robot", ["c.test".parse().unwrap()].into_iter().collect());
        let sender = "x@d.test".parse().unwrap();
        assert!(table.contains("jo", &sender) && table.is_any("jo"));
        assert!(!table.contains("robot", &sender) && !table.is_any("robot"));
    }
}
