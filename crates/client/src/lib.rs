#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
#[cfg(feature = "dane")]
pub mod dane;
pub mod delivery;
mod destination;
mod dial;
mod endpoint;
mod error;
mod exchange;
mod health;
#[cfg(feature = "hickory")]
mod hickory;
mod host_name;
mod letter;
mod login;
#[cfg(feature = "mta-sts")]
pub mod mta_sts;
pub mod mx;
mod outcome;
mod places;
mod pool;
mod proxy;
mod public;
mod published;
mod race;
mod resolve;
mod send;
mod sent;
mod server;
mod servers;
mod shelf;
mod source;
mod tcp;
mod tls_policy;
#[cfg(feature = "tls-rpt")]
pub mod tls_rpt;
mod transaction;
mod transcript;
#[cfg(unix)]
mod unix;

pub use batch::{Batch, Message, SendAll};
pub use client::{Client, ClientOptions};
pub use destination::PoolOptions;
pub use dial::Dial;
pub use endpoint::{Endpoint, EndpointError, port};
pub use error::{ConnectError, Stage};
pub use exchange::{Mx, MxOptions};
pub use health::{Health, ServerHealth};
#[cfg(feature = "hickory")]
pub use hickory::HickoryResolver;
#[cfg(all(feature = "hickory", any(feature = "aws-lc-rs", feature = "ring")))]
pub use hickory::TrustAnchors;
pub use host_name::{HostName, HostNameError};
pub use login::{Login, LoginError};
pub use outcome::{RecipientOutcome, RefusedAt, Unreachable};
pub use pool::Pool;
#[cfg(feature = "socks5")]
pub use proxy::Socks5;
pub use proxy::{HttpConnect, ProxyError};
pub use published::{HostPolicy, Published};
pub use race::{Race, Target};
pub use resolve::{Alias, Answer, MxRecord, ResolveError, Resolver, SystemResolver, TlsaRecord};
pub use send::SendError;
pub use sent::{Delivered, Recipient, Sent, ServerFacts};
pub use server::Server;
pub use source::{FileSource, Once, OnceContent, Source};
pub use tcp::Tcp;
pub use tls_policy::{HostTls, Identity, Tls};
pub use transcript::Transcript;
#[cfg(unix)]
pub use unix::Unix;

pub use posthaste_tokio::{
    ClientError, Content, Reader, Streamed, Text, TlsParameters, Trace, TraceLine, TraceSide, rustls,
    session::{
        self, Protocol,
        client::ClientTimeouts,
        sasl::{BearerToken, ClientCredentials, Credentials},
    },
    tls, wire,
};
