//! Sets of domains. A look-up costs the same for any number of patterns.

use std::{borrow::Cow, collections::HashMap, fmt, str::FromStr};

use posthaste_server::wire::{Domain, address::AddressLiteral};
use thiserror::Error;

/// A pattern for domains: `example.org` matches that domain, `*.example.org` the domains below it,
/// `*` every domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// Every domain.
    Any,
    /// One domain, in lower case and A-labels.
    Exact(String),
    /// The domains below this one, in lower case and A-labels.
    Below(String),
}

/// The text is not a pattern for domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a domain such as example.org, *.example.org or * was expected")]
pub struct DomainPatternError;

/// The domains of any number of patterns. A look-up takes one step for each label of the domain,
/// for any number of patterns.
///
/// ```
/// use posthaste_relay::{DomainSet, wire::Domain};
/// let set: DomainSet = ["example.org".parse()?, "*.example.net".parse()?].into_iter().collect();
/// assert!(set.contains(&Domain::parse("mail.example.net")?) && !set.contains(&Domain::parse("example.net")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct DomainSet(DomainMap<()>);

/// Values by pattern. If several patterns match a domain, the least value counts.
#[derive(Debug, Clone)]
pub(crate) struct DomainMap<T> {
    exact: HashMap<String, T>,
    below: HashMap<String, T>,
    any: Option<T>,
}

/// A domain as the sets keep it: in lower case and A-labels, an address literal in its one form.
/// `None`: the DNS cannot have it.
///
/// Only names outside ASCII are converted and checked. An A-label stays as it is: the DNS decides.
pub(crate) fn canonical<'a>(domain: &'a Domain<&str>) -> Option<Cow<'a, str>> {
    let text = domain.as_str();
    match domain.address_literal() {
        Some(AddressLiteral::Ip(address)) => Some(match address.to_canonical() {
            std::net::IpAddr::V4(address) => format!("[{address}]").into(),
            std::net::IpAddr::V6(address) => format!("[ipv6:{address}]").into(),
        }),
        _ if !text.is_ascii() => Some(domain.to_a_labels().ok()?.as_str().to_owned().into()),
        _ if text.bytes().any(|octet| octet.is_ascii_uppercase()) => Some(text.to_ascii_lowercase().into()),
        _ => Some(text.into()),
    }
}

impl DomainSet {
    /// Adds the domains of a pattern.
    pub fn push(&mut self, pattern: DomainPattern) {
        self.0.add(&pattern, ());
    }

    /// Returns `true` if a domain, in A-labels or in U-labels, is in the set.
    pub fn contains(&self, domain: &Domain<&str>) -> bool {
        canonical(domain).is_some_and(|name| self.has(&name))
    }

    /// As [`contains`](Self::contains), for a [canonical] name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.find(name).is_some()
    }

    /// Returns `true` if no domain is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.any.is_none() && self.0.exact.is_empty() && self.0.below.is_empty()
    }
}

impl FromIterator<DomainPattern> for DomainSet {
    fn from_iter<I: IntoIterator<Item = DomainPattern>>(patterns: I) -> Self {
        let mut set = Self::default();
        set.extend(patterns);
        set
    }
}

impl Extend<DomainPattern> for DomainSet {
    fn extend<I: IntoIterator<Item = DomainPattern>>(&mut self, patterns: I) {
        patterns.into_iter().for_each(|pattern| self.push(pattern));
    }
}

impl From<Vec<DomainPattern>> for DomainSet {
    fn from(patterns: Vec<DomainPattern>) -> Self {
        patterns.into_iter().collect()
    }
}

impl<T: Copy + Ord> DomainMap<T> {
    pub(crate) fn add(&mut self, pattern: &DomainPattern, value: T) {
        let least = |known: &mut T| *known = value.min(*known);
        match pattern {
            DomainPattern::Any => self.any = Some(self.any.map_or(value, |known| value.min(known))),
            DomainPattern::Exact(name) => {
                self.exact.entry(name.to_ascii_lowercase()).and_modify(least).or_insert(value);
            }
            DomainPattern::Below(name) => {
                self.below.entry(name.to_ascii_lowercase()).and_modify(least).or_insert(value);
            }
        }
    }

    /// Adds a value for all domains of a set.
    pub(crate) fn add_all(&mut self, set: &DomainSet, value: T) {
        let DomainSet(DomainMap { exact, below, any }) = set;
        let exact = exact.keys().cloned().map(DomainPattern::Exact);
        let below = below.keys().cloned().map(DomainPattern::Below);
        let any = any.iter().map(|()| DomainPattern::Any);
        exact.chain(below).chain(any).for_each(|pattern| self.add(&pattern, value));
    }

    /// The value of a [canonical] name.
    pub(crate) fn find(&self, name: &str) -> Option<T> {
        let exact = self.exact.get(name);
        // A domain has at most 127 parents.
        let parents = name.match_indices('.').filter(|_| !self.below.is_empty());
        let below = parents.filter_map(|(at, _)| self.below.get(name.get(at + 1..)?));
        below.chain(exact).chain(&self.any).min().copied()
    }
}

impl<T> Default for DomainMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), any: None }
    }
}

impl FromStr for DomainPattern {
    type Err = DomainPatternError;

    fn from_str(text: &str) -> Result<Self, DomainPatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let parent = text.strip_prefix("*.");
        let domain = Domain::parse(parent.unwrap_or(text)).map_err(|_| DomainPatternError)?;
        let name = canonical(&domain).ok_or(DomainPatternError)?.into_owned();
        match parent {
            // An address has no domains below it.
            Some(_) if domain.address_literal().is_some() => Err(DomainPatternError),
            Some(_) => Ok(Self::Below(name)),
            None => Ok(Self::Exact(name)),
        }
    }
}

/// Writes the pattern as a configuration has it.
impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> DomainSet {
        patterns.iter().map(|text| text.parse::<DomainPattern>().unwrap()).collect()
    }

    fn has(set: &DomainSet, domain: &str) -> bool {
        set.contains(&Domain::parse(domain).unwrap())
    }

    #[test]
    fn a_pattern_matches_its_name_or_the_names_below_it() {
        for (pattern, within, without) in [
            ("dest.test", &["dest.test", "DEST.Test"][..], &["a.dest.test", "test", "xdest.test", "dest.test.x"][..]),
            ("*.dest.test", &["a.dest.test", "b.a.DEST.test"], &["dest.test", "xdest.test", "dest.test.a"]),
            ("*", &["a", "dest.test", "[192.0.2.1]"], &[]),
            ("[192.0.2.1]", &["[192.0.2.1]", "[IPv6:::ffff:192.0.2.1]"], &["[192.0.2.2]"]),
            ("[IPv6:2001:db8::1]", &["[ipv6:2001:DB8:0::1]"], &["[192.0.2.1]"]),
        ] {
            let set = set(&[pattern]);
            for domain in within {
                assert!(has(&set, domain), "{pattern} {domain}");
            }
            for domain in without {
                assert!(!has(&set, domain), "{pattern} {domain}");
            }
        }
        assert!(!has(&DomainSet::default(), "a.test"));
    }

    #[test]
    fn a_domain_outside_ascii_matches_in_both_forms() {
        for pattern in ["b\u{fc}cher.test", "xn--bcher-kva.test", "B\u{dc}CHER.test"] {
            let set = set(&[pattern]);
            for domain in ["b\u{fc}cher.test", "XN--BCHER-kva.test"] {
                assert!(has(&set, domain), "{pattern} {domain}");
            }
            assert!(!has(&set, "bucher.test"));
        }
        assert!(has(&set(&["*.b\u{fc}cher.test"]), "a.xn--bcher-kva.test"));
    }

    #[test]
    fn the_first_of_several_patterns_wins_whatever_its_kind() {
        for (patterns, domain, first) in [
            (&["*", "a.b.test", "*.b.test"][..], "a.b.test", 0),
            (&["a.b.test", "*.b.test", "*"], "a.b.test", 0),
            (&["*.test", "*.b.test", "a.b.test"], "a.b.test", 0),
            (&["c.test", "*.b.test", "*.test"], "a.b.test", 1),
            (&["a.b.test", "a.b.test"], "a.b.test", 0),
        ] {
            let mut map = DomainMap::default();
            for (index, pattern) in patterns.iter().enumerate().rev() {
                map.add(&pattern.parse().unwrap(), index);
            }
            assert_eq!(map.find(domain), Some(first), "{patterns:?}");
        }
    }

    #[test]
    fn text_that_is_no_pattern_is_refused() {
        for text in ["", "*.", "a b", "*.*", "a..b", "@a", "*.[192.0.2.1]", "\u{301}a.test"] {
            assert_eq!(text.parse::<DomainPattern>(), Err(DomainPatternError), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_written_as_it_is_read() {
        for text in ["*", "a.test", "*.a.test"] {
            assert_eq!(text.parse::<DomainPattern>().unwrap().to_string(), text);
        }
    }
}
