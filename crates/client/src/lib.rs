#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
#[cfg(feature = "dane")]
pub mod dane;
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
mod public;
mod race;
mod resolve;
mod send;
mod sent;
mod tls_policy;
mod transaction;

pub use client::{Client, ClientOptions};
pub use dial::{Dial, Tcp};
pub use endpoint::{Endpoint, EndpointError, port};
pub use error::{ConnectError, Stage};
pub use health::{Health, ServerHealth};
#[cfg(feature = "hickory")]
pub use hickory::HickoryResolver;
#[cfg(all(feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
pub use hickory::TrustAnchors;
pub use host_name::{HostName, HostNameError};
pub use outcome::{RecipientOutcome, RefusedAt};
pub use pool::{Pool, PoolOptions};
pub use race::{Race, Target};
pub use resolve::{Alias, Answer, MxRecord, ResolveError, Resolver, SystemResolver, TlsaRecord};
pub use send::SendError;
pub use sent::{Failed, Recipient, Sent};
pub use tls_policy::{HostTls, Identity, Tls};

pub use posthaste_tokio::{
    ClientError, Content, Reader, Streamed, Text, rustls,
    session::{
        self, Protocol,
        sasl::{ClientCredentials, Credentials},
    },
    tls, wire,
};
