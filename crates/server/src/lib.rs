#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod admission;
mod body;
mod budget;
mod content;
mod context;
mod conversation;
mod converse;
mod counters;
mod descriptors;
mod ending;
mod expiring;
mod gathered;
mod guessing;
#[cfg(any(doc, doctest))]
#[doc = include_str!("../GUIDE.md")]
pub mod guide {}
mod handler;
pub mod handlers;
mod layer;
pub mod layers;
#[cfg(any(doc, doctest))]
#[doc = include_str!("../LIMITS.md")]
pub mod limits {}
mod listener;
mod login;
#[cfg(doctest)]
mod mistakes;
mod name_set;
mod network;
mod network_set;
mod password;
mod proxy;
mod received;
#[cfg(feature = "serde")]
mod serialized;
mod server;
mod service;
#[cfg(feature = "spool")]
mod spool;
#[cfg(feature = "test")]
#[cfg_attr(docsrs, doc(cfg(feature = "test")))]
pub mod test;

pub use accept::Accept;
pub use body::{Body, BodyError};
pub use context::{Context, Envelope, Peer, PeerAddress, PeerTls, Proxy};
pub use converse::converse;
pub use guessing::LoginOptions;
pub use handler::{Authentication, Handler};
pub use layer::{Asked, Layer, Layered, Login};
pub use listener::{Listener, Tls};
pub use name_set::{NameSet, NameSetError};
pub use network::Networks;
pub use network_set::{NetworkSet, NetworkSetError};
pub use received::ReceivedField;
pub use server::{Server, ServerOptions};
pub use service::Service;
#[cfg(feature = "spool")]
#[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
pub use spool::{SpoolOptions, Spooled};

pub use ipnet::{self, IpNet};
pub use posthaste_tokio::{Certificate, rustls, session, tls, wire};
pub use session::sasl::{BearerToken, Credentials, External, SaslError, ScramKey, ScramUser, UnknownUsers};
pub use session::server::{ClientFacts, CloseReason};
pub use wire::{Accepted, Refusal, accepted, refusal, reply};
