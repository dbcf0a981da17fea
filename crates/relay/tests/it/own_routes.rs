//! An application that finds the routes itself.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_client::SystemResolver;
use posthaste_queue::memory::MemoryQueue;
use posthaste_relay::{Relay, RelayOptions, Route, RouteError, RouteQuery, Routes};

use crate::support::{Behavior, Client, Hop, Log, PATIENCE, Running, options, run};

type Answer = Result<Option<Arc<Route>>, RouteError>;

/// Routes by a closure.
struct Own<F>(F);

impl<F, T> Routes for Own<F>
where
    F: Fn(String) -> T + Send + Sync + 'static,
    T: Future<Output = Answer> + Send,
{
    async fn find(&self, mail: &RouteQuery<'_>) -> Answer {
        (self.0)(mail.domain.to_owned()).await
    }
}

fn to(port: u16) -> Answer {
    Ok(Some(Arc::new(Route::hosts([("[127.0.0.1]", port)]))))
}

/// More than a route may have.
fn huge() -> Answer {
    Ok(Some(Arc::new(Route::hosts((0..1_000).map(|number| (format!("mx{number}.test"), 25))))))
}

fn relay(options: RelayOptions, routes: impl Routes) -> (Relay<MemoryQueue, SystemResolver>, Log) {
    let log = Log::default();
    let builder = Relay::builder(MemoryQueue::default(), SystemResolver, options);
    (builder.routes(routes).observer(log.clone()).build(), log)
}

fn start(options: RelayOptions, routes: impl Routes) -> Running {
    let (relay, log) = relay(options, routes);
    run(relay, log)
}

#[tokio::test]
async fn a_recipient_is_refused_as_the_application_says() {
    let routes = Own(async |domain: String| match domain.as_str() {
        "known.test" | "xn--bcher-kva.test" | "[192.0.2.1]" => to(1),
        "broken.test" => Err("the database is gone".into()),
        "huge.test" => huge(),
        _ => Ok(None),
    });
    let mut options = options(&[]);
    options.policy.relay_from.push("127.0.0.0/8".parse().unwrap());
    let (relay, log) = relay(options, routes);
    let mut client = Client::with(relay, log).await;
    client.talk(&["EHLO c.test\r\n", "MAIL FROM:<a@b.test> SMTPUTF8\r\n"]).await;
    for (recipient, reply) in [
        ("a@known.test", "250 "),
        // The domain is asked for in one form.
        ("a@KNOWN.Test", "250 "),
        ("a@b\u{fc}cher.test", "250 "),
        ("a@[192.0.2.1]", "250 "),
        ("a@unknown.test", "550 5.1.1 "),
        ("a@broken.test", "451 4.4.3 "),
        ("a@huge.test", "451 4.4.3 "),
    ] {
        let said = client.talk(&[&format!("RCPT TO:<{recipient}>\r\n")]).await;
        assert!(said.starts_with(reply) && !said.contains("database"), "{recipient}: {said}");
    }
}

/// One answer serves all deliveries of a domain, and equal routes share their connections.
#[tokio::test]
async fn the_application_is_asked_once_for_a_domain() {
    let hop = Hop::start(Behavior::default()).await;
    let (asked, port) = (Arc::new(Mutex::new(HashMap::<String, usize>::new())), hop.port);
    let count = Arc::clone(&asked);
    let mut options = options(&[]);
    options.delivery.concurrency_per_site = 1;
    let relay = start(
        options,
        Own(move |domain: String| {
            *count.lock().unwrap().entry(domain).or_default() += 1;
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                to(port)
            }
        }),
    );
    for _ in 0..50 {
        relay.submit("<s@s.test>", &["<a@one.test>", "<b@two.test>"], b"x\r\n").await;
    }
    relay.empty().await;
    assert_eq!(relay.log.count("delivered"), 100);
    assert_eq!(*asked.lock().unwrap(), HashMap::from([("one.test".to_owned(), 1), ("two.test".to_owned(), 1)]));
    assert_eq!(hop.connections(), 1);
    relay.end().await;
}

/// The loop that hands out deliveries waits for no answer. At most 64 are waited for at once.
#[tokio::test]
async fn a_slow_answer_delays_no_other_domain() {
    let hop = Hop::start(Behavior::default()).await;
    let (port, now, most) = (hop.port, Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (busy, peak) = (Arc::clone(&now), Arc::clone(&most));
    let relay = start(
        options(&[]),
        Own(move |domain: String| {
            let (busy, peak) = (Arc::clone(&busy), Arc::clone(&peak));
            async move {
                peak.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
                if domain == "mute.test" {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                busy.fetch_sub(1, SeqCst);
                to(port)
            }
        }),
    );
    relay.submit("<s@s.test>", &["<a@mute.test>"], b"x\r\n").await;
    let recipients: Vec<_> = (0..300).map(|index| format!("<a@d{index}.test>")).collect();
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    relay.submit("<s@s.test>", &recipients, b"x\r\n").await;
    relay.log.wait("delivered", 300).await;
    assert_eq!((relay.log.count("deferred"), most.load(SeqCst)), (0, 64));
    // The mute one does not delay the end.
    tokio::time::timeout(PATIENCE / 6, relay.end()).await.unwrap();
}

/// What is in the queue waits for a route, whether it is an error or a panic that hides it, or a
/// route that is too large to be kept.
#[tokio::test]
async fn queued_mail_waits_until_there_is_an_answer() {
    let hop = Hop::start(Behavior::default()).await;
    let (port, asked) = (hop.port, AtomicUsize::new(0));
    let relay = start(
        options(&[]),
        Own(move |_| {
            let answer = match asked.fetch_add(1, SeqCst) {
                0 => Err("the database is gone".into()),
                1 => panic!("a mistake of the application"),
                2 => huge(),
                _ => to(port),
            };
            async move { answer }
        }),
    );
    relay.submit("<s@s.test>", &["<a@d.test>"], b"x\r\n").await;
    relay.empty().await;
    let deferred = relay.log.of("deferred");
    let texts: Vec<_> = deferred.iter().map(|seen| seen.text.as_str()).collect();
    assert_eq!(texts, ["4.4.3 the route is not known now"; 3]);
    assert_eq!((relay.log.count("delivered"), relay.log.count("failed")), (1, 0));
    relay.end().await;
}

#[tokio::test]
async fn queued_mail_without_a_route_is_returned() {
    let hop = Hop::start(Behavior::default()).await;
    let port = hop.port;
    let routes = move |domain: String| async move { if domain == "s.test" { to(port) } else { Ok(None) } };
    let relay = start(options(&[]), Own(routes));
    relay.submit("<s@s.test>", &["<a@gone.test>"], b"x\r\n").await;
    relay.empty().await;
    assert_eq!(relay.log.of("failed")[0].text, "5.4.4 there is no route for gone.test");
    assert_eq!(hop.reports().len(), 1);
    relay.end().await;
}
