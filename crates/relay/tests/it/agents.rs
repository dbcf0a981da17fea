//! Agents as next hops: what the events, the queue and the report say of each of their answers.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_queue::Queue as _;
use posthaste_relay::{
    RelayOptions, Route, RouteTable,
    agent::{Agent, AgentLetter, Decision},
};
use posthaste_server::{Refusal, accepted, refusal, wire::Mailbox};

use crate::support::{Client, Running, Seen, options, start};

/// Collects the contents of what it takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<String>>>);

impl Collector {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Agent for Collector {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        let (mut content, mut all) = (letter.content().await.unwrap(), Vec::new());
        while let Some(piece) = content.chunk().await.unwrap() {
            assert!(piece.len() <= 65_536);
            all.extend_from_slice(&piece);
        }
        assert_eq!(letter.octets, all.len() as u64);
        self.0.lock().unwrap().push(String::from_utf8_lossy(&all).into_owned());
        vec![Ok(accepted!("250 2.0.0 Collected")); letter.envelope.recipients.len()]
    }
}

/// Options with this agent for `agent.test`, and a collector of reports for `sender.test`.
pub(crate) fn routed(agent: Route) -> (RelayOptions, Collector) {
    let (mut options, reports) = (options(&[]), Collector::default());
    options.routes = RouteTable::empty();
    options.routes.push(["agent.test".parse().unwrap()], agent);
    options.routes.push(["sender.test".parse().unwrap()], Route::agent("reports", reports.clone()));
    (options, reports)
}

fn who(seen: &[Seen]) -> Vec<(&str, &str)> {
    seen.iter().map(|seen| (seen.what, &*seen.who)).collect()
}

/// What an agent does wrong at its first attempt. Then it takes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PanicsAtOnce,
    PanicsLater,
    NeverAnswers,
    ReadsAndNeverAnswers,
    DecidesTooLittle,
    DecidesTooMuch,
    RefusesOneOfThree,
    DefersOneOfThree,
    IsClosed,
    IsThrottled,
}

struct Faulty {
    fault: Fault,
    attempts: AtomicUsize,
}

impl Agent for Faulty {
    fn deliver(&self, letter: &AgentLetter<'_>) -> impl Future<Output = Vec<Decision>> + Send {
        let (fault, attempt) = (self.fault, self.attempts.fetch_add(1, SeqCst));
        assert!(attempt > 0 || fault != Fault::PanicsAtOnce, "a mistake of the application");
        async move {
            let taken = Ok(accepted!("250 2.0.0 Taken"));
            let all = |decision: &Decision| vec![decision.clone(); letter.envelope.recipients.len()];
            if attempt > 0 {
                return all(&taken);
            }
            match fault {
                Fault::PanicsAtOnce => Vec::new(),
                Fault::PanicsLater => {
                    tokio::task::yield_now().await;
                    panic!("a mistake of the application")
                }
                Fault::NeverAnswers => std::future::pending().await,
                Fault::ReadsAndNeverAnswers => {
                    let mut content = letter.content().await.unwrap();
                    while content.chunk().await.unwrap().is_some() {}
                    std::future::pending().await
                }
                Fault::DecidesTooLittle => vec![taken.clone(); 2],
                Fault::DecidesTooMuch => vec![taken.clone(); 9],
                Fault::RefusesOneOfThree => {
                    vec![taken.clone(), Err(refusal!("550 5.1.1 No such mailbox")), taken.clone()]
                }
                Fault::DefersOneOfThree => vec![taken.clone(), taken.clone(), Err(refusal!("451 4.2.0 Later"))],
                Fault::IsClosed => all(&Err(refusal!("421 4.3.2 Closed for now"))),
                Fault::IsThrottled => all(&Err(refusal!("450 4.7.1 Rate limited, try again in 30 seconds"))),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_events_the_queue_and_the_report_agree_on_each_fault_of_an_agent() {
    let [a, b, c] = ["<a@agent.test>", "<b@agent.test>", "<c@agent.test>"];
    for (fault, deferred, failed, says) in [
        (Fault::PanicsAtOnce, &[a, b, c][..], &[][..], "451 4.3.0 The agent failed"),
        (Fault::PanicsLater, &[a, b, c], &[], "451 4.3.0 The agent failed"),
        (Fault::NeverAnswers, &[a, b, c], &[], "4.4.2 agent:faulty: the time of one attempt was over"),
        (Fault::ReadsAndNeverAnswers, &[a, b, c], &[], "4.4.2 agent:faulty: the time of one attempt was over"),
        (Fault::DecidesTooLittle, &[c], &[], "451 4.3.0 The agent has not decided"),
        (Fault::DecidesTooMuch, &[], &[], ""),
        (Fault::RefusesOneOfThree, &[], &[b], "5.1.1 agent:faulty said: 550 5.1.1 No such mailbox"),
        (Fault::DefersOneOfThree, &[c], &[], "4.2.0 agent:faulty said: 451 4.2.0 Later"),
        (Fault::IsClosed, &[a, b, c], &[], "4.3.2 agent:faulty said: 421 4.3.2 Closed for now"),
        // It rests, and the mail just waits.
        (Fault::IsThrottled, &[], &[], ""),
    ] {
        let agent = Route::agent("faulty", Faulty { fault, attempts: AtomicUsize::new(0) });
        let (options, reports) = routed(agent);
        let running = start(options);
        running.submit("<me@sender.test>", &[a, b, c], b"Subject: x\r\n\r\nbody\r\n").await;
        running.empty().await;
        let of = |what: &str| running.log.of(what);
        let delivered: Vec<_> = [a, b, c].into_iter().filter(|who| !failed.contains(who)).collect();
        let mut all_delivered = of("delivered");
        all_delivered.retain(|seen| seen.who.contains("agent.test"));
        let mut names: Vec<_> = all_delivered.iter().map(|seen| &*seen.who).collect();
        names.sort_unstable();
        assert_eq!(names, delivered, "{fault:?}");
        // While it is closed, the mail is deferred again and again.
        let mut first_deferred = of("deferred");
        first_deferred.truncate(deferred.len());
        let expected: Vec<_> = deferred.iter().map(|who| ("deferred", *who)).collect();
        assert_eq!(who(&first_deferred), expected, "{fault:?}");
        assert!(fault == Fault::IsClosed || of("deferred").len() == deferred.len(), "{fault:?} {:?}", of("deferred"));
        assert_eq!(who(&of("failed")), failed.iter().map(|who| ("failed", *who)).collect::<Vec<_>>(), "{fault:?}");
        for seen in first_deferred.iter().chain(&of("failed")) {
            assert!(seen.text.contains(says), "{fault:?} {}", seen.text);
        }
        let reports = reports.all();
        assert_eq!(reports.len(), usize::from(!failed.is_empty()), "{fault:?}");
        for report in reports {
            assert!(report.contains("Final-Recipient: rfc822; b@agent.test") && report.contains("Action: failed"));
            assert!(report.contains("Diagnostic-Code: smtp; 550 5.1.1 No such mailbox"), "{report}");
            assert!(!report.contains("agent:") && !report.contains("a@agent.test"), "{report}");
        }
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_asks_for_it_hears_that_an_agent_has_the_message() {
    for (notify, is_told) in [("NOTIFY=SUCCESS", true), ("NOTIFY=FAILURE", false), ("NOTIFY=NEVER", false), ("", false)]
    {
        let taken = Collector::default();
        let (options, reports) = routed(Route::agent("collector", taken.clone()));
        let running = start(options);
        let rcpt = format!("<jo@agent.test> {notify}");
        running.submit("<me@sender.test>", &[rcpt.trim()], b"Subject: x\r\n\r\nbody\r\n").await;
        running.empty().await;
        assert_eq!(taken.all().len(), 1);
        let reports = reports.all();
        assert_eq!(reports.len(), usize::from(is_told), "{notify}");
        for report in reports {
            for part in [
                "Subject: Delivered mail\r\n",
                "Your message was delivered to:\r\n\r\n  jo@agent.test\r\n",
                "Action: delivered\r\n",
                "Status: 2.0.0\r\n",
            ] {
                assert!(report.contains(part), "{part:?} is not in {report}");
            }
            assert!(!report.contains("Remote-MTA"), "{report}");
        }
        running.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn agents_take_what_needs_extensions_of_hosts() {
    let taken = Collector::default();
    let (options, _) = routed(Route::agent("collector", taken.clone()));
    let running = start(options);
    for mail in ["<me@sender.test> REQUIRETLS", "<\u{e4}@sender.test> SMTPUTF8", "<me@sender.test> BODY=BINARYMIME"] {
        running.submit(mail, &["<jo@agent.test>"], "Subject: \u{e4}\r\n\r\n\u{e4}\r\n".as_bytes()).await;
    }
    running.empty().await;
    assert_eq!((taken.all().len(), running.log.count("failed")), (3, 0), "{:?}", running.log.all());
    running.end().await;
}

/// Counts how many deliveries are under way at once.
#[derive(Debug, Clone, Default)]
struct Crowd(Arc<[AtomicUsize; 2]>);

impl Agent for Crowd {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        let open = self.0[0].fetch_add(1, SeqCst) + 1;
        self.0[1].fetch_max(open, SeqCst);
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.0[0].fetch_sub(1, SeqCst);
        vec![Ok(accepted!("250 2.0.0 Taken")); letter.envelope.recipients.len()]
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_has_at_most_the_deliveries_of_its_site_at_once() {
    let crowd = Crowd::default();
    let (mut options, _) = routed(Route::agent("crowd", crowd.clone()));
    options.delivery.concurrency_per_site = 3;
    let running = start(options);
    for _ in 0..20 {
        running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
    }
    running.log.wait("delivered", 20).await;
    assert_eq!(crowd.0[1].load(SeqCst), 3);
    let sites = running.relay.sites();
    assert!(sites.iter().any(|site| site.name == "agent:crowd"), "{sites:?}");
    running.end().await;
}

/// Takes no mailbox but one.
struct OneMailbox;

impl Agent for OneMailbox {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        vec![Ok(accepted!("250 2.0.0 Taken")); letter.envelope.recipients.len()]
    }

    fn takes(&self, mailbox: &Mailbox) -> Result<(), Refusal> {
        match mailbox.local_part() {
            "jo" => Ok(()),
            "panic" => panic!("a mistake of the application"),
            _ => Err(refusal!("550 5.1.1 Only jo is here")),
        }
    }
}

#[tokio::test]
async fn a_mailbox_that_an_agent_never_takes_is_refused_at_rcpt() {
    let (mut options, _) = routed(Route::agent("one", OneMailbox));
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    let mut client = Client::of(options).await;
    client.talk(&["EHLO client.test\r\n", "MAIL FROM:<me@sender.test>\r\n"]).await;
    for (rcpt, reply) in [("jo", "250"), ("mo", "550 5.1.1 Only jo is here"), ("panic", "451 4.3.0 The agent failed")] {
        let said = client.talk(&[&format!("RCPT TO:<{rcpt}@agent.test>\r\n")]).await;
        assert!(said.starts_with(reply), "{rcpt} {said}");
    }
}

/// Waits for a number of events of the relay, then checks that the queue has no message.
pub(crate) async fn done(running: &Running, what: &str, count: usize) {
    running.log.wait(what, count).await;
    running.empty().await;
    assert_eq!(running.relay.queue().stats().await.messages, 0);
}
