//! The bodies of the fuzz targets. Each panics where something that must hold does not; the targets and the replay of
//! their corpora call the same functions.

// The tests of the wire crate include the same files: they cannot use this crate, which rests on theirs.
#[path = "../../../wire/tests/support/lines.rs"]
mod lines;
mod sessions;
mod syntax;
#[path = "../../../wire/tests/support/values.rs"]
mod values;

pub use lines::{address, command, round_trip};
pub use sessions::{client_session, server_session};
pub use syntax::{compare, framer, reply, stuff, stuffer};
