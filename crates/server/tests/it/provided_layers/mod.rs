//! The layers of `posthaste_server::layers`: rows of what they decide, and conversations.

mod access;
mod block_list;
mod early_talkers;
mod greylist;
mod headers;
mod log;
#[cfg(feature = "metrics")]
mod metrics;
mod observed;
mod rate_limit;
mod received;
mod recipients;
mod tarpit;
mod together;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use posthaste_server::{
    Context, Envelope, Peer, PeerAddress, Service, Tls, converse,
    session::ServerSettings,
    wire::{Mail, Rcpt, ReversePath},
};
use posthaste_testkit::talk::Talk;
use tokio::{io::DuplexStream, time::Instant};

use crate::support;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A client at this address; `local` for one on a local socket.
pub(crate) fn peer(address: &str) -> Peer {
    let address = match address {
        "local" => PeerAddress::Local,
        address => SocketAddr::new(address.parse().unwrap(), 4_000).into(),
    };
    Peer::new(address, PeerAddress::Local)
}

/// The context of a client that has said MAIL; see [`peer`].
pub(crate) fn cx(address: &str) -> Context {
    let mut cx = Context::new(peer(address), support::settings().into());
    cx.envelope = Some(Envelope::from_commands(mail("me@sender.test"), Vec::new()));
    cx
}

/// The same of a client that has logged in.
pub(crate) fn user(address: &str, identity: &str) -> Context {
    let mut cx = cx(address);
    cx.peer.identity = Some(identity.to_owned());
    cx
}

/// MAIL of an address; empty for the null reverse-path.
pub(crate) fn mail(address: &str) -> Mail {
    if address.is_empty() { Mail::new(ReversePath::Null).into_owned() } else { address.try_into().unwrap() }
}

pub(crate) fn rcpt(address: &str) -> Rcpt {
    address.try_into().unwrap()
}

/// A conversation in memory with a client at an address.
pub(crate) fn talk_with<V: Service>(
    service: V,
    address: &str,
    settings: impl Into<Arc<ServerSettings>>,
) -> Talk<DuplexStream> {
    let (client, server) = tokio::io::duplex(1 << 16);
    let (peer, settings) = (peer(address), settings.into());
    tokio::spawn(async move { converse(server, peer, &service, settings, Tls::Off, std::future::pending()).await });
    Talk::new(client)
}

/// Asks, and returns the reply with the seconds until it.
pub(crate) async fn timed(talk: &mut Talk<DuplexStream>, line: &str) -> (String, u64) {
    let start = Instant::now();
    (talk.ask(line).await, start.elapsed().as_secs())
}

/// The reply of a decision, or `ok`.
pub(crate) fn said<T>(decision: Result<T, impl std::fmt::Display>) -> String {
    decision.map_or_else(|refusal| refusal.to_string(), |_| "ok".to_owned())
}
