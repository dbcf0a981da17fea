//! The tests of this crate from outside, in one program: every further one would be linked anew for every change. The
//! tables that they read lie beside this folder. What counts allocations is a program of its own.

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
