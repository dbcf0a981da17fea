#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod certificate;
mod client;
mod clock;
mod connection;
mod content;
mod server;
pub mod tls;
mod trace;

pub use certificate::Certificate;
pub use client::{ChunksSent, ClientDriver, ClientError, ClientEvent};
pub use clock::Clock;
pub use connection::{Connection, TlsParameters};
pub use content::{Content, Reader, Streamed, Text};
pub use server::{ServerDriver, ServerEvent};
pub use trace::{ConnectionTrace, Trace, TraceLine, TraceSide};

pub use posthaste_session as session;
pub use rustls;
pub use session::wire;
