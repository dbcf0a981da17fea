use std::{io, net::IpAddr, sync::Arc, time::Duration};

use posthaste_server::{
    Layer as _, Service, Tls, converse,
    layers::{Access, BlockList, EarlyTalkers, Greylist, Headers, Log, Observed, RateLimit, Recipients, Tarpit},
    session::ServerSettings,
};
use tokio::time::advance;

use super::{SECOND, cx, peer, talk_with};
use crate::support::{self, Names};

fn guarded() -> impl Service + Clone {
    let hour = Duration::from_secs(3_600);
    Names::default()
        .layer(Headers::default())
        .layer(Recipients::new(|mailbox| async move { Ok(mailbox.local_part() != "nowhere") }))
        .layer(Greylist::default())
        .layer(BlockList::new("bl.test", |_| async { Err::<Vec<IpAddr>, _>(io::Error::other("NXDOMAIN")) }))
        .layer(RateLimit::messages(100, hour))
        .layer(RateLimit::recipients(1_000, hour))
        .layer(RateLimit::connections(30, hour))
        .layer(EarlyTalkers::default())
        .layer(Access::deny("198.51.100.0/24".parse().unwrap()))
        .layer(Observed::new("tarpit", Tarpit::default()))
        .layer(Log::default())
}

#[tokio::test(start_paused = true)]
async fn an_honest_client_passes_all_layers_on_its_second_attempt() {
    let service = guarded();
    for (wait, code) in [(0, "451"), (300, "250"), (0, "250")] {
        advance(wait * SECOND).await;
        let mut talk = talk_with(service.clone(), "192.0.2.1", support::settings()).greeted().await;
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        talk.expect("RCPT TO:<you@d.test>", code).await;
        if code == "250" {
            talk.expect("RCPT TO:<nowhere@d.test>", "550 5.1.1").await;
            talk.expect("DATA", "354").await;
            talk.expect("Subject: hi\r\n\r\nyou\r\n.", "250").await;
        }
        talk.expect("QUIT", "221").await;
    }
}

/// The size of what serves a connection of a service.
fn size<V: Service>(service: &V) -> usize {
    let (_, stream) = tokio::io::duplex(1);
    let settings = support::settings().into();
    size_of_val(&converse(stream, peer("192.0.2.1"), service, settings, Tls::Off, std::future::pending()))
}

/// Each idle client has these bytes: a layer costs its own fields, and not the room that its work
/// needs.
#[test]
fn eleven_layers_make_a_connection_little_larger() {
    let (bare, layered) = (size(&Names::default()), size(&guarded()));
    assert!(layered <= bare + 11 * 150, "{bare} {layered}");
}

#[test]
fn an_optional_layer_has_its_settings() {
    let settings: Arc<ServerSettings> = support::settings().into();
    let delay =
        |layer: Option<EarlyTalkers>| layer.settings(&cx("192.0.2.1"), Arc::clone(&settings)).timeouts.greeting_delay;
    assert_eq!(delay(Some(EarlyTalkers::default())), 2 * SECOND);
    assert_eq!(delay(None), Duration::ZERO);
}
