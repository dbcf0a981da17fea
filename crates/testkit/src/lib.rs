//! Test tools of the workspace: what the tests of several crates share. Users never see it.
//!
//! ```text
//!  transcripts ──▶ ServerHarness / ClientHarness ──▶ events, octets said, messages
//!  Pair          = ClientHarness ⇄ Duplex ⇄ ServerHarness, chunked by Choices
//!  fuzz::*       = a body for each fuzz target, with its oracles
//!  reference     = where content ends and what is wrong with it: the naive oracle beside the fast framer
//! ```
//!
//! The harnesses panic if a session breaks its contract.

// These files belong to the tests of `wire`, which do not depend on this crate.
#[path = "../../wire/tests/support/choices.rs"]
pub mod choices;
pub mod client;
pub mod clock;
pub mod fuzz;
pub mod link;
pub mod pair;
pub mod policy;
#[path = "../../wire/tests/support/reference.rs"]
pub mod reference;
pub mod server;
pub mod transcript;
#[path = "../../wire/tests/support/unescape.rs"]
mod unescape;
