//! A set of names of hosts and mailboxes. A look-up costs little for any number of them.

use std::{collections::HashSet, str::FromStr, sync::Arc};

use thiserror::Error;

use crate::wire::{EhloName, Mailbox};

/// Names of hosts and mailboxes, for lists. A look-up takes one step for each label of a name.
/// Clones share their memory.
///
/// | pattern | hosts | mailboxes |
/// |---|---|---|
/// | `example.org` | that name | all at that domain |
/// | `*.example.org` | the names below it | all at the domains below it |
/// | `jo@example.org` | none | that mailbox |
///
/// ```
/// use posthaste_server::NameSet;
/// let set: NameSet = "jo@example.org, example.net, *.example.net".parse()?;
/// assert!(set.contains_host("mail.example.net") && !set.contains_host("example.org"));
/// assert!(set.contains_mailbox(&"Jo@Example.org".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Upper and lower case are the same, in local-parts too, and so is a host's name with a dot at its
/// end. A domain outside ASCII is another name than its A-labels: list both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameSet {
    /// In lower case; `*.example.org` without its asterisk.
    names: Arc<HashSet<String>>,
}

/// A text that is no name of a host or mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no name: write one such as example.org or jo@example.org, or *.example.org for those below it")]
#[non_exhaustive]
pub struct NameSetError {
    /// The text.
    pub text: String,
}

impl NameSet {
    /// Adds a pattern. A host may have any name that EHLO takes, such as `localhost` or
    /// `[192.0.2.1]`.
    ///
    /// # Errors
    /// [`NameSetError`] if the text is no pattern.
    pub fn push(&mut self, pattern: &str) -> Result<(), NameSetError> {
        let error = || NameSetError { text: pattern.to_owned() };
        let name = if pattern.contains('@') {
            key(&Mailbox::parse(pattern).map_err(|_| error())?)
        } else {
            let below = pattern.strip_prefix("*.");
            let name = without_dot(below.unwrap_or(pattern));
            EhloName::parse(name).map_err(|_| error())?;
            // EHLO takes any octets; what cannot be meant is a mistake in a list.
            if !name.chars().all(|c| c.is_alphanumeric() || ".-_:[]".contains(c))
                || name.contains("..")
                || name.ends_with('.')
            {
                return Err(error());
            }
            if below.is_some() { format!(".{name}") } else { name.to_owned() }.to_lowercase()
        };
        if name.contains('*') || pattern.starts_with('.') || name.starts_with("..") {
            return Err(error());
        }
        Arc::make_mut(&mut self.names).insert(name);
        Ok(())
    }

    /// Returns `true` if the name of a host is in the set.
    pub fn contains_host(&self, name: &str) -> bool {
        !self.is_empty() && self.has(&without_dot(name).to_lowercase())
    }

    /// Returns `true` if a mailbox, or its domain, is in the set.
    pub fn contains_mailbox(&self, mailbox: &Mailbox) -> bool {
        !self.is_empty()
            && (self.names.contains(&key(&mailbox.borrowed())) || self.contains_host(mailbox.domain().as_str()))
    }

    /// Returns `true` if there is no name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// For a name in lower case. It has some 127 parents at most.
    fn has(&self, name: &str) -> bool {
        // What begins with a dot stands for the names below it, and is none itself.
        let mut parents = name.match_indices('.').filter(|(at, _)| *at > 0).filter_map(|(at, _)| name.get(at..));
        (!name.starts_with('.') && self.names.contains(name)) || parents.any(|parent| self.names.contains(parent))
    }
}

/// The name of a host without the dot that names the root of the DNS.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// A mailbox as the set has it.
fn key(mailbox: &Mailbox<&str>) -> String {
    format!("{}@{}", mailbox.unquoted_local_part(), mailbox.domain().as_str()).to_lowercase()
}

/// Patterns, separated by commas or blanks. Empty: no name.
impl FromStr for NameSet {
    type Err = NameSetError;

    fn from_str(text: &str) -> Result<Self, NameSetError> {
        let mut set = Self::default();
        let patterns = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|pattern| !pattern.is_empty());
        for pattern in patterns {
            set.push(pattern)?;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_its_name_or_the_names_below_it() {
        for (patterns, within, without) in [
            ("a.test", &["a.test", "A.Test"][..], &["b.a.test", "test", "xa.test", "a.test.x", ".a.test"][..]),
            ("*.a.test", &["b.a.test", "c.b.A.test"], &["a.test", "xa.test", ".a.test"]),
            ("*.test a.test", &["b.test", "a.test", "c.a.test"], &["test"]),
            ("ylmf-pc", &["YLMF-PC", "ylmf-pc."], &["ylmf-pc.test", "ylmf-pc.."]),
            ("a.test. *.b.test.", &["a.test", "a.test.", "x.b.test"], &["b.test"]),
            ("[192.0.2.1]", &["[192.0.2.1]"], &["192.0.2.1", "[192.0.2.2]"]),
            ("b\u{fc}cher.test", &["B\u{dc}cher.test"], &["xn--bcher-kva.test"]),
            ("a@a.test", &[], &["a.test", "a@b.test"]),
            ("", &[], &["a.test", ""]),
        ] {
            let set: NameSet = patterns.parse().unwrap();
            for name in within {
                assert!(set.contains_host(name), "{patterns}: {name}");
            }
            for name in without {
                assert!(!set.contains_host(name), "{patterns}: {name}");
            }
        }
    }

    #[test]
    fn a_mailbox_is_in_the_set_by_itself_or_by_its_domain() {
        let set: NameSet = "jo@a.test,b.test\n*.c.test".parse().unwrap();
        for (mailbox, within) in [
            ("jo@a.test", true),
            ("JO@A.test", true),
            ("\"jo\"@a.test", true),
            ("\"j\\o\"@a.test", true),
            ("jo+x@a.test", false),
            ("kim@a.test", false),
            ("jo@x.a.test", false),
            ("kim@b.test", true),
            ("kim@x.b.test", false),
            ("kim@x.c.test", true),
            ("kim@c.test", false),
            ("\"jo@a.test\"@d.test", false),
            ("\"x@b.test\"@d.test", false),
        ] {
            assert_eq!(set.contains_mailbox(&mailbox.parse().unwrap()), within, "{mailbox}");
        }
        assert!(!NameSet::default().contains_mailbox(&"jo@a.test".parse().unwrap()));
    }

    #[test]
    fn text_that_is_no_pattern_is_refused() {
        for text in [
            "*",
            "*.",
            "*.*",
            "a.*",
            "*a.test",
            "@a.test",
            "jo@",
            "jo@*.a.test",
            "*@a.test",
            "a b",
            "*..a",
            "<>",
            "#",
            "'a.test'",
            "a..b",
            "a.test..",
            ".",
            ".a.test",
            "",
        ] {
            let mut set = NameSet::default();
            assert_eq!(set.push(text).unwrap_err().text, text);
            assert!(set.is_empty(), "{text}");
        }
        let error = "a.test, *".parse::<NameSet>().unwrap_err();
        assert!(error.to_string().starts_with("`*` is no name: write "), "{error}");
    }
}
