//! Tests of services in memory: a client in a few words, and what it would see.
//!
//! With the feature `test`, for the `[dev-dependencies]` of an application.
//!
//! ```
//! use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, Service, accepted, handlers, refusal, wire::Rcpt};
//! use posthaste_server::test::Client;
//!
//! #[derive(Clone)]
//! struct Inbox;
//!
//! impl Handler for Inbox {
//!     async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
//!         let ours = rcpt.forward_path.mailbox().is_none_or(|mailbox| mailbox.domain().as_str() == "example.net");
//!         if ours { Ok(()) } else { Err(refusal!("550 5.7.1 No relaying")) }
//!     }
//!
//!     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//!         body.collect(1 << 20).await?;
//!         Ok(accepted!("250 2.0.0 Taken"))
//!     }
//! }
//!
//! // #[tokio::test(start_paused = true)]
//! async fn strangers_cannot_relay() {
//!     let mut client = Client::connect(handlers::cloned(Inbox)).await;
//!     client.ehlo().await;
//!     client.says("MAIL FROM:<me@example.org>").await.expect("250");
//!     client.says("RCPT TO:<you@elsewhere.example>").await.expect("550 5.7.1");
//!     client.says("RSET").await.expect("250");
//!
//!     let to = ["you@example.net", "you@elsewhere.example"];
//!     let sent = client.send("me@example.org", to, "Subject: x\r\n\r\nHi\r\n").await;
//!     sent.expect_each(["250 2.0.0", "550 5.7.1"]);
//!
//!     client.quit().await;
//!     let last = "C: QUIT\nS: 221 2.0.0 Bye\nS: <closed>\n";
//!     assert!(client.transcript().ends_with(last), "{}", client.transcript());
//! }
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() { strangers_cannot_relay().await }
//! ```
//!
//! The server is a real [`Server`](crate::Server), with its limits, timeouts, logins and drain. TLS
//! is real too, with certificates that are made for the process. Only the network is not there. A
//! handler that panics ends its connection, and its message is in the output of the test.
//!
//! Under paused time, waits cost nothing: `#[tokio::test(start_paused = true)]`, and tokio's
//! feature `test-util`. The clock then stands still while anything runs on tokio, its blocking
//! threads included. It runs ahead while a handler waits for anything else, such as a socket or a
//! thread of its own: tests of such handlers need real time. `tokio::time::Instant` follows this
//! clock, `std::time::Instant` does not.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod client;
mod connect;
mod login;
mod message;
mod reply;
mod tls;
mod transcript;

pub use client::Client;
pub use connect::Connect;
pub use reply::{Reply, Sent};
pub use tls::client_fingerprint;
