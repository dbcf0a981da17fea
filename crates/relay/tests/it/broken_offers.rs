//! If STARTTLS or CHUNKING fails with a server that offers it, the relay leaves it out with that
//! server from then on, if it may.

use std::time::Duration;

use crate::support::{options, start};
use posthaste_client::{Identity, Tls, session::client::ClientTimeouts};
use posthaste_relay::{RelayOptions, Route, RouteTable};
use posthaste_testkit::{
    pki::tls,
    script::{Place, Scripted, polite},
};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A next hop with STARTTLS that replies as a test says, at a line inside TLS or before. `None`: it
/// is polite.
async fn tls_hop(mut says: impl FnMut(bool, &str) -> Option<String> + Send + 'static) -> Scripted {
    let script = move |Place { tls, .. }: Place, line: &str| {
        says(tls, line).unwrap_or_else(|| polite(line, if tls { &[] } else { &["STARTTLS"] }))
    };
    Scripted::with_tls(tls("mx.test").0, script).await
}

/// The number of such lines inside TLS, or before.
fn count(hop: &Scripted, is_tls: bool, start: &str) -> usize {
    hop.heard.all().iter().filter(|(place, line)| place.tls == is_tls && line.starts_with(start)).count()
}

fn by_tls(port: u16, tls: Tls) -> RelayOptions {
    let mut options = options(&[]);
    let mut route = Route::hosts([("[127.0.0.1]", port)]);
    route.tls = tls;
    options.routes = RouteTable::all(route);
    options.delivery.timeouts = ClientTimeouts::all(Duration::from_millis(400));
    options.delivery.retry.waits = vec![Duration::from_secs(600)];
    // One connection for each message.
    options.delivery.idle = Duration::from_millis(1);
    options
}

/// Where TLS breaks: inside or before it, at which line, and how.
const BREAKS: &[(bool, &str, &str)] = &[
    (false, "STARTTLS", "close"),
    (false, "STARTTLS", ""),
    (false, "STARTTLS", "220 go\r\nX<tls>"),
    (false, "STARTTLS", "421 4.3.0 no\r\n"),
    (true, "EHLO", "close"),
    (true, "EHLO", ""),
    (true, "EHLO", "421 4.3.0 no\r\n"),
    (true, "EHLO", "502 what?\r\n"),
    (true, "MAIL", "close"),
    (true, "MAIL", ""),
    (true, "MAIL", "what?\r\n"),
];

async fn breaking(is_tls: bool, at: &'static str, how: &'static str) -> Scripted {
    tls_hop(move |inside, line| {
        // HELO counts as EHLO.
        let line = if line.starts_with("HELO") && at == "EHLO" { "EHLO" } else { line };
        (inside == is_tls && line.starts_with(at)).then(|| how.to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_tls_is_left_out_and_not_tried_for_every_message() {
    for (is_tls, at, how) in BREAKS {
        let hop = breaking(*is_tls, at, how).await;
        let relay = start(by_tls(hop.port, Tls::opportunistic().unwrap()));
        for count in 1..=3 {
            relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
            relay.log.wait("delivered", count).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(relay.log.count("deferred"), 0, "{is_tls} {at} {how:?}: {:?}", relay.log.all());
        let counts = (count(&hop, false, "STARTTLS"), count(&hop, false, "<end>"), count(&hop, true, "<end>"));
        assert_eq!(counts, (1, 3, 0), "{is_tls} {at} {how:?}");
        relay.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_must_be_encrypted_never_goes_in_clear() {
    for (is_tls, at, how) in BREAKS {
        let hop = breaking(*is_tls, at, how).await;
        let mut options = by_tls(hop.port, Tls::Required(Identity::unverified().unwrap()));
        options.delivery.retry.waits = vec![Duration::from_millis(50)];
        let relay = start(options);
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 3).await;
        assert_eq!((count(&hop, false, "MAIL"), relay.log.count("delivered")), (0, 0), "{is_tls} {at} {how:?}");
        relay.end().await;
    }
}

/// A host that is gone does not break TLS, and a message that is refused inside TLS was not stopped
/// by TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_kept_after_a_failure_of_another_cause() {
    for says in ["421 4.3.0 slow\r\n", "451 4.7.1 greylisted\r\n"] {
        let hop = breaking(true, "MAIL", says).await;
        let mut options = by_tls(hop.port, Tls::opportunistic().unwrap());
        options.delivery.retry.waits = vec![Duration::from_millis(50)];
        let relay = start(options);
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 3).await;
        assert_eq!(count(&hop, false, "MAIL"), 0, "{says}");
        relay.end().await;
    }
    // The network broke once, in clear too: this says nothing of TLS.
    let mut times = 0;
    let hop = tls_hop(move |_, line| {
        times += usize::from(line.starts_with("MAIL"));
        (line.starts_with("MAIL") && times <= 2).then(|| "close".to_owned())
    })
    .await;
    let mut options = by_tls(hop.port, Tls::opportunistic().unwrap());
    options.delivery.retry.waits = vec![Duration::from_millis(50)];
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((relay.log.count("deferred"), count(&hop, true, "<end>"), count(&hop, false, "MAIL")), (1, 1, 1));
    relay.end().await;
}

/// A mishap in TLS says nothing of the mail, and nothing of the next attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_mail_by_tls_alone_gets_it_when_tls_works_again() {
    for demand in [
        "530 5.7.0 Must issue a STARTTLS command first\r\n",
        "530 Must issue a STARTTLS command first\r\n",
        "550 5.7.10 Encryption needed\r\n",
        "554 5.7.1 Say STARTTLS before MAIL\r\n",
    ] {
        for (at_tls, at, how) in [
            (false, "STARTTLS", "close"),
            (false, "STARTTLS", "220 go\r\n<garbage>"),
            (false, "STARTTLS", "454 4.7.0 TLS not available\r\n"),
            (true, "MAIL", "close"),
        ] {
            let mut times = 0;
            let hop = tls_hop(move |inside, line| match line {
                line if inside == at_tls && line.starts_with(at) => {
                    times += 1;
                    (times == 1).then(|| how.to_owned())
                }
                line => (!inside && line.starts_with("MAIL")).then(|| demand.to_owned()),
            })
            .await;
            let mut options = by_tls(hop.port, Tls::opportunistic().unwrap());
            options.delivery.retry.waits = vec![Duration::from_millis(50)];
            let relay = start(options);
            for count in 1..=2 {
                relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
                relay.log.wait("delivered", count).await;
            }
            assert_eq!(relay.log.count("failed"), 0, "{demand} {how}: {:?}", relay.log.all());
            let deferred = relay.log.of("deferred");
            assert_eq!(deferred.len(), 1, "{demand} {how}: {deferred:?}");
            assert!(deferred[0].text.contains(demand.trim_end()), "{deferred:?}");
            assert_eq!(count(&hop, true, "<end>"), 2, "{demand} {how}");
            relay.end().await;
        }
    }
}

/// A host without STARTTLS that demands it will not have it tomorrow.
#[tokio::test]
async fn a_host_that_demands_tls_and_does_not_offer_it_gets_no_mail() {
    let hop = Scripted::start(|_, line| match line {
        line if line.starts_with("MAIL") => "530 5.7.0 Must issue a STARTTLS command first\r\n".to_owned(),
        line => polite(line, &[]),
    })
    .await;
    let relay = start(by_tls(hop.port, Tls::opportunistic().unwrap()));
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("failed", 1).await;
    relay.end().await;
}

/// A server that offers CHUNKING and gives every chunk this reply.
async fn chunkless(says: &'static str) -> Scripted {
    Scripted::start(move |_, line| match line {
        line if line.starts_with("BDAT") => says.to_owned(),
        line => polite(line, &["8BITMIME", "BINARYMIME", "CHUNKING"]),
    })
    .await
}

#[tokio::test]
async fn broken_chunking_is_left_out_and_not_tried_for_every_message() {
    for says in
        ["500 what?\r\n", "502 5.5.1 no\r\n", "503 5.5.1 bad sequence\r\n", "504 no\r\n", "502 what?\r\n", "", "close"]
    {
        let hop = chunkless(says).await;
        let mut options = options(&[hop.port]);
        options.delivery.timeouts = ClientTimeouts::all(Duration::from_millis(400));
        let relay = start(options);
        for count in 1..=3 {
            relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
            relay.log.wait("delivered", count).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((hop.count("BDAT"), hop.count("<end>"), relay.log.count("failed")), (1, 3, 0), "{says:?}");
        // After silence or a close the server may have the message, so it is not sent again at
        // once.
        let in_doubt = usize::from(says.is_empty() || says == "close");
        assert_eq!(relay.log.count("deferred"), in_doubt, "{says:?}");
        relay.end().await;
    }
}

#[tokio::test]
async fn chunking_is_kept_after_a_refusal_of_the_message() {
    for (says, what) in
        [("550 5.7.1 spam\r\n", "failed"), ("554 5.6.0 no\r\n", "failed"), ("452 4.3.1 full\r\n", "deferred")]
    {
        let hop = chunkless(says).await;
        let mut options = options(&[hop.port]);
        options.delivery.retry.waits = vec![Duration::from_secs(600)];
        let relay = start(options);
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait(what, 1).await;
        assert_eq!((hop.count("BDAT"), hop.count("DATA")), (1, 0), "{says}");
        relay.end().await;
    }
}

#[tokio::test]
async fn binary_content_goes_by_bdat_or_fails() {
    let hop = chunkless("502 5.5.1 no\r\n").await;
    let relay = start(options(&[hop.port]));
    relay.submit("<> BODY=BINARYMIME", &["<a@d.test>"], b"Subject: x\r\n\r\na\0b").await;
    relay.log.wait("failed", 1).await;
    assert_eq!((hop.count("BDAT"), hop.count("DATA")), (1, 0));
    relay.end().await;
}

#[tokio::test]
async fn a_route_without_chunking_uses_data_at_once() {
    let hop = chunkless("250 ok\r\n").await;
    let mut options = options(&[]);
    let mut route = Route::hosts([("[127.0.0.1]", hop.port)]);
    route.chunking = false;
    options.routes = RouteTable::all(route);
    let relay = start(options);
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((hop.count("BDAT"), hop.count("<end>")), (0, 1));
    relay.submit("<> BODY=BINARYMIME", &["<a@d.test>"], b"Subject: x\r\n\r\na\0b").await;
    relay.log.wait("delivered", 2).await;
    assert_eq!(hop.count("BDAT"), 1);
    relay.end().await;
}
