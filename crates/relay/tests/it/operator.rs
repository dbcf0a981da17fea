//! What an operator finds in the queue of a running relay, and does with it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use posthaste_client::SystemResolver;
use posthaste_queue::{Draft as _, memory::MemoryQueue};
use posthaste_queue::{Error, MessageId, NewDelivery, NewMessage, Owner, Priority, Queue as _, RoutingKey};
use posthaste_relay::{
    Destinations, MessageFilter, NextHop, Operator, QueuedMessage, RecipientState, RelayOptions, Route, RouteTable,
    Rule,
};
use posthaste_server::refusal;

use crate::support::{Behavior, Hop, PATIENCE, Running, envelope, options, start};

const MAIL: &[u8] = b"Subject: x\r\n\r\nx\r\n";

/// A relay that holds all mail but that for `slow.test`, which goes to a host that defers it.
async fn held_and_deferred() -> (Running, Hop) {
    let behavior =
        Behavior { rcpt: Box::new(|_| Err(refusal!("450 4.2.1 Greylisted, come back"))), ..Behavior::default() };
    let hop = Hop::start(behavior).await;
    let mut options = options(&[]);
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    options.routes = RouteTable::empty();
    options.routes.push(["slow.test".parse().unwrap()], Route::hosts([("[127.0.0.1]", hop.port)]));
    options.routes.push(["*".parse().unwrap()], Route::new(NextHop::Hold));
    (start(options), hop)
}

async fn submit(running: &Running, owner: &str, mail: &str, recipients: &[&str]) -> MessageId {
    let owner = Owner::new(owner).unwrap();
    running.relay.submit(owner, &envelope(mail, recipients), Bytes::from_static(MAIL)).await.unwrap()
}

async fn find(operator: &Operator<'_, MemoryQueue, SystemResolver>, filter: &MessageFilter) -> Vec<QueuedMessage> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = operator.find(filter, after, 2).await.unwrap();
        found.extend(page.messages);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn messages_are_found_by_each_condition() {
    let (running, _hop) = held_and_deferred().await;
    let a = submit(&running, "jo", "<s@s.test>", &["<a@d.test>", "<b@e.test>"]).await;
    let b = submit(&running, "kim", "<News@S.test>", &["<c@sub.d.test>"]).await;
    let c = submit(&running, "", "<>", &["<Postmaster>"]).await;
    let d = submit(&running, "jo", "<t@t.test>", &["<x@slow.test>", "<y@d.test>"]).await;
    running.log.wait("deferred", 1).await;
    let operator = running.relay.operator();
    operator.hold(b).await.unwrap();
    type Change = fn(&mut MessageFilter);
    let rows: [(Change, &[MessageId]); 20] = [
        (|_| {}, &[a, b, c, d]),
        (|filter| filter.sender = Some("s@s.test".parse().unwrap()), &[a]),
        (|filter| filter.sender = Some("s.test".parse().unwrap()), &[a, b]),
        (|filter| filter.sender = Some("news@s.test".parse().unwrap()), &[b]),
        (|filter| filter.sender = Some("<>".parse().unwrap()), &[c]),
        (|filter| filter.recipient = Some("A@D.test".parse().unwrap()), &[a]),
        (|filter| filter.recipient = Some("d.test".parse().unwrap()), &[a, d]),
        (|filter| filter.recipient = Some("*.d.test".parse().unwrap()), &[b]),
        (|filter| filter.recipient = Some("postmaster@relay.test".parse().unwrap()), &[c]),
        (|filter| filter.owner = Some(Owner::new("jo").unwrap()), &[a, d]),
        (|filter| filter.held = Some(true), &[b]),
        (|filter| filter.held = Some(false), &[a, c, d]),
        (|filter| filter.state = Some(RecipientState::Waiting(Duration::ZERO)), &[d]),
        (|filter| filter.state = Some(RecipientState::Reporting), &[]),
        (|filter| filter.reply = Some("greyLISTED".to_owned()), &[d]),
        (|filter| filter.reply = Some("full".to_owned()), &[]),
        // Of one and the same recipient.
        (
            |filter| {
                filter.reply = Some("greylisted".to_owned());
                filter.recipient = Some("d.test".parse().unwrap());
            },
            &[],
        ),
        (|filter| filter.older_than = Some(Duration::from_secs(3_600)), &[]),
        (|filter| filter.newer_than = Some(Duration::from_secs(3_600)), &[a, b, c, d]),
        (|filter| filter.damaged = Some(true), &[]),
    ];
    for (number, (change, wanted)) in rows.into_iter().enumerate() {
        let mut filter = MessageFilter::default();
        change(&mut filter);
        let found: Vec<_> = find(&operator, &filter).await.iter().map(|message| message.id).collect();
        assert_eq!(found, wanted, "row {number}: {filter:?}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_message_says_why_it_waits() {
    let (running, _hop) = held_and_deferred().await;
    let id = submit(&running, "jo", "<s@s.test>", &["<x@slow.test>"]).await;
    running.log.wait("deferred", 1).await;
    let message = running.relay.operator().message(id).await.unwrap();
    assert_eq!((message.owner.as_str(), message.priority, message.is_held), ("jo", 0, false));
    assert_eq!((message.sender.unwrap().to_string(), message.octets), ("<s@s.test>".to_owned(), MAIL.len() as u64));
    let [recipient] = &message.recipients[..] else { panic!() };
    assert_eq!(
        (recipient.path.to_string(), &*recipient.domain, recipient.attempts),
        ("<x@slow.test>".to_owned(), "slow.test", 1)
    );
    let RecipientState::Waiting(left) = recipient.state else { panic!("{:?}", recipient.state) };
    assert!(left > Duration::from_secs(3_000), "{left:?}");
    let last = recipient.last.as_ref().unwrap();
    assert!(last.at.is_some_and(|at| at.elapsed().unwrap() < PATIENCE));
    assert_eq!((last.diagnostic.is_reply, &*last.diagnostic.text), (true, "450 4.2.1 Greylisted, come back"));
    running.end().await;
}

#[tokio::test]
async fn a_message_is_held_released_tried_again_and_removed() {
    let (running, hop) = held_and_deferred().await;
    let id = submit(&running, "", "<s@s.test>", &["<x@slow.test>"]).await;
    running.log.wait("deferred", 1).await;
    let operator = running.relay.operator();
    assert_eq!(operator.retry(id).await.unwrap(), 1);
    running.log.wait("deferred", 2).await;
    assert!(operator.hold(id).await.unwrap() && !operator.hold(id).await.unwrap());
    operator.retry(id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.log.count("deferred"), 2, "it is on hold");
    assert!(operator.release(id).await.unwrap() && !operator.release(id).await.unwrap());
    running.log.wait("deferred", 3).await;
    operator.remove(id).await.unwrap();
    let gone = |result| matches!(result, Err(Error::NoSuchMessage(gone)) if gone == id);
    assert!(gone(operator.remove(id).await.map(drop)));
    assert!(gone(operator.message(id).await.map(drop)));
    assert!(gone(operator.content(id).await.map(drop)));
    assert!(gone(operator.retry(id).await.map(drop)));
    assert!(gone(operator.reroute(id, None).await.map(drop)));
    assert_eq!(hop.count(), 0);
    let totals = running.relay.totals();
    assert_eq!((totals.held, totals.released, totals.removed), (1, 1, 1));
    running.end().await;
}

#[tokio::test]
async fn the_content_is_what_the_next_hop_gets() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[]);
    options.routes = RouteTable::all(Route::new(NextHop::Hold));
    let running = start(options.clone());
    let id = submit(&running, "", "<s@s.test>", &["<x@d.test>"]).await;
    let content = running.relay.operator().content(id).await.unwrap();
    let octets = content.octets();
    let pieces: Vec<Bytes> = content.try_collect().await.unwrap();
    let content = pieces.concat();
    assert_eq!(octets, content.len() as u64);
    options.routes = RouteTable::all(Route::hosts([("[127.0.0.1]", hop.port)]));
    running.relay.reload(options).unwrap();
    running.empty().await;
    assert_eq!(hop.taken()[0].start, content);
    running.end().await;
}

fn with_detour(port: u16) -> RelayOptions {
    let mut options = options(&[]);
    options.routes = RouteTable::empty();
    let mut detour = Rule::new("detour".parse().unwrap(), Route::hosts([("[127.0.0.1]", port)]));
    // No mail meets it by itself.
    detour.senders = Some([].into_iter().collect());
    options.routes.push_rule(detour).unwrap();
    options.routes.push(["*".parse().unwrap()], Route::new(NextHop::Hold));
    options
}

#[tokio::test]
async fn a_message_takes_the_route_that_an_operator_gives_it_and_keeps_it() {
    let mut options = options(&[]);
    options.routes = RouteTable::all(Route::new(NextHop::Hold));
    let running = start(options);
    let id = submit(&running, "", "<s@s.test>", &["<x@d.test>", "<y@e.test>"]).await;
    let other = submit(&running, "", "<s@s.test>", &["<z@d.test>"]).await;
    let operator = running.relay.operator();
    let detour = "detour".parse().unwrap();
    assert_eq!(operator.reroute(id, Some(&detour)).await.unwrap(), 2);
    assert_eq!(operator.reroute(id, Some(&detour)).await.unwrap(), 0);
    let labels = async |id| {
        let message = operator.message(id).await.unwrap();
        message.recipients.into_iter().map(|one| (one.domain, one.label)).collect::<Vec<_>>()
    };
    let wanted = [("d.test", "detour"), ("e.test", "detour")];
    let wanted = wanted.map(|(domain, label)| (domain.to_owned(), Some(label.to_owned())));
    assert_eq!(labels(id).await, wanted);
    // The sweep after a reload leaves it there, and the rule's route counts.
    let hop = Hop::start(Behavior::default()).await;
    running.relay.reload(with_detour(hop.port)).unwrap();
    let begun = Instant::now();
    while hop.count() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", running.log.all());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.log.wait("relabeled", 1).await;
    assert_eq!(labels(other).await, [("d.test".to_owned(), None)]);
    assert_eq!(operator.reroute(other, Some(&detour)).await.unwrap(), 1);
    running.empty().await;
    running.end().await;
}

#[tokio::test]
async fn a_route_that_an_operator_gave_can_be_taken_back() {
    let running = start(with_detour(1));
    let operator = running.relay.operator();
    let id = submit(&running, "", "<s@s.test>", &["<x@d.test>"]).await;
    operator.hold(id).await.unwrap();
    operator.reroute(id, Some(&"detour".parse().unwrap())).await.unwrap();
    assert_eq!(operator.reroute(id, None).await.unwrap(), 1);
    assert_eq!(operator.message(id).await.unwrap().recipients[0].label, None);
    running.end().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_found_and_can_be_removed() {
    let running = start(with_detour(1));
    for (envelope, state) in [("junk", "junk"), ("", ""), ("\u{3}", "\u{3}")] {
        let (mut draft, octets) = (running.relay.queue().put(None).await.unwrap(), Bytes::from_static(MAIL));
        draft.write(octets).await.unwrap();
        let state = Bytes::copy_from_slice(state.as_bytes());
        let delivery =
            NewDelivery { key: RoutingKey::new("d.test").unwrap(), delay: Duration::from_secs(3_600), state };
        let (owner, envelope) = (Owner::default(), Bytes::copy_from_slice(envelope.as_bytes()));
        let message = NewMessage { owner, priority: Priority(0), envelope, deliveries: vec![delivery] };
        let id = draft.commit(message).await.unwrap();
        let operator = running.relay.operator();
        let mut filter = MessageFilter::default();
        filter.damaged = Some(true);
        let found = find(&operator, &filter).await;
        let [message] = &found[..] else { panic!("{found:?}") };
        assert!(message.id == id && message.sender.is_none() && message.damage.is_some(), "{message:?}");
        let pieces: Vec<Bytes> = operator.content(id).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), MAIL);
        operator.remove(id).await.unwrap();
    }
    running.end().await;
}

#[tokio::test]
async fn mail_is_summed_up_by_destination() {
    let (running, _hop) = held_and_deferred().await;
    submit(&running, "", "<s@s.test>", &["<a@d.test>", "<b@d.test>", "<x@slow.test>"]).await;
    let held = submit(&running, "", "<s@s.test>", &["<c@d.test>"]).await;
    running.log.wait("deferred", 1).await;
    let operator = running.relay.operator();
    operator.hold(held).await.unwrap();
    let mut destinations = Destinations::default();
    find(&operator, &MessageFilter::default()).await.iter().for_each(|message| destinations.add(message));
    assert_eq!((destinations.messages(), destinations.others()), (2, 0));
    let list = destinations.list();
    let [d, slow] = &list[..] else { panic!("{list:?}") };
    assert_eq!((&*d.domain, d.messages, d.recipients, d.held, d.due, d.waiting), ("d.test", 2, 3, 1, 2, 0));
    assert!(d.next.is_none() && d.reasons.is_empty());
    assert_eq!(
        (&*slow.domain, slow.messages, slow.recipients, slow.held, slow.due, slow.waiting),
        ("slow.test", 1, 1, 0, 0, 1)
    );
    assert!(slow.next.is_some_and(|next| next > Duration::from_secs(3_000)));
    let [reason] = &slow.reasons[..] else { panic!("{slow:?}") };
    assert_eq!((reason.recipients, reason.example.status.to_string()), (1, "4.2.1".to_owned()));
    running.end().await;
}

/// Mail for a next hop that could not be reached is deferred without an attempt for a while.
#[tokio::test]
async fn a_message_is_tried_again_at_once_although_its_next_hop_counts_as_unreachable() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = dead.local_addr().unwrap().port();
    drop(dead);
    let mut options = options(&[port]);
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    let running = start(options);
    let id = submit(&running, "", "<s@s.test>", &["<x@d.test>"]).await;
    running.log.wait("deferred", 1).await;
    let back = Hop::on(port, Behavior::default()).await;
    running.relay.operator().retry(id).await.unwrap();
    running.log.wait("delivered", 1).await;
    assert_eq!((back.count(), running.log.count("deferred")), (1, 1));
    running.end().await;
}
