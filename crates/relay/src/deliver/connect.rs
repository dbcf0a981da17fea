//! From a host's address to a connection that takes messages.

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

/// How long is waited for a connection, and for the greeting on it, where there is another address
/// to try. Longer than the few seconds by which servers put off those that cannot wait, and far
/// below the time of RFC 5321 section 4.5.3.2, which the last address has.
const GREETING: Duration = Duration::from_secs(8);
/// How long is waited there for any other reply before the content.
const REPLY: Duration = Duration::from_secs(60);

/// A connection to a server, kept for the next message of its site.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client<Metered>,
    /// The host's name, for reports and logs.
    pub(super) host: String,
    pub(super) server: SocketAddr,
    /// Whether TLS has proved who the host is.
    pub(super) verified: bool,
    pub(super) pulse: Arc<Pulse>,
}

impl Connected {
    /// Says good-bye.
    pub(super) async fn close(self) {
        self.client.quit().await;
    }
}

/// An address of a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'f> {
    pub(super) host: &'f str,
    pub(super) server: SocketAddr,
    /// Another one comes behind it.
    pub(super) is_last: bool,
}

/// The addresses in the order in which they are to be tried: that of the hosts, but for those that
/// failed lately, which come last.
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

/// In which way a server is talked to.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) tls: Tls,
    /// The connection must prove who the server is, and the server must promise the same of the
    /// next.
    pub(super) guarded: bool,
    /// Content goes by BDAT where it may.
    pub(super) chunking: bool,
}

impl Way {
    /// The usual way of a route; `guarded` where the message asks for it.
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

    /// As it was told to, without what did not work with this server.
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
    /// It is the server that failed, and not the configuration.
    pub(super) is_servers: bool,
    /// It may work without TLS.
    pub(super) suggests_clear: bool,
}

/// Opens a connection, on which a transaction can begin.
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
        // A host that does not want to talk to us may want to later, and another may now.
        Ok(Err(NoStart::Connect(error))) => Err(NotConnected {
            why: Unreachable { diagnostic: Diagnostic::connect(host, &error), for_good: false },
            is_servers: true,
            suggests_clear: error.suggests_clear(),
        }),
        Err(gave_up) => Err(NotConnected {
            why: Unreachable { diagnostic: given_up(host, gave_up), for_good: false },
            is_servers: true,
            suggests_clear: false,
        }),
    }
}

/// What is said of a server that was given up.
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
    fn own(host: &str, diagnostic: Diagnostic, for_good: bool) -> Self {
        let diagnostic = Diagnostic { remote: Some(host.to_owned()), ..diagnostic };
        Self { why: Unreachable { diagnostic, for_good }, is_servers: false, suggests_clear: false }
    }
}

/// The server is this relay: mail would go in a circle until its hops are counted.
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
        // A domain is a name; this cannot be.
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

/// TLS that proves who the next hop is: for hosts that the configuration names. Those that DNS
/// names could be anybody's without DNSSEC or MTA-STS (RFC 8689 section 4.2.1), which the relay
/// does not ask for.
fn guard<Q, R>(shared: &Shared<Q, R>, route: &Route) -> Result<Tls, Unreachable> {
    match (&route.to, &shared.options.delivery.verified_tls) {
        (NextHop::Hosts(_), Some(config)) => {
            let identity = Identity::Verified(Arc::clone(config));
            Ok(if matches!(route.tls, Tls::Implicit(_)) { Tls::Implicit(identity) } else { Tls::Required(identity) })
        }
        _ => {
            let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 10), Undeliverable::Unverified);
            Err(Unreachable { diagnostic, for_good: true })
        }
    }
}

/// Whether it is TLS that is missing or proves nothing, and not the network.
fn is_unguarded(error: &ConnectError) -> bool {
    match error {
        ConnectError::TlsUnavailable | ConnectError::TlsName(_) => true,
        // As rustls tells whatever it does not like.
        ConnectError::Tls(ClientError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}
