//! Where mail goes to.

use posthaste_client::Tls;
use posthaste_server::wire::Domain;

use crate::{
    DomainPattern,
    domains::{DomainMap, canonical},
};

/// RouteTable in order: the first whose pattern has the domain is taken. Finding it costs the same
/// however many there are.
#[derive(Debug, Clone)]
pub struct RouteTable {
    routes: Vec<Route>,
    /// The places of the routes.
    places: DomainMap<usize>,
}

/// Domains and where their mail goes to.
#[derive(Debug, Clone)]
pub struct Route {
    /// Whose mail.
    pub domains: Vec<DomainPattern>,
    /// Where to.
    pub to: NextHop,
    /// How much TLS. [`Identity::Verified`](posthaste_client::Identity::Verified) proves who a host
    /// is where `to` names it. By MX it proves no more than that the host has the name that DNS
    /// gave, and counts as [`Identity::Unverified`](posthaste_client::Identity::Unverified).
    pub tls: Tls,
    /// Whether content goes by BDAT to hosts that offer CHUNKING (RFC 3030). A host where that does
    /// not work gets DATA for a day anyway; off, only binary content goes by BDAT, which cannot go
    /// by DATA.
    pub chunking: bool,
}

/// Where mail goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// To the hosts that DNS names for the domain (RFC 5321 section 5.1).
    Mx,
    /// To the first of these that takes it: host names, in A-labels or U-labels, or address
    /// literals, with their ports. One that failed lately is tried last.
    Hosts(Vec<(String, u16)>),
}

impl Route {
    /// Without TLS, and with BDAT where hosts offer it.
    pub fn new(domains: Vec<DomainPattern>, to: NextHop) -> Self {
        Self { domains, to, tls: Tls::default(), chunking: true }
    }
}

impl RouteTable {
    /// RouteTable in order.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut places = DomainMap::default();
        for (place, route) in routes.iter().enumerate() {
            route.domains.iter().for_each(|pattern| places.add(pattern, place));
        }
        Self { routes, places }
    }

    /// The route that a domain's mail takes, by its place among the others. `None`: no route has
    /// the domain.
    pub(crate) fn find(&self, domain: &Domain<&str>) -> Option<usize> {
        self.places.find(&canonical(domain)?)
    }

    /// The route of a [canonical] name.
    pub(crate) fn route(&self, name: &str) -> Option<&Route> {
        self.get(self.places.find(name)?)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Route> {
        self.routes.get(place)
    }
}

/// Everything by MX, without TLS.
impl Default for RouteTable {
    fn default() -> Self {
        Self::new(vec![Route::new(vec![DomainPattern::Any], NextHop::Mx)])
    }
}
