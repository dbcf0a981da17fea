//! What decides which mail goes first: the priority of a message and its size.
//!
//! The queue has both as one number, its [`Priority`]. So large and small mail are different
//! classes, and the size of a delivery is known before it is claimed. The number of a small message
//! is its MT-PRIORITY (RFC 6710), from -9 to 9. That of a large one is [`APART`] below it.

use std::cmp::Reverse;

use posthaste_queue::{NewMessage, Priority};

/// A message of more octets is large. Large mail gets a part of the connections of a site
/// (`deliver/site/sizes.rs`).
const LARGE: u64 = 1 << 20;

/// The priority and the size of a message. The highest priority is the least rank; of one priority,
/// small mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: Reverse<i8>,
    pub(crate) size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Size {
    #[default]
    Small,
    Large,
}

impl Size {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Small => Self::Large,
            Self::Large => Self::Small,
        }
    }
}

impl Rank {
    /// The rank of a message of this many octets.
    pub(crate) fn new(priority: i8, octets: u64) -> Self {
        let size = if octets > LARGE { Size::Large } else { Size::Small };
        Self { priority: Reverse(priority), size }
    }

    pub(crate) const fn of(message: &NewMessage) -> Self {
        Self::read(message.priority)
    }

    /// Reads the number that the queue has.
    pub(crate) const fn read(Priority(number): Priority) -> Self {
        match number {
            ..LIMIT => Self { priority: Reverse(number + APART), size: Size::Large },
            LIMIT.. => Self { priority: Reverse(number), size: Size::Small },
        }
    }

    /// The number for the queue.
    pub(crate) const fn number(self) -> Priority {
        match (self.size, self.priority) {
            (Size::Small, Reverse(priority)) => Priority(priority),
            (Size::Large, Reverse(priority)) => Priority(priority.saturating_sub(APART)),
        }
    }
}

/// How far the numbers of large mail are below those of small mail. Both ranges stay apart.
const APART: i8 = 64;
/// Lower numbers are those of large mail.
const LIMIT: i8 = -APART / 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_rank() {
        for number in i8::MIN..=i8::MAX {
            assert_eq!(Rank::read(Priority(number)).number(), Priority(number));
        }
        for priority in -9..=9 {
            for (octets, size, number) in
                [(0, Size::Small, priority), (LARGE, Size::Small, priority), (LARGE + 1, Size::Large, priority - 64)]
            {
                let rank = Rank::new(priority, octets);
                assert_eq!((rank.size, rank.number(), Rank::read(rank.number())), (size, Priority(number), rank));
            }
        }
    }

    #[test]
    fn a_rank_goes_by_priority_and_then_by_size() {
        let ranks =
            [Rank::new(9, 0), Rank::new(9, LARGE + 1), Rank::new(0, 0), Rank::new(0, u64::MAX), Rank::new(-9, 0)];
        assert!(ranks.is_sorted());
    }
}
