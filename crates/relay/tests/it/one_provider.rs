//! Domains that one provider hosts share its site: connections, rest, and what it has taught.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_client::{Answer, MxRecord, ResolveError, Resolver};
use posthaste_relay::{Cause, SiteState};
use posthaste_testkit::script::{Scripted, polite};

use crate::support::{Behavior, Hop, by_mx};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// It is less than the time for which the hop waits for a command.
const TTL: Duration = Duration::from_secs(200);

type Records = Vec<(u16, &'static str)>;

/// MX records by the domain. All hosts are at loopback.
#[derive(Clone)]
struct Zone<F> {
    mx: F,
    asked: Arc<AtomicUsize>,
}

impl<F: Fn(&str) -> Records> Zone<F> {
    fn new(mx: F) -> Self {
        Self { mx, asked: Arc::default() }
    }
}

impl<F: Fn(&str) -> Records + Send + Sync + 'static> Resolver for Zone<F> {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        self.asked.fetch_add(1, SeqCst);
        let record = |(preference, host): (u16, &str)| MxRecord { preference, exchange: host.to_owned() };
        let mut answer: Answer<_> = (self.mx)(domain).into_iter().map(record).collect::<Vec<_>>().into();
        answer.ttl = Some(TTL);
        Ok(answer)
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(vec![[127, 0, 0, 1].into()].into())
    }
}

fn provider(_: &str) -> Records {
    vec![(10, "mx1.test"), (20, "mx2.test")]
}

#[tokio::test]
async fn a_hundred_domains_share_the_connections_of_their_provider() {
    const DOMAINS: usize = 100;
    let hop = Hop::start(Behavior { think: Duration::from_millis(5), ..Behavior::default() }).await;
    let zone = Zone::new(provider);
    let asked = Arc::clone(&zone.asked);
    let relay = by_mx(zone, hop.port, |options| {
        options.delivery.idle = Duration::from_secs(60);
        options.delivery.concurrency_per_site = 4;
    });
    for round in 1..=2 {
        for index in 0..DOMAINS {
            relay.submit("<me@s.test>", &[&format!("<a@d{index}.test>")], CONTENT).await;
        }
        relay.log.wait("delivered", round * DOMAINS).await;
    }
    // One may have been closed while another was made.
    assert!(hop.connections() <= 8 && hop.most() <= 4, "{} {}", hop.connections(), hop.most());
    assert_eq!(asked.load(SeqCst), DOMAINS, "the second round asks for nothing");
    let sites = relay.relay.sites();
    let [SiteState { name, domains: Some(DOMAINS), due: 0, .. }] = &sites[..] else { panic!("{sites:?}") };
    assert_eq!(name, "mx1.test");
    relay.end().await;
}

#[tokio::test]
async fn domains_with_other_hosts_share_nothing() {
    let hop = Hop::start(Behavior::default()).await;
    let mx = |domain: &str| vec![(10, if domain.starts_with("one") { "mx1.test" } else { "mx2.test" })];
    let relay = by_mx(Zone::new(mx), hop.port, |options| options.delivery.idle = Duration::from_secs(60));
    for count in 1..=4 {
        let domain = if count % 2 == 0 { "one" } else { "other" };
        relay.submit("<me@s.test>", &[&format!("<a@{domain}.test>")], CONTENT).await;
        relay.log.wait("delivered", count).await;
    }
    assert_eq!(hop.connections(), 2);
    let mut sites: Vec<_> = relay.relay.sites().into_iter().map(|site| (site.name, site.domains)).collect();
    sites.sort();
    assert_eq!(sites, [("mx1.test".to_owned(), Some(1)), ("mx2.test".to_owned(), Some(1))]);
    relay.end().await;
}

/// A provider that throttles because of one domain's mail is asked for no other domain either.
#[tokio::test]
async fn a_provider_that_throttles_rests_for_all_its_domains() {
    let mut is_first = true;
    let hop =
        Scripted::start(move |_, line| match line.starts_with("MAIL") && std::mem::replace(&mut is_first, false) {
            true => "421 4.7.0 Too many messages, try again in 2 seconds\r\n<close>".to_owned(),
            false => polite(line, &[]),
        })
        .await;
    let relay = by_mx(Zone::new(provider), hop.port, |_| {});
    relay.submit("<me@s.test>", &["<a@first.test>"], CONTENT).await;
    loop {
        match relay.relay.sites().pop() {
            Some(SiteState { resting: Some(resting), .. }) if resting.cause == Cause::RateLimited => break,
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    let before = hop.count("<connect>");
    for index in 0..10 {
        relay.submit("<me@s.test>", &[&format!("<a@d{index}.test>")], CONTENT).await;
    }
    // All of them are known to the site, which still rests.
    loop {
        let state = relay.relay.sites().pop().unwrap();
        assert!(state.resting.is_some() && hop.count("<connect>") == before, "{state:?}");
        if state.due == 11 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    relay.log.wait("delivered", 11).await;
    assert_eq!((relay.log.count("deferred"), relay.relay.sites().len()), (0, 1));
    relay.end().await;
}

/// The time is moved on by hand, and only while no mail is under way.
#[tokio::test]
async fn a_domain_whose_hosts_change_moves_with_its_next_look_up() {
    let hop = Hop::start(Behavior::default()).await;
    let now = Arc::new(Mutex::new("mx1.test"));
    let host = Arc::clone(&now);
    let zone = Zone::new(move |domain: &str| {
        vec![(10, if domain == "moves.test" { *host.lock().unwrap() } else { "mx1.test" })]
    });
    let relay = by_mx(zone, hop.port, |options| options.delivery.idle = Duration::from_secs(86_400));
    let sites = || {
        let mut sites: Vec<_> = relay.relay.sites().into_iter().map(|site| (site.name, site.domains)).collect();
        sites.sort();
        sites
    };
    let at = |name: &str, domains| (name.to_owned(), Some(domains));
    let mut count = 0;
    let mut send = async |domain: &str| {
        count += 1;
        relay.submit("<me@s.test>", &[&format!("<a@{domain}>")], CONTENT).await;
        relay.log.wait("delivered", count).await;
        relay.empty().await;
    };
    send("stays.test").await;
    send("moves.test").await;
    assert_eq!((sites(), hop.connections()), (vec![at("mx1.test", 2)], 1));
    *now.lock().unwrap() = "mx2.test";
    send("moves.test").await;
    assert_eq!((sites(), hop.connections()), (vec![at("mx1.test", 2)], 1));
    tokio::time::pause();
    tokio::time::advance(TTL).await;
    tokio::time::resume();
    send("moves.test").await;
    assert_eq!((sites(), hop.connections()), (vec![at("mx1.test", 0), at("mx2.test", 1)], 2));
    send("stays.test").await;
    assert_eq!((sites(), hop.connections()), (vec![at("mx1.test", 1), at("mx2.test", 1)], 2));
    relay.end().await;
}

/// What waits for a site that rests goes to the new hosts of its domain, though the old site rests
/// on.
#[tokio::test]
async fn mail_that_waits_at_a_resting_site_moves_with_its_domain() {
    let hop = Scripted::start(move |place, line| match line.starts_with("MAIL") && place.connection == 0 {
        true => "421 4.7.0 Too many messages, try again in 1 hour\r\n<close>".to_owned(),
        false => polite(line, &[]),
    })
    .await;
    let now = Arc::new(Mutex::new("mx1.test"));
    let host = Arc::clone(&now);
    let relay = by_mx(Zone::new(move |_: &str| vec![(10, *host.lock().unwrap())]), hop.port, |_| {});
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    loop {
        match relay.relay.sites().pop() {
            Some(SiteState { resting: Some(_), due: 1, open: 0, .. }) => break,
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    *now.lock().unwrap() = "mx2.test";
    tokio::time::pause();
    tokio::time::advance(TTL).await;
    tokio::time::resume();
    relay.log.wait("delivered", 1).await;
    assert_eq!(relay.log.count("deferred"), 0);
    let mut sites = relay.relay.sites();
    sites.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(sites[0].resting.is_some() && sites[1].resting.is_none(), "{sites:?}");
    relay.end().await;
}
