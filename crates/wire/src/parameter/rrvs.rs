//! `RRVS=` (RFC 7293).

use alloc::string::String;
use core::fmt;

use super::{DateTime, fault_in};
use crate::error::SyntaxError;

/// The time since when the recipient's mailbox must have had the same owner (RFC 7293 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rrvs<S = String> {
    /// The point in time.
    pub since: DateTime<S>,
    /// The action of a server that cannot pass the condition on. `None`: [`RrvsAction::Reject`].
    pub action: Option<RrvsAction>,
}

/// The action if the next server does not offer RRVS (RFC 7293 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RrvsAction {
    /// `R`: the message is not relayed to it.
    Reject,
    /// `C`: the message is relayed without the condition.
    Continue,
}

impl<'a> Rrvs<&'a str> {
    /// `date-time [ ";" ( "C" / "R" ) ]`.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`](crate::SyntaxErrorKind::ParameterValue) at the first
    /// wrong octet.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let (time, action) = text.split_once(';').map_or((text, None), |(time, action)| (time, Some(action)));
        let since = DateTime::parse(time).map_err(|error| error.within(text))?;
        let action = match action {
            None => None,
            Some("C" | "c") => Some(RrvsAction::Continue),
            Some("R" | "r") => Some(RrvsAction::Reject),
            Some(other) => {
                let known = usize::from(other.starts_with(['C', 'c', 'R', 'r']));
                return Err(fault_in(text, time.len() + 1 + known));
            }
        };
        Ok(Self { since, action })
    }

    /// The owned form.
    pub fn into_owned(self) -> Rrvs {
        Rrvs { since: self.since.into_owned(), action: self.action }
    }
}

impl<S: AsRef<str>> Rrvs<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Rrvs<&str> {
        Rrvs { since: self.since.borrowed(), action: self.action }
    }
}

impl<S: AsRef<str>> fmt::Display for Rrvs<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.since.as_str())?;
        match self.action {
            None => Ok(()),
            Some(RrvsAction::Reject) => f.write_str(";R"),
            Some(RrvsAction::Continue) => f.write_str(";C"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rrvs_time_that_ends_too_early_is_wrong() {
        for (text, offset, cut_off) in
            [("2014", 4, true), ("2014;R", 4, false), (";R", 0, false), ("2014-04-03T23:01:00Z;", 21, true)]
        {
            let error = Rrvs::parse(text).unwrap_err();
            assert_eq!((error.offset, error.cut_off), (offset, cut_off), "{text}");
        }
    }
}
