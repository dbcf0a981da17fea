//! Routes: the next hop for each domain.

use posthaste_client::Tls;
use posthaste_server::wire::Domain;

use crate::{
    DomainPattern,
    domains::{DomainMap, canonical},
};

/// Routes in order: a domain takes the first route with a matching pattern. A look-up costs the
/// same for any number of routes.
#[derive(Debug, Clone)]
pub struct RouteTable {
    routes: Vec<Route>,
    /// The index in `routes` of the first route for each pattern.
    indexes: DomainMap<usize>,
}

/// Some domains and the next hop of their mail.
///
/// Start from [`new`](Self::new) and assign what differs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Route {
    /// The recipient domains.
    pub domains: Vec<DomainPattern>,
    /// The next hop.
    pub to: NextHop,
    /// The TLS that connections use. [`Identity::Verified`](posthaste_client::Identity::Verified)
    /// proves the identity of a host only if `to` names it. With [`NextHop::Mx`] the name came from
    /// DNS, so that a certificate proves nothing more: it counts as
    /// [`Identity::Unverified`](posthaste_client::Identity::Unverified).
    pub tls: Tls,
    /// `true`: content goes by BDAT to hosts that offer CHUNKING (RFC 3030). After BDAT has failed
    /// with a host, that host gets DATA for a day. `false`: only binary content goes by BDAT, since
    /// it cannot go by DATA.
    pub chunking: bool,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextHop {
    /// To the hosts that DNS names for the domain (RFC 5321 section 5.1).
    Mx,
    /// To the first of these hosts that takes the mail. Each has a host name, in A-labels or
    /// U-labels, or an address literal, and a port. The next host is tried when one fails, or is
    /// not ready for mail after half a second. A host that failed lately is tried last. A name that
    /// cannot be looked up is tried again later. Without any host, all mail of the route fails.
    Hosts(Vec<(String, u16)>),
}

impl Route {
    /// Makes a route without TLS, and with BDAT to hosts that offer it.
    pub fn new(domains: Vec<DomainPattern>, to: NextHop) -> Self {
        Self { domains, to, tls: Tls::default(), chunking: true }
    }
}

impl RouteTable {
    /// Makes a table of routes, in order.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut indexes = DomainMap::default();
        for (index, route) in routes.iter().enumerate() {
            route.domains.iter().for_each(|pattern| indexes.add(pattern, index));
        }
        Self { routes, indexes }
    }

    /// The index of the route of a domain. `None`: no route matches.
    pub(crate) fn find(&self, domain: &Domain<&str>) -> Option<usize> {
        self.indexes.find(&canonical(domain)?)
    }

    /// The route of a [canonical] name.
    pub(crate) fn route(&self, name: &str) -> Option<&Route> {
        self.get(self.indexes.find(name)?)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Route> {
        self.routes.get(index)
    }
}

/// One route: all domains by MX, without TLS.
impl Default for RouteTable {
    fn default() -> Self {
        Self::new(vec![Route::new(vec![DomainPattern::Any], NextHop::Mx)])
    }
}
