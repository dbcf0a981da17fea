//! Test tools of the workspace: everything that tests of several crates share, and nothing that a user sees.
//!
//! ```text
//!  transcripts ──▶ ServerHarness / ClientHarness ──▶ events, octets said, messages
//!  Pair          = ClientHarness ⇄ Duplex ⇄ ServerHarness, chunked by Choices
//!  fuzz::*       = a body for each fuzz target, with its oracles
//!  reference     = where content ends and what is wrong with it: the naive oracle beside the fast framer
//! ```
//!
//! The harnesses panic where a session breaks its contract; that is what they are for.

// What these paths lead to belongs to the tests of `wire`, which do without this crate.
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
