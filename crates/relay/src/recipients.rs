//! The mailboxes that exist, in memory.

use std::{collections::HashSet, str::FromStr};

use posthaste_server::{Context, Refusal, refusal, wire::Mailbox};
use thiserror::Error;

use crate::{
    DomainPattern, DomainSet, Recipients,
    domains::{DomainMap, canonical},
};

/// The known mailboxes by domain: for a relay that takes mail from every client for
/// domains whose mailboxes another host has. A domain takes the first entry with a matching
/// pattern. Mailboxes of domains without an entry are not checked. Clones copy it.
///
/// Upper and lower case are the same, in local-parts too. `postmaster` is a mailbox of every domain
/// (RFC 5321 section 4.5.1). A look-up costs the same for any number of mailboxes. A mailbox takes
/// the memory of its text, and some 50 octets.
///
/// ```
/// use posthaste_relay::{MailboxSet, RecipientTable};
/// let known: MailboxSet = ["jo@example.org".parse()?, "lists.example.org".parse()?].into_iter().collect();
/// let mut recipients = RecipientTable::default();
/// recipients.push(["example.org".parse()?, "*.example.org".parse()?], known);
/// assert!(recipients.contains(&"Jo@example.org".parse()?));
/// assert!(recipients.contains(&"all@lists.example.org".parse()?));
/// assert!(recipients.contains(&"any@example.net".parse()?));
/// assert!(!recipients.contains(&"gone@example.org".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecipientTable {
    sets: Vec<MailboxSet>,
    /// The index in `sets` of the first one for each pattern.
    indexes: DomainMap<usize>,
}

/// A set of mailboxes: single ones, and all of some domains.
#[derive(Debug, Clone, Default)]
pub struct MailboxSet {
    mailboxes: HashSet<String>,
    domains: DomainSet,
}

/// A pattern for mailboxes: `jo@example.org` matches that mailbox. What a [`DomainPattern`] has,
/// such as `example.org` or `*.example.org`, matches all mailboxes of those domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxPattern {
    /// One mailbox.
    Mailbox(Mailbox),
    /// All mailboxes of these domains.
    Domain(DomainPattern),
}

/// The text is not a pattern for mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a mailbox such as jo@example.org, or a domain such as example.org or *.example.org was expected")]
pub struct MailboxPatternError;

impl RecipientTable {
    /// Adds the known mailboxes of these domains. Mailboxes of other domains in the set count for
    /// nothing.
    pub fn push(&mut self, domains: impl IntoIterator<Item = DomainPattern>, mailboxes: MailboxSet) {
        let index = self.sets.len();
        self.sets.push(mailboxes);
        domains.into_iter().for_each(|pattern| self.indexes.add(&pattern, index));
    }

    /// Returns `true` if a mailbox is known, or its domain has no entry.
    pub fn contains(&self, mailbox: &Mailbox) -> bool {
        // A domain that cannot be in the DNS has no entry either.
        let Some(domain) = canonical(&mailbox.domain()).map(|domain| domain.into_owned()) else { return true };
        let Some(set) = self.indexes.find(&domain).and_then(|index| self.sets.get(index)) else { return true };
        let local = mailbox.unquoted_local_part();
        local.eq_ignore_ascii_case("postmaster") || set.has(&local, &domain)
    }

    /// # Errors
    /// The refusal of a mailbox that is not known.
    pub(crate) fn admit(&self, mailbox: &Mailbox) -> Result<(), Refusal> {
        match self.contains(mailbox) {
            true => Ok(()),
            false => Err(refusal!("550 5.1.1 There is no such mailbox")),
        }
    }
}

/// Refuses unknown mailboxes with 550 5.1.1.
impl Recipients for RecipientTable {
    async fn check(&self, _: &Context, mailbox: &Mailbox) -> Result<(), Refusal> {
        self.admit(mailbox)
    }
}

impl MailboxSet {
    /// Adds the mailboxes of a pattern. A mailbox whose domain the DNS cannot have is left out.
    pub fn push(&mut self, pattern: MailboxPattern) {
        match pattern {
            MailboxPattern::Mailbox(mailbox) => {
                let domain = canonical(&mailbox.domain()).map(|domain| domain.into_owned());
                self.mailboxes.extend(domain.map(|domain| key(&mailbox.unquoted_local_part(), &domain)));
            }
            MailboxPattern::Domain(domains) => self.domains.push(domains),
        }
    }

    /// Returns `true` if a mailbox is in the set.
    pub fn contains(&self, mailbox: &Mailbox) -> bool {
        canonical(&mailbox.domain()).is_some_and(|domain| self.has(&mailbox.unquoted_local_part(), &domain))
    }

    /// Returns `true` if no mailbox is in the set.
    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty() && self.domains.is_empty()
    }

    /// As [`contains`](Self::contains), with the local-part of the mailbox, without quotes, and its
    /// [canonical] domain.
    pub(crate) fn has(&self, local: &str, domain: &str) -> bool {
        self.domains.has(domain) || (!self.mailboxes.is_empty() && self.mailboxes.contains(&key(local, domain)))
    }
}

impl FromIterator<MailboxPattern> for MailboxSet {
    fn from_iter<I: IntoIterator<Item = MailboxPattern>>(patterns: I) -> Self {
        let mut set = Self::default();
        patterns.into_iter().for_each(|pattern| set.push(pattern));
        set
    }
}

impl FromStr for MailboxPattern {
    type Err = MailboxPatternError;

    fn from_str(text: &str) -> Result<Self, MailboxPatternError> {
        if !text.contains('@') {
            return text.parse().map(Self::Domain).map_err(|_| MailboxPatternError);
        }
        let mailbox: Mailbox = text.parse().map_err(|_| MailboxPatternError)?;
        match canonical(&mailbox.domain()) {
            Some(_) => Ok(Self::Mailbox(mailbox)),
            None => Err(MailboxPatternError),
        }
    }
}

/// A mailbox as the set has it: its local-part without quotes.
pub(crate) fn key(local: &str, domain: &str) -> String {
    format!("{}@{domain}", local.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&[&str], &[&str])]) -> RecipientTable {
        let mut table = RecipientTable::default();
        for (domains, mailboxes) in entries {
            let domains = domains.iter().map(|text| text.parse::<DomainPattern>().unwrap());
            table.push(domains, mailboxes.iter().map(|text| text.parse::<MailboxPattern>().unwrap()).collect());
        }
        table
    }

    #[test]
    fn a_mailbox_is_known_by_itself_or_by_its_domain() {
        let table = table(&[(
            &["a.test", "*.a.test", "b\u{fc}cher.test"],
            &["jo@a.test", "kim@B\u{dc}CHER.test", "all.a.test", "*.all.a.test", "x@other.test", "\u{c4}@a.test"],
        )]);
        for (mailbox, known) in [
            ("jo@a.test", true),
            ("JO@A.Test", true),
            ("\"j\\o\"@a.test", true),
            ("jo+tag@a.test", false),
            ("kim@a.test", false),
            ("jo@x.a.test", false),
            ("kim@b\u{fc}cher.test", true),
            ("kim@xn--bcher-kva.test", true),
            ("jo@b\u{fc}cher.test", false),
            ("\u{e4}@a.test", true),
            ("x@all.a.test", true),
            ("x@y.all.a.test", true),
            ("\"jo@a.test\"@x.a.test", false),
            // RFC 5321 section 4.5.1.
            ("PostMaster@a.test", true),
            ("\"postmaster\"@x.a.test", true),
            // Not checked.
            ("y@other.test", true),
            ("y@[192.0.2.1]", true),
        ] {
            assert_eq!(table.contains(&mailbox.parse().unwrap()), known, "{mailbox}");
        }
    }

    #[test]
    fn a_domain_takes_the_first_entry_that_has_it() {
        let table = table(&[(&["x.a.test"], &["*"]), (&["*.a.test", "a.test"], &["jo@a.test"]), (&["a.test"], &["*"])]);
        for (mailbox, known) in
            [("any@x.a.test", true), ("any@y.a.test", false), ("any@a.test", false), ("jo@a.test", true)]
        {
            assert_eq!(table.contains(&mailbox.parse().unwrap()), known, "{mailbox}");
        }
        let empty = RecipientTable::default();
        assert!(empty.contains(&"any@a.test".parse().unwrap()));
    }

    #[test]
    fn a_set_says_if_it_is_empty() {
        let set = |text: &str| [text.parse::<MailboxPattern>().unwrap()].into_iter().collect::<MailboxSet>();
        assert!(MailboxSet::default().is_empty() && !set("jo@a.test").is_empty() && !set("*").is_empty());
        assert!(set("a.test").contains(&"x@A.test".parse().unwrap()));
        assert!(!set("jo@a.test").contains(&"kim@a.test".parse().unwrap()));
    }

    #[test]
    fn text_that_is_no_pattern_is_refused() {
        for text in ["", "jo@", "@a.test", "jo@*.a.test", "a b@a.test", "jo@\u{301}a.test", "*.", "jo@a.test,x@a.test"]
        {
            assert_eq!(text.parse::<MailboxPattern>(), Err(MailboxPatternError), "{text}");
        }
    }
}
