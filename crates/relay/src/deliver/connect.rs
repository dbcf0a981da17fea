//! Connects to the address of a host, up to the first transaction.

use std::{io, sync::Arc, time::Duration};

use posthaste_client::{
    Client, ClientError, ClientOptions, ConnectError, Dial, Health, Identity, Login, Protocol, Server, Tcp, Tls,
    delivery::Keep, mx::Demand, session::client::downgrade::Undeliverable,
};
use posthaste_server::wire::{EnhancedCode, capability::Keyword};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    egress::Seat,
    flow::{GaveUp, Metered, Pulse, Wire},
    site::Unreachable,
};
use crate::{
    Diagnostic, NextHop, RelayOptions, Route, Source,
    shared::{Listeners, Shared},
};

/// A connection to a server, kept for the next message of its site.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) client: Client<Metered>,
    /// TLS has proved the host's identity.
    pub(super) verified: bool,
    /// What it was made for. `None`: it is not known, and the connection suits no published policy.
    pub(super) demand: Option<Demand>,
    /// No host of the site is preferred to its host.
    pub(super) is_best: bool,
    pub(super) pulse: Arc<Pulse>,
    /// Where it comes from. `None`: the route has no sources.
    pub(super) seat: Option<Arc<Seat>>,
    /// The options by which it was made. By others it is not used.
    pub(super) options: Arc<RelayOptions>,
}

impl Connected {
    /// The source that it comes from.
    pub(super) fn from(&self) -> Option<&Source> {
        self.seat.as_ref().map(|seat| &*seat.source)
    }
}

impl Keep for Connected {
    fn is_usable(&mut self) -> bool {
        self.client.is_usable()
    }

    async fn close(self) {
        self.client.quit().await;
    }
}

/// How to talk to a server.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) tls: Tls,
    /// TLS must prove the server's identity, and the server must offer REQUIRETLS.
    pub(super) guarded: bool,
    /// Content goes by BDAT if the server offers CHUNKING.
    pub(super) chunking: bool,
    /// Where the connections come from. `None`: from wherever the system says.
    pub(super) seat: Option<Arc<Seat>>,
    credentials: Option<Login>,
    protocol: Protocol,
    is_by_mx: bool,
}

impl Way {
    /// The usual way of a route; `guarded` if the message asks for it.
    pub(super) fn of(options: &RelayOptions, route: &Route, guarded: bool) -> Result<Self, Unreachable> {
        let tls = match &route.to {
            NextHop::Hosts(_) if guarded => guard(options, route)?,
            NextHop::Hosts(_) | NextHop::Agent(_) => route.tls.clone(),
            // Each target has its own if the domain publishes a policy.
            NextHop::Mx => route.tls.clone().unproven(),
            // They have no host.
            NextHop::Refuse(_) | NextHop::Discard | NextHop::Hold => Tls::Off,
        };
        let is_by_mx = route.to == NextHop::Mx;
        let credentials = route.credentials.clone().filter(|_| !is_by_mx);
        let protocol = if is_by_mx { Protocol::Smtp } else { route.protocol };
        Ok(Self { tls, guarded, chunking: route.chunking, seat: None, credentials, protocol, is_by_mx })
    }

    /// The options of connections in this way.
    pub(super) fn options<Q, R>(&self, shared: &Shared<Q, R>, own: &RelayOptions) -> Arc<ClientOptions> {
        let delivery = &own.delivery;
        let hello = self.from().and_then(|source| source.hello.as_ref());
        let mut options = ClientOptions::new(hello.unwrap_or(&own.host_name).clone().into());
        options.connect_timeout = delivery.connect_timeout;
        options.session.timeouts = delivery.timeouts.clone();
        options.session.chunking = self.chunking;
        options.protocol = self.protocol;
        options.tls = self.shown(&self.tls);
        options.credentials = self.credentials.clone();
        options.health = self.health(shared);
        Arc::new(options)
    }

    /// The source of the connections.
    pub(super) fn from(&self) -> Option<&Source> {
        self.seat.as_ref().map(|seat| &*seat.source)
    }

    /// This TLS, with the certificate of the source.
    pub(super) fn shown(&self, tls: &Tls) -> Tls {
        let certificate = self.from().and_then(|source| source.certificate.as_ref());
        certificate.map_or_else(|| tls.clone(), |certificate| tls.showing(certificate))
    }

    /// What is remembered of the servers of this way.
    pub(super) fn health<Q, R>(&self, shared: &Shared<Q, R>) -> Health {
        health(shared, self.is_by_mx, self.guarded)
    }
}

/// What is remembered of servers. What one lacks for guarded mail says nothing of other mail.
pub(super) fn health<Q, R>(shared: &Shared<Q, R>, is_by_mx: bool, guarded: bool) -> Health {
    let health = if guarded { &shared.guarded_health } else { &shared.health };
    match is_by_mx {
        true => health.clone(),
        false => health.with_times(CHOSEN_LAST_FOR, CHOSEN_LAST_AT_MOST),
    }
}

/// How long a host that a route names comes last after its first failure. Its operator wants it
/// back within half a minute.
const CHOSEN_LAST_FOR: Duration = Duration::from_secs(5);
/// The same at most.
const CHOSEN_LAST_AT_MOST: Duration = Duration::from_secs(15);

impl Way {
    /// Why there is no connection to a host.
    pub(super) fn why_not(&self, host: &str, error: &ConnectError) -> Unreachable {
        if let ConnectError::Tcp { error, .. } = error
            && error.get_ref().is_some_and(|error| error.is::<ComesBack>())
        {
            return why_back(host);
        }
        if self.guarded && is_unguarded(error) {
            return own(host, Diagnostic::own(EnhancedCode::new(5, 7, 10), error));
        }
        // A host that refuses the session may take it later, and another host may take it now.
        Unreachable { diagnostic: Diagnostic::connect(host, error), is_permanent: false }
    }

    /// Why a server that is ready may not get the message. `None`: it may.
    pub(super) fn rules_out<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        client: &Client<S>,
    ) -> Option<Unreachable> {
        let lacks = self.guarded && !client.capabilities().offers(Keyword::RequireTls);
        lacks.then(|| own(host, Diagnostic::own(EnhancedCode::new(5, 7, 30), Undeliverable::RequireTls)))
    }
}

/// The reason against a server that is this relay.
pub(super) fn why_back(host: &str) -> Unreachable {
    own(host, Diagnostic::own(EnhancedCode::new(5, 4, 6), ComesBack))
}

/// A reason that lies with the configuration or with the message's guard.
fn own(host: &str, why: Diagnostic) -> Unreachable {
    Unreachable { diagnostic: Diagnostic { remote: Some(host.to_owned()), ..why }, is_permanent: true }
}

/// Dials the servers of one attempt. Its connections share a pulse.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    pub(super) listeners: Listeners,
    pub(super) pulse: Arc<Pulse>,
    pub(super) tcp: Tcp,
}

/// The server is this relay: mail would loop until its hops are counted.
#[derive(Debug, Error)]
#[error("the next hop is this relay itself, which has no other way for the mail")]
struct ComesBack;

impl Dial for Dialer {
    type Stream = Metered;

    async fn dial(&self, server: &Server) -> io::Result<Metered> {
        #[cfg(unix)]
        if matches!(server, Server::Path(_)) {
            let stream = posthaste_client::Unix.dial(server).await?;
            return Ok(Metered::new(Wire::Unix(stream), Arc::clone(&self.pulse)));
        }
        let stream = self.tcp.dial(server).await?;
        let local = stream.local_addr().ok().map(|local| local.ip());
        if self.listeners.are_reached_at(server, local) {
            return Err(io::Error::other(ComesBack));
        }
        Ok(Metered::new(Wire::Tcp(stream), Arc::clone(&self.pulse)))
    }
}

/// The diagnostic for a server that was given up.
pub(super) fn given_up(host: &str, gave_up: GaveUp) -> Diagnostic {
    Diagnostic::lost(host, &gave_up)
}

/// TLS that proves the identity of a host that the configuration names.
fn guard(options: &RelayOptions, route: &Route) -> Result<Tls, Unreachable> {
    if route.tls.is_verified() {
        return Ok(route.tls.clone());
    }
    let config = options.delivery.verified_tls.as_ref().ok_or_else(unverified)?;
    let identity = Identity::Verified(Arc::clone(config));
    Ok(if matches!(route.tls, Tls::Implicit(_)) { Tls::Implicit(identity) } else { Tls::Required(identity) })
}

/// No TLS can prove the identity of a host. Names from DNS prove nothing without DNSSEC or MTA-STS
/// (RFC 8689 section 4.2.1).
pub(super) fn unverified() -> Unreachable {
    let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 10), Undeliverable::Unverified);
    Unreachable { diagnostic, is_permanent: true }
}

/// Returns `true` if the TLS that was demanded is the reason.
pub(super) const fn is_of_tls(error: &ConnectError) -> bool {
    use ConnectError::{OpportunisticTls, Tls, TlsName, TlsUnavailable};
    matches!(error, TlsUnavailable | TlsName(_) | Tls(_) | OpportunisticTls(_))
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
