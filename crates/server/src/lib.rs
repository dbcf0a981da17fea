#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod conversation;
mod envelope;
mod listener;
mod password;
mod service;

pub use body::{Body, BodyError, BodySource};
pub use conversation::converse;
pub use envelope::{Envelope, Peer};
pub use listener::{Listener, Server, ServerOptions, Tls};
pub use service::{Authentication, Handler, Service};

pub use posthaste_io::{Certificate, rustls, session, wire};
pub use session::sasl::{BearerToken, Credentials, External, SaslError, ScramKey, ScramUser, UnknownUsers};
pub use tokio_util::sync::CancellationToken;
