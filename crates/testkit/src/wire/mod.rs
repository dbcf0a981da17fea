//! What must hold for the octets of `posthaste-wire`, whatever they are: bodies that its tests and
//! the fuzz targets call, and values to build octets from. Each body panics where something that
//! must hold does not.

pub mod end_of_data;
pub mod framing;
pub mod lines;
pub mod replies;
pub mod tolerance;
pub mod values;
