#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
pub mod delivery;
mod dial;
mod endpoint;
mod error;
mod exchange;
mod health;
#[cfg(feature = "hickory")]
mod hickory;
mod host_name;
mod kept;
mod letter;
pub mod mx;
mod outcome;
mod pool;
mod public;
mod race;
mod resolve;
mod send;
mod sent;
mod source;
mod tls_policy;
mod transaction;

pub use batch::{Batch, Message, SendAll};
pub use client::{Client, ClientOptions};
pub use dial::{Dial, Tcp};
pub use endpoint::{Endpoint, EndpointError, port};
pub use error::{ConnectError, Stage};
pub use exchange::{Mx, MxOptions};
pub use health::{Health, ServerHealth};
#[cfg(feature = "hickory")]
pub use hickory::HickoryResolver;
pub use host_name::{HostName, HostNameError};
pub use kept::PoolOptions;
pub use outcome::{RecipientOutcome, RefusedAt, Unreachable};
pub use pool::Pool;
pub use race::{Race, Target};
pub use resolve::{MxRecord, ResolveError, Resolver, SystemResolver};
pub use send::SendError;
pub use sent::{Delivered, Recipient, Sent, ServerFacts};
pub use source::{FileSource, Once, OnceContent, Source};
pub use tls_policy::{Identity, Tls};

pub use posthaste_tokio::{
    ClientError, Content, Reader, Streamed, Text, TlsParameters, rustls,
    session::{
        self, Protocol,
        sasl::{ClientCredentials, Credentials},
    },
    tls, wire,
};
