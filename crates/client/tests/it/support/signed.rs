//! Signed zones, and a resolver that validates them from the root on.

use std::ops::Deref;

use posthaste_client::{HickoryResolver, TrustAnchors};
pub(crate) use posthaste_testkit::dns::Kind;

pub(crate) struct Signed {
    pub(crate) resolver: HickoryResolver,
    servers: posthaste_testkit::dns::Signed,
}

impl Signed {
    /// As [`posthaste_testkit::dns::Signed::start`].
    pub(crate) async fn start(zones: &[(&str, Kind, &str)]) -> Self {
        let servers = posthaste_testkit::dns::Signed::start(zones).await;
        let resolver = HickoryResolver::with_servers(&[servers.address]).unwrap();
        let resolver = resolver.validating(&TrustAnchors::from_dnskeys(&servers.anchor).unwrap()).unwrap();
        Self { resolver, servers }
    }
}

impl Deref for Signed {
    type Target = posthaste_testkit::dns::Signed;

    fn deref(&self) -> &Self::Target {
        &self.servers
    }
}
