//! One report for a round of attempts, however many deliveries a message has.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{Behavior, Hop, Log, Taken, envelope, options, run, start};
use bytes::Bytes;
use posthaste_client::SystemResolver;
use posthaste_queue::{
    ManualClock, Owner, Queue as _,
    memory::{MemoryOptions, MemoryQueue},
};
use posthaste_relay::{Relay, RelayOptions, Route};
use posthaste_server::refusal;
use posthaste_server::session::server::Offers;
use posthaste_testkit::script::{Scripted, polite, verb};

const CONTENT: &[u8] = b"Subject: x\r\nX-Token: 7\r\n\r\nthe body\r\n";

/// Refuses, defers or takes by the first letter of the local part. Senders are at `s`.
fn moods() -> Behavior {
    Behavior {
        rcpt: Box::new(|path| match path.get(1..2) {
            Some("r") => Err(refusal!("550 5.1.1 Nobody here")),
            Some("l") => Err(refusal!("450 4.2.1 Later")),
            _ => Ok(()),
        }),
        ..Behavior::default()
    }
}

/// Each of the domains `d0` to `d9` has a route of its own, so that their deliveries share no
/// workers.
fn ten_routes(port: u16, mut options: RelayOptions) -> RelayOptions {
    options.routes = posthaste_relay::RouteTable::empty();
    let names = (0..10).map(|n| format!("d{n}")).chain(["*".to_owned()]);
    // Equal routes would share their workers: each names the host one time more.
    for (name, times) in names.zip(1..) {
        options.routes.push([name.parse().unwrap()], Route::hosts(vec![("[127.0.0.1]", port); times]));
    }
    options
}

fn count(report: &Taken, line: &str) -> usize {
    report.text().matches(line).count()
}

#[tokio::test]
async fn a_thousand_domains_that_refuse_make_one_report_with_the_content_once() {
    let hop = Hop::start(moods()).await;
    let relay = start(ten_routes(hop.port, options(&[1])));
    let recipients: Vec<_> = (0..1_000).map(|n| format!("<r{n}@d{}.sub{n}>", n % 10)).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    relay.submit("<sender@s> RET=FULL", &recipients, CONTENT).await;
    relay.empty().await;
    let reports = hop.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(relay.log.of("reported")[0].text, "1000 failed, 0 delayed, 0 relayed");
    assert_eq!(relay.log.count("failed"), 1_000);
    let body = reports[0].octets;
    assert!(body < 1_000 * 500, "{body}");
    relay.end().await;
}

#[tokio::test]
async fn failed_relayed_and_delayed_recipients_are_in_one_report() {
    let hop = Hop::with(0, Offers::default(), Default::default(), moods()).await;
    let mut options = ten_routes(hop.port, options(&[1]));
    options.delivery.retry.warn_after = Some(Duration::ZERO);
    options.delivery.retry.waits = vec![Duration::from_secs(60)];
    let relay = start(options);
    let recipients = ["<r@d0>", "<take@d1> NOTIFY=SUCCESS", "<l@d2>", "<take@d3>", "<r@d4> NOTIFY=NEVER", "<l@d4>"];
    relay.submit("<sender@s> RET=FULL", &recipients, CONTENT).await;
    relay.log.wait("reported", 1).await;
    assert_eq!(relay.log.of("reported")[0].text, "1 failed, 2 delayed, 1 relayed");
    relay.log.wait("delivered", 3).await;
    let reports = hop.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        ["failed", "delayed", "relayed"].map(|what| count(&reports[0], &format!("Action: {what}\r\n"))),
        [1, 2, 1]
    );
    assert_eq!(count(&reports[0], "the body"), 1);
    // The two recipients that wait are left, with no other outcome to be reported.
    let left = relay.relay.queue().list(None, 9).await.unwrap();
    assert_eq!(left[0].deliveries.len(), 2);
    assert!(left[0].deliveries.iter().all(|each| each.attempts == 1 && each.due_in > Duration::from_secs(30)));
    relay.end().await;
}

#[tokio::test]
async fn each_round_of_attempts_has_its_own_report() {
    let hop = Hop::start(moods()).await;
    let mut options = ten_routes(hop.port, options(&[1]));
    options.delivery.retry.expire_after = Duration::from_millis(900);
    options.delivery.retry.waits = vec![Duration::from_secs(2)];
    let relay = start(options);
    relay.submit("<sender@s>", &["<r@d0>", "<r@d1>", "<l@d2>", "<l@d3>", "<take@d4>"], CONTENT).await;
    relay.empty().await;
    let told: Vec<_> = relay.log.of("reported").into_iter().map(|seen| seen.text).collect();
    assert_eq!(told, ["2 failed, 0 delayed, 0 relayed"; 2]);
    relay.end().await;
}

/// A relay over a queue whose clock stands still, unless the test moves it.
struct Still {
    clock: ManualClock,
    relay: Relay<MemoryQueue, SystemResolver>,
    log: Log,
}

impl Still {
    fn new(port: u16) -> Self {
        let clock = ManualClock::default();
        let mut queue_options = MemoryOptions::default();
        queue_options.clock = Arc::new(clock.clone());
        let queue = MemoryQueue::new(queue_options);
        let log = Log::default();
        let mut options = ten_routes(port, options(&[1]));
        options.delivery.drain = Duration::ZERO;
        options.delivery.lease = Duration::from_secs(30);
        let relay = Relay::builder(queue, SystemResolver, options).observer(log.clone()).build();
        Self { clock, relay, log }
    }
}

/// If a process ends with outcomes to be reported, the next one reports them with all later ones.
#[tokio::test]
async fn a_report_survives_the_process_that_was_to_write_it() {
    let slow = Behavior {
        rcpt: Box::new(|path| match path.get(1..2) {
            Some("r") => Err(refusal!("550 5.1.1 Nobody here")),
            _ => Ok(()),
        }),
        think: Duration::from_secs(3),
        ..Behavior::default()
    };
    let hop = Hop::start(slow).await;
    let Still { clock, relay, log } = Still::new(hop.port);
    let first = run(relay.clone(), log.clone());
    let mail = envelope("<sender@s>", &["<r@d0>", "<r@d1>", "<take@d2>"]);
    relay.submit(Owner::default(), &mail, Bytes::from_static(CONTENT)).await.unwrap();
    log.wait("failed", 2).await;
    // The third delivery is under way, so there is no report yet. It is dropped, and the round is
    // not closed.
    first.drain.cancel();
    first.task.await.unwrap().unwrap();
    assert_eq!(log.count("reported"), 0);
    let left = relay.queue().list(None, 9).await.unwrap();
    assert_eq!(left[0].deliveries.len(), 3, "the failed recipients are still there, to be reported");
    let second = run(relay.clone(), log.clone());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(log.count("reported"), 0);
    clock.advance(Duration::from_secs(121));
    log.wait("reported", 1).await;
    assert_eq!(log.of("reported")[0].text, "2 failed, 0 delayed, 0 relayed");
    log.wait("delivered", 2).await;
    assert_eq!(hop.reports().len(), 1);
    second.drain.cancel();
    second.task.await.unwrap().unwrap();
}

/// A host with these extensions alone, which refuses some messages. Returns what it took, as text.
async fn small_host(
    offers: &'static [&'static str],
    refuses: fn(&str, &str) -> Option<&'static str>,
) -> (u16, Arc<Mutex<Vec<String>>>) {
    let (mut mail, mut content) = (String::new(), String::new());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&taken);
    let host = Scripted::start(move |_, line| {
        let refused = match verb(line) {
            "MAIL" => {
                (mail, content) = (line.to_owned(), String::new());
                refuses(&mail, "")
            }
            "RCPT" if line.starts_with("RCPT TO:<r") => Some("550 5.1.1 Nobody here\r\n"),
            "<end>" => refuses(&mail, &content),
            _ => None,
        };
        match (refused, line.strip_prefix("<octets> ")) {
            (_, Some(octets)) => content.push_str(octets),
            (None, _) if line == "<end>" => all.lock().unwrap().push(content.clone()),
            _ => {}
        }
        refused.map_or_else(|| polite(line, offers), str::to_owned)
    });
    (host.await.port, taken)
}

/// A report that cannot be delivered is sent again without the message that it returned.
#[tokio::test]
async fn a_report_goes_without_the_message_to_a_host_that_refuses_the_message() {
    const EIGHT_BIT: &[u8] = b"Subject: caf\xc3\xa9\r\nX-Token: 7\r\n\r\nthe body is \xe9\r\n";
    const EIGHT_BIT_BODY: &[u8] = b"Subject: x\r\nX-Token: 7\r\n\r\nthe body is \xe9\r\n";
    let large: &'static [u8] = [CONTENT, &b"the body goes on and on\r\n".repeat(5_000)].concat().leak();
    let nothing: fn(&str, &str) -> _ = |_, _| None;
    let spam: fn(&str, &str) -> _ =
        |_, content| content.contains("the body").then_some("554 5.7.1 This looks like spam\r\n");
    let large_mail: fn(&str, &str) -> _ = |mail, _| {
        let size = mail.split_once("SIZE=").map_or("0", |(_, size)| size.split(' ').next().unwrap());
        (size.parse::<u32>().unwrap() > 20_000).then_some("552 5.3.4 Too large\r\n")
    };
    for (content, offers, refuses, whole) in [
        (EIGHT_BIT_BODY, &[][..], nothing, false),
        (EIGHT_BIT, &[], nothing, false),
        (EIGHT_BIT, &["8BITMIME"], nothing, true),
        (CONTENT, &[], nothing, true),
        (CONTENT, &["8BITMIME"], spam, false),
        (large, &["SIZE"], large_mail, false),
    ] {
        let (port, taken) = small_host(offers, refuses).await;
        let relay = start(options(&[port]));
        relay.submit("<sender@s> RET=FULL", &["<r@d0>"], content).await;
        relay.empty().await;
        let taken = taken.lock().unwrap().clone();
        assert_eq!(taken.len(), 1, "{offers:?} {:?}", relay.log.all());
        let text = &taken[0];
        assert_eq!(text.contains("the body"), whole, "{text}");
        assert!(text.contains("X-Token: 7") && text.contains("Action: failed"), "{text}");
        assert!(whole || text.is_ascii(), "{text}");
        assert_eq!(relay.log.count("not reported"), 0, "the sender has a report");
        relay.end().await;
    }
}
