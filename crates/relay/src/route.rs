//! Routes: the next hop for each domain.

use std::{
    error::Error,
    future::Future,
    hash::{Hash, Hasher},
    sync::Arc,
};

use posthaste_client::{Login, Protocol, Tls};

use crate::{
    DomainPattern,
    agent::{Agent, AgentHandle},
    domains::DomainMap,
};

/// Finds the route of mail. [`RouteTable`] does so in memory; an application's own implementation
/// may ask a database.
///
/// ```
/// use std::sync::Arc;
/// use posthaste_relay::{NextHop, Route, RouteError, RouteQuery, Routes};
///
/// /// Customers whose mail goes to a host of their own. All other mail goes by MX.
/// struct Customers(std::collections::HashMap<String, Arc<Route>>);
///
/// impl Routes for Customers {
///     async fn find(&self, mail: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
///         let own = self.0.get(mail.domain).cloned();
///         Ok(Some(own.unwrap_or_else(|| Arc::new(Route::new(NextHop::Mx)))))
///     }
/// }
/// ```
pub trait Routes: Send + Sync + 'static {
    /// The route of mail. `None`: there is none. Then RCPT is refused with 550, and mail that is in
    /// the queue is returned.
    ///
    /// It is asked at two times. At RCPT it is part of the server's
    /// [verdict](posthaste_server::Handler), and its time counts toward the verdict's timeout.
    /// Before deliveries it is asked once for each domain, at most 64 times at once, and has 30 s.
    /// The answer serves the domain's deliveries for a minute. So a change of routes applies to
    /// queued mail too.
    ///
    /// Deliveries with an equal route share their connections and limits. Routes to agents are
    /// equal if their [handle](AgentHandle) is the same. A route may have 16 KiB of hosts,
    /// about 300. Beyond it the route counts as one that cannot be found now.
    ///
    /// # Errors
    /// The route cannot be found now. The error is logged. RCPT is refused with 451, and mail that
    /// is in the queue is tried again later. A panic has the same effect, and so has no answer in
    /// time for mail in the queue.
    fn find(&self, mail: &RouteQuery<'_>) -> impl Future<Output = Result<Option<Arc<Route>>, RouteError>> + Send;
}

/// Why a route cannot be found now: any error, or a text.
pub type RouteError = Box<dyn Error + Send + Sync>;

/// The mail for which a route is wanted.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RouteQuery<'a> {
    /// The domain of its recipients, in lower case and A-labels, or their address literal.
    pub domain: &'a str,
}

/// Routes by domain: a domain takes the first route with a matching pattern. A look-up costs the
/// same for any number of routes.
///
/// ```
/// use posthaste_relay::{NextHop, Route, RouteTable};
/// let mut routes = RouteTable::empty();
/// routes.push(["example.org".parse()?, "*.example.org".parse()?], Route::hosts([("inside.example.org", 25)]));
/// routes.push(["*".parse()?], Route::new(NextHop::Mx));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    /// The index in `routes` of the first route for each pattern.
    indexes: DomainMap<usize>,
}

/// A next hop, and how to talk to it.
///
/// Start from [`new`](Self::new) or [`hosts`](Self::hosts) and assign what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The next hop.
    pub to: NextHop,
    /// The TLS that connections use. [`Identity::Verified`](posthaste_client::Identity::Verified)
    /// proves the identity of a host only if `to` names it. With [`NextHop::Mx`] the name came from
    /// DNS, so that a certificate proves nothing more: it counts as
    /// [`Identity::Unverified`](posthaste_client::Identity::Unverified).
    pub tls: Tls,
    /// Who to log in as at the hosts. It needs TLS that is demanded; see
    /// [`ClientOptions::credentials`](posthaste_client::ClientOptions::credentials). Not for
    /// [`NextHop::Mx`]. Default: none.
    pub credentials: Option<Login>,
    /// `true`: content goes by BDAT to hosts that offer CHUNKING (RFC 3030). After BDAT has failed
    /// with a host, that host gets DATA for a day. `false`: only binary content goes by BDAT, since
    /// it cannot go by DATA.
    pub chunking: bool,
    /// The protocol that its hosts speak. With [`Protocol::Lmtp`] each recipient has an answer of
    /// its own to the message (RFC 2033). Not for [`NextHop::Mx`]. Default: SMTP.
    pub protocol: Protocol,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextHop {
    /// To the hosts that DNS names for the domain (RFC 5321 section 5.1).
    Mx,
    /// To the first of these hosts that takes the mail. Each has a host name, in A-labels or
    /// U-labels, or an address literal, and a port. The next host is tried when one fails, or is
    /// not ready for mail after half a second.
    ///
    /// A host that failed lately is tried last. So is one that refused a whole message for a reason
    /// of its own, and one that says nothing on any connection for 10 s. That lasts for 5 s, and
    /// for 15 s at most if it fails again. Then one message probes it. If it takes that, the
    /// connections to worse hosts are given up bit by bit.
    ///
    /// A name that cannot be looked up is tried again later. Without any host, all mail of the
    /// route fails.
    ///
    /// A host such as `unix:/run/dovecot/lmtp` is a Unix socket of this machine, whatever its port.
    /// If all hosts are sockets, REQUIRETLS mail goes there too, as no network carries it.
    Hosts(Vec<(String, u16)>),
    /// To an agent in this process: a handler of the application, or one of those in
    /// [`agent`](crate::agent).
    Agent(AgentHandle),
}

/// What the name of a host begins with that is a Unix socket.
const UNIX: &str = "unix:/";

/// The most octets of a route that an application has found. 8,192 sites may each keep one: 128
/// MiB. A delivery looks every host up.
const MOST_OCTETS: usize = 16 << 10;

impl Route {
    /// Makes a route without TLS, and with BDAT to hosts that offer it.
    pub fn new(to: NextHop) -> Self {
        Self { to, tls: Tls::default(), credentials: None, chunking: true, protocol: Protocol::Smtp }
    }

    /// Makes a route to these hosts, in order, each with its port: [`NextHop::Hosts`].
    pub fn hosts<H: Into<String>>(hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        Self::new(NextHop::Hosts(hosts.into_iter().map(|(host, port)| (host.into(), port)).collect()))
    }

    /// Makes a route to these hosts by LMTP, in order, each with its port.
    ///
    /// ```
    /// use posthaste_relay::Route;
    /// let over_tcp = Route::lmtp([("mailboxes.example.org", 24)]);
    /// let on_this_machine = Route::lmtp_unix("/run/dovecot/lmtp");
    /// # assert_ne!(over_tcp, on_this_machine);
    /// ```
    pub fn lmtp<H: Into<String>>(hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        Self { protocol: Protocol::Lmtp, ..Self::hosts(hosts) }
    }

    /// Makes a route by LMTP to the Unix socket with this absolute path.
    pub fn lmtp_unix(path: impl AsRef<str>) -> Self {
        Self::lmtp([(format!("unix:{}", path.as_ref()), 0)])
    }

    /// Makes a route to an agent: [`NextHop::Agent`]. Events call it `agent:NAME`, or by the name
    /// alone if that has a colon.
    pub fn agent(name: &str, agent: impl Agent) -> Self {
        Self::new(NextHop::Agent(AgentHandle::new(name, agent)))
    }

    /// Returns `true` if no network carries its mail: it leads to an agent, or to Unix sockets.
    pub(crate) fn is_local(&self) -> bool {
        match &self.to {
            NextHop::Mx => false,
            NextHop::Hosts(hosts) => !hosts.is_empty() && hosts.iter().all(|(host, _)| socket(host).is_some()),
            NextHop::Agent(_) => true,
        }
    }

    /// The octets of its hosts. TLS, logins and agents are shared.
    pub(crate) fn octets(&self) -> usize {
        let NextHop::Hosts(hosts) = &self.to else { return size_of::<Self>() };
        let one = |(name, _): &(String, u16)| name.capacity();
        let slots = hosts.capacity().saturating_mul(size_of::<(String, u16)>());
        hosts.iter().map(one).fold(size_of::<Self>().saturating_add(slots), usize::saturating_add)
    }

    /// # Errors
    /// It has too many octets to be kept.
    pub(crate) fn check_size(&self) -> Result<(), RouteError> {
        let octets = self.octets();
        if octets <= MOST_OCTETS {
            return Ok(());
        }
        Err(format!("the route has {octets} octets of hosts, at most {MOST_OCTETS} are taken; name fewer hosts").into())
    }
}

/// By all but the TLS and the login, which have no hash.
impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to.hash(state);
        self.chunking.hash(state);
        self.protocol.hash(state);
    }
}

/// The path of a host that is a Unix socket. `None`: it is a name or an address literal.
pub(crate) fn socket(host: &str) -> Option<&str> {
    host.starts_with(UNIX).then(|| host.get(UNIX.len() - 1..)).flatten()
}

impl RouteTable {
    /// Makes a table without a route: no mail is taken.
    pub fn empty() -> Self {
        Self { routes: Vec::new(), indexes: DomainMap::default() }
    }

    /// Makes a table with one route for every domain.
    pub fn all(route: Route) -> Self {
        let mut table = Self::empty();
        table.push([DomainPattern::Any], route);
        table
    }

    /// Adds a route for these domains. It comes after the others.
    pub fn push(&mut self, domains: impl IntoIterator<Item = DomainPattern>, route: Route) {
        let index = self.routes.len();
        self.routes.push(Arc::new(route));
        domains.into_iter().for_each(|pattern| self.indexes.add(&pattern, index));
    }

    /// Returns `true` if there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route of a [canonical](crate::domains::canonical) name. `None`: no route matches.
    pub(crate) fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(self.indexes.find(name)?)
    }
}

/// One route: all domains by MX, without TLS.
impl Default for RouteTable {
    fn default() -> Self {
        Self::all(Route::new(NextHop::Mx))
    }
}

impl Routes for RouteTable {
    async fn find(&self, mail: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
        Ok(self.route(mail.domain).cloned())
    }
}
