//! Domains that publish which TLS their mail hosts have. The records are those of DANE.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{
    Answer, MxRecord, Published, ResolveError, Resolver, Tls as ClientTls, TlsaRecord, tls_rpt::Recorder,
};
use posthaste_relay::session::server::Offers;
use posthaste_server::Tls;
use posthaste_testkit::pki::Authority;

use crate::support::{Behavior, Hop, Running, by_mx, offering};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
const ASIDE: &[u8] = b"Subject: x\r\nTLS-Required: No\r\n\r\nbody\r\n";

/// Every domain has the host `mx.test`, at loopback.
struct Zone {
    is_secure: bool,
    /// `None`: the name servers do not answer for them.
    tlsa: Option<Vec<TlsaRecord>>,
}

impl Zone {
    fn answer<T>(&self, record: T) -> Answer<T> {
        if self.is_secure { Answer::secure(vec![record]) } else { vec![record].into() }
    }
}

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(self.answer(MxRecord { preference: 1, exchange: "mx.test".to_owned() }))
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(self.answer([127, 0, 0, 1].into()))
    }

    async fn tlsa(&self, name: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        assert!(name.starts_with('_') && name.ends_with("._tcp.mx.test"), "{name}");
        let records = self.tlsa.clone().ok_or_else(|| ResolveError::Temporary("SERVFAIL".to_owned()))?;
        Ok(Answer::secure(records))
    }
}

/// The record that names this authority.
fn names(authority: &Authority) -> Vec<TlsaRecord> {
    vec![TlsaRecord { usage: 2, selector: 0, matching_type: 0, data: authority.der().to_vec() }]
}

async fn hop(tls: Tls) -> Hop {
    let offers = offering(Offers::default(), |offers| offers.require_tls = true);
    Hop::with(0, offers, tls, Behavior::default()).await
}

fn start<R: Resolver>(zone: R, port: u16, reports: &Recorder) -> Running<R> {
    with(zone, port, reports, |_| {})
}

/// A relay that keeps its connections, and never tries again.
fn keeping<R: Resolver>(zone: R, port: u16, reports: &Recorder) -> Running<R> {
    with(zone, port, reports, |options| {
        options.delivery.idle = Duration::from_secs(60);
        options.delivery.retry.waits = vec![Duration::from_secs(600)];
    })
}

fn with<R: Resolver>(
    zone: R,
    port: u16,
    reports: &Recorder,
    change: impl FnOnce(&mut posthaste_relay::RelayOptions),
) -> Running<R> {
    by_mx(zone, port, |options| {
        let mut route = posthaste_relay::Route::new(posthaste_relay::NextHop::Mx);
        route.tls = ClientTls::opportunistic().unwrap();
        options.routes = posthaste_relay::RouteTable::all(route);
        options.delivery.published = Published::default().with_dane().with_reports(reports.clone());
        change(options);
    })
}

/// What became of usual mail, of mail with REQUIRETLS, and of mail that says `TLS-Required: No`:
/// `d`elivered, deferred (`w`aits), or `f`ailed.
#[tokio::test]
async fn mail_goes_as_the_domain_of_its_recipients_asks() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let tls = || Tls::StartTls(right.server(&["mx.test"], 2020, 2120));
    for (row, is_secure, tlsa, tls, expected) in [
        ("the right authority", true, Some(names(&right)), tls(), "ddd"),
        ("another authority", true, Some(names(&wrong)), tls(), "wfd"),
        ("no STARTTLS", true, Some(names(&right)), Tls::Off, "wfd"),
        ("unusable records", true, Some(vec![TlsaRecord { usage: 9, ..names(&right).remove(0) }]), tls(), "dfd"),
        (
            "unusable records, no STARTTLS",
            true,
            Some(vec![TlsaRecord { usage: 9, ..names(&right).remove(0) }]),
            Tls::Off,
            "wfd",
        ),
        ("no records", true, Some(Vec::new()), Tls::Off, "dfd"),
        ("no answer", true, None, tls(), "wwd"),
        ("no DNSSEC", false, Some(names(&wrong)), Tls::Off, "dfd"),
    ] {
        let (hop, reports) = (hop(tls).await, Recorder::default());
        let mut became = String::new();
        for (mail, content) in [("<m@s>", CONTENT), ("<m@s> REQUIRETLS", CONTENT), ("<m@s>", ASIDE)] {
            let zone = Zone { is_secure, tlsa: tlsa.clone() };
            let relay = start(zone, hop.port, &reports);
            let before = hop.mail().len();
            relay.submit(mail, &["<a@d.test>"], content).await;
            let outcome = loop {
                let seen = |what: &str| relay.log.of(what).into_iter().any(|seen| seen.who.contains("a@d.test"));
                match () {
                    () if seen("delivered") => break 'd',
                    () if seen("failed") => break 'f',
                    () if seen("deferred") => break 'w',
                    () => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            assert_eq!(hop.mail().len() - before, usize::from(outcome == 'd'), "{row} {mail}");
            became.push(outcome);
            relay.end().await;
        }
        assert_eq!(became, expected, "{row}");
        assert!(is_secure || !reports.take().is_empty(), "{row}");
    }
}

/// A message that leaves the policies aside says nothing of the others.
#[tokio::test]
async fn a_policy_that_stops_mail_does_not_stop_mail_that_leaves_it_aside() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let hop = hop(Tls::StartTls(right.server(&["mx.test"], 2020, 2120))).await;
    let reports = Recorder::default();
    let relay = start(Zone { is_secure: true, tlsa: Some(names(&wrong)) }, hop.port, &reports);
    relay.submit("<first@s>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    relay.submit("<second@s>", &["<a@d.test>"], ASIDE).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!(hop.mail().len(), 1);
    let tallies = reports.take();
    assert_eq!((tallies.len(), tallies[0].domain()), (1, "d.test"));
    assert!(tallies[0].failed_sessions() > 0);
    relay.end().await;
}

/// A connection that was made for such a message is not used for one that does not say so.
#[tokio::test]
async fn a_connection_that_left_the_policies_aside_is_kept_for_no_other_mail() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    for (row, tlsa, tls, ends) in [
        ("no TLS", names(&right), Tls::Off, "deferred"),
        ("another authority", names(&wrong), Tls::StartTls(right.server(&["mx.test"], 2020, 2120)), "deferred"),
        ("good TLS", names(&right), Tls::StartTls(right.server(&["mx.test"], 2020, 2120)), "delivered"),
    ] {
        let (hop, reports) = (hop(tls).await, Recorder::default());
        let relay = keeping(Zone { is_secure: true, tlsa: Some(tlsa) }, hop.port, &reports);
        relay.submit("<first@s>", &["<a@d.test>"], ASIDE).await;
        relay.log.wait("delivered", 1).await;
        relay.submit("<second@s>", &["<b@d.test>"], CONTENT).await;
        relay.log.wait(ends, if ends == "deferred" { 1 } else { 2 }).await;
        assert_eq!(hop.mail().len(), if ends == "deferred" { 1 } else { 2 }, "{row}");
        assert!(hop.connections() > 1, "{row}");
        relay.end().await;
    }
}

#[tokio::test]
async fn a_kept_connection_is_used_only_while_it_is_as_the_domain_asks() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let hop = hop(Tls::StartTls(right.server(&["mx.test"], 2020, 2120))).await;
    let (zone, reports) = (Zone { is_secure: true, tlsa: Some(Vec::new()) }, Recorder::default());
    let zone = Changing(Arc::new(Mutex::new(zone)));
    let relay = keeping(zone.clone(), hop.port, &reports);
    for (tlsa, ends, count, connections) in [
        (vec![], "delivered", 1, 1),
        (vec![], "delivered", 2, 1),
        // The kept connection has TLS, and proves nothing.
        (names(&right), "delivered", 3, 2),
        (names(&right), "delivered", 4, 2),
        (names(&wrong), "deferred", 1, 3),
    ] {
        zone.0.lock().unwrap().tlsa = Some(tlsa);
        // Within a second the answer before counts.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        relay.submit("<m@s>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait(ends, count).await;
        assert_eq!(hop.connections(), connections, "{ends} {count}");
    }
    assert_eq!(hop.mail().len(), 4);
    relay.end().await;
}

/// Domains at one host, of which those whose name begins with `dane` have proved it by DNSSEC.
struct Mixed(Vec<TlsaRecord>);

impl Resolver for Mixed {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        let zone = Zone { is_secure: domain.starts_with("dane"), tlsa: None };
        zone.mx(domain).await
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Zone { is_secure: true, tlsa: None }.addresses(host).await
    }

    async fn tlsa(&self, name: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        Zone { is_secure: true, tlsa: Some(self.0.clone()) }.tlsa(name).await
    }
}

/// Domains with and without a policy are one site. A connection takes mail of another domain only
/// if it is as that domain asks.
#[tokio::test]
async fn a_connection_serves_another_domain_of_its_site_if_it_is_as_that_domain_asks() {
    let right = Authority::new("right");
    for (first, second, is_used_again) in [
        (("plain1.test", CONTENT), ("plain2.test", CONTENT), true),
        (("plain.test", CONTENT), ("dane.test", CONTENT), false),
        (("dane1.test", CONTENT), ("dane2.test", CONTENT), false),
        (("dane.test", CONTENT), ("dane.test", CONTENT), true),
        (("dane.test", CONTENT), ("plain.test", CONTENT), false),
        (("dane1.test", CONTENT), ("dane2.test", ASIDE), true),
        (("dane.test", CONTENT), ("plain.test", ASIDE), true),
        (("dane1.test", ASIDE), ("dane2.test", ASIDE), true),
        (("dane1.test", ASIDE), ("dane2.test", CONTENT), false),
        (("dane.test", ASIDE), ("plain.test", CONTENT), true),
        (("plain.test", CONTENT), ("dane.test", ASIDE), true),
    ] {
        let (hop, reports) = (hop(Tls::StartTls(right.server(&["mx.test"], 2020, 2120))).await, Recorder::default());
        let relay = keeping(Mixed(names(&right)), hop.port, &reports);
        // Twice, since a connection that does not suit is kept for the mail that it suits.
        for count in 1..=4 {
            let (domain, content) = if count % 2 == 1 { first } else { second };
            relay.submit("<me@s>", &[&format!("<a@{domain}>")], content).await;
            relay.log.wait("delivered", count).await;
        }
        assert_eq!(hop.connections(), if is_used_again { 1 } else { 2 }, "{first:?} {second:?}");
        assert_eq!(relay.relay.sites().len(), 1);
        relay.end().await;
    }
}

#[tokio::test]
async fn a_policy_that_stops_the_mail_of_one_domain_does_not_stop_that_of_others_at_its_site() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let (hop, reports) = (hop(Tls::StartTls(right.server(&["mx.test"], 2020, 2120))).await, Recorder::default());
    let relay = keeping(Mixed(names(&wrong)), hop.port, &reports);
    relay.submit("<me@s>", &["<a@dane.test>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    let before = hop.connections();
    relay.submit("<me@s>", &["<b@dane.test>"], CONTENT).await;
    relay.log.wait("deferred", 2).await;
    assert_eq!(hop.connections(), before, "the domain is not tried again at once");
    relay.submit("<me@s>", &["<a@plain.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((relay.log.count("deferred"), relay.relay.sites().len()), (2, 1));
    relay.end().await;
}

/// A zone that changes while the relay runs.
#[derive(Clone)]
struct Changing(Arc<Mutex<Zone>>);

impl Changing {
    fn now(&self) -> Zone {
        let zone = self.0.lock().unwrap();
        Zone { is_secure: zone.is_secure, tlsa: zone.tlsa.clone() }
    }
}

impl Resolver for Changing {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        self.now().mx(domain).await
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        self.now().addresses(host).await
    }

    async fn tlsa(&self, name: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        self.now().tlsa(name).await
    }
}
