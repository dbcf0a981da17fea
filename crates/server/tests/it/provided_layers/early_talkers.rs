use std::{sync::Arc, time::Duration};

use posthaste_server::{Layer as _, Listener, Server, Service as _, layers::EarlyTalkers, session::ServerSettings};
use posthaste_testkit::talk::Talk;
use tokio::time::Instant;

use super::{SECOND, cx, talk_with};
use crate::support::{self, Names};

#[tokio::test(start_paused = true)]
async fn strangers_wait_for_the_greeting_and_known_clients_do_not() {
    let mut layer = EarlyTalkers::default();
    layer.except.push("198.51.100.0/24".parse().unwrap());
    for (address, wait) in [("192.0.2.1", 2), ("2001:db8::1", 2), ("127.0.0.1", 0), ("local", 0), ("198.51.100.9", 0)] {
        let start = Instant::now();
        let mut talk = talk_with(Names::default().layer(layer.clone()), address, support::settings());
        assert!(talk.reply().await.starts_with("220 "));
        assert_eq!(start.elapsed().as_secs(), wait, "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_talks_before_the_greeting_is_turned_away() {
    let names = Names::default();
    for early in ["EHLO c.test\r\n", "E", "\r\n", "GET / HTTP/1.1\r\n", "\u{16}\u{3}\u{1}"] {
        let mut talk = talk_with(names.clone().layer(EarlyTalkers::default()), "192.0.2.1", support::settings());
        tokio::time::sleep(SECOND).await;
        talk.send(early).await;
        let said = talk.reply().await;
        assert!(said.starts_with("554 "), "{early:?}: {said}");
        assert_eq!(talk.reply().await, "<eof>");
    }
    assert!(names.log.lock().unwrap().is_empty());
}

#[test]
fn connections_share_the_changed_settings() {
    let layer = EarlyTalkers::default();
    let settings: Arc<ServerSettings> = support::settings().into();
    let first = layer.settings(&cx("192.0.2.1"), Arc::clone(&settings));
    let second = layer.clone().settings(&cx("192.0.2.2"), Arc::clone(&settings));
    assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &settings));
    assert_eq!(first.timeouts.greeting_delay, 2 * SECOND);
    assert!(Arc::ptr_eq(&layer.settings(&cx("127.0.0.1"), Arc::clone(&settings)), &settings));
    // Those of another listener.
    let mut other = support::settings();
    other.limits.recipients = 7;
    assert_eq!(layer.settings(&cx("192.0.2.1"), other.into()).limits.recipients, 7);
    assert_eq!(layer.settings(&cx("192.0.2.1"), settings).limits.recipients, first.limits.recipients);
}

/// What a browser can be made to send (hazards of cross-protocol attacks): a form whose fields are
/// commands, and other protocols that scanners speak.
const FOREIGN: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: mx.test\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Type: text/plain\r\n\r\nEHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n",
    "PUT /x HTTP/1.0\r\n\r\nMAIL FROM:<a@b.test>\r\n",
    "HEAD / HTTP/1.1\r\n\r\n",
    "CONNECT mx.test:25 HTTP/1.1\r\n\r\nEHLO a\r\n",
    "OPTIONS sip:mx.test SIP/2.0\r\nVia: SIP/2.0/TCP a\r\n\r\n",
    "PATCH /x HTTP/1.1\r\n\r\nEHLO a\r\n",
];

/// Over real sockets, without a delay of the greeting: loopback is known.
#[tokio::test]
async fn another_protocol_ends_the_session_and_no_line_of_it_is_a_command() {
    let names = Names::default();
    let listener = Listener::bind("127.0.0.1:0", support::settings()).await.unwrap();
    let address = listener.local_address().unwrap();
    tokio::spawn(Server::new(names.clone().layer(EarlyTalkers::default())).listen(listener).serve());
    for octets in FOREIGN {
        for is_greeted in [false, true] {
            let mut talk = Talk::connect(address).await;
            assert!(talk.reply().await.starts_with("220 "));
            if is_greeted {
                talk.expect("EHLO good.test", "250").await;
            }
            talk.send(octets).await;
            assert_eq!(talk.reply().await, "421 4.7.0 This is an SMTP server", "{octets:?}");
            let end = tokio::time::timeout(Duration::from_secs(10), talk.reply()).await;
            assert_eq!(end.unwrap(), "<eof>", "{octets:?}");
        }
    }
    assert!(names.log.lock().unwrap().iter().all(|line| line == "hello good.test"), "{names:?}");
}
