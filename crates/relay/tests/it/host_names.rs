//! TLS, logs and reports name a host as the DNS names it.

use std::net::IpAddr;

use crate::support::{Behavior, Hop, Log, run};
use posthaste_client::{Answer, Identity, MxRecord, ResolveError, Resolver, Tls as ClientTls};
use posthaste_queue::memory::MemoryQueue;
use posthaste_relay::{NextHop, Relay, RelayOptions, Route, RouteTable, session::server::Offers};
use posthaste_server::{Tls, refusal};
use posthaste_testkit::pki::tls;

const CONTENT: &[u8] = b"Subject: x\r\n\r\nthe body\r\n";

/// The DNS has one mail host, on loopback. The domain of the sender has no MX record.
struct OneHost(&'static str);

impl Resolver for OneHost {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        match domain {
            "s.test" => Ok(Answer::default()),
            _ => Ok(vec![MxRecord { preference: 10, exchange: self.0.to_owned() }].into()),
        }
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        assert!(host.is_ascii() && !host.bytes().any(|octet| octet.is_ascii_control() || octet == b' '), "{host:?}");
        Ok(vec![[127, 0, 0, 1].into()].into())
    }
}

/// A hop with STARTTLS that refuses all mail but reports.
async fn refusing() -> Hop {
    let rcpt = |path: &str| match path {
        "<m@s.test>" => Ok(()),
        _ => Err(refusal!("550 5.1.1 Never")),
    };
    let behavior = Behavior { rcpt: Box::new(rcpt), ..Behavior::default() };
    Hop::with(0, Offers::default(), Tls::StartTls(tls("mx.test").0), behavior).await
}

fn options(tls: ClientTls, port: u16, own_name: &str) -> RelayOptions {
    let mut options = RelayOptions::new(own_name.parse().unwrap());
    let mut route = Route::new(NextHop::Mx);
    route.tls = tls;
    options.routes = RouteTable::all(route);
    options.delivery.mx_port = port;
    options.delivery.allow_private = true;
    options
}

/// Sends a message to a domain. Returns the event of it, and its report if there is one.
async fn sent(host: &'static str, options: RelayOptions, hop: &Hop, domain: &str, what: &str) -> (String, String) {
    let log = Log::default();
    let relay = Relay::builder(MemoryQueue::default(), OneHost(host), options).observer(log.clone()).build();
    let relay = run(relay, log.clone());
    relay.submit("<m@s.test>", &[&format!("<a@{domain}>")], CONTENT).await;
    log.wait(what, 1).await;
    if what == "failed" {
        log.wait("delivered", 1).await;
    }
    relay.end().await;
    (log.of(what)[0].text.clone(), hop.reports().last().map(|report| report.text()).unwrap_or_default())
}

#[tokio::test]
async fn a_host_is_reached_and_reported_by_its_name_in_the_dns() {
    for (exchange, name) in [
        ("mx.xn--bcher-kva.test", "mx.xn--bcher-kva.test"),
        ("mx.b\u{fc}cher.test", "mx.xn--bcher-kva.test"),
        ("mail_1.one.test", "mail_1.one.test"),
        ("mail.123", "mail.123"),
        ("-mx.test", "-mx.test"),
        ("xn--0.test", "xn--0.test"),
        ("mx\r\nX-Injected: 1.test", "mx\\013\\010X-Injected\\058\\0321.test"),
    ] {
        let hop = refusing().await;
        let (text, report) = sent(
            exchange,
            options(ClientTls::opportunistic().unwrap(), hop.port, "relay.test"),
            &hop,
            "d.test",
            "failed",
        )
        .await;
        assert!(text.starts_with("5.1.1") && text.contains(&format!(" {name} said: 550")), "{text}");
        assert!(report.is_ascii() && report.contains(&format!("Remote-MTA: dns; {name}\r\n")), "{report}");
        assert!(!report.contains("\r\nX-Injected"), "{report}");
    }
}

#[tokio::test]
async fn required_tls_defers_for_a_host_whose_name_no_certificate_can_have() {
    let hop = refusing().await;
    let options = options(ClientTls::Required(Identity::unverified().unwrap()), hop.port, "relay.test");
    let (text, _) = sent("mail.123", options, &hop, "d.test", "deferred").await;
    assert!(text.starts_with("4.7.5") && text.contains("no certificate can be for the name \"mail.123\""), "{text}");
}

#[tokio::test]
async fn the_relay_recognizes_itself_in_a_labels_and_u_labels() {
    let (u_labels, a_labels) = ("mx.b\u{fc}cher.test", "mx.xn--bcher-kva.test");
    for own_name in [u_labels, a_labels] {
        for (exchange, domain) in
            [(u_labels, "d.test"), (a_labels, "d.test"), ("x.test", u_labels), ("x.test", a_labels)]
        {
            let hop = refusing().await;
            let options = options(ClientTls::Off, hop.port, own_name);
            assert_eq!(options.host_name.as_str(), a_labels);
            let (text, report) = sent(exchange, options, &hop, domain, "failed").await;
            assert!(text.starts_with("5.4.6"), "{own_name} {exchange} {domain}: {text}");
            assert!(report.contains(&format!("Reporting-MTA: dns; {a_labels}\r\n")), "{report}");
        }
    }
}
