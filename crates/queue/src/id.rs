//! The names of messages, keys and owners in a queue.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

/// The largest size of a [`RoutingKey`] or an [`Owner`] in bytes: 255, as of a domain name.
pub const MAX_NAME: usize = 255;

/// Names one message of one queue, forever.
///
/// Opaque. An engine never gives out an id twice, not even that of a dropped draft, and not after a
/// crash or a jump of the wall clock. [`Display`](fmt::Display) writes exactly 13 characters of
/// Crockford's base 32, which suits a `Received` field and a log line. [`FromStr`] reads it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

impl MessageId {
    /// Creates an id from an engine's own number. For engines and for tests.
    #[must_use]
    pub const fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// The engine's own number. For engines and for tests.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; ID_WIDTH];
        let mut rest = self.0;
        for place in text.iter_mut().rev() {
            let digit = usize::try_from(rest & 31).unwrap_or_default();
            *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
            rest >>= 5;
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() != ID_WIDTH {
            return Err(NameError::NotAnId);
        }
        let mut raw: u64 = 0;
        for octet in text.bytes() {
            let upper = octet.to_ascii_uppercase();
            let digit = ALPHABET.iter().position(|&c| c == upper).ok_or(NameError::NotAnId)?;
            raw = raw.checked_mul(32).ok_or(NameError::NotAnId)?;
            raw |= u64::try_from(digit).unwrap_or_default();
        }
        Ok(Self(raw))
    }
}

/// What the recipients of a message are grouped by: a domain or a transport. The queue does not
/// look inside.
///
/// At most [`MAX_NAME`] bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingKey(Arc<str>);

/// Whose mail it is. [`Queue::due`](crate::Queue::due) lists owners apart, so that a caller can
/// serve them in turn and one owner's backlog does not delay the others.
///
/// At most [`MAX_NAME`] bytes. Cheap to clone. A queue with one owner uses [`Owner::default`], the
/// empty text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

/// How urgent a message is: the higher, the more. The default is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority(pub i8);

/// A text that is no [`RoutingKey`], [`Owner`] or [`MessageId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Longer than [`MAX_NAME`]: this is its size in bytes.
    #[error("a routing key or an owner has at most {MAX_NAME} bytes; this one has {0}")]
    TooLong(usize),
    /// Not in the form that [`MessageId`] displays.
    #[error("a message id has 13 characters: 0-9 and A-Z without I, L, O and U")]
    NotAnId,
}

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// Takes a text of at most [`MAX_NAME`] bytes.
            ///
            /// # Errors
            /// [`NameError::TooLong`] beyond that.
            pub fn new(text: &str) -> Result<Self, NameError> {
                match text.len() {
                    0..=MAX_NAME => Ok(Self(text.into())),
                    more => Err(NameError::TooLong(more)),
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name!(RoutingKey);
name!(Owner);

impl RoutingKey {
    /// The first key in their order.
    pub(crate) fn first() -> Self {
        Self(Owner::default().0)
    }
}

impl Default for Owner {
    fn default() -> Self {
        static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        Self(Arc::clone(&EMPTY))
    }
}

/// 64 bits, five to a character.
const ID_WIDTH: usize = 13;
/// Crockford's base 32: no letter looks like a digit, and texts sort as their numbers do.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ids_are_parsed_as_they_are_displayed() {
        for (raw, text) in
            [(0, "0000000000000"), (31, "000000000000Z"), (1 << 40, "0000100000000"), (u64::MAX, "FZZZZZZZZZZZZ")]
        {
            let id = MessageId::from_u64(raw);
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse::<MessageId>().unwrap(), id);
            assert_eq!(text.to_ascii_lowercase().parse::<MessageId>().unwrap(), id);
        }
        for bad in ["", "0", "GZZZZZZZZZZZZ", "000000000000U", "00000000000000", "é00000000000"] {
            assert_eq!(bad.parse::<MessageId>(), Err(NameError::NotAnId), "{bad}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert!(RoutingKey::new(&"x".repeat(255)).is_ok());
        assert_eq!(Owner::new(&"x".repeat(256)), Err(NameError::TooLong(256)));
    }
}
