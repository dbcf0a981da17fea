//! TLS fails for a moment at a host that takes mail over TLS alone: the mail waits, and goes over
//! TLS when that works again.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use posthaste_client::Tls;
use posthaste_relay::{Route, RouteTable};
use posthaste_testkit::{
    pki::tls,
    script::{Place, Scripted, polite},
};

use crate::support::{options, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// All mail to a host on this port, over TLS if possible.
fn over_tls(port: u16, tls: Tls) -> RouteTable {
    let mut route = Route::hosts([("[127.0.0.1]", port)]);
    route.tls = tls;
    RouteTable::all(route)
}

/// A host that says this to the first STARTTLS, and refuses mail in clear at this verb.
async fn host(mishap: &'static str, at: &'static str, refusal: &'static str) -> (Scripted, Tls) {
    let (server, client) = tls("127.0.0.1");
    let seen = AtomicUsize::new(0);
    let script = move |place: Place, line: &str| match line {
        "STARTTLS" if seen.fetch_add(1, Ordering::Relaxed) == 0 => mishap.to_owned(),
        line if !place.tls && line.starts_with(at) => refusal.to_owned(),
        _ => polite(line, if place.tls { &[] } else { &["STARTTLS"] }),
    };
    let host = Scripted::with_tls(server, script).await;
    (host, Tls::Opportunistic(client))
}

#[tokio::test]
async fn mail_waits_for_tls_at_a_host_that_takes_none_without_it() {
    for mishap in ["220 go\r\n<close>", "454 4.7.0 TLS not available\r\n", "220 go\r\n<garbage>"] {
        for (at, refusal) in [
            ("MAIL", "530 5.7.0 Must issue a STARTTLS command first\r\n"),
            ("MAIL", "550 5.7.1 TLS required, see our policy\r\n"),
            ("RCPT", "554 5.7.10 No\r\n"),
        ] {
            let (host, tls) = host(mishap, at, refusal).await;
            let mut options = options(&[]);
            options.routes = over_tls(host.port, tls);
            let relay = start(options);
            relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
            relay.log.wait("delivered", 1).await;
            let context = format!("{mishap:?} {at} {refusal:?} {:?}", relay.log.all());
            assert_eq!((relay.log.count("deferred"), relay.log.count("failed")), (1, 0), "{context}");
            let why = &relay.log.of("deferred")[0].text;
            assert!(why.starts_with("4.7.5 ") && why.contains("TLS") && why.contains(&refusal[..3]), "{context}");
            // What follows goes over TLS at once.
            relay.submit("<me@s.test>", &["<b@d.test>"], CONTENT).await;
            relay.log.wait("delivered", 2).await;
            assert_eq!((relay.log.count("deferred"), relay.log.count("failed")), (1, 0), "{context}");
            assert!(host.heard.of(&["<end>"]).iter().all(|(place, _)| place.tls), "{context}");
            relay.end().await;
        }
    }
}

/// It took mail in clear before, so that is remembered.
#[tokio::test]
async fn a_host_that_begins_to_ask_for_tls_ends_the_memory_that_tls_failed_there() {
    let (server, client) = tls("127.0.0.1");
    let (seen, mails) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let script = move |place: Place, line: &str| match line {
        "STARTTLS" if seen.fetch_add(1, Ordering::Relaxed) == 0 => "220 go\r\n<close>".to_owned(),
        line if !place.tls && line.starts_with("MAIL") && mails.fetch_add(1, Ordering::Relaxed) > 0 => {
            "530 5.7.0 Must issue a STARTTLS command first\r\n".to_owned()
        }
        _ => polite(line, if place.tls { &[] } else { &["STARTTLS"] }),
    };
    let host = Scripted::with_tls(server, script).await;
    let mut options = options(&[]);
    options.delivery.idle = Duration::ZERO;
    options.routes = over_tls(host.port, Tls::Opportunistic(client));
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    relay.submit("<me@s.test>", &["<b@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 2).await;
    assert_eq!((relay.log.count("deferred"), relay.log.count("failed")), (1, 0), "{:?}", relay.log.all());
    let ends: Vec<_> = host.heard.of(&["<end>"]).iter().map(|(place, _)| place.tls).collect();
    assert_eq!(ends, [false, true]);
    relay.end().await;
}

/// Without an offer of TLS there is none to wait for.
#[tokio::test]
async fn a_host_that_asks_for_tls_and_never_offers_it_returns_the_mail() {
    let host = Scripted::start(|_, line: &str| match line {
        line if line.starts_with("MAIL") => "530 5.7.0 Must issue a STARTTLS command first\r\n".to_owned(),
        _ => polite(line, &[]),
    })
    .await;
    let relay = start(options(&[host.port]));
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("failed", 1).await;
    assert_eq!(relay.log.count("deferred"), 0);
    relay.end().await;
}
