use posthaste_server::{Layer as _, Service as _, layers::Tarpit, wire::EhloName};
use tokio::time::Instant;

use super::{SECOND, cx, rcpt, talk_with, timed, user};
use crate::support::{self, Names};

#[tokio::test(start_paused = true)]
async fn answers_are_delayed_after_some_refusals() {
    for (address, free, delays) in [
        ("192.0.2.1", 3, [0, 0, 0, 1, 1]),
        ("192.0.2.1", 0, [1, 1, 1, 1, 1]),
        ("127.0.0.1", 3, [0, 0, 0, 0, 0]),
        ("local", 0, [0, 0, 0, 0, 0]),
    ] {
        let mut layer = Tarpit::default();
        layer.free_refusals = free;
        let mut talk = talk_with(Names::default().layer(layer), address, support::settings()).greeted().await;
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        for delay in delays {
            let (said, waited) = timed(&mut talk, "RCPT TO:<refuse-rcpt@d.test>").await;
            assert_eq!((&said[..3], waited), ("550", delay), "{address} {free}");
        }
        // An answer that accepts waits too.
        assert_eq!(timed(&mut talk, "RCPT TO:<a@d.test>").await.1, delays[4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_never_costs_a_client_its_verdict() {
    let mut layer = Tarpit::default();
    (layer.free_refusals, layer.delay) = (0, 100 * SECOND);
    let mut settings = support::settings();
    settings.timeouts.verdict = 10 * SECOND;
    let mut talk = talk_with(Names::default().layer(layer), "192.0.2.1", settings);
    assert!(talk.reply().await.starts_with("220"));
    let (said, waited) = timed(&mut talk, "EHLO c.test").await;
    assert_eq!((&said[..3], waited), ("250", 5));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_100_answers_wait_at_a_time() {
    let mut layer = Tarpit::default();
    layer.free_refusals = 0;
    let name = EhloName::parse("c.test").unwrap().into_owned();
    let start = Instant::now();
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..250 {
        let (mut layer, name) = (layer.clone(), name.clone());
        waits.spawn(async move {
            layer.hello(&cx("192.0.2.1"), &name).await.unwrap();
            start.elapsed().as_secs()
        });
    }
    assert_eq!(waits.join_all().await.into_iter().sum::<u64>(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_logged_in_is_not_delayed() {
    let mut layer = Tarpit::default();
    layer.free_refusals = 0;
    let start = Instant::now();
    layer.rcpt(&user("192.0.2.1", "jo"), &rcpt("a@d.test")).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 0);
    layer.rcpt(&cx("192.0.2.1"), &rcpt("a@d.test")).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 1);
}
