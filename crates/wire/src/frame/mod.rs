//! Where lines, message content and chunks end in a stream of octets, in both directions.
//!
//! Receiving is [`Framer`], sending is [`Stuffer`]. Neither keeps octets of the stream: what is not consumed is shown
//! again, and content goes through as sub-slices. Both look at every octet of content for what it must not have, unless
//! they are told that it is clean; [`ContentCheck`] is the same look on its own.

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
