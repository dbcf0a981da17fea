//! Routes by rules, from the client to what becomes of the mail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use posthaste_client::SystemResolver;
use posthaste_queue::{
    ManualClock, Queue as _, Search,
    memory::{MemoryOptions, MemoryQueue},
};
use posthaste_relay::{
    HostGroup, NextHop, Relay, RelayOptions, Route, RouteError, RouteQuery, RouteTable, Routes, Rule, SubmitError,
    WeightedHost,
};
use posthaste_server::refusal;

use crate::support::{Behavior, Client, Hop, Log, Running, envelope, options, run, start};

fn to(port: u16) -> Route {
    Route::hosts([("[127.0.0.1]", port)])
}

fn rule(name: &str, route: Route) -> Rule {
    Rule::new(name.parse().unwrap(), route)
}

fn with_rules(rules: impl IntoIterator<Item = Rule>, rest: Route) -> RelayOptions {
    let mut options = options(&[]);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    options.routes = RouteTable::empty();
    rules.into_iter().for_each(|rule| options.routes.push_rule(rule).unwrap());
    options.routes.push(["*".parse().unwrap()], rest);
    options
}

/// A rule for mail from `bulk@s.test`.
fn by_sender(name: &str, route: Route) -> Rule {
    let mut rule = rule(name, route);
    rule.senders = Some(["bulk@s.test".parse().unwrap()].into_iter().collect());
    rule
}

/// A rule for mail to one mailbox.
fn by_recipient(name: &str, mailbox: &str, route: Route) -> Rule {
    let mut rule = rule(name, route);
    rule.recipients = Some([mailbox.parse().unwrap()].into_iter().collect());
    rule
}

/// The keys of all deliveries in the queue, in order.
async fn keys(relay: &Relay<MemoryQueue, SystemResolver>) -> Vec<String> {
    let page = relay.queue().search(&Search::default(), None, 100).await.unwrap();
    let mut keys = Vec::new();
    for message in page.messages {
        keys.extend(message.deliveries.into_iter().map(|delivery| delivery.key.to_string()));
    }
    keys.sort();
    keys
}

const MAIL: &[u8] = b"Subject: x\r\n\r\nx\r\n";

#[tokio::test]
async fn recipients_of_one_message_go_where_their_rules_lead() {
    let (vip, bulk, rest) = (
        Hop::start(Behavior::default()).await,
        Hop::start(Behavior::default()).await,
        Hop::start(Behavior::default()).await,
    );
    let rules = [by_recipient("vip", "boss@d.test", to(vip.port)), by_sender("bulk", to(bulk.port))];
    let relay = start(with_rules(rules, to(rest.port)));
    let recipients = ["<a@d.test>", "<boss@d.test>", "<b@d.test>", "<boss@e.test>"];
    relay.submit("<s@s.test>", &recipients, MAIL).await;
    relay.submit("<bulk@s.test>", &recipients[..3], MAIL).await;
    relay.empty().await;
    let taken = |hop: &Hop| {
        let mut all: Vec<_> = hop.taken().iter().map(|taken| taken.rcpts().join(" ")).collect();
        all.sort();
        all
    };
    assert_eq!(taken(&vip), ["<boss@d.test>", "<boss@d.test>"]);
    assert_eq!(taken(&bulk), ["<a@d.test> <b@d.test>"]);
    assert_eq!(taken(&rest), ["<a@d.test> <b@d.test>", "<boss@e.test>"]);
    assert_eq!(relay.log.count("delivered"), 7);
    relay.end().await;
}

/// The rule of a client's mail is found at RCPT, and remembered with the mail.
#[tokio::test]
async fn the_queue_keeps_the_mail_of_a_client_under_the_label_of_its_rule() {
    let mut by_client = rule("local", to(1));
    by_client.clients = Some("127.0.0.0/8".parse().unwrap());
    by_client.domains = Some(["c.test".parse().unwrap()].into_iter().collect());
    let rules = [by_client, by_recipient("vip", "boss@d.test", to(1)), by_sender("bulk", to(1))];
    let mut client = Client::of(with_rules(rules, to(1))).await;
    client.talk(&["EHLO c.test\r\n", "MAIL FROM:<s@s.test>\r\n", "RCPT TO:<boss@d.test>\r\n"]).await;
    // What was named before RSET does not count.
    client.talk(&["RSET\r\n", "MAIL FROM:<s@s.test>\r\n"]).await;
    for path in ["a@d.test", "BOSS@D.test", "a@c.test", "a@C.test", "b@e.test"] {
        let said = client.talk(&[&format!("RCPT TO:<{path}>\r\n")]).await;
        assert!(said.starts_with("250 "), "{path}: {said}");
    }
    let said = client.talk(&["DATA\r\n", "x\r\n.\r\n"]).await;
    assert!(said.starts_with("250 "), "{said}");
    assert_eq!(keys(&client.relay).await, ["c.test local", "d.test", "d.test vip", "e.test"]);
}

#[tokio::test]
async fn refused_mail_gets_its_words_at_rcpt() {
    let refuse = NextHop::Refuse(refusal!("553 5.7.9 Not in this way"));
    let mut client = Client::of(with_rules([by_sender("bulk", Route::new(refuse))], to(1))).await;
    let said = client.talk(&["EHLO c.test\r\n", "MAIL FROM:<bulk@s.test>\r\n", "RCPT TO:<a@d.test>\r\n"]).await;
    assert_eq!(said, "553 5.7.9 Not in this way");
    let said = client.talk(&["RSET\r\n", "MAIL FROM:<s@s.test>\r\n", "RCPT TO:<a@d.test>\r\n"]).await;
    assert!(said.starts_with("250 "), "{said}");
}

#[tokio::test]
async fn queued_mail_whose_route_refuses_it_fails_or_waits_with_its_words() {
    let refuse = NextHop::Refuse(refusal!("553 5.7.9 Not in this way"));
    let wait = NextHop::Refuse(refusal!("450 4.7.9 Not in this hour"));
    let rules = [by_sender("bulk", Route::new(refuse)), by_recipient("later", "later@d.test", Route::new(wait))];
    let hop = Hop::start(Behavior::default()).await;
    let relay = start(with_rules(rules, to(hop.port)));
    relay.submit("<bulk@s.test>", &["<a@d.test>"], MAIL).await;
    relay.log.wait("reported", 1).await;
    let failed = relay.log.of("failed");
    assert_eq!((failed.len(), &*failed[0].text), (1, "5.7.9 553 5.7.9 Not in this way"));
    relay.log.wait("delivered", 1).await;
    let report = hop.taken()[0].text();
    assert!(report.contains("Status: 5.7.9\r\n") && report.contains("Not in this way"), "{report}");
    assert!(!report.contains("Diagnostic-Code: smtp"), "no host has said so: {report}");
    relay.submit("<s@s.test>", &["<later@d.test>"], MAIL).await;
    relay.log.wait("deferred", 2).await;
    assert!(relay.log.of("deferred").iter().all(|seen| seen.text == "4.7.9 450 4.7.9 Not in this hour"));
    assert_eq!((relay.log.count("failed"), hop.connections()), (1, 1));
    relay.end().await;
}

#[tokio::test]
async fn discarded_mail_is_taken_and_gone_and_reported_to_no_sender() {
    let hop = Hop::start(Behavior::default()).await;
    let options = with_rules([by_recipient("trash", "no@d.test", Route::new(NextHop::Discard))], to(hop.port));
    let log = Log::default();
    let builder = Relay::builder(MemoryQueue::default(), SystemResolver, options);
    let relay = builder.observer(log.clone()).build();
    let mut client = Client::with(relay.clone(), log.clone()).await;
    let wanted = " NOTIFY=SUCCESS,FAILURE,DELAY";
    let said = client
        .talk(&["EHLO c.test\r\n", "MAIL FROM:<s@s.test>\r\n", &format!("RCPT TO:<no@d.test>{wanted}\r\n")])
        .await;
    assert!(said.starts_with("250 "), "{said}");
    client.talk(&["RCPT TO:<a@d.test>\r\n", "DATA\r\n", "x\r\n.\r\n"]).await;
    let relay = run(relay, log);
    relay.empty().await;
    relay.log.wait("discarded", 1).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!(relay.log.of("discarded")[0].who, "<no@d.test>");
    assert_eq!(relay.relay.totals().discarded, 1);
    for what in ["failed", "deferred", "reported", "not reported"] {
        assert_eq!(relay.log.count(what), 0, "{what}");
    }
    assert_eq!(hop.taken()[0].rcpts(), ["<a@d.test>"]);
    relay.end().await;
}

/// Routes that an application changes.
struct Switch {
    is_held: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    port: u16,
}

impl Routes for Switch {
    async fn find(&self, mail: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
        self.asked.fetch_add(1, SeqCst);
        let is_held = self.is_held.load(SeqCst) && mail.domain == "held.test";
        Ok(Some(Arc::new(if is_held { Route::new(NextHop::Hold) } else { to(self.port) })))
    }
}

/// Held mail is not tried, does not expire, and costs nothing. It goes when its route changes, with
/// one attempt at least.
#[tokio::test(start_paused = true)]
async fn held_mail_stays_until_its_route_changes() {
    const DAY: Duration = Duration::from_secs(86_400);
    let (is_held, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let mut options = options(&[]);
    // No host listens there: before the expiry an attempt is a deferral, and then a failure.
    options.delivery.retry.expire_after = DAY / 2;
    let routes = Switch { is_held: Arc::clone(&is_held), asked: Arc::clone(&asked), port: 1 };
    let log = Log::default();
    let clock = ManualClock::new(SystemTime::now());
    let mut memory = MemoryOptions::default();
    memory.clock = Arc::new(clock.clone());
    let queue = MemoryQueue::new(memory);
    let builder = Relay::builder(queue, SystemResolver, options);
    let relay = run(builder.routes(routes).observer(log.clone()).build(), log);
    relay.submit("<>", &["<a@held.test>"], MAIL).await;
    for _ in 0..24 {
        clock.advance(DAY / 24);
        tokio::time::sleep(DAY / 24).await;
    }
    assert_eq!(relay.log.all().iter().filter(|seen| seen.what != "accepted").count(), 0, "{:?}", relay.log.all());
    // Once a minute, with one more for a look that begins earlier.
    let times = asked.load(SeqCst);
    assert!((1_000..=3_000).contains(&times), "asked {times} times in a day");
    is_held.store(false, SeqCst);
    tokio::time::sleep(Duration::from_secs(121)).await;
    let seen: Vec<_> = relay.log.all().iter().map(|seen| seen.what).filter(|what| *what != "accepted").collect();
    assert_eq!(seen, ["failed", "not reported"]);
    relay.end().await;
}

/// Held mail in a table, beside mail that moves.
#[tokio::test]
async fn held_mail_delays_no_other() {
    let hop = Hop::start(Behavior::default()).await;
    let relay = start(with_rules([by_sender("bulk", Route::new(NextHop::Hold))], to(hop.port)));
    for _ in 0..20 {
        relay.submit("<bulk@s.test>", &["<a@d.test>"], MAIL).await;
        relay.submit("<s@s.test>", &["<a@d.test>"], MAIL).await;
    }
    relay.log.wait("delivered", 20).await;
    assert_eq!(keys(&relay.relay).await, ["d.test bulk"; 20]);
    let page = relay.relay.queue().search(&Search::default(), None, 1).await.unwrap();
    assert_eq!(page.messages[0].deliveries[0].attempts, 0);
    assert_eq!(relay.log.all().len() - relay.log.count("relabeled"), 60);
    relay.end().await;
}

/// An application's own routes by facts.
struct ByFacts {
    ports: [u16; 2],
    is_broken: Arc<AtomicBool>,
}

impl Routes for ByFacts {
    async fn find(&self, mail: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
        if self.is_broken.load(SeqCst) && mail.facts.is_some() {
            return Err("the database is away".into());
        }
        let is_chosen = match (mail.facts, mail.label) {
            (Some(facts), _) => facts.sender.mailbox().is_some_and(|sender| sender.local_part() == "bulk"),
            (None, label) => label == Some("own"),
        };
        let mut route = to(self.ports[usize::from(is_chosen)]);
        route.label = if is_chosen { Some("own".parse()?) } else { None };
        Ok(Some(Arc::new(route)))
    }

    fn gives_labels(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn an_application_routes_by_facts_and_finds_queued_mail_by_its_label() {
    let (rest, bulk) = (Hop::start(Behavior::default()).await, Hop::start(Behavior::default()).await);
    let is_broken = Arc::new(AtomicBool::new(false));
    let routes = ByFacts { ports: [rest.port, bulk.port], is_broken: Arc::clone(&is_broken) };
    let log = Log::default();
    let mut options = options(&[]);
    options.delivery.concurrency_per_site = 1;
    let builder = Relay::builder(MemoryQueue::default(), SystemResolver, options);
    let relay: Running = run(builder.routes(routes).observer(log.clone()).build(), log);
    relay.submit("<bulk@s.test>", &["<a@d.test>", "<a@e.test>"], MAIL).await;
    relay.submit("<s@s.test>", &["<a@d.test>"], MAIL).await;
    relay.empty().await;
    assert_eq!((bulk.taken().len(), rest.taken().len()), (2, 1));
    assert_eq!((bulk.connections(), rest.connections()), (1, 1), "equal routes share connections");
    is_broken.store(true, SeqCst);
    let content = bytes::Bytes::from_static(MAIL);
    let refused = relay.relay.submit(Default::default(), &envelope("<s@s.test>", &["<a@d.test>"]), content).await;
    assert!(matches!(refused, Err(SubmitError::Route(_))), "{refused:?}");
    assert_eq!(relay.relay.queue().stats().await.messages, 0);
    relay.end().await;
}

/// Each message has a connection of its own, and so draws.
#[tokio::test]
async fn hosts_of_a_group_share_the_load_by_weight_and_the_next_group_waits() {
    let mut hops = Vec::new();
    for _ in 0..4 {
        hops.push(Hop::start(Behavior::default()).await);
    }
    let host = |at: usize, weight| {
        let mut host = WeightedHost::new("[127.0.0.1]", hops[at].port);
        host.weight = weight;
        host
    };
    let groups = vec![HostGroup(vec![host(0, 6), host(1, 2), host(2, 0)]), HostGroup(vec![host(3, 1)])];
    let mut options = options(&[]);
    options.routes = RouteTable::all(Route::new(NextHop::Hosts(groups)));
    options.delivery.idle = Duration::ZERO;
    let relay = start(options);
    for _ in 0..200 {
        relay.submit("<s@s.test>", &["<a@d.test>"], MAIL).await;
        relay.empty().await;
    }
    let taken: Vec<_> = hops.iter().map(|hop| hop.taken().len()).collect();
    assert_eq!((taken.iter().sum::<usize>(), taken[2], taken[3]), (200, 0, 0), "{taken:?}");
    assert!((20..90).contains(&taken[1]), "50 of 200 in the mean: {taken:?}");
    relay.end().await;
}

/// The reports of the relay are mail to their recipient, and take a rule for it.
#[tokio::test]
async fn a_report_takes_the_rule_of_its_recipient() {
    let (vip, rest) = (
        Hop::start(Behavior::default()).await,
        Hop::start(Behavior { rcpt: Box::new(|_| Err(refusal!("550 5.1.1 No"))), ..Behavior::default() }).await,
    );
    let rules = [by_recipient("vip", "boss@s.test", to(vip.port))];
    let relay = start(with_rules(rules, to(rest.port)));
    relay.submit("<boss@s.test>", &["<a@d.test>"], MAIL).await;
    relay.log.wait("delivered", 1).await;
    assert!(vip.taken()[0].text().contains("Status: 5.1.1"));
    assert_eq!((vip.taken().len(), rest.taken().len()), (1, 0));
    relay.end().await;
}
