//! Reply codes (RFC 5321 section 4.2).

use core::fmt;

/// A reply code from 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

/// The meaning of the first digit (RFC 5321 section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 2yz: done.
    Positive,
    /// 3yz: go on, the server needs more.
    Intermediate,
    /// 4yz: not now. The same command may succeed later.
    TransientNegative,
    /// 5yz: no. A client must not try the same command again.
    PermanentNegative,
}

impl ReplyCode {
    /// 220: service ready.
    pub const READY: Self = Self(220);
    /// 221: closing.
    pub const CLOSING: Self = Self(221);
    /// 235: authenticated (RFC 4954).
    pub const AUTHENTICATED: Self = Self(235);
    /// 250: done.
    pub const OK: Self = Self(250);
    /// 334: a SASL challenge (RFC 4954).
    pub const CHALLENGE: Self = Self(334);
    /// 354: send the content.
    pub const START_MAIL_INPUT: Self = Self(354);
    /// 421: the service is not available now, and the connection closes.
    pub const SERVICE_NOT_AVAILABLE: Self = Self(421);
    /// 450: the mailbox is busy, or policy demands a later attempt.
    pub const MAILBOX_BUSY: Self = Self(450);
    /// 451: a local error.
    pub const LOCAL_ERROR: Self = Self(451);
    /// 452: no room now.
    pub const INSUFFICIENT_STORAGE: Self = Self(452);
    /// 550: no such mailbox, or policy forbids it.
    pub const MAILBOX_UNAVAILABLE: Self = Self(550);
    /// 552: too large.
    pub const EXCEEDED_STORAGE: Self = Self(552);
    /// 554: the transaction failed.
    pub const TRANSACTION_FAILED: Self = Self(554);

    /// A code from 200 to 599. `None`: the number is outside.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            200..=599 => Some(Self(code)),
            _ => None,
        }
    }

    /// The code with these three digits. `None`: it is not one from 200 to 599.
    pub const fn from_digits(digits: [u8; 3]) -> Option<Self> {
        match digits {
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
                Self::new((digits[0] - b'0') as u16 * 100 + (digits[1] - b'0') as u16 * 10 + (digits[2] - b'0') as u16)
            }
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The meaning of the first digit.
    pub const fn severity(self) -> Severity {
        match self.0 {
            0..300 => Severity::Positive,
            300..400 => Severity::Intermediate,
            400..500 => Severity::TransientNegative,
            _ => Severity::PermanentNegative,
        }
    }

    /// Returns `true` for 2yz.
    pub const fn is_positive(self) -> bool {
        matches!(self.severity(), Severity::Positive)
    }

    /// The first digit.
    pub(super) const fn class(self) -> u16 {
        self.0 / 100
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
