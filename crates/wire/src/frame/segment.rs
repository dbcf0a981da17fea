//! Ordered output without a copy.

/// The most segments of a [`SegmentList`]: what one vectored write takes well.
pub const MAX_SEGMENTS: usize = 64;

/// A piece of output: fixed octets of the protocol, or a slice of the caller's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'p> {
    /// Octets of the protocol, such as a stuffed dot.
    Fixed(&'static [u8]),
    /// Octets of the content.
    Body(&'p [u8]),
}

impl<'p> Segment<'p> {
    /// The octets.
    pub const fn as_bytes(&self) -> &'p [u8] {
        match self {
            Self::Fixed(octets) => octets,
            Self::Body(octets) => octets,
        }
    }
}

/// A list of up to [`MAX_SEGMENTS`] segments, without an allocation.
#[derive(Debug)]
pub struct SegmentList<'p> {
    segments: [Segment<'p>; MAX_SEGMENTS],
    used: usize,
}

impl<'p> SegmentList<'p> {
    /// An empty list.
    pub const fn new() -> Self {
        Self { segments: [Segment::Fixed(b""); MAX_SEGMENTS], used: 0 }
    }

    /// The segments in order.
    pub fn as_slice(&self) -> &[Segment<'p>] {
        self.segments.get(..self.used).unwrap_or_default()
    }

    /// The number of segments that still fit.
    pub const fn room(&self) -> usize {
        MAX_SEGMENTS - self.used
    }

    /// The octets of all segments together.
    pub fn octets(&self) -> usize {
        self.as_slice().iter().map(|segment| segment.as_bytes().len()).sum()
    }

    /// Appends octets of content without stuffing, for a BDAT chunk. `false`: the list is full, and
    /// did not change. An empty slice needs no room.
    ///
    /// ```
    /// use posthaste_wire::frame::{MAX_SEGMENTS, SegmentList};
    /// let mut segments = SegmentList::new();
    /// assert!((0..MAX_SEGMENTS).all(|_| segments.push_body(b".\r\n")));
    /// assert!(!segments.push_body(b"more") && segments.push_body(b""));
    /// ```
    #[must_use = "without room the octets are not in the list"]
    pub fn push_body(&mut self, octets: &'p [u8]) -> bool {
        let fits = octets.is_empty() || self.room() > 0;
        self.push(Segment::Body(octets));
        fits
    }

    /// Appends octets of the protocol, such as the [end of data](super::Stuffer::finish). `false`:
    /// the list is full, and did not change.
    #[must_use = "without room the octets are not in the list"]
    pub fn push_fixed(&mut self, octets: &'static [u8]) -> bool {
        let fits = octets.is_empty() || self.room() > 0;
        self.push(Segment::Fixed(octets));
        fits
    }

    /// Appends a segment. Drops an empty one, and one beyond the room: the callers check the room
    /// before.
    pub(super) fn push(&mut self, segment: Segment<'p>) {
        if let (false, Some(slot)) = (segment.as_bytes().is_empty(), self.segments.get_mut(self.used)) {
            *slot = segment;
            self.used += 1;
        }
    }
}

impl Default for SegmentList<'_> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_its_octets_and_its_room() {
        let mut list = SegmentList::new();
        assert_eq!((list.octets(), list.room()), (0, MAX_SEGMENTS));
        list.push(Segment::Fixed(b"."));
        list.push(Segment::Body(b"abc"));
        list.push(Segment::Body(b""));
        assert_eq!((list.octets(), list.room()), (4, MAX_SEGMENTS - 2));
    }
}
