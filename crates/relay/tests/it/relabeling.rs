//! Queued mail whose rules change: it finds its label again.

use std::time::{Duration, Instant};

use posthaste_queue::{Queue as _, Search};
use posthaste_relay::{NextHop, RelayOptions, Route, RouteTable, Rule};
use posthaste_server::refusal;

use crate::support::{Behavior, Hop, PATIENCE, Running, options, run, start};

const MAIL: &[u8] = b"Subject: x\r\n\r\nx\r\n";

fn to(port: u16) -> Route {
    Route::hosts([("[127.0.0.1]", port)])
}

fn hold() -> Route {
    Route::new(NextHop::Hold)
}

/// A rule for mail from one sender.
fn by_sender(name: &str, sender: &str, route: Route) -> Rule {
    let mut rule = Rule::new(name.parse().unwrap(), route);
    rule.senders = Some([sender.parse().unwrap()].into_iter().collect());
    rule
}

fn table(rules: impl IntoIterator<Item = Rule>, rest: Route) -> RelayOptions {
    let mut options = options(&[]);
    options.routes = RouteTable::empty();
    rules.into_iter().for_each(|rule| options.routes.push_rule(rule).unwrap());
    options.routes.push(["*".parse().unwrap()], rest);
    options
}

async fn keys(running: &Running) -> Vec<String> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = running.relay.queue().search(&Search::default(), after, 100).await.unwrap();
        for message in page.messages {
            keys.extend(message.deliveries.into_iter().map(|delivery| delivery.key.to_string()));
        }
        after = page.next;
        if after.is_none() {
            keys.sort();
            return keys;
        }
    }
}

async fn become_keys(running: &Running, wanted: &[&str]) {
    let begun = Instant::now();
    while keys(running).await != wanted {
        assert!(begun.elapsed() < PATIENCE, "{:?} and not {wanted:?}", keys(running).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn held_mail_follows_rules_that_come_and_go() {
    let running = start(table([], hold()));
    for sender in ["<s@s.test>", "<bulk@s.test>"] {
        running.submit(sender, &["<a@d.test>"], MAIL).await;
    }
    become_keys(&running, &["d.test", "d.test"]).await;
    running.relay.reload(table([by_sender("bulk", "bulk@s.test", hold())], hold())).unwrap();
    become_keys(&running, &["d.test", "d.test bulk"]).await;
    let rules = [by_sender("new", "bulk@s.test", hold()), by_sender("bulk", "s@s.test", hold())];
    running.relay.reload(table(rules, hold())).unwrap();
    become_keys(&running, &["d.test bulk", "d.test new"]).await;
    running.log.wait("relabeled", 2).await;
    assert_eq!(running.log.of("relabeled")[1].text, "2 seen, 2 moved, 0 together");
    let state = running.relay.relabeling();
    assert_eq!((state.is_running, state.seen, state.moved), (false, 2, 2));
    running.relay.reload(table([by_sender("other", "other@s.test", hold())], hold())).unwrap();
    become_keys(&running, &["d.test", "d.test"]).await;
    running.end().await;
}

#[tokio::test]
async fn a_new_rule_refuses_discards_and_delivers_what_was_held_before() {
    let hop = Hop::start(Behavior::default()).await;
    for (route, event) in [
        (Route::new(NextHop::Refuse(refusal!("553 5.7.9 Not in this way"))), "failed"),
        (Route::new(NextHop::Discard), "discarded"),
        (to(hop.port), "delivered"),
    ] {
        let running = start(table([], hold()));
        running.submit("<bulk@d.test>", &["<a@d.test>"], MAIL).await;
        running.submit("<s@s.test>", &["<b@d.test>"], MAIL).await;
        running.relay.reload(table([by_sender("bulk", "bulk@d.test", route)], hold())).unwrap();
        running.log.wait(event, 1).await;
        assert_eq!(running.log.of(event)[0].who, "<a@d.test>");
        running.end().await;
    }
}

/// Recipients of one delivery cannot part: a rule that refuses one of them refuses no other.
#[tokio::test]
async fn recipients_that_were_queued_together_stay_together() {
    let running = start(table([], hold()));
    running.submit("<s@s.test>", &["<a@d.test>", "<boss@d.test>"], MAIL).await;
    let mut vip = Rule::new("vip".parse().unwrap(), Route::new(NextHop::Refuse(refusal!("553 5.7.9 No"))));
    vip.recipients = Some(["boss@d.test".parse().unwrap()].into_iter().collect());
    running.relay.reload(table([vip], hold())).unwrap();
    running.log.wait("relabeled", 1).await;
    assert_eq!(running.log.of("relabeled")[0].text, "1 seen, 0 moved, 1 together");
    assert_eq!(keys(&running).await, ["d.test"]);
    running.end().await;
}

/// The user is not recorded.
#[tokio::test]
async fn a_label_by_user_is_kept_and_given_to_no_other_mail() {
    let running = start(table([by_sender("jo", "s@s.test", hold())], hold()));
    running.submit("<s@s.test>", &["<a@d.test>"], MAIL).await;
    running.submit("<t@s.test>", &["<a@d.test>"], MAIL).await;
    let mut jo = Rule::new("jo".parse().unwrap(), hold());
    jo.identities = Some(["jo".to_owned()].into());
    let count = running.log.count("relabeled");
    running.relay.reload(table([jo], hold())).unwrap();
    running.log.wait("relabeled", count + 1).await;
    assert_eq!(keys(&running).await, ["d.test", "d.test jo"]);
    running.end().await;
}

#[tokio::test]
async fn two_thousand_messages_under_way_take_the_new_rule_and_arrive_once() {
    let slow = Behavior { think: Duration::from_millis(2), ..Behavior::default() };
    let (first, second) = (Hop::start(slow).await, Hop::start(Behavior::default()).await);
    let running = start(table([], to(first.port)));
    for number in 0..2_000 {
        running.submit("<bulk@s.test>", &[&format!("<u{number}@d.test>")], MAIL).await;
    }
    running.relay.reload(table([by_sender("bulk", "bulk@s.test", to(second.port))], hold())).unwrap();
    running.empty().await;
    let mut arrived: Vec<_> = [&first, &second].iter().flat_map(|hop| hop.mail()).flat_map(|one| one.rcpts()).collect();
    arrived.sort();
    let count = arrived.len();
    arrived.dedup();
    assert_eq!((count, arrived.len()), (2_000, 2_000));
    running.end().await;
}

/// A relay that ends in a sweep makes it again at its start.
#[tokio::test]
async fn a_relay_that_starts_finds_labels_again() {
    let running = start(table([], hold()));
    for number in 0..200 {
        running.submit("<bulk@s.test>", &[&format!("<u{number}@d.test>")], MAIL).await;
    }
    let (relay, log) = (running.relay.clone(), running.log.clone());
    running.relay.reload(table([by_sender("bulk", "bulk@s.test", hold())], hold())).unwrap();
    running.end().await;
    let running = run(relay, log);
    become_keys(&running, &["d.test bulk"; 200]).await;
    running.end().await;
}
