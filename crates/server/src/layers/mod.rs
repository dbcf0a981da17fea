//! Layers for a server that strangers reach: each is a small file, and an example for a layer of
//! your own.
//!
//! A [layer](Layer) decides before the handler that it is put around. It refuses, or asks what it
//! wraps. So layers can be left out, ordered and mixed with your own, and none of them makes a
//! server accept more. The layer that was added last decides first: add the cheapest check last.
//!
//! A public MX with five of them:
//!
//! ```
//! use std::{io, time::Duration};
//! use posthaste_server::layers::{Access, BlockList, Greylist, RateLimit, Recipients};
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, Service, accepted};
//! # struct Inbox;
//! # impl Handler for Inbox {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 Thrown away"))
//! #     }
//! # }
//!
//! /// The addresses of a name, by the system's resolver. The dot at its end keeps search domains away.
//! async fn addresses(name: String) -> io::Result<Vec<std::net::IpAddr>> {
//!     Ok(tokio::net::lookup_host((name + ".", 0)).await?.map(|address| address.ip()).collect())
//! }
//!
//! # fn service() -> Result<impl Service, Box<dyn std::error::Error>> {
//! let inbox = |_| async { Ok(Inbox) };
//! let service = inbox
//!     .layer(Recipients::new(|mailbox| async move { Ok(mailbox.as_str().eq_ignore_ascii_case("jo@example.net")) }))
//!     .layer(Greylist::default())
//!     .layer(BlockList::new("bl.example.net", addresses))
//!     .layer(RateLimit::messages(100, Duration::from_secs(3_600)))
//!     .layer(Access::deny("192.0.2.0/24, 2001:db8::/32".parse()?));
//! # Ok(service) }
//! # service().unwrap();
//! ```
//!
//! One of your own is as short. This list changes while the server runs:
//!
//! ```
//! use posthaste_server::{Context, Layer, NetworkSet, Refusal, refusal};
//! use tokio::sync::watch;
//!
//! #[derive(Clone)]
//! struct Denied(watch::Receiver<NetworkSet>);
//!
//! impl Layer for Denied {
//!     async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
//!         match self.0.borrow().contains(cx.peer.address.ip_or_loopback()) {
//!             true => Err(refusal!("554 5.7.1 No SMTP service for you")),
//!             false => Ok(()),
//!         }
//!     }
//! }
//! ```
//!
//! | layer | decides about | refuses with | memory for what strangers send |
//! |---|---|---|---|
//! | [`Access`] | connections, EHLO and MAIL, by lists of networks, names and senders | 554, 550 | none |
//! | [`RateLimit`] | connections, messages or recipients in a time | 421, 451; 554, 550 | 50,000 keys: 2 MiB |
//! | [`EarlyTalkers`] | clients that talk before the greeting | 554, by the session | none |
//! | [`BlockList`] | RCPT of clients that a DNS block list names | 550 | 2 bytes a connection |
//! | [`Greylist`] | RCPT of networks that have not tried again before | 451 | 100,000 keys: 6 MiB |
//! | [`Recipients`] | RCPT to mailboxes that do not exist | 550, 451 | 100,000 answers: 5 MiB |
//! | [`Headers`] | a header section of too many octets or fields | 552, 554 | none |
//! | [`Received`] | nothing: puts a Received field in front of a message | nothing | 2 KiB a message |
//! | [`Tarpit`] | delays the answers to clients that make mistakes | nothing | 100 answers wait at a time |
//! | [`Observed`] | nothing: tells the log what another layer would refuse | nothing | what the other layer has |
//! | [`Log`] | nothing: writes a line for each decision | nothing | the last address, some KiB a connection |
//! | `Metrics` (feature `metrics`) | nothing: counts decisions | nothing | none |
//!
//! An `Option` of a layer is a layer, for one that a configuration switches on.
//!
//! The fields of a layer are its options: make the layer, then assign them. All connections share
//! the memory of a layer, and its clones do. A layer keeps time by tokio's clock, which tests can
//! pause.
//!
//! Memory that is full forgets the quarter that it would have forgotten first. The clients
//! concerned are strangers again: no mail is lost by that.

mod access;
mod block_list;
mod early_talkers;
mod greylist;
mod headers;
mod log;
#[cfg(feature = "metrics")]
mod metrics;
mod observed;
mod octets;
mod optional;
mod rate_limit;
mod received;
mod recipients;
mod tarpit;

pub use access::Access;
pub use block_list::{BlockList, BlockListError};
pub use early_talkers::EarlyTalkers;
pub use greylist::{Greylist, GreylistMemory, GreylistTable};
pub use headers::Headers;
pub use log::Log;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use observed::Observed;
pub use rate_limit::RateLimit;
pub use received::Received;
pub use recipients::Recipients;
pub use tarpit::Tarpit;

#[cfg(doc)]
use crate::Layer;
use crate::{Context, NetworkSet};

/// Returns `true` if the client's address is in a set. A local client counts as `127.0.0.1`.
fn is_in(networks: &NetworkSet, cx: &Context) -> bool {
    networks.contains(cx.peer.address.ip_or_loopback())
}

/// A set that is written in the source. A test parses each.
fn fixed(text: &'static str) -> NetworkSet {
    text.parse().unwrap_or_default()
}

/// The addresses of this host: clients there have no queue that would try again.
const LOOPBACK: &str = "127.0.0.0/8, ::1";

/// Seconds until a client may try again, rounded up.
fn seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}
