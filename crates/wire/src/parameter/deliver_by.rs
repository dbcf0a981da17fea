//! `BY=` (RFC 2852).

use core::{fmt, str::FromStr};

use super::{fault, fault_in};
use crate::error::SyntaxError;

/// The deadline of a message's delivery, and what follows a missed one (RFC 2852 section 4).
///
/// ```
/// use posthaste_wire::parameter::{DeliverBy, DeliverByMode};
/// let by: DeliverBy = "120;R".parse()?;
/// assert_eq!((by.seconds, by.mode, by.trace), (120, DeliverByMode::Return, false));
/// assert!("0;R".parse::<DeliverBy>().is_err(), "a message to be returned needs time");
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliverBy {
    /// Seconds from now. 0 or less: the deadline has passed, which only [`DeliverByMode::Notify`]
    /// allows.
    pub seconds: i32,
    /// What follows a missed deadline.
    pub mode: DeliverByMode,
    /// `T`: servers on the way report that they relayed it.
    pub trace: bool,
}

/// What follows a missed deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliverByMode {
    /// `R`: the message is returned as undeliverable.
    Return,
    /// `N`: the server reports the delay to the sender, and keeps trying.
    Notify,
}

/// `by-time ";" by-mode [by-trace]`: a sign and 1 to 9 digits, `N` or `R`, and `T`.
impl FromStr for DeliverBy {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let start = usize::from(text.starts_with(['+', '-']));
        let end = text.bytes().skip(start).take(9).take_while(u8::is_ascii_digit).count() + start;
        let (time, mode) = text.split_at(end);
        let mode = mode.strip_prefix(';').filter(|_| end > start).ok_or(fault_in(text, end))?;
        let seconds: i32 = time.parse().map_err(|_| fault(0))?;
        let (mode, trace) = match mode.as_bytes() {
            [] => return Err(fault_in(text, text.len())),
            [b'R' | b'r', trace @ ..] => (DeliverByMode::Return, trace),
            [b'N' | b'n', trace @ ..] => (DeliverByMode::Notify, trace),
            _ => return Err(fault(time.len() + 1)),
        };
        let trace = match trace {
            [] => false,
            [b'T' | b't'] => true,
            _ => return Err(fault(time.len() + 2)),
        };
        if mode == DeliverByMode::Return && seconds <= 0 {
            return Err(fault(0));
        }
        Ok(Self { seconds, mode, trace })
    }
}

impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            DeliverByMode::Return => 'R',
            DeliverByMode::Notify => 'N',
        };
        write!(f, "{};{mode}{}", self.seconds, if self.trace { "T" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_by_value_is_emitted_in_its_canonical_form() {
        for (text, canonical) in
            [("120;R", "120;R"), ("-10;nt", "-10;NT"), ("+007;N", "7;N"), ("999999999;RT", "999999999;RT")]
        {
            assert_eq!(text.parse::<DeliverBy>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn a_fault_in_a_by_value_has_its_offset() {
        for (text, offset, cut_off) in [
            ("120", 3, true),
            ("120;", 4, true),
            ("120;X", 4, false),
            ("120;RX", 5, false),
            ("120;RTT", 5, false),
            ("x", 0, false),
            ("1000000000;N", 9, false),
            ("-1000000000;N", 10, false),
            ("-;N", 1, false),
            (";N", 0, false),
            ("0;R", 0, false),
            ("-1;R", 0, false),
        ] {
            let error = text.parse::<DeliverBy>().unwrap_err();
            assert_eq!((error.offset, error.cut_off), (offset, cut_off), "{text}");
        }
    }
}
