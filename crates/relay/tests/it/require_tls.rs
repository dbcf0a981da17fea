//! Mail with REQUIRETLS goes only to next hops whose identity TLS proves and that offer REQUIRETLS
//! (RFC 8689).

use std::{net::IpAddr, sync::Arc};

use crate::support::{self, Behavior, Hop, Log, Running, offering, run};
use posthaste_client::{Answer, Identity, MxRecord, ResolveError, Resolver, Tls as ClientTls};
use posthaste_queue::memory::MemoryQueue;
use posthaste_relay::{NextHop, Relay, RelayOptions, Route, RouteTable, session::server::Offers};
use posthaste_server::{Tls, refusal, rustls::ClientConfig};
use posthaste_testkit::pki::tls;

const CONTENT: &[u8] = b"Subject: x\r\nX-Token: 7\r\n\r\nthe body\r\n";

/// Every name is this host, and a mail exchanger.
#[derive(Debug, Clone)]
struct Loopback;

impl Resolver for Loopback {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(vec![MxRecord { preference: 1, exchange: "mx.test".to_owned() }].into())
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(vec![[127, 0, 0, 1].into()].into())
    }
}

fn guards() -> Offers {
    offering(Offers::default(), |offers| {
        offers.require_tls = true;
        offers.dsn = true;
    })
}

async fn hop(offers: Offers, tls: Tls) -> Hop {
    Hop::with(0, offers, tls, Behavior::default()).await
}

/// A relay that sends all mail to these named hosts, and trusts this configuration.
fn to_named(name: &str, ports: &[u16], verified: Option<Arc<ClientConfig>>) -> RelayOptions {
    let mut options = support::options(&[]);
    let tls = ClientTls::opportunistic().unwrap();
    let mut route = Route::hosts(ports.iter().map(|port| (name, *port)));
    route.tls = tls;
    options.routes = RouteTable::all(route);
    options.delivery.verified_tls = verified;
    options
}

fn start(options: RelayOptions) -> Running<Loopback> {
    let log = Log::default();
    run(Relay::builder(MemoryQueue::default(), Loopback, options).observer(log.clone()).build(), log)
}

#[tokio::test]
async fn requiretls_mail_goes_to_a_verified_host() {
    let (server, client) = tls("mx.test");
    let hop = hop(guards(), Tls::StartTls(server)).await;
    let relay = start(to_named("mx.test", &[hop.port], Some(client)));
    // A connection without proof is open already, and is not used for it.
    relay.submit("<first@s>", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    relay.submit("<second@s> REQUIRETLS", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 2).await;
    // A connection with proof serves other mail too.
    relay.submit("<third@s>", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 3).await;
    let required: Vec<_> = hop.mail().iter().map(|taken| taken.envelope.mail.require_tls).collect();
    assert_eq!((required, hop.connections()), (vec![false, true, false], 2));
    relay.end().await;
}

#[cfg(feature = "dkim")]
#[tokio::test]
async fn requiretls_mail_is_signed() {
    let (server, client) = tls("mx.test");
    let hop = hop(guards(), Tls::StartTls(server)).await;
    let relay = start(crate::signatures::signing(to_named("mx.test", &[hop.port], Some(client))));
    relay.submit("<a@b.test> REQUIRETLS", &["<a@d>"], b"From: a@b.test\r\n\r\nx\r\n").await;
    relay.log.wait("delivered", 1).await;
    let taken = hop.taken().pop().unwrap();
    assert_eq!((taken.envelope.mail.require_tls, crate::signatures::signatures(&taken.text())), (true, 2));
    relay.end().await;
}

/// Its own authorities prove who the host is, and none but these.
#[tokio::test]
async fn requiretls_mail_goes_over_a_route_that_verifies_by_itself() {
    let ((server, client), (_, other)) = (tls("mx.test"), tls("mx.test"));
    let hop = hop(guards(), Tls::StartTls(server)).await;
    for verified in [None, Some(other)] {
        let mut options = to_named("mx.test", &[hop.port], verified);
        let mut route = Route::hosts([("mx.test", hop.port)]);
        route.tls = ClientTls::Required(Identity::Verified(Arc::clone(&client)));
        options.routes = RouteTable::all(route);
        let relay = start(options);
        relay.submit("<me@s> REQUIRETLS", &["<a@d>"], CONTENT).await;
        relay.log.wait("delivered", 1).await;
        relay.end().await;
    }
}

/// None of it leaves. Its sender gets a report with the codes of section 4.2.1, and other mail
/// still goes.
#[tokio::test]
async fn requiretls_mail_bounces_without_a_verified_host() {
    let (server, client) = tls("mx.test");
    let starttls = || Tls::StartTls(Arc::clone(&server));
    for (name, offers, tls, verified, status) in [
        ("mx.test", guards(), Tls::Off, Some(&client), "5.7.10"),
        ("other.test", guards(), starttls(), Some(&client), "5.7.10"),
        ("[127.0.0.1]", guards(), starttls(), Some(&client), "5.7.10"),
        ("mx.test", guards(), starttls(), None, "5.7.10"),
        ("mx.test", offering(guards(), |offers| offers.require_tls = false), starttls(), Some(&client), "5.7.30"),
    ] {
        let hop = hop(offers, tls).await;
        let relay = start(to_named(name, &[hop.port], verified.cloned()));
        relay.submit("<m@s> REQUIRETLS RET=FULL", &["<a@d>"], CONTENT).await;
        relay.log.wait("failed", 1).await;
        assert_eq!(relay.log.of("failed")[0].text.get(..status.len()), Some(status), "{:?}", relay.log.all());
        // Its report goes over verified TLS if possible, and otherwise without (section 5).
        relay.log.wait("delivered", 1).await;
        assert_eq!(hop.mail().len(), 0);
        let report = hop.reports()[0].text();
        assert!(report.contains("X-Token: 7") && !report.contains("the body"), "{report}");
        relay.submit("<other@s>", &["<a@d>"], CONTENT).await;
        relay.log.wait("delivered", 2).await;
        assert_eq!(relay.log.count("deferred"), 0, "{name}");
        relay.end().await;
    }
}

/// Every host is tried (section 4.2.1): one that cannot be reached may be the right one.
#[tokio::test]
async fn every_host_is_tried_for_requiretls_mail() {
    let (server, client) = tls("mx.test");
    let poor = hop(Offers::default(), Tls::Off).await;
    let proven = hop(Offers::default(), Tls::StartTls(Arc::clone(&server))).await;
    let good = hop(guards(), Tls::StartTls(Arc::clone(&server))).await;
    let relay = start(to_named("mx.test", &[poor.port, proven.port, good.port], Some(Arc::clone(&client))));
    relay.submit("<m@s> REQUIRETLS", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((poor.mail().len(), proven.mail().len(), good.mail().len()), (0, 0, 1));
    relay.end().await;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let relay = start(to_named("mx.test", &[poor.port, port], Some(client)));
    relay.submit("<m@s> REQUIRETLS", &["<a@d>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    assert_eq!(relay.log.count("failed"), 0);
    relay.end().await;
}

/// DNS alone proves no name.
#[tokio::test]
async fn requiretls_mail_does_not_go_to_hosts_from_dns() {
    let (server, client) = tls("mx.test");
    let hop = hop(guards(), Tls::StartTls(server)).await;
    let mut options = to_named("mx.test", &[], Some(client));
    options.routes = RouteTable::all(Route::new(NextHop::Mx));
    options.delivery.mx_port = hop.port;
    options.delivery.allow_private = true;
    let relay = start(options);
    relay.submit("<m@s> REQUIRETLS", &["<a@d>"], CONTENT).await;
    relay.log.wait("failed", 1).await;
    assert!(relay.log.of("failed")[0].text.starts_with("5.7.10"), "{:?}", relay.log.all());
    // The report is not lost.
    relay.log.wait("delivered", 1).await;
    assert_eq!((hop.mail().len(), hop.reports().len()), (0, 1));
    relay.end().await;
}

/// Whatever makes the message fail, its report carries REQUIRETLS if it can (section 5).
#[tokio::test]
async fn the_report_of_requiretls_mail_has_requiretls_too() {
    let (server, client) = tls("mx.test");
    let behavior = Behavior {
        rcpt: Box::new(|path| match path {
            "<a@d>" => Err(refusal!("550 5.1.1 Never")),
            _ => Ok(()),
        }),
        ..Behavior::default()
    };
    let hop = Hop::with(0, guards(), Tls::StartTls(server), behavior).await;
    let mut options = to_named("mx.test", &[hop.port], Some(client));
    // No connection is left for the report.
    options.delivery.idle = std::time::Duration::ZERO;
    let relay = start(options);
    relay.submit("<m@s> REQUIRETLS", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert!(hop.reports()[0].envelope.mail.require_tls);
    relay.submit("<> REQUIRETLS", &["<m@s>"], CONTENT).await;
    relay.log.wait("delivered", 2).await;
    assert!(hop.reports()[1].envelope.mail.require_tls);
    relay.end().await;
}

/// Through a provider that has to know who sends.
#[tokio::test]
async fn a_route_with_credentials_logs_in_at_its_host() {
    use posthaste_client::{Credentials, Identity};
    use posthaste_testkit::script::{Scripted, polite};
    let (server, client) = tls("mx.test");
    let host = Scripted::with_tls(server, |_, line| polite(line, &["STARTTLS", "AUTH PLAIN"])).await;
    let mut options = to_named("mx.test", &[], None);
    let mut route = Route::hosts([("mx.test", host.port)]);
    route.tls = ClientTls::Required(Identity::Verified(client));
    route.credentials = Some(Credentials::new("me", "secret").into());
    options.routes = RouteTable::all(route);
    let relay = start(options);
    relay.submit("<m@s>", &["<a@d>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    let said: Vec<_> = host.heard.of(&["AUTH", "MAIL"]).into_iter().map(|(place, line)| (place.tls, line)).collect();
    assert_eq!(said[0], (true, "AUTH PLAIN AG1lAHNlY3JldA==".to_owned()));
    assert!(said[1].1.starts_with("MAIL FROM:<m@s>"), "{said:?}");
    relay.end().await;
}
