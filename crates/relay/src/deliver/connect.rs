//! Connects to the address of a host, up to the first transaction.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use posthaste_client::{
    Client, ClientError, ClientOptions, ConnectError, Identity, Tls, connect,
    session::{
        ClientSettings,
        client::{ClientTimeouts, downgrade::Undeliverable},
    },
};
use posthaste_server::wire::{EhloName, EnhancedCode, capability::Keyword};

use super::{
    flow::{Flow, GaveUp, Metered, Pulse},
    health::Health,
    lookup::Found,
    site::Unreachable,
};
use crate::{Diagnostic, NextHop, Route, shared::Shared};

/// How long to wait for a connection, and for the greeting on it, if there is another address to
/// try. It is longer than the few seconds by which servers delay a greeting to expose impatient
/// clients. It is far below the time of RFC 5321 section 4.5.3.2, which the last address gets.
const GREETING: Duration = Duration::from_secs(8);
/// How long to wait there for each other reply before the content.
const REPLY: Duration = Duration::from_secs(60);

/// A connection to a server, kept for the next message of its site.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client<Metered>,
    /// The host's name, for reports and logs.
    pub(super) host: String,
    pub(super) server: SocketAddr,
    /// TLS has proved the host's identity.
    pub(super) verified: bool,
    pub(super) pulse: Arc<Pulse>,
}

impl Connected {
    /// Sends QUIT and closes the connection.
    pub(super) async fn close(self) {
        self.client.quit().await;
    }
}

/// An address of a host, to be tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'f> {
    pub(super) host: &'f str,
    pub(super) server: SocketAddr,
    /// No other address follows.
    pub(super) is_last: bool,
}

/// The addresses in the order in which they are tried: in the order of the hosts, but with servers
/// that failed lately at the end. `except` is left out.
pub(super) fn targets<'f>(found: &'f Found, health: &Health, except: Option<SocketAddr>) -> Vec<Target<'f>> {
    let hosts = found.hosts.iter();
    let all = hosts.flat_map(|host| {
        let addresses = host.addresses.iter();
        addresses.map(|address| (SocketAddr::new(*address, host.port), host.name.as_str()))
    });
    let mut targets: Vec<_> = all.filter(|(server, _)| Some(*server) != except).collect();
    if targets.len() > 1 {
        targets.sort_by_cached_key(|(server, _)| health.is_sick(*server));
    }
    let last = targets.len().saturating_sub(1);
    let targets = targets.into_iter().enumerate();
    targets.map(|(index, (server, host))| Target { host, server, is_last: index == last }).collect()
}

/// How to talk to a server.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) tls: Tls,
    /// TLS must prove the server's identity, and the server must offer REQUIRETLS.
    pub(super) guarded: bool,
    /// Content goes by BDAT if the server offers CHUNKING.
    pub(super) chunking: bool,
}

impl Way {
    /// The usual way of a route; `guarded` if the message asks for it.
    pub(super) fn of<Q, R>(shared: &Shared<Q, R>, route: &Route, guarded: bool) -> Result<Self, Unreachable> {
        let tls = match &route.to {
            _ if guarded => guard(shared, route)?,
            NextHop::Hosts(_) => route.tls.clone(),
            NextHop::Mx => route.tls.clone().unproven(),
        };
        Ok(Self { tls, guarded, chunking: route.chunking })
    }

    pub(super) fn may_go_in_clear(&self) -> bool {
        !self.guarded && matches!(self.tls, Tls::Opportunistic(_))
    }

    /// The same way, without what failed with this server lately.
    pub(super) fn to(&self, server: SocketAddr, health: &Health) -> Self {
        let mut way = self.clone();
        if way.may_go_in_clear() && health.breaks_tls(server) {
            way.tls = Tls::Off;
        }
        way.chunking &= !health.breaks_chunking(server);
        way
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) why: Unreachable,
    /// The server failed. `false`: the configuration or the message's guard rules it out.
    pub(super) is_servers: bool,
    /// A connection without TLS may work.
    pub(super) suggests_clear: bool,
}

/// Opens a connection on which a transaction can begin.
pub(super) async fn open<Q, R>(
    shared: &Shared<Q, R>,
    flow: &mut Flow<'_>,
    target: Target<'_>,
    way: &Way,
) -> Result<Connected, NotConnected> {
    let Target { host, server, .. } = target;
    if shared.listeners.are_reached_at(server, None) {
        return Err(comes_back(host));
    }
    let pulse = Arc::new(Pulse::default());
    match flow.run(&pulse, start(shared, target, way, Arc::clone(&pulse))).await {
        Ok(Ok(client)) if way.guarded && !client.capabilities().offers(Keyword::RequireTls) => {
            client.quit().await;
            let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 30), Undeliverable::RequireTls);
            Err(NotConnected::own(host, diagnostic, true))
        }
        Ok(Ok(client)) => Ok(Connected { client, host: host.to_owned(), server, verified: way.guarded, pulse }),
        Ok(Err(NoStart::ComesBack)) => Err(comes_back(host)),
        Ok(Err(NoStart::Connect(error))) if way.guarded && is_unguarded(&error) => {
            let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 10), error);
            Err(NotConnected::own(host, diagnostic, true))
        }
        // A host that refuses the session may take it later, and another host may take it now.
        Ok(Err(NoStart::Connect(error))) => Err(NotConnected {
            why: Unreachable { diagnostic: Diagnostic::connect(host, &error), is_permanent: false },
            is_servers: true,
            suggests_clear: error.suggests_clear(),
        }),
        Err(gave_up) => Err(NotConnected {
            why: Unreachable { diagnostic: given_up(host, gave_up), is_permanent: false },
            is_servers: true,
            suggests_clear: false,
        }),
    }
}

/// The diagnostic for a server that was given up.
pub(super) fn given_up(host: &str, gave_up: GaveUp) -> Diagnostic {
    Diagnostic::lost(
        host,
        match gave_up {
            GaveUp::TooLong => &"the time of one attempt was over before there was an answer",
            GaveUp::Silent => &"the server was silent while other mail waited",
        },
    )
}

impl NotConnected {
    fn own(host: &str, diagnostic: Diagnostic, is_permanent: bool) -> Self {
        let diagnostic = Diagnostic { remote: Some(host.to_owned()), ..diagnostic };
        Self { why: Unreachable { diagnostic, is_permanent }, is_servers: false, suggests_clear: false }
    }
}

/// The server is this relay: mail would loop until its hops are counted.
fn comes_back(host: &str) -> NotConnected {
    let text = "the next hop is this relay itself, which has no other way for the mail";
    NotConnected::own(host, Diagnostic::own(EnhancedCode::new(5, 4, 6), text), true)
}

#[derive(Debug)]
enum NoStart {
    Connect(ConnectError),
    ComesBack,
}

impl From<ConnectError> for NoStart {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

async fn start<Q, R>(
    shared: &Shared<Q, R>,
    target: Target<'_>,
    way: &Way,
    pulse: Arc<Pulse>,
) -> Result<Client<Metered>, NoStart> {
    let Target { host, server, is_last } = target;
    let delivery = &shared.options.delivery;
    let hello: EhloName = match shared.options.host_name.as_str().parse() {
        Ok(name) => name,
        // Every domain is a valid EHLO name.
        Err(_) => return Err(ConnectError::NoAddress.into()),
    };
    let mut timeouts = delivery.timeouts.clone();
    let mut connect_timeout = delivery.connect_timeout;
    if !is_last {
        hurry(&mut timeouts);
        connect_timeout = connect_timeout.min(GREETING);
    }
    let mut session = ClientSettings::default();
    session.timeouts = timeouts;
    session.chunking = way.chunking;
    let mut options = ClientOptions::new(hello);
    (options.session, options.tls) = (session, way.tls.clone());
    let stream = connect(&[server.ip()], server.port(), connect_timeout).await?;
    let local: Option<IpAddr> = stream.local_addr().ok().map(|local| local.ip());
    if shared.listeners.are_reached_at(server, local) {
        return Err(NoStart::ComesBack);
    }
    Ok(Client::start(Metered::new(stream, pulse), host, &options).await?)
}

/// Shortens the waits before the content.
fn hurry(timeouts: &mut ClientTimeouts) {
    let ClientTimeouts { greeting, command, mail, rcpt, data, .. } = timeouts;
    *greeting = (*greeting).min(GREETING);
    for reply in [command, mail, rcpt, data] {
        *reply = (*reply).min(REPLY);
    }
}

/// TLS that proves the identity of the next hop, for hosts that the configuration names. Names from
/// DNS prove nothing without DNSSEC or MTA-STS (RFC 8689 section 4.2.1), which the relay does not
/// use.
fn guard<Q, R>(shared: &Shared<Q, R>, route: &Route) -> Result<Tls, Unreachable> {
    match (&route.to, &shared.options.delivery.verified_tls) {
        (NextHop::Hosts(_), Some(config)) => {
            let identity = Identity::Verified(Arc::clone(config));
            Ok(if matches!(route.tls, Tls::Implicit(_)) { Tls::Implicit(identity) } else { Tls::Required(identity) })
        }
        _ => {
            let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 10), Undeliverable::Unverified);
            Err(Unreachable { diagnostic, is_permanent: true })
        }
    }
}

/// Returns `true` if TLS is missing or proves nothing, and `false` if the network failed.
fn is_unguarded(error: &ConnectError) -> bool {
    match error {
        ConnectError::TlsUnavailable | ConnectError::TlsName(_) => true,
        // rustls reports all that it rejects by this kind.
        ConnectError::Tls(ClientError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}
