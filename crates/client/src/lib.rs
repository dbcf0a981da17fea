#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
mod dial;
mod endpoint;
mod error;
mod health;
#[cfg(feature = "hickory")]
mod hickory;
mod host_name;
pub mod mx;
mod outcome;
mod pool;
mod proxy;
mod public;
mod race;
mod resolve;
mod send;
mod sent;
mod server;
mod tcp;
mod tls_policy;
mod transaction;
mod transcript;
#[cfg(unix)]
mod unix;

pub use client::{Client, ClientOptions};
pub use dial::Dial;
pub use endpoint::{Endpoint, EndpointError, port};
pub use error::{ConnectError, Stage};
pub use health::{Health, ServerHealth};
#[cfg(feature = "hickory")]
pub use hickory::HickoryResolver;
pub use host_name::{HostName, HostNameError};
pub use outcome::{RecipientOutcome, RefusedAt};
pub use pool::{Pool, PoolOptions};
#[cfg(feature = "socks5")]
pub use proxy::Socks5;
pub use proxy::{HttpConnect, ProxyError};
pub use race::{Race, Target};
pub use resolve::{MxRecord, ResolveError, Resolver, SystemResolver};
pub use send::SendError;
pub use sent::{Failed, Recipient, Sent};
pub use server::Server;
pub use tcp::Tcp;
pub use tls_policy::{Identity, Tls};
pub use transcript::Transcript;
#[cfg(unix)]
pub use unix::Unix;

pub use posthaste_tokio::{
    ClientError, Content, Reader, Streamed, Text, Trace, TraceLine, TraceSide, rustls,
    session::{
        self, Protocol,
        sasl::{ClientCredentials, Credentials},
    },
    tls, wire,
};
