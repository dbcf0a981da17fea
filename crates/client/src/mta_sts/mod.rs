//! MTA-STS (RFC 8461): a domain says which hosts take its mail, and that they prove their names.
//!
//! [`MtaSts`] answers one question: what does the domain of the recipients ask? It looks up the TXT
//! record `_mta-sts.DOMAIN`, fetches the policy over HTTPS, and keeps it as long as the policy
//! says. [`Found::tls`] then says for each MX host which TLS it needs, or that it is passed over:
//!
//! ```
//! use std::sync::Arc;
//!
//! use posthaste_client::{
//!     MxRecord, Resolver, Tls,
//!     mta_sts::{MtaSts, PolicyFetch},
//!     rustls::ClientConfig,
//! };
//!
//! /// The hosts that may get the domain's mail, in their order, each with the TLS that it needs.
//! async fn hosts(
//!     sts: &MtaSts<impl PolicyFetch>,
//!     resolver: &impl Resolver,
//!     domain: &str,
//!     hosts: Vec<MxRecord>,
//!     verified: &Arc<ClientConfig>,
//! ) -> Vec<(String, Tls)> {
//!     let found = sts.policy(resolver, domain).await;
//!     let with_tls = |host: MxRecord| found.tls(&host.exchange, &Tls::Off, verified).map(|tls| (host.exchange, tls));
//!     hosts.into_iter().filter_map(with_tls).collect()
//! }
//! ```
//!
//! `verified` comes from [`verified_by`](crate::tls::verified_by), and so does the configuration of
//! the fetch: `MtaSts::new(HttpsFetch::new(Roots::system()?)?)`.
//!
//! - A policy counts for the domain of the recipients alone, and not for its subdomains.
//! - A domain whose hosts have usable TLSA records is better served by DANE, which the caller tries
//!   first (RFC 8461 section 2). This module knows nothing of it.
//! - No message may be returned because of a policy before [`MtaSts::refresh`] has looked for a new
//!   one (RFC 8461 section 5.1).
//! - A failure protects as much as before: a policy that is kept counts until its end, whatever the
//!   DNS and the policy host say. A domain without one counts as one without MTA-STS.

mod cache;
mod disk;
mod fetch;
mod found;
mod https;
mod policy;
mod record;
mod sts;

pub use fetch::{FETCH_TIMEOUT, FetchError, PolicyFetch};
pub use found::{Found, HostRule, Problem};
pub use https::HttpsFetch;
pub use policy::{MAX_AGE, MAX_MX, MAX_POLICY, Mode, MxPattern, Policy, PolicyError};
pub use record::{PolicyId, RecordError};
pub use sts::MtaSts;
