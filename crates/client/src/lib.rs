#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod connect;
mod error;
#[cfg(feature = "hickory")]
mod hickory;
mod host_name;
pub mod mx;
mod outcome;
mod public;
mod resolve;
mod tls;
mod transaction;

pub use client::{Client, ClientOptions, Protocol};
pub use connect::{Port, connect};
pub use error::{ConnectError, Stage, TlsFault};
#[cfg(feature = "hickory")]
pub use hickory::HickoryResolver;
pub use host_name::{HostName, HostNameError};
pub use outcome::{RecipientOutcome, RefusedAt};
pub use resolve::{MxRecord, ResolveError, Resolver, SystemResolver};
pub use tls::{Tls, TlsPolicy, unverified, verified};
pub use transaction::Transaction;

pub use posthaste_tokio::{ClientError, Content, rustls, session, wire};
