//! `NOTIFY=` (RFC 3461 section 4.1).

use core::{fmt, str::FromStr};

use super::{body::unknown, fault};
use crate::{
    error::SyntaxError,
    grammar::{key, word},
};

/// The reports that the sender wants (RFC 3461 section 4.1). All `false`: `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Notify {
    /// `SUCCESS`.
    pub success: bool,
    /// `FAILURE`.
    pub failure: bool,
    /// `DELAY`.
    pub delay: bool,
}

const NEVER: u64 = key("NEVER");
const SUCCESS: u64 = key("SUCCESS");
const FAILURE: u64 = key("FAILURE");
const DELAY: u64 = key("DELAY");

impl Notify {
    /// `NEVER`: no report in any case.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
}

/// `NEVER` alone, or the other words, each at most once, in any order, separated by commas.
impl FromStr for Notify {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let mut notify = Self::NEVER;
        let mut rest = text.as_bytes();
        loop {
            let at = text.len() - rest.len();
            let (end, word) = word(rest);
            let field = match word {
                SUCCESS => &mut notify.success,
                FAILURE => &mut notify.failure,
                DELAY => &mut notify.delay,
                NEVER if end == text.len() => return Ok(Self::NEVER),
                _ => {
                    let words = [
                        (at > 0, "NEVER"),
                        (notify.success, "SUCCESS"),
                        (notify.failure, "FAILURE"),
                        (notify.delay, "DELAY"),
                    ];
                    return Err(unknown(text, at, words.iter().filter(|(used, _)| !used).map(|(_, word)| *word)));
                }
            };
            if core::mem::replace(field, true) {
                return Err(fault(at));
            }
            rest = match rest.get(end..).and_then(<[u8]>::split_first) {
                None => return Ok(notify),
                Some((b',', rest)) => rest,
                Some(_) => return Err(fault(at + end)),
            };
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
