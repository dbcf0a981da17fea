#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod budget;
mod content;
mod conversation;
mod envelope;
mod guessing;
mod listener;
mod login;
mod network;
mod password;
mod service;

pub use body::{Body, BodyError, BodySource};
pub use conversation::converse;
pub use envelope::{Envelope, Peer};
pub use guessing::LoginOptions;
pub use listener::{Listener, Server, ServerOptions, Tls};
pub use network::Networks;
pub use service::{Authentication, Handler, Service};

pub use posthaste_tokio::{Certificate, rustls, session, wire};
pub use session::sasl::{BearerToken, Credentials, External, SaslError, ScramKey, ScramUser, UnknownUsers};
pub use tokio_util::sync::CancellationToken;
