//! The mail that a stranger can make the relay send to a third party: at most one report for each
//! message. It never has content, and no more octets than came in.

use std::time::Duration;

use crate::support::{Behavior, Hop, Running, offering, options, start};
use posthaste_relay::{RelayOptions, Route, RouteTable};
use posthaste_server::{Listener, refusal, session::server::Offers};
use posthaste_testkit::{
    script::{Scripted, polite},
    talk::Talk,
};
use tokio::net::TcpStream;

/// How the hosts of the recipients fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    RefusesRecipients,
    RefusesContent,
    DefersUntilItExpires,
    TakesHalf,
    TakesWithoutDsn,
    Closes,
    IsNotThere,
}

/// The most octets of a report, with its envelope, if its message was not larger.
const SMALL: usize = 2_048 + 200;

struct Try {
    mood: Mood,
    recipients: usize,
    domains: usize,
    content: usize,
    mail: &'static str,
    rcpt: &'static str,
}

#[tokio::test]
async fn a_stranger_causes_one_small_report_a_message() {
    use Mood::{
        Closes, DefersUntilItExpires, IsNotThere, RefusesContent, RefusesRecipients, TakesHalf, TakesWithoutDsn,
    };
    let moods =
        [RefusesRecipients, RefusesContent, DefersUntilItExpires, TakesHalf, TakesWithoutDsn, Closes, IsNotThere];
    let sizes = [(1, 1, 0), (1, 1, 1_500), (1, 1, 900_000), (60, 1, 0), (60, 30, 20_000), (20, 20, 60)];
    let notify = ["", "NOTIFY=SUCCESS,FAILURE,DELAY", "NOTIFY=NEVER", "NOTIFY=DELAY,SUCCESS ORCPT=rfc822;x@y.test"];
    let mut tries = Vec::new();
    for (at, mood) in moods.into_iter().enumerate() {
        for (nth, (recipients, domains, content)) in sizes.into_iter().enumerate() {
            let mail = ["RET=FULL", "RET=HDRS", "RET=FULL ENVID=abc BODY=8BITMIME"][(at + nth) % 3];
            tries.push(Try { mood, recipients, domains, content, mail, rcpt: notify[(2 * at + nth) % 4] });
        }
    }
    assert!(tries.len() > 40);
    for each in &tries {
        attempt(each).await;
    }
}

async fn attempt(each: &Try) {
    let Try { mood, recipients, domains, content, mail, rcpt } = *each;
    let name = format!("{mood:?}, {recipients} recipients in {domains} domains, {content} octets, {mail} {rcpt}");
    let victim = Hop::offering(offering(Offers::default(), |offers| offers.dsn = true)).await;
    let port = target(mood).await;
    let mut options = routed(&[("victim.test", victim.port), ("*", port)]);
    options.policy.relay_domains.push("*.dest.test".parse().unwrap());
    options.delivery.retry.warn_after = Some(Duration::from_millis(50));
    options.delivery.retry.expire_after = Duration::from_millis(350);
    let relay = start(options);
    let mut client = Stranger::new(&relay).await;
    client.say(&format!("MAIL FROM:<forged@victim.test> {mail}\r\n"), "250").await;
    for n in 0..recipients {
        let path = format!("<{}{n}@d{}.dest.test>", if n % 2 == 0 { "refused" } else { "taken" }, n % domains);
        client.say(&format!("RCPT TO:{path} {rcpt}\r\n").replace(" \r", "\r"), "250").await;
    }
    client.say("DATA\r\n", "354").await;
    let body = format!("Subject: buy\r\n\r\n{}\r\n.\r\n", "SPAM for you, do not miss it\r\n".repeat(content / 30));
    client.say(&body, "250").await;
    relay.empty().await;
    let reports = victim.taken();
    assert!(reports.len() <= 1, "{name}: {} reports", reports.len());
    let left: usize = reports.iter().map(|report| report.octets + 100).sum();
    assert!(left <= client.sent.max(SMALL), "{name}: {} octets came in, {left} left", client.sent);
    for report in &reports {
        let text = report.text();
        assert!(!text.contains("SPAM") && text.contains("Auto-Submitted: auto-"), "{name}: {text}");
    }
    // Failures that may be reported are reported.
    let failed = relay.log.count("failed") > 0;
    let wanted = !rcpt.contains("NEVER") && (!rcpt.contains("NOTIFY") || rcpt.contains("FAILURE"));
    if failed && wanted {
        assert_eq!(reports.len(), 1, "{name}: {:?}", relay.log.of("not reported"));
        assert!(reports[0].text().contains("Action: failed"), "{name}");
    }
    relay.end().await;
}

/// The next hop of the recipients.
async fn target(mood: Mood) -> u16 {
    let refused = |path: &str| path.starts_with("<refused");
    let mut behavior = Behavior::default();
    match mood {
        Mood::RefusesRecipients => behavior.rcpt = Box::new(|_| Err(refusal!("550 5.1.1 No"))),
        Mood::RefusesContent => behavior.message = Box::new(|_| Err(refusal!("554 5.7.1 No"))),
        Mood::DefersUntilItExpires => behavior.rcpt = Box::new(|_| Err(refusal!("450 4.2.1 Later"))),
        Mood::TakesHalf => {
            behavior.rcpt = Box::new(move |path| match refused(path) {
                true => Err(refusal!("550 5.1.1 No")),
                false => Ok(()),
            });
        }
        Mood::TakesWithoutDsn => {}
        Mood::Closes => {
            return Scripted::start(|_, line| match line {
                line if line.starts_with("RCPT") => "close".to_owned(),
                line => polite(line, &[]),
            })
            .await
            .port;
        }
        Mood::IsNotThere => return 1,
    }
    Hop::with(0, Offers::default(), Default::default(), behavior).await.port
}

fn routed(routes: &[(&str, u16)]) -> RelayOptions {
    let mut options = options(&[1]);
    options.routes = RouteTable::empty();
    for (name, port) in routes {
        options.routes.push([name.parse().unwrap()], Route::hosts([("[127.0.0.1]", *port)]));
    }
    options
}

/// A client without trust.
struct Stranger {
    talk: Talk<TcpStream>,
    sent: usize,
    serving: tokio::task::JoinHandle<()>,
}

impl Stranger {
    async fn new(relay: &Running) -> Self {
        let listener = Listener::bind("127.0.0.1:0", relay.relay.settings()).await.unwrap();
        let address = listener.local_address().unwrap();
        let serving = tokio::spawn(relay.relay.server().listen(listener).serve());
        let mut client = Self { talk: Talk::connect(address).await, sent: 0, serving };
        client.say("", "220").await;
        client.say("EHLO c.test\r\n", "250").await;
        client
    }

    async fn say(&mut self, text: &str, code: &str) {
        self.talk.send(text).await;
        self.sent += text.len();
        let said = self.talk.reply().await;
        assert!(said.starts_with(code), "{text}: {said}");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Small messages in one sender's name: reports have the octets that came in, and an allowance.
#[tokio::test]
async fn a_flood_of_small_messages_is_not_answered_by_a_flood_of_reports() {
    let victim = Hop::offering(Offers::default()).await;
    let mut options = routed(&[("victim.test", victim.port), ("*", target(Mood::RefusesRecipients).await)]);
    options.policy.relay_domains.push("dest.test".parse().unwrap());
    let relay = start(options);
    let mut client = Stranger::new(&relay).await;
    for _ in 0..150 {
        client.say("MAIL FROM:<forged@victim.test>\r\n", "250").await;
        client.say("RCPT TO:<a@dest.test>\r\n", "250").await;
        client.say("DATA\r\n", "354").await;
        client.say("Subject: x\r\n\r\nx\r\n.\r\n", "250").await;
    }
    relay.empty().await;
    let (count, octets) = (victim.count(), victim.taken().iter().map(|report| report.octets).sum::<usize>());
    assert!((1..=30).contains(&count), "{count}");
    assert!(octets <= client.sent + 16_384, "{octets} {}", client.sent);
    assert_eq!(relay.log.count("not reported"), 150 - count);
    assert_eq!(relay.log.count("failed"), 150);
    relay.end().await;
}

/// The limit takes no report from trusted clients.
#[tokio::test]
async fn a_client_that_may_relay_gets_every_report() {
    let sender = Hop::offering(Offers::default()).await;
    let relay = start(routed(&[("s", sender.port), ("*", target(Mood::RefusesRecipients).await)]));
    for _ in 0..150 {
        relay.submit("<me@s> RET=FULL", &["<a@dest.test>"], b"Subject: x\r\n\r\nthe body\r\n").await;
    }
    relay.empty().await;
    assert_eq!(sender.count(), 150);
    assert!(sender.taken().iter().all(|report| report.text().contains("the body")));
    relay.end().await;
}
