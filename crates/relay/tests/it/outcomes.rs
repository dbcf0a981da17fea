//! The outcome of each recipient, written back and reported exactly once.

use std::time::Duration;

use crate::support::{Behavior, Hop, options, start};
use posthaste_queue::Queue as _;
use posthaste_server::{accepted, refusal};
use posthaste_testkit::script::{Scripted, polite};

const CONTENT: &[u8] = b"Subject: x\r\nX-Token: 7\r\n\r\nbody\r\n";

/// Refuses by the local part: `later` for now, `never` permanently.
fn by_name() -> Behavior {
    Behavior {
        rcpt: Box::new(|path| match path {
            path if path.starts_with("<later") => Err(refusal!("450 4.2.1 Later")),
            path if path.starts_with("<never") => Err(refusal!("550 5.1.1 Never")),
            _ => Ok(()),
        }),
        ..Behavior::default()
    }
}

#[tokio::test]
async fn recipients_of_one_message_are_delivered_deferred_and_failed() {
    let hop = Hop::start(by_name()).await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.waits = vec![Duration::from_millis(300)];
    let relay = start(options);
    relay.submit("<me@sender.test>", &["<a@d.test>", "<later@d.test>", "<never@d.test>"], CONTENT).await;
    relay.log.wait("reported", 1).await;
    relay.log.wait("delivered", 2).await;
    let delivered: Vec<_> = relay.log.of("delivered").into_iter().map(|seen| seen.who).collect();
    assert_eq!(delivered, ["<a@d.test>", "<me@sender.test>"]);
    let left = relay.relay.queue().list(None, 10).await.unwrap();
    let [message] = &left[..] else { panic!("{left:?}") };
    assert_eq!((message.deliveries.len(), message.deliveries[0].attempts), (1, 1));
    relay.log.wait("deferred", 2).await;
    assert!(relay.log.of("deferred").iter().all(|seen| seen.who == "<later@d.test>" && seen.text.starts_with("4.2.1")));
    // Each recipient gets the message once, and the failure is reported once.
    assert_eq!((hop.count(), relay.log.count("reported"), relay.log.count("failed")), (2, 1, 1));
    let report = &hop.taken()[1];
    let text = String::from_utf8(report.start.clone()).unwrap();
    for line in ["Final-Recipient: rfc822; never@d.test", "Diagnostic-Code: smtp; 550 5.1.1 Never", "X-Token: 7"] {
        assert!(text.contains(line), "{line} {text}");
    }
    assert!(!text.contains("later@d.test") && !text.contains("body"));
    assert_eq!(report.envelope.mail.reverse_path.to_string(), "<>");
    relay.end().await;
}

#[tokio::test]
async fn no_report_goes_to_a_null_sender_or_one_that_asked_for_none() {
    let hop = Hop::start(by_name()).await;
    let relay = start(options(&[hop.port]));
    relay.submit("<>", &["<never@d.test>"], CONTENT).await;
    relay.submit("<me@sender.test>", &["<never@d.test> NOTIFY=NEVER"], CONTENT).await;
    relay.submit("<me@sender.test>", &["<never@d.test> NOTIFY=DELAY"], CONTENT).await;
    relay.log.wait("not reported", 3).await;
    relay.empty().await;
    assert_eq!((hop.count(), relay.log.count("reported"), relay.log.count("failed")), (0, 0, 3));
    relay.end().await;
}

#[tokio::test]
async fn an_expired_message_is_given_up_and_reported() {
    let hop = Hop::start(by_name()).await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.expire_after = Duration::from_millis(350);
    let relay = start(options);
    relay.submit("<me@sender.test>", &["<later@d.test>"], CONTENT).await;
    relay.log.wait("reported", 1).await;
    relay.empty().await;
    assert!((2..=5).contains(&relay.log.count("deferred")), "{:?}", relay.log.all());
    assert_eq!(relay.log.of("failed")[0].text, "4.2.1 [127.0.0.1] said: 450 4.2.1 Later");
    relay.end().await;
}

#[tokio::test]
async fn a_552_is_temporary_for_a_recipient_after_another_and_permanent_elsewhere() {
    let behavior = Behavior {
        rcpt: Box::new(|path| match path {
            "<full@d.test>" => Err(refusal!("552 Too many recipients")),
            _ => Ok(()),
        }),
        message: Box::new(|taken| match taken.start.starts_with(b"Large") {
            true => Err(refusal!("552 5.3.4 Too large")),
            false => Ok(accepted!("250 ok")),
        }),
        ..Behavior::default()
    };
    let hop = Hop::start(behavior).await;
    let relay = start(options(&[hop.port]));
    relay.submit("<>", &["<b@d.test>", "<full@d.test>"], CONTENT).await;
    // Alone, in the next transaction, it is not one of too many.
    relay.log.wait("failed", 1).await;
    assert_eq!(relay.log.of("failed")[0].who, "<full@d.test>");
    relay.submit("<>", &["<a@d.test>"], b"Large: yes\r\n\r\n").await;
    relay.log.wait("failed", 2).await;
    assert_eq!(relay.log.of("failed")[1].who, "<a@d.test>");
    assert_eq!((relay.log.of("deferred").len(), relay.log.of("delivered").len()), (0, 1));
    assert_eq!(hop.taken().len(), 1);
    relay.end().await;
}

#[tokio::test]
async fn eight_bit_content_fails_at_a_next_hop_without_8bitmime() {
    let hop = Scripted::polite().await;
    let relay = start(options(&[hop.port]));
    relay.submit("<> BODY=8BITMIME", &["<a@d.test>"], b"Subject: \xc3\xa4\r\n\r\n").await;
    relay.log.wait("failed", 1).await;
    assert!(relay.log.of("failed")[0].text.starts_with("5.6.3"), "{:?}", relay.log.all());
    assert_eq!((hop.count("MAIL"), hop.count("DATA")), (0, 0));
    relay.end().await;
}

#[tokio::test]
async fn postmaster_without_a_domain_is_at_our_name() {
    let hop = Hop::start(Behavior::default()).await;
    let relay = start(options(&[hop.port]));
    relay.submit("<>", &["<Postmaster>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!(hop.taken()[0].envelope.recipients[0].forward_path.to_string().to_ascii_lowercase(), "<postmaster>");
    relay.end().await;
}

#[tokio::test]
async fn many_recipients_are_split_into_several_transactions() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[hop.port]);
    options.delivery.recipients_per_transaction = 10;
    let relay = start(options);
    let names: Vec<_> = (0..25).map(|number| format!("<u{number}@d.test>")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    relay.submit("<>", &names, CONTENT).await;
    relay.log.wait("delivered", 25).await;
    let sizes: Vec<_> = hop.taken().iter().map(|taken| taken.envelope.recipients.len()).collect();
    assert_eq!((sizes, hop.connections()), (vec![10, 10, 5], 1));
    relay.end().await;
}

/// The next hop's reply is recorded with each recipient, and all replies together must fit into the
/// queue. Otherwise a delivery could not be recorded, and would be repeated again and again.
#[tokio::test]
async fn an_outcome_with_long_replies_is_recorded() {
    let line = format!("450-{}\r\n", "x".repeat(1_900));
    let long = format!("{}450 end\r\n", line.repeat(8));
    let hop = Scripted::start(move |_, line| match line {
        line if line.starts_with("RCPT TO:<u") => long.clone(),
        line => polite(line, &[]),
    })
    .await;
    let mut options = options(&[hop.port]);
    options.delivery.lease = Duration::from_millis(500);
    options.delivery.retry.waits = vec![Duration::from_secs(60)];
    let relay = start(options);
    let names: Vec<_> = (0..700).map(|number| format!("<u{number}@d.test>")).chain(["<a@d.test>".to_owned()]).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    relay.submit("<>", &names, CONTENT).await;
    relay.log.wait("deferred", 700).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((hop.count("<end>"), relay.log.count("delivered")), (1, 1));
    relay.end().await;
}
