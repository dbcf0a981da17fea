//! Where mail goes to.

use posthaste_client::Tls;
use posthaste_server::wire::Domain;

use crate::DomainPattern;

/// Routes in order: the first whose pattern has the domain is taken.
#[derive(Debug, Clone)]
pub struct Routes(Vec<Route>);

/// Domains and where their mail goes to.
#[derive(Debug, Clone)]
pub struct Route {
    /// Whose mail.
    pub domains: Vec<DomainPattern>,
    /// Where to.
    pub to: NextHop,
    /// How much TLS.
    pub tls: Tls,
}

/// Where mail goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// To the hosts that DNS names for the domain (RFC 5321 section 5.1).
    Mx,
    /// To the first of these that answers: host names or addresses, with their ports.
    Hosts(Vec<(String, u16)>),
}

impl Routes {
    /// Routes in order.
    pub const fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// The route that a domain's mail takes, by its place among the others; nothing when no route has it.
    pub(crate) fn find(&self, domain: &Domain<&str>) -> Option<usize> {
        self.0.iter().position(|route| route.domains.iter().any(|pattern| pattern.matches(domain)))
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Route> {
        self.0.get(index)
    }
}

/// Everything by MX, without TLS.
impl Default for Routes {
    fn default() -> Self {
        Self(vec![Route { domains: vec![DomainPattern::Any], to: NextHop::Mx, tls: Tls::default() }])
    }
}
