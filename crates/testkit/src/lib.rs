//! Test tools of the workspace: what the tests of several crates share. Users never see it.
//!
//! ```text
//!  transcripts ──▶ ServerHarness / ClientHarness ──▶ events, octets said, messages
//!  Pair          = ClientHarness ⇄ Duplex ⇄ ServerHarness, chunked by Choices
//!  wire::*       = what must hold for octets, and values to build octets from
//!  fuzz::*       = a body for each fuzz target, with its oracles
//!  reference     = where content ends and what is wrong with it: the naive oracle beside the fast framer
//!  script, talk  = a server that says what a closure says, and a client of lines, on sockets and pipes
//!  pki           = certificates, and the TLS configurations of both ends
//!  dns           = name servers with zones that they sign
//!  counting      = a queue that counts the calls of its caller
//! ```
//!
//! `posthaste-wire` tests itself with the modules that need no session, without the feature
//! `sessions`: they depend on that crate alone, so that a change in it builds nothing else. What
//! needs sockets or TLS has the feature `tokio`, which the tests of wire and session do without.
//!
//! The harnesses panic if a session breaks its contract.

pub mod choices;
#[cfg(feature = "sessions")]
pub mod client;
#[cfg(feature = "sessions")]
pub mod clock;
#[cfg(feature = "queue")]
pub mod counting;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "sessions")]
pub mod fuzz;
#[cfg(feature = "sessions")]
pub mod hostile;
#[cfg(feature = "tokio")]
pub mod https;
#[cfg(feature = "sessions")]
pub mod link;
#[cfg(feature = "sessions")]
pub mod pair;
#[cfg(feature = "tokio")]
pub mod pki;
#[cfg(feature = "sessions")]
pub mod policy;
pub mod reference;
pub mod rows;
#[cfg(feature = "tokio")]
pub mod script;
#[cfg(feature = "sessions")]
pub mod server;
#[cfg(feature = "tokio")]
pub mod talk;
#[cfg(feature = "sessions")]
pub mod transcript;
pub mod unescape;
pub mod wire;
