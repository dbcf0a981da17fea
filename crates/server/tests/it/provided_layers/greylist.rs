use std::time::Duration;

use posthaste_server::{
    Context, Layer as _, Refusal, Service as _,
    layers::{Greylist, GreylistMemory, GreylistTable},
    refusal,
};
use tokio::time::advance;

use super::{SECOND, cx, mail, rcpt, said, talk_with, user};
use crate::support::{self, Names};

const DAY: u64 = 24 * 60 * 60;

/// The decision about a transaction of one recipient.
async fn attempt<M: GreylistMemory>(layer: &Greylist<M>, mut cx: Context, sender: &str, recipient: &str) -> String {
    let mut layer = layer.clone();
    let mail = mail(sender);
    layer.mail(&cx, &mail).await.unwrap();
    cx.envelope.as_mut().unwrap().mail = mail;
    said(layer.rcpt(&cx, &rcpt(recipient)).await).replace("451 4.7.1 Greylisted, try again in ", "")
}

#[tokio::test(start_paused = true)]
async fn a_retry_within_the_window_lets_its_network_pass() {
    let layer = Greylist::default();
    // Seconds since the row before; client, sender, recipient; seconds to wait.
    for (row, (wait, address, sender, recipient, expected)) in [
        (0, "192.0.2.1", "a@s.test", "x@d.test", "60 s"),
        (20, "192.0.2.1", "a@s.test", "x@d.test", "40 s"),
        (0, "192.0.2.1", "a@S.Test", "x@D.TEST", "40 s"),
        // Another attempt: its own sender, recipient or network.
        (10, "192.0.2.1", "b@s.test", "x@d.test", "60 s"),
        (0, "192.0.2.1", "a@s.test", "y@d.test", "60 s"),
        (0, "198.51.100.1", "a@s.test", "x@d.test", "60 s"),
        (0, "2001:db8::1", "", "x@d.test", "60 s"),
        // From a neighbor, as large senders do.
        (30, "192.0.2.99", "a@s.test", "x@d.test", "ok"),
        // The whole network passes now.
        (0, "192.0.2.1", "c@s.test", "z@d.test", "ok"),
        (0, "192.0.3.1", "a@s.test", "x@d.test", "60 s"),
        (30, "2001:db8::ffff", "", "x@d.test", "ok"),
        (0, "2001:db8:0:1::1", "", "x@d.test", "60 s"),
        // The retry comes too late, and counts as a first attempt.
        (DAY, "198.51.100.1", "a@s.test", "x@d.test", "60 s"),
        (DAY - 1, "198.51.100.1", "a@s.test", "x@d.test", "ok"),
        // Each message renews the time for which a network passes.
        (33 * DAY, "192.0.2.1", "d@s.test", "x@d.test", "ok"),
        (36 * DAY - 1, "192.0.2.1", "d@s.test", "x@d.test", "ok"),
        (36 * DAY, "192.0.2.1", "d@s.test", "x@d.test", "60 s"),
    ]
    .into_iter()
    .enumerate()
    {
        advance(Duration::from_secs(wait)).await;
        assert_eq!(attempt(&layer, cx(address), sender, recipient).await, expected, "row {row}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_known_never_wait() {
    let mut layer = Greylist::default();
    layer.except.push("198.51.100.0/24".parse().unwrap());
    for (cx, expected) in [
        (user("192.0.2.1", "jo"), "ok"),
        (cx("198.51.100.200"), "ok"),
        (cx("127.0.0.1"), "ok"),
        (cx("::1"), "ok"),
        (cx("local"), "ok"),
        (cx("192.0.2.1"), "60 s"),
    ] {
        assert_eq!(attempt(&layer, cx, "a@s.test", "x@d.test").await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_recipient_decides_for_its_transaction() {
    let mut talk =
        talk_with(Names::default().layer(Greylist::default()), "192.0.2.1", support::settings()).greeted().await;
    for (wait, first, second, code) in
        [(0, "x", "y", "451"), (60, "y", "x", "451"), (0, "x", "new", "250"), (0, "new", "newer", "250")]
    {
        advance(wait * SECOND).await;
        talk.expect("RSET", "250").await;
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        talk.expect(&format!("RCPT TO:<{first}@d.test>"), code).await;
        talk.expect(&format!("RCPT TO:<{second}@d.test>"), code).await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_with_a_common_memory_take_each_others_retries() {
    let table = GreylistTable::default();
    let (one, other) = (Greylist::new(table.clone()), Greylist::new(table));
    assert_eq!(attempt(&one, cx("192.0.2.1"), "a@s.test", "x@d.test").await, "60 s");
    advance(60 * SECOND).await;
    assert_eq!(attempt(&other, cx("192.0.2.1"), "a@s.test", "x@d.test").await, "ok");
}

/// A memory that is away.
#[derive(Clone)]
struct Away;

impl GreylistMemory for Away {
    async fn age(&self, _: &str) -> Result<Option<Duration>, Refusal> {
        Err(refusal!("451 4.3.0 The memory is away"))
    }

    async fn remember(&self, _: &str, _: Duration) -> Result<(), Refusal> {
        unreachable!("its age is asked first");
    }
}

#[tokio::test]
async fn a_memory_that_is_away_decides_what_the_client_gets() {
    let said = attempt(&Greylist::new(Away), cx("192.0.2.1"), "a@s.test", "x@d.test").await;
    assert_eq!(said, "451 4.3.0 The memory is away");
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_make_it_forget_a_network_that_has_passed() {
    let table = GreylistTable::default();
    let layer = Greylist::new(table.clone());
    assert_eq!(attempt(&layer, cx("192.0.2.1"), "a@s.test", "x@d.test").await, "60 s");
    advance(60 * SECOND).await;
    assert_eq!(attempt(&layer, cx("192.0.2.1"), "a@s.test", "x@d.test").await, "ok");
    for stranger in 0..150_000 {
        table.remember(&format!("attempt {stranger}"), layer.window).await.unwrap();
    }
    assert_eq!(attempt(&layer, cx("192.0.2.1"), "b@s.test", "y@d.test").await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_shorter_than_the_wait_lets_clients_in() {
    let mut layer = Greylist::default();
    layer.window = Duration::ZERO;
    assert_eq!(attempt(&layer, cx("192.0.2.1"), "a@s.test", "x@d.test").await, "60 s");
    advance(Duration::from_secs(60)).await;
    assert_eq!(attempt(&layer, cx("192.0.2.1"), "a@s.test", "x@d.test").await, "ok");
}
