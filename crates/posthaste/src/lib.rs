#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "dkim")]
pub use posthaste_auth as auth;
#[cfg(feature = "client")]
pub use posthaste_client as client;
#[cfg(feature = "queue")]
pub use posthaste_queue as queue;
#[cfg(feature = "relay")]
pub use posthaste_relay as relay;
#[cfg(feature = "server")]
pub use posthaste_server as server;
#[cfg(feature = "session")]
pub use posthaste_session as session;
pub use posthaste_wire as wire;
