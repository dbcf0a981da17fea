//! Sources: the local addresses and names that connections to next hops come from.

use std::{
    hash::{Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use posthaste_client::{Server, Target, Tcp, tls::ClientCertificate};
use posthaste_server::wire::Domain;

use crate::{Diagnostic, Rate, WarmUp};

/// Where connections come from. Make it with [`Source::new`], then assign fields.
///
/// A source with an address of one family alone reaches no host of the other. One without an
/// address leaves the choice to the system.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Source {
    /// Its name, for the log and for [`Relay::resting_sources`](crate::Relay::resting_sources).
    /// Sources with the same name and addresses rest together.
    pub name: String,
    /// The address from which connections to IPv4 addresses come. Default: none.
    pub v4: Option<Ipv4Addr>,
    /// The same for connections to IPv6 addresses. Default: none.
    pub v6: Option<Ipv6Addr>,
    /// The name in its EHLO. Default: the relay's
    /// [`host_name`](crate::RelayOptions::host_name).
    pub hello: Option<Domain>,
    /// How many messages it sends on its first days. Beyond that it is passed over, and where all
    /// sources of a route are, mail waits and is tried again as after a refusal. Default: any
    /// number.
    pub warm_up: Option<WarmUp>,
    /// Messages in a time, over all sites. Beyond that it is passed over, and while all sources of
    /// a route are, mail waits without an attempt. A message counts as in
    /// [`WarmUp::days`](crate::WarmUp::days). Default: any number.
    /// [`SiteLimits::per_source`](crate::SiteLimits::per_source) is for single sites.
    pub messages: Option<Rate>,
    /// The certificate that its connections show to servers that ask for one. It changes nothing of
    /// what servers have to prove. Default: that of the route's TLS, which is none as a rule.
    pub certificate: Option<ClientCertificate>,
}

impl Source {
    /// Makes a source without an address, under the relay's name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), v4: None, v6: None, hello: None, warm_up: None, messages: None, certificate: None }
    }

    /// Returns `true` if it has an address of the server's family, or leaves that to the system.
    pub(crate) const fn reaches(&self, server: &Server) -> bool {
        match server {
            Server::Address(SocketAddr::V4(_)) => self.v4.is_some() || self.v6.is_none(),
            Server::Address(SocketAddr::V6(_)) => self.v6.is_some() || self.v4.is_none(),
            _ => true,
        }
    }

    /// Why it cannot reach a server.
    pub(crate) fn why_not_reached(&self, server: &Server) -> String {
        let family = if matches!(server, Server::Address(SocketAddr::V6(_))) { "IPv6" } else { "IPv4" };
        format!("source {} has no {family} address from which it could reach {server}", self.name)
    }

    /// Why it can reach none of these servers. `None`: it reaches one, or there is none.
    pub(crate) fn why_not_to(&self, targets: &[Target]) -> Option<String> {
        let first = targets.first()?;
        let reaches_one = targets.iter().any(|target| self.reaches(&target.server));
        (!reaches_one).then(|| self.why_not_reached(&first.server))
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6)).collect()
    }

    pub(crate) fn tcp(&self) -> Tcp {
        let mut tcp = Tcp::default();
        (tcp.source_v4, tcp.source_v6) = (self.v4, self.v6);
        tcp
    }

    /// An address that this machine does not have.
    pub(crate) fn missing(&self) -> Option<IpAddr> {
        let addresses = [self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6)];
        let is_missing = |address: &IpAddr| {
            let bound = UdpSocket::bind(SocketAddr::new(*address, 0));
            bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
        };
        addresses.into_iter().flatten().find(is_missing)
    }
}

/// Sources that share the connections of a route: each new connection draws one by weight.
///
/// A source rests at a site for an hour if the site blocks its address. That is a refusal of the
/// connection or of EHLO, or a later one with words about a blocked address. Mail that is refused
/// later is tried again from the others, or waits if there are none.
///
/// A source is passed over while it rests at the site, and if it has no address of the family of
/// any server. It is passed over for a minute if this machine does not have one of its addresses;
/// new [options](crate::Relay::reload) end that minute. If all are passed over, mail is tried again
/// later, with the reason.
///
/// A source that has no room within its limits is passed over too. If no other is left, mail waits
/// until one has room, and no attempt is counted. A connection is used again for mail of equal
/// routes alone, and so for the same pool.
///
/// ```
/// use posthaste_relay::{NextHop, Route, Source, SourcePool};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut first = Source::new("first");
/// first.v4 = Some([192, 0, 2, 1].into());
/// first.hello = Some("out1.example.org".parse()?);
/// let mut second = Source::new("second");
/// second.v4 = Some([192, 0, 2, 2].into());
/// let mut bulk = Route::new(NextHop::Mx);
/// bulk.sources = Some(SourcePool::new([(first, 3), (second, 1)]));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePool(Arc<[(Arc<Source>, u16)]>);

impl SourcePool {
    /// Makes a pool of sources, each with how often it is drawn in relation to the others. Weight
    /// 0: only while all others are passed over. Without a source, all mail of the route waits.
    pub fn new(sources: impl IntoIterator<Item = (Source, u16)>) -> Self {
        Self(sources.into_iter().map(|(source, weight)| (Arc::new(source), weight)).collect())
    }

    /// The octets that it takes.
    pub(crate) fn octets(&self) -> usize {
        let each = |(source, _): &(Arc<Source>, u16)| {
            let hello = source.hello.as_ref().map_or(0, |hello| hello.as_str().len());
            let days = source.warm_up.as_ref().map_or(0, WarmUp::octets);
            let certificate = source.certificate.as_ref().map_or(0, ClientCertificate::octets);
            let parts = [source.name.capacity(), hello, days, certificate];
            parts.into_iter().fold(size_of::<Source>(), usize::saturating_add)
        };
        self.0.iter().map(each).fold(0, usize::saturating_add)
    }

    /// Returns `true` if one of them has a rate.
    pub(crate) fn is_limited(&self) -> bool {
        self.sources().any(|source| source.messages.is_some())
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.iter().map(|(source, _)| source)
    }

    /// Draws one of those that `may` be used.
    pub(crate) fn draw(&self, random: &mut Rng, may: impl Fn(&Source) -> bool) -> Option<Arc<Source>> {
        let able: Vec<_> = self.0.iter().filter(|(source, _)| may(source)).collect();
        let total: u64 = able.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if total == 0 {
            return random.choice(able).map(|(source, _)| Arc::clone(source));
        }
        let mut left = random.u64(..total);
        let drawn = able.into_iter().find(|(_, weight)| match left.checked_sub(u64::from(*weight)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        drawn.map(|(source, _)| Arc::clone(source))
    }
}

impl Hash for SourcePool {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.len().hash(state);
    }
}

/// A source that is passed over for now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestingSource {
    /// Its name.
    pub source: String,
    /// The [name](crate::SiteState::name) of the site that has blocked it. `None`: this machine
    /// does not have one of its addresses.
    pub site: Option<String>,
    /// The time until it is used again.
    pub left: Duration,
    /// The words of the site, or the address.
    pub why: Diagnostic,
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::SystemTime};

    use super::*;

    /// The bound on what an application's route keeps counts them.
    #[test]
    fn all_that_a_pool_keeps_is_counted() {
        let mut source = Source::new("a");
        let octets = |source: &Source| SourcePool::new([(source.clone(), 1)]).octets();
        let before = octets(&source);
        source.warm_up = Some(WarmUp::new(SystemTime::now(), [1; 100]));
        source.hello = Some("a.test".parse().unwrap());
        assert!(octets(&source) >= before + 406, "{before} {}", octets(&source));
    }

    #[test]
    fn sources_are_drawn_by_weight_among_those_that_may_be_used() {
        let pool = SourcePool::new([("a", 3), ("b", 1), ("c", 0)].map(|(name, weight)| (Source::new(name), weight)));
        let drawn = |out: &str| {
            let (mut random, mut drawn) = (Rng::with_seed(7), HashMap::new());
            for _ in 0..4_000 {
                let source = pool.draw(&mut random, |source| !out.contains(&source.name)).unwrap();
                *drawn.entry(source.name.clone()).or_insert(0) += 1;
            }
            drawn
        };
        let all = drawn("");
        assert!((2_800..3_200).contains(&all["a"]) && all["a"] + all["b"] == 4_000, "{all:?}");
        assert_eq!((drawn("a")["b"], drawn("ab")["c"]), (4_000, 4_000));
        assert!(pool.draw(&mut Rng::with_seed(7), |_| false).is_none());
    }
}
