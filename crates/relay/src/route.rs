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

/// Where a delivery goes to; deliveries to the same site share connections.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) site: String,
    pub(crate) route: Route,
}

impl Routes {
    /// Routes in order.
    pub const fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// Where a domain's mail goes to; nothing when no route has it.
    pub(crate) fn find(&self, domain: &Domain<&str>) -> Option<Destination> {
        let index = self.0.iter().position(|route| route.domains.iter().any(|pattern| pattern.matches(domain)))?;
        let route = self.0.get(index)?.clone();
        let site = match route.to {
            NextHop::Mx => format!("mx {}", domain.as_str().to_ascii_lowercase()),
            NextHop::Hosts(_) => format!("route {index}"),
        };
        Some(Destination { site, route })
    }
}

/// Everything by MX, without TLS.
impl Default for Routes {
    fn default() -> Self {
        Self(vec![Route { domains: vec![DomainPattern::Any], to: NextHop::Mx, tls: Tls::default() }])
    }
}
