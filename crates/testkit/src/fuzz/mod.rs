//! The bodies of the fuzz targets. Each panics where something that must hold does not; the targets and the replay of
//! their corpora call the same functions.

mod sessions;
mod syntax;

pub use sessions::{client_session, server_session};
pub use syntax::{address, command, compare, framer, reply, stuff, stuffer};
