//! Content in memory, which counts for a budget.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    BodyError,
    budget::{Budget, Share},
};

/// Content that is being collected.
#[derive(Debug)]
pub(crate) struct Gathered {
    octets: BytesMut,
    /// `None`: the content counts for no budget.
    share: Option<Share>,
}

/// Content that gives its memory back when it is dropped.
struct Counted {
    octets: BytesMut,
    _share: Share,
}

/// The least room that is made, so that small pieces do not come back for more at once.
const LEAST: usize = 1_024;

impl Gathered {
    pub(crate) fn new(memory: Option<&Arc<Budget>>) -> Self {
        Self { octets: BytesMut::new(), share: memory.map(|budget| Share::of_content(Arc::clone(budget))) }
    }

    /// Adds a piece. Room grows by doubling, and all of it counts.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        let (room, wanted) = (self.octets.capacity(), self.octets.len().saturating_add(piece.len()));
        if wanted > room {
            let next = room.saturating_mul(2).max(wanted).max(LEAST);
            if self.share.as_mut().is_some_and(|share| !share.take(next - room)) {
                return Err(BodyError::NoMemory);
            }
            self.octets.reserve(next - self.octets.len());
        }
        self.octets.extend_from_slice(piece);
        Ok(())
    }

    /// All of it. It counts until the last clone and slice of it is dropped.
    pub(crate) fn finish(self) -> Bytes {
        match self.share {
            Some(share) if !self.octets.is_empty() => Bytes::from_owner(Counted { octets: self.octets, _share: share }),
            _ => self.octets.freeze(),
        }
    }

    /// What was added, for a place that counts for no budget.
    #[cfg(feature = "spool")]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.octets
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_until_its_last_slice_is_gone() {
        let budget = Arc::new(Budget::new(10_000));
        let gather = |octets: usize| {
            let mut gathered = Gathered::new(Some(&budget));
            (0..octets).step_by(100).try_for_each(|_| gathered.push(&[7; 100])).map(|()| gathered.finish())
        };
        let first = gather(5_000).unwrap();
        let slice = first.slice(4_000..);
        drop(first);
        assert!(matches!(gather(5_000), Err(BodyError::NoMemory)));
        assert_eq!(slice, [7; 1_000][..]);
        drop(slice);
        // Nothing is left over from what failed.
        assert_eq!(gather(5_000).unwrap().len(), 5_000);
        assert!(matches!(gather(10_001), Err(BodyError::NoMemory)));
        assert!(gather(0).unwrap().is_empty());
        // One piece takes no more than it has.
        let mut whole = Gathered::new(Some(&budget));
        whole.push(&[7; 10_000]).unwrap();
        assert!(matches!(whole.push(&[7]), Err(BodyError::NoMemory)));
    }
}
