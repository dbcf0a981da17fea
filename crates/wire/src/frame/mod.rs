//! Framing: the ends of lines, message content and chunks in a stream of octets, in both
//! directions.
//!
//! [`Framer`] receives, [`Stuffer`] sends. Neither keeps octets of the stream: the caller shows
//! unconsumed octets again, and content passes as sub-slices. Both check every octet of content,
//! unless the caller declares it clean. [`ContentCheck`] is the same check alone.

mod check;
mod dots;
mod fault;
mod framer;
mod segment;
mod stuff;

pub use check::ContentCheck;
pub use fault::{ContentFault, FaultKind};
pub use framer::{Frame, Framed, Framer, LineFault};
pub use segment::{MAX_SEGMENTS, Segment, SegmentList};
pub use stuff::Stuffer;
