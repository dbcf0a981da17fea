//! SASL mechanisms by name.

use core::fmt;

/// A SASL mechanism with a known name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// `PLAIN` (RFC 4616).
    Plain,
    /// `LOGIN` (draft-murchison-sasl-login).
    Login,
    /// `EXTERNAL` (RFC 4422 appendix A).
    External,
    /// `ANONYMOUS` (RFC 4505).
    Anonymous,
    /// `CRAM-MD5` (RFC 2195).
    CramMd5,
    /// `XOAUTH2`, used before RFC 7628.
    XOauth2,
    /// `OAUTHBEARER` (RFC 7628).
    OauthBearer,
    /// `SCRAM-SHA-256` (RFC 7677).
    ScramSha256,
    /// `SCRAM-SHA-256-PLUS` (RFC 7677): with channel binding.
    ScramSha256Plus,
}

/// A set of SASL mechanisms.
///
/// ```
/// use posthaste_wire::{Mechanism, MechanismSet};
/// const OFFERED: MechanismSet = MechanismSet::of(&[Mechanism::Login, Mechanism::Plain]);
/// assert!(OFFERED.contains(Mechanism::Plain));
/// assert_eq!(OFFERED.to_string(), "PLAIN LOGIN");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct MechanismSet {
    /// One bit each, in the order of [`Mechanism::ALL`].
    bits: u16,
}

impl Mechanism {
    /// Every mechanism, in the order of a set.
    pub const ALL: &[Self] = &[
        Self::Plain,
        Self::Login,
        Self::External,
        Self::Anonymous,
        Self::CramMd5,
        Self::XOauth2,
        Self::OauthBearer,
        Self::ScramSha256,
        Self::ScramSha256Plus,
    ];

    /// The mechanism of this name, without regard to case. `None`: the name is not known.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(name))
    }

    /// The registered name, in upper case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::External => "EXTERNAL",
            Self::Anonymous => "ANONYMOUS",
            Self::CramMd5 => "CRAM-MD5",
            Self::XOauth2 => "XOAUTH2",
            Self::OauthBearer => "OAUTHBEARER",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl MechanismSet {
    /// No mechanism.
    pub const EMPTY: Self = Self { bits: 0 };

    /// A set of these mechanisms.
    pub const fn of(mechanisms: &[Mechanism]) -> Self {
        let mut set = Self::EMPTY;
        let mut at = 0;
        while at < mechanisms.len() {
            set.insert(mechanisms[at]);
            at += 1;
        }
        set
    }

    /// Adds a mechanism.
    pub const fn insert(&mut self, mechanism: Mechanism) {
        self.bits |= mechanism.bit();
    }

    /// Removes a mechanism.
    pub const fn remove(&mut self, mechanism: Mechanism) {
        self.bits &= !mechanism.bit();
    }

    /// The mechanisms that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits }
    }

    /// Returns `true` if the mechanism is in the set.
    pub const fn contains(self, mechanism: Mechanism) -> bool {
        self.bits & mechanism.bit() != 0
    }

    /// Returns `true` if the set has no mechanism.
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The mechanisms of the set, in the order of [`Mechanism::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Mechanism> + Clone {
        Mechanism::ALL.iter().copied().filter(move |mechanism| self.contains(*mechanism))
    }
}

impl Extend<Mechanism> for MechanismSet {
    fn extend<I: IntoIterator<Item = Mechanism>>(&mut self, mechanisms: I) {
        mechanisms.into_iter().for_each(|mechanism| self.insert(mechanism));
    }
}

impl FromIterator<Mechanism> for MechanismSet {
    fn from_iter<I: IntoIterator<Item = Mechanism>>(mechanisms: I) -> Self {
        let mut set = Self::EMPTY;
        set.extend(mechanisms);
        set
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names, separated by spaces: the arguments of `AUTH`.
impl fmt::Display for MechanismSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(index, mechanism)| {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{mechanism}")
        })
    }
}

impl fmt::Debug for MechanismSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_and_their_names_are_one_to_one() {
        for (index, mechanism) in Mechanism::ALL.iter().enumerate() {
            assert_eq!(Mechanism::from_name(mechanism.as_str()), Some(*mechanism));
            assert_eq!(Mechanism::from_name(&mechanism.as_str().to_ascii_lowercase()), Some(*mechanism));
            assert_eq!(mechanism.bit(), 1 << index, "the order of the declaration is that of the list");
        }
        assert_eq!(Mechanism::from_name("SCRAM-SHA-1"), None);
        assert_eq!(Mechanism::from_name(""), None);
    }

    #[test]
    fn a_mechanism_set_holds_the_inserted_mechanisms() {
        let mut set: MechanismSet = [Mechanism::ScramSha256Plus, Mechanism::Plain].into_iter().collect();
        assert!(set.iter().eq([Mechanism::Plain, Mechanism::ScramSha256Plus]));
        set.remove(Mechanism::Plain);
        assert!(!set.contains(Mechanism::Plain) && !set.is_empty());
        assert_eq!(MechanismSet::of(Mechanism::ALL).iter().count(), Mechanism::ALL.len());
        assert!(MechanismSet::default().is_empty());
    }
}
