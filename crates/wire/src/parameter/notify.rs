//! `NOTIFY=` (RFC 3461 section 4.1).

use core::fmt;

use super::{body::unknown, fault, key, keyword};
use crate::error::SyntaxError;

/// The reports that the sender wants (RFC 3461 section 4.1). Nothing set means `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Notify {
    /// `SUCCESS`.
    pub success: bool,
    /// `FAILURE`.
    pub failure: bool,
    /// `DELAY`.
    pub delay: bool,
}

const NEVER: u128 = key("NEVER");
const SUCCESS: u128 = key("SUCCESS");
const FAILURE: u128 = key("FAILURE");
const DELAY: u128 = key("DELAY");

impl Notify {
    /// `NEVER`: no report whatever happens.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// `NEVER` stands alone; the others stand once each.
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let octets = text.as_bytes();
        let (mut notify, mut at) = (Self::NEVER, 0);
        loop {
            let (end, word) = keyword(octets, at);
            let field = match word {
                SUCCESS => &mut notify.success,
                FAILURE => &mut notify.failure,
                DELAY => &mut notify.delay,
                NEVER if end == octets.len() && at == 0 => return Ok(Self::NEVER),
                _ if at == 0 => return Err(unknown(text, at, &["NEVER", "SUCCESS", "FAILURE", "DELAY"])),
                _ => return Err(unknown(text, at, &["SUCCESS", "FAILURE", "DELAY"])),
            };
            if core::mem::replace(field, true) {
                return Err(fault(at));
            }
            match octets.get(end) {
                None => return Ok(notify),
                Some(b',') => at = end + 1,
                Some(_) => return Err(fault(end)),
            }
        }
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("NEVER");
        }
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let mut separator = "";
        for (_, word) in words.into_iter().filter(|(wanted, _)| *wanted) {
            write!(f, "{separator}{word}")?;
            separator = ",";
        }
        Ok(())
    }
}
