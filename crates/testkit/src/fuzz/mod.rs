//! The bodies of the fuzz targets. Each panics if an invariant does not hold. The targets and the
//! replay of their corpora call the same functions. Bodies without a session belong to the tests of
//! `wire`.

mod client_session;
#[path = "../../../wire/tests/support/framing.rs"]
pub mod framing;
mod incidents;
#[path = "../../../wire/tests/support/lines.rs"]
mod lines;
mod pair;
mod queue;
#[path = "../../../wire/tests/support/replies.rs"]
mod replies;
mod sasl;
mod server_session;
#[path = "../../../wire/tests/support/values.rs"]
mod values;

pub use client_session::client_session;
pub use framing::framer;
pub use lines::{address, command, round_trip};
pub use pair::pair;
pub use queue::queue;
pub use replies::reply;
pub use sasl::sasl;
pub use server_session::server_session;

use crate::{choices, reference};
