//! `MT-PRIORITY=` (RFC 6710).

use core::{fmt, str::FromStr};

use super::{fault, fault_in};
use crate::error::SyntaxError;

/// The priority of a message's transfer, from -9 to 9. Default 0 (RFC 6710 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(i8);

impl Priority {
    /// A priority. `None`: it is out of range.
    pub const fn new(priority: i8) -> Option<Self> {
        match priority {
            -9..=9 => Some(Self(priority)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> i8 {
        self.0
    }
}

/// `priority-value = (["-"] NZDIGIT) / "0"`.
impl FromStr for Priority {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        match text.as_bytes() {
            [b'0'] => Ok(Self(0)),
            [digit @ b'1'..=b'9'] => Ok(Self((digit - b'0') as i8)),
            [b'-', digit @ b'1'..=b'9'] => Ok(Self(-((digit - b'0') as i8))),
            [b'-', b'1'..=b'9', ..] => Err(fault(2)),
            [b'-', ..] => Err(fault_in(text, 1)),
            [b'0'..=b'9', ..] => Err(fault(1)),
            _ => Err(fault_in(text, 0)),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
