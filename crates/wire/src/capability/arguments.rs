//! The arguments of a keyword.

use core::{fmt, num::NonZeroU32};

use super::{Mechanism, MechanismSet};

/// Words separated by white space, as they came. They compare word by word, with regard to case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    /// The words of this text.
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The words in order. No word is empty.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        self.0.split_ascii_whitespace()
    }

    /// Returns `true` if there is no word.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl PartialEq for Words<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Words<'_> {}

/// The words, with one space between them. A control character that is not white space becomes `?`,
/// so that the words stay on one line.
impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().enumerate().try_for_each(|(index, word)| {
            f.write_str(if index == 0 { "" } else { " " })?;
            write_printable(f, word)
        })
    }
}

/// Writes a text with `?` for each control character.
pub(super) fn write_printable(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut parts = text.split(char::is_control);
    f.write_str(parts.next().unwrap_or_default())?;
    parts.try_for_each(|part| {
        f.write_str("?")?;
        f.write_str(part)
    })
}

/// The arguments of AUTH or LIMITS: the known ones as [`MechanismSet`] or [`Limits`], and the other
/// words.
///
/// ```
/// use posthaste_wire::{Capability, Mechanism};
/// let Some(Capability::Auth(auth)) = Capability::parse(b"AUTH GSSAPI PLAIN") else { panic!() };
/// assert!(auth.known.contains(Mechanism::Plain));
/// assert!(auth.unknown().eq(["GSSAPI"]));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Partly<'a, T> {
    /// The known arguments.
    pub known: T,
    words: Words<'a>,
}

/// A type of arguments that is read word by word. Only this module can implement it.
pub trait Known: Copy + Default + Eq + fmt::Display {
    /// Adds a word. `false`: it is unknown, and has no effect.
    fn take(&mut self, word: &str) -> bool;
}

impl<'a, T: Known> Partly<'a, T> {
    pub(super) fn parse(words: Words<'a>) -> Self {
        let mut known = T::default();
        words.iter().for_each(|word| {
            known.take(word);
        });
        Self { known, words }
    }

    /// The words that are not known, as they came.
    pub fn unknown(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a, T> {
        self.words.iter().filter(|word| !T::default().take(word))
    }
}

impl<T> From<T> for Partly<'_, T> {
    fn from(known: T) -> Self {
        Self { known, words: Words::default() }
    }
}

impl<T: Known> PartialEq for Partly<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.known == other.known && self.unknown().eq(other.unknown())
    }
}

impl<T: Known> Eq for Partly<'_, T> {}

/// The known arguments, then the other words.
impl<T: Known> fmt::Display for Partly<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known.fmt(f)?;
        let first = self.known == T::default();
        self.unknown().enumerate().try_for_each(|(index, word)| {
            f.write_str(if first && index == 0 { "" } else { " " })?;
            write_printable(f, word)
        })
    }
}

impl Known for MechanismSet {
    fn take(&mut self, word: &str) -> bool {
        Mechanism::from_name(word).map(|mechanism| self.insert(mechanism)).is_some()
    }
}

/// The limits of RFC 9422 section 4. If one comes twice, the lower value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Limits {
    /// `MAILMAX`: transactions in a session. `None`: no limit is known.
    pub mail_max: Option<NonZeroU32>,
    /// `RCPTMAX`: recipients in a transaction. `None`: no limit is known.
    pub rcpt_max: Option<NonZeroU32>,
    /// `RCPTDOMAINMAX`: domains of recipients in a transaction. `None`: no limit is known.
    pub rcpt_domain_max: Option<NonZeroU32>,
}

impl Limits {
    /// Keeps the lower value of each limit.
    pub(super) fn merge(&mut self, other: Self) {
        for (limit, other) in [
            (&mut self.mail_max, other.mail_max),
            (&mut self.rcpt_max, other.rcpt_max),
            (&mut self.rcpt_domain_max, other.rcpt_domain_max),
        ] {
            *limit = lower(*limit, other);
        }
    }
}

impl Known for Limits {
    fn take(&mut self, word: &str) -> bool {
        let Some((name, value)) = word.split_once('=') else { return false };
        let Some(value) = number(value.as_bytes()).and_then(NonZeroU32::new) else { return false };
        let limit = match name {
            _ if name.eq_ignore_ascii_case("MAILMAX") => &mut self.mail_max,
            _ if name.eq_ignore_ascii_case("RCPTMAX") => &mut self.rcpt_max,
            _ if name.eq_ignore_ascii_case("RCPTDOMAINMAX") => &mut self.rcpt_domain_max,
            _ => return false,
        };
        *limit = lower(*limit, Some(value));
        true
    }
}

/// The arguments of `LIMITS`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("MAILMAX", self.mail_max), ("RCPTMAX", self.rcpt_max), ("RCPTDOMAINMAX", self.rcpt_domain_max)];
        let set = all.into_iter().filter_map(|(name, limit)| Some((name, limit?)));
        set.enumerate().try_for_each(|(index, (name, limit))| {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={limit}")
        })
    }
}

fn lower(one: Option<NonZeroU32>, two: Option<NonZeroU32>) -> Option<NonZeroU32> {
    one.into_iter().chain(two).min()
}

/// A number of decimal digits. `None`: there is another octet or no digit, or the type is too
/// small.
pub(super) fn number<N: TryFrom<u64>>(word: &[u8]) -> Option<N> {
    let digit = |octet: &u8| Some(octet.wrapping_sub(b'0')).filter(|digit| *digit < 10).map(u64::from);
    let number = word.iter().try_fold(0_u64, |number, octet| number.checked_mul(10)?.checked_add(digit(octet)?))?;
    if word.is_empty() { None } else { number.try_into().ok() }
}
