//! Sources: the local addresses and names that connections to next hops come from.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fastrand::Rng;
use posthaste_client::{Server, Tcp};
use posthaste_server::wire::{Domain, EnhancedCode};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{Diagnostic, WarmUp, warm_up::Ledger};

/// How long a source rests at a site that has blocked it.
const BLOCKED_FOR: Duration = Duration::from_secs(3_600);
/// How long a source is left aside whose address this machine does not have.
const UNBINDABLE_FOR: Duration = Duration::from_secs(60);
/// The most rests. Beyond it a source that a site blocks is asked again with the next mail.
const RESTS: usize = 8_192;

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
}

impl Source {
    /// Makes a source without an address, under the relay's name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), v4: None, v6: None, hello: None, warm_up: None }
    }

    /// Returns `true` if it has an address of the server's family, or leaves that to the system.
    pub(crate) fn reaches(&self, server: &Server) -> bool {
        match server {
            _ if self.v4.is_none() && self.v6.is_none() => true,
            Server::Address(SocketAddr::V4(_)) => self.v4.is_some(),
            Server::Address(SocketAddr::V6(_)) => self.v6.is_some(),
            _ => true,
        }
    }

    fn who(&self) -> Who {
        Who { name: self.name.clone(), v4: self.v4, v6: self.v6 }
    }

    pub(crate) fn tcp(&self) -> Tcp {
        let mut tcp = Tcp::default();
        (tcp.source_v4, tcp.source_v6) = (self.v4, self.v6);
        tcp
    }

    /// An address that this machine does not have.
    fn missing(&self) -> Option<IpAddr> {
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
/// later is tried again from the others.
///
/// A source is passed over while it rests at the site, and for a minute if this machine does not
/// have one of its addresses. If all are passed over, mail waits, with the reason. A connection is
/// used again for mail of equal routes alone, and so for the same pool.
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

    /// Returns `true` if there is more than one.
    pub(crate) fn has_others(&self) -> bool {
        self.0.len() > 1
    }

    /// The octets that it takes.
    pub(crate) fn octets(&self) -> usize {
        let each = |(source, _): &(Arc<Source>, u16)| {
            let hello = source.hello.as_ref().map_or(0, |hello| hello.as_str().len());
            let days = source.warm_up.as_ref().map_or(0, WarmUp::octets);
            size_of::<Source>().saturating_add(source.name.capacity()).saturating_add(hello).saturating_add(days)
        };
        self.0.iter().map(each).fold(0, usize::saturating_add)
    }

    /// Draws one of those that `may` be used.
    fn draw(&self, random: &mut Rng, may: impl Fn(&Source) -> bool) -> Option<Arc<Source>> {
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

/// A source that rests.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Who {
    name: String,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

/// A source, and the site at which it rests. `None`: everywhere.
type Where = (Who, Option<String>);

/// The sources that rest: until when, and why.
#[derive(Debug, Default)]
pub(crate) struct Rests(Mutex<HashMap<Where, (Instant, Diagnostic)>>);

impl Rests {
    /// Draws a source for a connection to a site. The message is counted in its warm-up: if it does
    /// not leave, call [`Ledger::give_back`].
    ///
    /// # Errors
    /// All are passed over.
    pub(crate) fn draw(
        &self,
        pool: &SourcePool,
        ledger: &Ledger,
        site: &str,
        random: &mut Rng,
    ) -> Result<Arc<Source>, Diagnostic> {
        let (mut tried, now) = (pool.0.len(), SystemTime::now());
        let may = |source: &Source| self.why(source, site).is_none() && ledger.spent(source, now).is_none();
        while let Some(source) = pool.draw(random, may) {
            let Some(address) = source.missing() else {
                match ledger.take(&source, now) {
                    true => return Ok(source),
                    // Another worker was faster.
                    false => break,
                }
            };
            warn!(source = source.name, %address, "this machine does not have the address, source left aside for a minute");
            let text = format!("this machine does not have the address {address} of source {}", source.name);
            let is_noted = self.note(&source, None, UNBINDABLE_FOR, Diagnostic::own(UNREACHABLE, text));
            tried = tried.saturating_sub(1);
            if !is_noted || tried == 0 {
                break;
            }
        }
        let why = pool.0.iter().find_map(|(source, _)| {
            let spent = || Some(Diagnostic::own(UNREACHABLE, ledger.spent(source, now)?));
            self.why(source, site).or_else(spent)
        });
        Err(why.unwrap_or_else(|| Diagnostic::own(UNREACHABLE, "the route has no source that can be used now")))
    }

    /// A site has blocked a source. Returns `true` if it rests there now.
    pub(crate) fn blocked(&self, source: &Source, site: &str, why: Diagnostic) -> bool {
        info!(source = source.name, site, diagnostic = %why, "source blocked by the site, rests there for an hour");
        self.note(source, Some(site), BLOCKED_FOR, why)
    }

    pub(crate) fn states(&self) -> Vec<RestingSource> {
        let now = Instant::now();
        let rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = rests.iter().filter(|(_, (until, _))| *until > now);
        let state = |((who, site), (until, why)): (&Where, &(Instant, Diagnostic))| {
            let (source, site) = (who.name.clone(), site.clone());
            RestingSource { source, site, left: until.saturating_duration_since(now), why: why.clone() }
        };
        current.map(state).collect()
    }

    fn note(&self, source: &Source, site: Option<&str>, time: Duration, why: Diagnostic) -> bool {
        let now = Instant::now();
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rests.len() >= RESTS {
            rests.retain(|_, (until, _)| *until > now);
        }
        let has_room = rests.len() < RESTS;
        if has_room {
            rests.insert((source.who(), site.map(str::to_owned)), (now + time, why));
        }
        has_room
    }

    /// Why a source is passed over. `None`: it is not.
    fn why(&self, source: &Source, site: &str) -> Option<Diagnostic> {
        let now = Instant::now();
        let rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |site: Option<String>| {
            let (until, why) = rests.get(&(source.who(), site))?;
            (*until > now).then(|| why.clone())
        };
        of(None).or_else(|| of(Some(site.to_owned())))
    }
}

/// The status of mail for which there is no source.
const UNREACHABLE: Option<EnhancedCode> = EnhancedCode::new(4, 4, 1);

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(sources: &[(&str, u16)]) -> SourcePool {
        SourcePool::new(sources.iter().map(|(name, weight)| (Source::new(*name), *weight)))
    }

    fn why() -> Diagnostic {
        Diagnostic::own(UNREACHABLE, "blocked")
    }

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

    #[tokio::test]
    async fn sources_are_drawn_by_weight() {
        let (rests, pool, mut random) = (Rests::default(), pool(&[("a", 3), ("b", 1), ("c", 0)]), Rng::with_seed(7));
        let mut drawn = HashMap::new();
        for _ in 0..4_000 {
            let source = rests.draw(&pool, &Ledger::default(), "site", &mut random).unwrap();
            *drawn.entry(source.name.clone()).or_insert(0) += 1;
        }
        assert!((2_800..3_200).contains(&drawn["a"]) && drawn["a"] + drawn["b"] == 4_000, "{drawn:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_source_rests_at_that_site_for_an_hour() {
        let (rests, pool, mut random) = (Rests::default(), pool(&[("a", 1), ("b", 0)]), Rng::with_seed(7));
        let mut draw =
            |site| rests.draw(&pool, &Ledger::default(), site, &mut random).map(|source| source.name.clone()).ok();
        assert!(rests.blocked(&Source::new("a"), "one", why()));
        assert_eq!((draw("one").as_deref(), draw("other").as_deref()), (Some("b"), Some("a")));
        let [state] = &rests.states()[..] else { panic!() };
        assert_eq!((&*state.source, state.site.as_deref(), state.left), ("a", Some("one"), BLOCKED_FOR));
        assert!(rests.blocked(&Source::new("b"), "one", why()));
        assert_eq!(draw("one"), None);
        tokio::time::advance(BLOCKED_FOR).await;
        assert_eq!(draw("one").as_deref(), Some("a"));
        assert!(rests.states().is_empty());
    }

    #[tokio::test]
    async fn a_source_with_another_address_does_not_rest() {
        let (rests, mut random) = (Rests::default(), Rng::with_seed(7));
        let mut source = Source::new("a");
        source.v4 = Some([127, 0, 0, 2].into());
        assert!(rests.blocked(&source, "site", why()));
        let mut draw = |source: &Source| {
            let pool = SourcePool::new([(source.clone(), 1)]);
            rests.draw(&pool, &Ledger::default(), "site", &mut random).is_ok()
        };
        assert!(!draw(&source));
        source.v4 = Some([127, 0, 0, 3].into());
        assert!(draw(&source));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_whose_address_is_not_of_this_machine_is_left_aside() {
        let mut foreign = Source::new("foreign");
        foreign.v4 = Some([192, 0, 2, 1].into());
        let pool = SourcePool::new([(foreign.clone(), 9), (Source::new("own"), 0)]);
        let (rests, mut random) = (Rests::default(), Rng::with_seed(7));
        assert_eq!(rests.draw(&pool, &Ledger::default(), "site", &mut random).unwrap().name, "own");
        assert_eq!(rests.states()[0].site, None);
        let alone = SourcePool::new([(foreign, 1)]);
        let why = rests.draw(&alone, &Ledger::default(), "site", &mut random).unwrap_err();
        assert!(why.to_string().contains("192.0.2.1 of source foreign"), "{why}");
    }

    #[tokio::test]
    async fn a_source_that_has_sent_its_messages_of_the_day_is_passed_over() {
        let mut new = Source::new("new");
        new.warm_up = Some(WarmUp::new(SystemTime::now(), [2]));
        let mut newer = Source::new("newer");
        newer.warm_up = Some(WarmUp::new(SystemTime::now(), [1]));
        let pool = SourcePool::new([(new, 9), (newer, 0)]);
        let (rests, ledger, mut random) = (Rests::default(), Ledger::default(), Rng::with_seed(7));
        let mut draw = || rests.draw(&pool, &ledger, "site", &mut random).map(|source| source.name.clone());
        assert_eq!([draw().unwrap(), draw().unwrap(), draw().unwrap()], ["new", "new", "newer"]);
        assert!(draw().unwrap_err().to_string().contains("source new has sent the 2 messages of day 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rests_are_bounded() {
        let rests = Rests::default();
        for index in 0..RESTS {
            assert!(rests.blocked(&Source::new("a"), &index.to_string(), why()));
        }
        assert!(!rests.blocked(&Source::new("a"), "more", why()));
        tokio::time::advance(BLOCKED_FOR).await;
        assert!(rests.blocked(&Source::new("a"), "more", why()));
    }
}
