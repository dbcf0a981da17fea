//! Routes: the next hop for mail.

use std::{
    error::Error,
    future::Future,
    hash::{Hash, Hasher},
    sync::Arc,
};

use posthaste_client::{Login, Protocol, Tls};
use posthaste_server::Refusal;

use crate::{
    Facts, Label, SourcePool,
    agent::{Agent, AgentHandle},
};

/// Finds the route of mail. [`RouteTable`](crate::RouteTable) does so in memory; an application's
/// own implementation may ask a database.
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
    /// [verdict](posthaste_server::Handler), and its time counts toward the verdict's timeout. Then
    /// the mail has [`facts`](RouteQuery::facts). If the route has a [`label`](Route::label), the
    /// mail is kept under the domain and that label.
    ///
    /// Before deliveries it is asked once for each domain and label, at most 64 times at once, and
    /// has 30 s. The answer serves their deliveries for a minute. So a change of routes applies to
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

    /// Returns `true` if a route may have a label. Then [`find`](Self::find) is asked with facts
    /// for mail of the application and for reports too, as each is queued. If it fails,
    /// [`Relay::submit`](crate::Relay::submit) fails, and a report goes to its domain's route.
    /// Default: `false`.
    fn gives_labels(&self) -> bool {
        false
    }
}

/// Why a route cannot be found now: any error, or a text.
pub type RouteError = Box<dyn Error + Send + Sync>;

/// The mail for which a route is wanted.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RouteQuery<'a> {
    /// The domain of its recipients, in lower case and A-labels, or their address literal.
    pub domain: &'a str,
    /// The [label](Route::label) of the route that was found as the mail was queued. `None`: that
    /// route had none, or the mail is not in the queue yet.
    pub label: Option<&'a str>,
    /// The facts, as the mail is to be queued. `None`: it is in the queue.
    pub facts: Option<Facts<'a>>,
}

/// A next hop, and how to talk to it.
///
/// Start from [`new`](Self::new) or [`hosts`](Self::hosts) and assign what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The next hop.
    pub to: NextHop,
    /// The TLS that connections use. Default: none, for [`NextHop::Mx`] too, since there is no
    /// configuration of TLS without a provider of cryptography. A relay to hosts of others should
    /// have [`Tls::Opportunistic`], which is what the relay program has by default.
    /// [`Identity::Verified`](posthaste_client::Identity::Verified) proves the identity of a host
    /// only if `to` names it. With [`NextHop::Mx`] the name came from DNS, so that a certificate
    /// proves nothing more: it counts as
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
    /// Where its connections come from. Unix sockets have no source. Default: from wherever the
    /// system says, under the relay's name.
    pub sources: Option<SourcePool>,
    /// The label under which the queue keeps the mail, so that a route that was found by more than
    /// the domain is found again. Set by [`RouteTable::push_rule`](crate::RouteTable::push_rule).
    /// Default: none.
    pub label: Option<Label>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NextHop {
    /// To the hosts that DNS names for the domain (RFC 5321 section 5.1). Domains with the same
    /// hosts share their connections and limits, whatever preferences they give them. The names
    /// count as long as the DNS says, from 30 s to an hour.
    Mx,
    /// To the first of these hosts that takes the mail, group by group. The next host is tried when
    /// one fails, or is not ready for mail after half a second; after twice that where a new group
    /// begins.
    ///
    /// A host that failed lately is tried last. So is one that refused a whole message for a reason
    /// of its own, and one that says nothing on any connection for 10 s. That lasts for 5 s, and
    /// for 15 s at most if it fails again. Then one message probes it. If it takes that, the
    /// connections to hosts of worse groups are given up bit by bit.
    ///
    /// A name that cannot be looked up is tried again later. Without any host, all mail of the
    /// route fails.
    ///
    /// A host such as `unix:/run/dovecot/lmtp` is a Unix socket of this machine, whatever its port.
    /// If all hosts are sockets, REQUIRETLS mail goes there too, as no network carries it.
    Hosts(Vec<HostGroup>),
    /// To an agent in this process: a handler of the application, or one of those in
    /// [`agent`](crate::agent).
    Agent(AgentHandle),
    /// Nowhere: RCPT gets this reply. Mail that is in the queue fails with its words, or waits if
    /// the reply is temporary.
    Refuse(Refusal),
    /// Nowhere: the mail is taken, and thrown away when its delivery is due. The sender hears
    /// nothing of it, [`Event::Discarded`](crate::Event::Discarded) tells.
    Discard,
    /// Nowhere for now: the mail is taken, and stays in the queue until it has another route. No
    /// attempt is made or counted meanwhile. It does not expire, and its sender hears nothing.
    ///
    /// A change of routes counts within a minute. Mail that is older than
    /// [`expire_after`](crate::RetrySchedule::expire_after) by then gets one attempt. A time of BY
    /// that was over by then is treated as it is for mail that no host takes.
    Hold,
}

/// Hosts of a route that share its load: each new connection draws one by weight, and goes to the
/// others if that one fails.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostGroup(pub Vec<WeightedHost>);

/// A host of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WeightedHost {
    /// Its name, in A-labels or U-labels, an address literal, or `unix:` with the path of a socket.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// How often it is drawn, in relation to the others of its group. Default 1. 0: only after all
    /// others of its group.
    pub weight: u16,
}

/// What the name of a host begins with that is a Unix socket.
const UNIX: &str = "unix:/";

/// The most octets of a route that an application has found. 8,192 sites may each keep one: 128
/// MiB. A delivery looks every host up.
const MOST_OCTETS: usize = 16 << 10;

impl Route {
    /// Makes a route [without TLS](Self::tls), and with BDAT to hosts that offer it.
    pub fn new(to: NextHop) -> Self {
        let (tls, protocol) = (Tls::default(), Protocol::Smtp);
        Self { to, tls, credentials: None, chunking: true, protocol, sources: None, label: None }
    }

    /// Makes a route to these hosts, in order, each with its port: [`NextHop::Hosts`] with a group
    /// for each.
    pub fn hosts<H: Into<String>>(hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        let alone = |(name, port)| HostGroup(vec![WeightedHost::new(name, port)]);
        Self::new(NextHop::Hosts(hosts.into_iter().map(alone).collect()))
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
            NextHop::Mx | NextHop::Refuse(_) | NextHop::Discard | NextHop::Hold => false,
            NextHop::Hosts(groups) => {
                let mut hosts = groups.iter().flat_map(|HostGroup(hosts)| hosts).peekable();
                hosts.peek().is_some() && hosts.all(|host| socket(&host.name).is_some())
            }
            NextHop::Agent(_) => true,
        }
    }

    /// The octets of its hosts. TLS, logins and agents are shared.
    pub(crate) fn octets(&self) -> usize {
        let sources = self.sources.as_ref().map_or(0, SourcePool::octets);
        let own = size_of::<Self>().saturating_add(sources);
        let NextHop::Hosts(groups) = &self.to else { return own };
        let slots = |count: usize, size: usize| count.saturating_mul(size);
        let mut octets = own.saturating_add(slots(groups.capacity(), size_of::<HostGroup>()));
        for HostGroup(hosts) in groups {
            octets = octets.saturating_add(slots(hosts.capacity(), size_of::<WeightedHost>()));
            octets = hosts.iter().map(|host| host.name.capacity()).fold(octets, usize::saturating_add);
        }
        octets
    }

    /// The same without a label. Routes that differ in that alone share a site.
    pub(crate) fn without_label(route: Arc<Self>) -> Arc<Self> {
        match route.label {
            None => route,
            Some(_) => Arc::new(Self { label: None, ..Self::clone(&route) }),
        }
    }

    /// # Errors
    /// It has too many octets to be kept.
    pub(crate) fn check_size(&self) -> Result<(), RouteError> {
        let octets = self.octets();
        if octets <= MOST_OCTETS {
            return Ok(());
        }
        Err(format!("the route has {octets} octets of hosts and sources, at most {MOST_OCTETS} are taken; name fewer")
            .into())
    }
}

/// By all but the TLS, the login and the label.
impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to.hash(state);
        self.chunking.hash(state);
        self.protocol.hash(state);
        self.sources.hash(state);
    }
}

/// The path of a host that is a Unix socket. `None`: it is a name or an address literal.
pub(crate) fn socket(host: &str) -> Option<&str> {
    host.starts_with(UNIX).then(|| host.get(UNIX.len() - 1..)).flatten()
}

impl WeightedHost {
    /// Makes a host of weight 1.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self { name: name.into(), port, weight: 1 }
    }
}

impl<'a> RouteQuery<'a> {
    /// Makes the question for mail that is to be queued, for a recipient of this domain.
    pub const fn new(domain: &'a str, facts: Facts<'a>) -> Self {
        Self { domain, label: None, facts: Some(facts) }
    }

    /// Makes the question for mail that is in the queue.
    pub const fn queued(domain: &'a str, label: Option<&'a str>) -> Self {
        Self { domain, label, facts: None }
    }
}
