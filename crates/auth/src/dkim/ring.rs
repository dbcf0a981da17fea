//! The keys of all domains.

use std::{collections::HashMap, time::SystemTime};

use posthaste_wire::Domain;

use super::{Algorithm, KeyError, KeyFault, SigningKey};

/// Keys by domain. A look-up takes one step for each label of a domain, for any number of keys.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: HashMap<String, Vec<SigningKey>>,
}

impl KeyRing {
    /// A ring without keys: nothing is signed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`KeyFault::Twice`] for a domain and selector that are there; [`KeyFault::Window`] and
    /// [`KeyFault::Identity`] for what was assigned to the key.
    pub fn add(&mut self, key: SigningKey) -> Result<(), KeyError> {
        key.check()?;
        let keys = self.keys.entry(key.domain().to_owned()).or_default();
        if keys.iter().any(|other| other.selector().eq_ignore_ascii_case(key.selector())) {
            return Err(key.error(KeyFault::Twice));
        }
        keys.push(key);
        Ok(())
    }

    /// The keys that sign for this domain at this time: one for each algorithm, RSA first.
    ///
    /// They are the keys of the domain itself. If none is valid, they are those of the nearest
    /// parent that has a valid key which [covers](SigningKey::covers_subdomains) its subdomains. Of
    /// several keys with one algorithm, the one that begins last signs. Among equals it is the one
    /// that was added last.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # use posthaste_auth::{dkim::{KeyRing, SigningKey}, wire::Domain};
    /// let mut key = SigningKey::new("example.org", "2026a", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")?;
    /// key.covers_subdomains = true;
    /// let mut keys = KeyRing::new();
    /// keys.add(key)?;
    /// let found = keys.find(&Domain::parse("news.example.org")?, SystemTime::now());
    /// assert_eq!(found[0].record_name(), "2026a._domainkey.example.org");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find<S: AsRef<str>>(&self, domain: &Domain<S>, now: SystemTime) -> Vec<&SigningKey> {
        domain.to_a_labels().map_or_else(|_| Vec::new(), |domain| self.find_name(domain.as_str(), now))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns `true` if some key has this algorithm.
    pub(crate) fn has(&self, algorithm: Algorithm) -> bool {
        self.keys.values().flatten().any(|key| key.algorithm() == algorithm)
    }

    /// As [`find`](Self::find), for a name in lower case and A-labels.
    pub(crate) fn find_name(&self, domain: &str, now: SystemTime) -> Vec<&SigningKey> {
        self.levels(domain).map(|keys| newest(keys, now)).find(|keys| !keys.is_empty()).unwrap_or_default()
    }

    /// Returns `true` if some key signs for this name at some time.
    pub(crate) fn may_sign(&self, domain: &str) -> bool {
        self.levels(domain).any(|mut keys| keys.next().is_some())
    }

    /// The keys of the domain, then those of each parent that cover it.
    fn levels(&self, domain: &str) -> impl Iterator<Item = impl Iterator<Item = &SigningKey>> {
        let names = std::iter::successors(Some(domain), |name| Some(name.split_once('.')?.1));
        names.enumerate().map(|(level, name)| {
            let keys = self.keys.get(name).into_iter().flatten();
            keys.filter(move |key| level == 0 || key.covers_subdomains)
        })
    }
}

fn newest<'r>(keys: impl Iterator<Item = &'r SigningKey>, now: SystemTime) -> Vec<&'r SigningKey> {
    let mut found: Vec<&SigningKey> = Vec::new();
    for key in keys.filter(|key| key.is_valid(now)) {
        match found.iter_mut().find(|other| other.algorithm() == key.algorithm()) {
            // `None` is the earliest.
            Some(other) if key.begins >= other.begins => *other = key,
            Some(_) => {}
            None => found.push(key),
        }
    }
    found.sort_by_key(|key: &&SigningKey| -> Algorithm { key.algorithm() });
    found
}
