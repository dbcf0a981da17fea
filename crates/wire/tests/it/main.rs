//! The tests of this crate from outside, in one program: each further program costs a link for
//! every change. Their tables are in the parent folder. The test of allocations needs its own
//! program.

#[cfg(feature = "tokio-util")]
mod codec;
mod conversions;
mod end_of_data;
mod framing;
mod printed;
mod reply_properties;
mod reply_tables;
mod round_trip;
#[cfg(feature = "serde")]
mod serde;
mod tables;
