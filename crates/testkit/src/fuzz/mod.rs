//! The bodies of the fuzz targets. Each panics where something that must hold does not; the targets and the replay of
//! their corpora call the same functions. Those that need no session belong to the tests of `wire`.

#[path = "../../../wire/tests/support/framing.rs"]
pub mod framing;
mod sessions;
#[path = "../../../wire/tests/support/syntax.rs"]
mod syntax;

pub use framing::framer;
pub use sessions::{client_session, server_session};
pub use syntax::{address, command, reply};

use crate::{choices, reference};
