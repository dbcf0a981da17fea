//! After each fault of a next hop, at each stage, the event, the queue and the report say the same.
//! It is also what happened. `WHAT_HAPPENS.md` has the table.

use std::time::Duration;

use crate::support::{Behavior, Hop, options, start};
use posthaste_client::session::client::ClientTimeouts;
use posthaste_queue::Queue as _;
use posthaste_relay::{Route, RouteTable};
use posthaste_testkit::script::{Scripted, polite, verb};
use tokio::task::JoinSet;

const CONTENT: &[u8] = b"Subject: x\r\nX-Token: 7\r\n\r\nbody\r\n";

/// What becomes of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Deferred,
    /// Deferred, and the next hop may have the message.
    Doubt,
    Failed,
}
use Outcome::{Deferred, Delivered, Doubt, Failed};

/// A fault of the next hop.
struct Row {
    /// The stage: the line that the next hop answers in its own way.
    at: &'static str,
    /// What it says there, as [`polite`] would. An empty text is silence.
    says: &'static str,
    outcome: Outcome,
    /// The status of the event and of the report.
    status: &'static str,
    /// What the diagnostic says, among other words.
    words: &'static str,
}

const fn row(at: &'static str, says: &'static str, outcome: Outcome, status: &'static str, words: &'static str) -> Row {
    Row { at, says, outcome, status, words }
}

const ROWS: &[Row] = &[
    row("<connect>", "421 4.3.2 down\r\n", Deferred, "4.3.2", "421 4.3.2 down"),
    row("<connect>", "450 busy\r\n", Deferred, "4.0.0", "450 busy"),
    row("<connect>", "554 5.3.2 not here\r\n", Deferred, "5.3.2", "554 5.3.2 not here"),
    row("<connect>", "554 no\r\n", Deferred, "5.0.0", "554 no"),
    row("<connect>", "close", Deferred, "4.4.2", "closed"),
    row("<connect>", "220-half\r\n<close>", Deferred, "4.4.2", "closed"),
    row("<connect>", "", Deferred, "4.4.2", "the greeting"),
    row("<connect>", "hello\r\n", Deferred, "4.4.2", "reply"),
    row("<connect>", "354 go\r\n", Deferred, "4.4.2", "354"),
    row("EHLO", "421 4.3.2 down\r\n", Deferred, "4.3.2", "421 4.3.2 down"),
    row("EHLO", "451 4.3.0 later\r\n", Deferred, "4.3.0", "451 4.3.0 later"),
    row("EHLO", "550 5.7.1 not you\r\n", Delivered, "2.0.0", "250 ok"),
    row("EHLO", "500 what\r\n", Delivered, "2.0.0", "250 ok"),
    row("EHLO", "502 what\r\n", Delivered, "2.0.0", "250 ok"),
    row("EHLO", "close", Deferred, "4.4.2", "closed"),
    row("EHLO", "", Deferred, "4.4.2", "the reply to EHLO"),
    row("EHLO", "250-mx\r\n250-SIZE 5\r\n250 HELP\r\n", Failed, "5.3.4", "does not take a message of this size"),
    row("MAIL", "421 4.3.2 down\r\n", Deferred, "4.3.2", "421 4.3.2 down"),
    row("MAIL", "450 4.1.8 no such sender now\r\n", Deferred, "4.1.8", "450 4.1.8"),
    row("MAIL", "451 later\r\n", Deferred, "4.0.0", "451 later"),
    row("MAIL", "452 4.3.1 full\r\n", Deferred, "4.3.1", "452 4.3.1 full"),
    row("MAIL", "530 5.7.0 log in first\r\n", Failed, "5.7.0", "530 5.7.0"),
    row("MAIL", "550 5.7.1 not you\r\n", Failed, "5.7.1", "550 5.7.1 not you"),
    row("MAIL", "552 5.3.4 too large\r\n", Failed, "5.3.4", "552 5.3.4"),
    row("MAIL", "553 no\r\n", Failed, "5.0.0", "553 no"),
    row("MAIL", "354 go\r\n", Deferred, "4.4.2", "354"),
    row("MAIL", "what\r\n", Deferred, "4.4.2", "reply"),
    row("MAIL", "250-half\r\n<close>", Deferred, "4.4.2", "closed"),
    row("MAIL", "close", Deferred, "4.4.2", "closed"),
    row("MAIL", "", Deferred, "4.4.2", "the reply to MAIL"),
    row("RCPT", "421 4.3.2 down\r\n", Deferred, "4.3.2", "421 4.3.2 down"),
    row("RCPT", "450 4.2.0 greylisted\r\n", Deferred, "4.2.0", "450 4.2.0 greylisted"),
    row("RCPT", "450 4.2.2 mailbox full\r\n", Deferred, "4.2.2", "450 4.2.2"),
    row("RCPT", "451 later\r\n", Deferred, "4.0.0", "451 later"),
    row("RCPT", "452 4.5.3 too many\r\n", Deferred, "4.5.3", "452 4.5.3"),
    row("RCPT", "550 5.1.1 unknown\r\n", Failed, "5.1.1", "550 5.1.1 unknown"),
    row("RCPT", "551 5.7.1 elsewhere\r\n", Failed, "5.7.1", "551 5.7.1"),
    row("RCPT", "552 5.2.2 full\r\n", Failed, "5.2.2", "552 5.2.2 full"),
    row("RCPT", "553 5.1.3 bad\r\n", Failed, "5.1.3", "553 5.1.3 bad"),
    row("RCPT", "554 no\r\n", Failed, "5.0.0", "554 no"),
    row("RCPT", "550-5.1.1 un\r\n550 5.1.1 known\r\n", Failed, "5.1.1", "550 5.1.1 un 5.1.1 known"),
    row("RCPT", "what\r\n", Deferred, "4.4.2", "reply"),
    row("RCPT", "close", Deferred, "4.4.2", "closed"),
    row("RCPT", "", Deferred, "4.4.2", "the reply to RCPT"),
    row("DATA", "421 4.3.2 down\r\n", Deferred, "4.3.2", "421 4.3.2 down"),
    row("DATA", "451 4.3.0 later\r\n", Deferred, "4.3.0", "451 4.3.0 later"),
    row("DATA", "503 5.5.1 no\r\n", Failed, "5.5.1", "503 5.5.1 no"),
    row("DATA", "554 5.7.1 no\r\n", Failed, "5.7.1", "554 5.7.1 no"),
    row("DATA", "250 ok\r\n", Deferred, "4.4.2", "250"),
    row("DATA", "what\r\n", Deferred, "4.4.2", "reply"),
    row("DATA", "close", Deferred, "4.4.2", "closed"),
    row("DATA", "", Deferred, "4.4.2", "the reply to DATA"),
    row("DATA", "354 go\r\n<close>", Doubt, "4.4.2", "the reply to the content"),
    row("<end>", "250 ok\r\n", Delivered, "2.0.0", "250 ok"),
    row("<end>", "250 2.6.0 queued as 7\r\n", Delivered, "2.6.0", "250 2.6.0 queued as 7"),
    row("<end>", "250 ok\r\n<close>", Delivered, "2.0.0", "250 ok"),
    row("<end>", "421 4.3.2 down\r\n", Deferred, "4.3.2", "421 4.3.2 down"),
    row("<end>", "451 4.3.0 later\r\n", Deferred, "4.3.0", "451 4.3.0 later"),
    row("<end>", "452 4.3.1 full\r\n", Deferred, "4.3.1", "452 4.3.1 full"),
    row("<end>", "550 5.7.1 spam\r\n", Failed, "5.7.1", "550 5.7.1 spam"),
    row("<end>", "552 5.3.4 too large\r\n", Failed, "5.3.4", "552 5.3.4"),
    row("<end>", "554 5.6.0 no\r\n", Failed, "5.6.0", "554 5.6.0 no"),
    row("<end>", "354 go\r\n", Doubt, "4.4.2", "354"),
    row("<end>", "what\r\n", Doubt, "4.4.2", "reply"),
    row("<end>", "250-half\r\n<close>", Doubt, "4.4.2", "closed"),
    row("<end>", "close", Doubt, "4.4.2", "closed"),
    row("<end>", "", Doubt, "4.4.2", "the reply to the content"),
    row("QUIT", "500 what\r\n", Delivered, "2.0.0", "250 ok"),
    row("QUIT", "close", Delivered, "2.0.0", "250 ok"),
    row("QUIT", "", Delivered, "2.0.0", "250 ok"),
];

#[tokio::test]
async fn the_event_the_queue_and_the_report_say_what_happened() {
    let mut checks = JoinSet::new();
    for row in ROWS {
        checks.spawn(check(row));
    }
    let wrong: Vec<_> = checks.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

/// The rows as the page has them.
#[test]
fn the_page_has_these_rows() {
    let table: String = ROWS.iter().map(line).collect();
    assert!(PAGE.replace("\r\n", "\n").ends_with(&table), "the page must end with:\n{table}");
}

const PAGE: &str = include_str!("../../WHAT_HAPPENS.md");

/// A row in the words of the page.
fn line(row: &Row) -> String {
    let Row { at, says, outcome, status, words } = row;
    let at = match *at {
        "<connect>" => "the connection",
        "<end>" => "the content",
        at => at,
    };
    let (text, closes) = says.strip_suffix("<close>").map_or((*says, false), |text| (text, true));
    let text = text.trim_end().replace("\r\n", "`, `");
    let says = match &*text {
        "" => "says nothing".to_owned(),
        "close" => "closes the connection".to_owned(),
        text if closes => format!("says `{text}`, then closes the connection"),
        text => format!("says `{text}`"),
    };
    let outcome = match outcome {
        Delivered => "delivered",
        Deferred => "deferred",
        Doubt => "in doubt",
        Failed => "failed",
    };
    format!("| {at} | {says} | {outcome} | {status} | {words} |\n")
}

/// Sends a message to a next hop with this fault, and compares all that is said of it.
async fn check(row: &'static Row) -> Result<(), String> {
    let hop = Scripted::start(move |_, line| match verb(line) == row.at {
        true => row.says.to_owned(),
        false => polite(line, &[]),
    })
    .await;
    // The sender's own host takes the reports.
    let sender = Hop::start(Behavior::default()).await;
    let mut options = options(&[]);
    options.routes = RouteTable::empty();
    options.routes.push(["s.test".parse().unwrap()], Route::hosts([("[127.0.0.1]", sender.port)]));
    options.routes.push(["*".parse().unwrap()], Route::hosts([("[127.0.0.1]", hop.port)]));
    options.delivery.timeouts = ClientTimeouts::all(Duration::from_secs(2));
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    // The first deferral is reported at once: its report must say the same too.
    options.delivery.retry.warn_after = Some(Duration::ZERO);
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;

    let event = match row.outcome {
        Delivered => "delivered",
        Deferred | Doubt => "deferred",
        Failed => "failed",
    };
    let reports = usize::from(row.outcome != Delivered);
    // The delivery of a report is an event of its own.
    let mut left = Vec::new();
    for _ in 0..6_000 {
        left = relay.relay.queue().list(None, 10).await.unwrap();
        let is_told = relay.log.count("delivered") >= 1 && relay.log.count(event) >= 1;
        if is_told && left.len() == usize::from(event == "deferred") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut wrong = Vec::new();
    let mut expect = |is_so: bool, what: String| {
        if !is_so {
            wrong.push(what);
        }
    };

    // The events: one outcome of the recipient, and one report.
    let outcomes: Vec<_> = relay.log.all().into_iter().filter(|seen| seen.who == "<a@d.test>").collect();
    expect(outcomes.len() == 1 && outcomes[0].what == event, format!("events {outcomes:?}"));
    let text = outcomes.first().map(|seen| seen.text.clone()).unwrap_or_default();
    if row.outcome != Delivered {
        expect(text.starts_with(&format!("{} ", row.status)), format!("status of {text:?}"));
        expect(text.contains(row.words), format!("words {text:?}"));
    }
    expect((row.outcome == Doubt) == text.contains("may have it"), format!("doubt in {text:?}"));
    expect(relay.log.count("reported") == reports, format!("{} reports queued", relay.log.count("reported")));

    // The queue: what is deferred is there, with one attempt made and an hour to wait.
    for message in left {
        let [delivery] = &message.deliveries[..] else { panic!("{message:?}") };
        let due = Duration::from_secs(3_000)..Duration::from_secs(4_000);
        expect(delivery.attempts == 1 && due.contains(&delivery.due_in), format!("queue {delivery:?}"));
    }

    // The report: the same status and the same words, and the same action.
    let got = sender.reports();
    expect(got.len() == reports, format!("{} reports taken", got.len()));
    for report in got {
        let report = report.text().replace("\r\n ", " ");
        let action = if event == "failed" { "failed" } else { "delayed" };
        let code = text.split_once("said: ").map(|(_, reply)| format!("Diagnostic-Code: smtp; {reply}"));
        let wanted = [format!("Action: {action}"), format!("Status: {}", row.status), row.words.to_owned()];
        for line in wanted.into_iter().chain(code) {
            expect(report.contains(&line), format!("no {line:?} in the report"));
        }
    }

    // The truth: the next hop has had the content exactly where an outcome says so.
    let has_content = hop.count("<end>") > 0;
    let says_content = row.outcome == Delivered || row.at == "<end>";
    expect(has_content == says_content, format!("content: {has_content}"));
    relay.end().await;
    let says = row.says.replace("\r\n", "|");
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} {says:?}: {}", row.at, wrong.join("; "))) }
}
