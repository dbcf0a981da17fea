use std::time::Duration;

use posthaste_server::{
    Context, Envelope, Layer as _, Service as _,
    layers::RateLimit,
    wire::{Mail, ReversePath},
};
use tokio::time::advance;

use super::{SECOND, cx, mail, rcpt, said, talk_with, user};
use crate::support::{self, Names};

const MINUTE: Duration = Duration::from_secs(60);

/// How many of some attempts at once are allowed.
async fn allowed(layer: &RateLimit, cx: &Context, attempts: u32) -> u32 {
    let mut allowed = 0;
    for _ in 0..attempts {
        // Each is of a connection of its own.
        allowed += u32::from(layer.clone().mail(cx, &mail("me@sender.test")).await.is_ok());
    }
    allowed
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_emptied_at_once_and_fills_evenly() {
    let layer = RateLimit::messages(6, MINUTE);
    let client = cx("192.0.2.1");
    assert_eq!(allowed(&layer, &client, 100).await, 6);
    for (wait, expected) in [(9, 0), (1, 1), (10, 1), (35, 3), (5, 1), (60, 6), (6_000, 6)] {
        advance(wait * SECOND).await;
        assert_eq!(allowed(&layer, &client, 100).await, expected, "{wait}");
    }
    assert_eq!(allowed(&layer, &cx("192.0.2.2"), 100).await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_try_again() {
    let client = cx("192.0.2.1");
    for (mut layer, refusal) in [
        (RateLimit::connections(1, MINUTE), "421 4.7.0 Too many connections, try again in 60 s"),
        (RateLimit::messages(1, MINUTE), "451 4.7.1 Too many messages, try again in 60 s"),
        (RateLimit::recipients(1, MINUTE), "451 4.7.1 Too many recipients, try again in 60 s"),
    ] {
        for round in 0..2 {
            let all = [
                ("connections", said(layer.connect(&client).await)),
                ("messages", said(layer.mail(&client, &mail("me@sender.test")).await)),
                ("recipients", said(layer.rcpt(&client, &rcpt("you@d.test")).await)),
            ];
            for (what, said) in all {
                let expected = if round == 1 && refusal.contains(what) { refusal } else { "ok" };
                assert_eq!(said, expected);
            }
        }
        advance(MINUTE - Duration::from_millis(1)).await;
        let wait = [
            said(layer.connect(&client).await),
            said(layer.mail(&client, &mail("me@sender.test")).await),
            said(layer.rcpt(&client, &rcpt("you@d.test")).await),
        ];
        assert_eq!(wait.iter().filter(|said| said.ends_with("in 1 s")).count(), 1, "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_belongs_to_an_identity_or_a_network() {
    for (one, other, is_common) in [
        (cx("192.0.2.1"), cx("192.0.2.1"), true),
        (cx("192.0.2.1"), cx("192.0.2.2"), false),
        (cx("2001:db8::1"), cx("2001:db8::2"), true),
        (cx("2001:db8::1"), cx("2001:db8:0:1::1"), false),
        (user("192.0.2.1", "jo"), user("192.0.2.2", "jo"), true),
        (user("192.0.2.1", "jo"), user("192.0.2.1", "kim"), false),
        (user("192.0.2.1", "jo"), cx("192.0.2.1"), false),
        (cx("local"), cx("127.0.0.1"), true),
    ] {
        let layer = RateLimit::messages(3, MINUTE);
        assert_eq!(allowed(&layer, &one, 5).await, 3);
        assert_eq!(allowed(&layer, &other, 5).await, if is_common { 0 } else { 3 }, "{:?} {:?}", one.peer, other.peer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_ones_own_makes_the_buckets() {
    let layer = RateLimit::messages(3, MINUTE).by(|cx| cx.peer.identity.clone());
    assert_eq!(allowed(&layer, &cx("192.0.2.1"), 50).await, 50);
    assert_eq!(allowed(&layer, &user("192.0.2.1", "jo"), 50).await, 3);
    assert_eq!(allowed(&layer, &user("192.0.2.1", "kim"), 50).await, 3);
}

#[tokio::test(start_paused = true)]
async fn each_sender_has_a_bucket_of_its_own() {
    let of_users = |layer: RateLimit| layer.by(|cx| cx.peer.identity.as_ref().map(|_| ())).by_sender();
    let (jo, kim, stranger) = (user("192.0.2.1", "jo"), user("192.0.2.2", "kim"), cx("192.0.2.1"));
    let mut layer = of_users(RateLimit::messages(2, MINUTE));
    for (cx, path, expected) in [
        (&jo, "a@b.test", "ok"),
        (&kim, "A@B.test", "ok"),
        (&jo, "a@b.test", "451 4.7.1 Too many messages, try again in 30 s"),
        (&kim, "a@b.test", "451 4.7.1 Too many messages, try again in 30 s"),
        (&kim, "c@b.test", "ok"),
        (&stranger, "a@b.test", "ok"),
    ] {
        assert_eq!(said(layer.mail(cx, &mail(path)).await), expected, "{path}");
    }
    // Reports have the null reverse-path, and connections have no sender.
    let null = Mail::new(ReversePath::Null).into_owned();
    for _ in 0..5 {
        assert_eq!(said(layer.mail(&jo, &null).await), "ok");
        assert_eq!(said(RateLimit::connections(0, MINUTE).by_sender().connect(&jo).await), "ok");
    }
    // By default each network has a bucket for each sender, so that no other can use it up.
    let mut layer = RateLimit::messages(1, MINUTE).by_sender();
    for (client, expected) in [("192.0.2.1", "ok"), ("192.0.2.2", "ok"), ("192.0.2.1", "451")] {
        assert!(said(layer.mail(&cx(client), &mail("a@b.test")).await).starts_with(expected), "{client}");
    }
    // Recipients count for the sender of their transaction.
    let mut layer = RateLimit::recipients(1, MINUTE).by_sender();
    for (path, expected) in [("a@b.test", "ok"), ("c@b.test", "ok"), ("A@b.test", "451")] {
        let mut cx = stranger.clone();
        cx.envelope = Some(Envelope::from_commands(mail(path), Vec::new()));
        assert!(said(layer.rcpt(&cx, &rcpt("you@d.test")).await).starts_with(expected), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_may_refuse_for_good() {
    let client = cx("192.0.2.1");
    let (connections, messages) = (RateLimit::connections(0, MINUTE), RateLimit::messages(0, MINUTE));
    let recipients = RateLimit::recipients(0, MINUTE).permanently();
    assert_eq!(
        said(connections.permanently().connect(&client).await),
        "554 5.7.1 Too many connections, none is taken for 60 s"
    );
    let mut messages = messages.permanently();
    let refused = "550 5.7.1 Too many messages, none is taken for 60 s";
    assert_eq!(said(messages.mail(&client, &mail("a@b.test")).await), refused);
    let refused = "550 5.7.1 Too many recipients, none is taken for 60 s";
    assert_eq!(said(recipients.clone().rcpt(&client, &rcpt("you@d.test")).await), refused);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_no_wait_beyond_the_period() {
    let client = cx("192.0.2.1");
    for (times, period, wait) in [(0, MINUTE, 60), (0, Duration::ZERO, 0), (1, MINUTE, 60), (7, MINUTE, 9)] {
        let mut layer = RateLimit::messages(times, period);
        assert_eq!(allowed(&layer, &client, 20).await, times);
        let said = said(layer.mail(&client, &mail("me@sender.test")).await);
        assert_eq!(said, format!("451 4.7.1 Too many messages, try again in {wait} s"), "{times}");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_without_sense_are_no_panic() {
    let client = cx("192.0.2.1");
    for (times, period, expected) in [
        (0, MINUTE, 0),
        (0, Duration::ZERO, 0),
        (5, Duration::ZERO, 20),
        (1, Duration::MAX, 1),
        (u32::MAX, Duration::from_nanos(1), 20),
        (u32::MAX, Duration::MAX, 20),
    ] {
        assert_eq!(allowed(&RateLimit::messages(times, period), &client, 20).await, expected, "{times} {period:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_make_it_forget_a_client_that_has_used_its_bucket_up() {
    let layer = RateLimit::messages(3, MINUTE);
    let client = cx("192.0.2.1");
    assert_eq!(allowed(&layer, &client, 5).await, 3);
    let mut stranger = cx("10.0.0.0");
    for number in 0..120_000 {
        stranger.peer.network = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into();
        assert_eq!(allowed(&layer, &stranger, 1).await, 1);
    }
    assert_eq!(allowed(&layer, &client, 5).await, 0);
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_network_share_a_limit() {
    let service = Names::default().layer(RateLimit::recipients(3, MINUTE)).layer(RateLimit::connections(2, MINUTE));
    let mut replies = Vec::new();
    for _ in 0..2 {
        let mut talk = talk_with(service.clone(), "192.0.2.1", support::settings()).greeted().await;
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        for recipient in 1..=2 {
            replies.push(talk.ask(&format!("RCPT TO:<{recipient}@d.test>")).await.split_off(0)[..3].to_owned());
        }
    }
    assert_eq!(replies, ["250", "250", "250", "451"]);
    let mut talk = talk_with(service.clone(), "192.0.2.1", support::settings());
    assert_eq!(talk.reply().await, "421 4.7.0 Too many connections, try again in 30 s");
    assert_eq!(talk.reply().await, "<eof>");
    advance(30 * SECOND).await;
    talk_with(service, "192.0.2.1", support::settings()).greeted().await;
}
