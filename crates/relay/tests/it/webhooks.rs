//! An HTTP server as next hop: the request that it gets, and what follows from each answer.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use posthaste_relay::{Route, agent::Webhook};
use posthaste_server::rustls::ServerConfig;
use posthaste_testkit::pki;
use sha2::Sha256;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    agents::{done, routed},
    support::start,
};

const SECRET: &str = "a secret of some octets";

/// What an application does with a request.
#[derive(Debug, Clone)]
enum Does {
    Says(String),
    /// It says this without end.
    SaysForEver(&'static str),
    /// It answers before it has read the content, and closes.
    SaysEarly(&'static str),
    Closes,
    IsSilent,
}

/// An application that does this with each request in turn; the last serves all further ones.
struct App {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl App {
    async fn start(script: Vec<Does>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let taken = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut script = script.into_iter().peekable();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let does = if script.len() > 1 { script.next() } else { script.peek().cloned() };
                let (does, taken) = (does.unwrap(), Arc::clone(&taken));
                match tls.clone() {
                    Some(tls) => {
                        let acceptor = TlsAcceptor::from(tls);
                        tokio::spawn(async move {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, does, &taken).await;
                            }
                        });
                    }
                    None => drop(tokio::spawn(async move { serve(stream, does, &taken).await })),
                }
            }
        });
        Self { port, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn route(&self, change: impl FnOnce(&mut Webhook)) -> Route {
        let (_, config) = pki::tls("unused.test");
        let url = format!("http://127.0.0.1:{}/inbound?x=1", self.port);
        let mut webhook = Webhook::with_config(&url, SECRET, &config).unwrap();
        change(&mut webhook);
        Route::agent("app", webhook)
    }
}

/// The next request, or its head alone. `None`: the client has closed.
async fn next<S: AsyncRead + Unpin>(stream: &mut S, head_alone: bool) -> Option<String> {
    let mut octets = Vec::new();
    let mut content = None;
    loop {
        let text = String::from_utf8_lossy(&octets).into_owned();
        if content.is_none() {
            content = text.split_once("\r\n\r\n").map(|(head, _)| {
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                head.len() + 4 + length.unwrap()
            });
        }
        if content.is_some_and(|end| head_alone || octets.len() >= end) {
            return Some(text);
        }
        if stream.read_buf(&mut octets).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, does: Does, taken: &Mutex<Vec<String>>) {
    let early = matches!(does, Does::SaysEarly(_));
    let Some(request) = next(&mut stream, early).await else { return };
    taken.lock().unwrap().push(request);
    match does {
        Does::Says(text) => drop(stream.write_all(text.as_bytes()).await),
        Does::SaysEarly(text) => drop(stream.write_all(text.as_bytes()).await),
        Does::SaysForEver(text) => while stream.write_all(text.as_bytes()).await.is_ok() {},
        Does::Closes => {}
        Does::IsSilent => std::future::pending().await,
    }
    let _ = stream.shutdown().await;
}

fn says(status: &str, fields: &str, body: &str) -> Does {
    Does::Says(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn ok() -> Does {
    says("200 OK", "", "")
}

#[tokio::test]
async fn a_request_has_the_message_its_envelope_and_a_signature() {
    let app = App::start(vec![ok()], None).await;
    let (options, _) = routed(app.route(|_| {}));
    let running = start(options);
    let content = "Subject: x\r\n\r\nbody\r\n.\r\n";
    let rcpts = ["<jo@agent.test>", "<\u{e4}@agent.test>"];
    let id = running.submit("<me@sender.test> SMTPUTF8", &rcpts, content.as_bytes()).await;
    done(&running, "delivered", 2).await;
    running.end().await;
    let requests = app.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!((requests.len(), body), (1, content));
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")));
        line.and_then(|line| line.split_once(": ")).unwrap().1
    };
    assert!(head.starts_with("POST /inbound?x=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(field("content-type"), "message/rfc822");
    assert_eq!(field("host"), format!("127.0.0.1:{}", app.port));
    let envelope = field("x-posthaste-envelope");
    let expected =
        format!(r#"{{"id":"{id}","from":"me@sender.test","to":["jo@agent.test","\u00e4@agent.test"],"age":"#);
    assert!(envelope.starts_with(&expected), "{envelope}");
    let (time, signature) = field("x-posthaste-signature").split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.{envelope}.{content}").as_bytes());
    let hex = mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, octet| {
        let _ = write!(hex, "{octet:02x}");
        hex
    });
    assert_eq!(signature, hex);
    assert!(time.parse::<u64>().unwrap().abs_diff(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()) < 300);
}

/// The answers, and the words of the deferral or failure. `true`: the message is tried again.
#[tokio::test]
async fn the_events_the_queue_and_the_report_agree_on_each_answer() {
    let text = "Content-Type: text/plain; charset=utf-8\r\n";
    for (does, is_tried_again, words) in [
        (
            says("400 Bad Request", "", "x"),
            false,
            "5.7.1 agent:app said: 554 5.7.1 Status 400, the message is not taken",
        ),
        (
            says("404 Not Found", text, " no such list \nx"),
            false,
            "554 5.7.1 Status 404, the message is not taken: no such list",
        ),
        (says("422 Unprocessable", text, "550\r\n.\r\nQUIT"), false, "Status 422, the message is not taken: 550"),
        (says("413 Too Large", "", ""), false, "552 5.3.4 Status 413"),
        (Does::SaysEarly("HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\n"), false, "552 5.3.4 Status 413"),
        (
            says("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
            true,
            "451 4.3.5 Status 302: the redirect is not followed",
        ),
        (says("408 Request Timeout", "", ""), true, "451 4.3.2 Status 408"),
        (says("425 Too Early", "", ""), true, "451 4.3.2 Status 425"),
        (says("500 Error", text, "out of order"), true, "451 4.3.0 Status 500: out of order"),
        (says("503 Unavailable", "Retry-After: 1\r\n", ""), true, "451 4.3.0 Status 503, try again in 1 seconds"),
        (says("503 Unavailable", "Retry-After: Mon, 1 Jan 2040 00:00:00 GMT\r\n", ""), true, "451 4.3.0 Status 503"),
        (
            Does::SaysForEver("HTTP/1.1 500 Error\r\nContent-Type: text/plain\r\n\r\nblah"),
            true,
            "451 4.3.0 Status 500: blahHTTP",
        ),
        (Does::SaysForEver("X: y\r\n"), true, "451 4.4.2 The application broke off"),
        (Does::Says("220 hop.test ESMTP\r\n".to_owned()), true, "451 4.4.2 The application broke off"),
        (Does::Closes, true, "451 4.4.2 The application broke off"),
        (Does::IsSilent, true, "451 4.4.2 No answer from the application within 1 s"),
    ] {
        let app = App::start(vec![does.clone(), ok()], None).await;
        let (options, reports) = routed(app.route(|webhook| webhook.timeout = Duration::from_secs(1)));
        let running = start(options);
        running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
        running.empty().await;
        let (what, count) = if is_tried_again { ("deferred", 2) } else { ("failed", 1) };
        let seen = running.log.of(what);
        assert_eq!(seen.len(), 1, "{does:?} {:?}", running.log.all());
        assert!(seen[0].text.contains(words), "{does:?} {}", seen[0].text);
        assert_eq!(app.requests().len(), count, "{does:?}");
        assert_eq!(reports.all().len(), usize::from(!is_tried_again), "{does:?}");
        for report in reports.all() {
            assert!(!report.contains("127.0.0.1") && !report.contains(SECRET), "{report}");
        }
        running.end().await;
    }
}

#[tokio::test]
async fn a_server_that_is_asked_too_often_rests() {
    let app = App::start(vec![says("429 Slow", "Retry-After: 1\r\n", ""), ok()], None).await;
    let (options, _) = routed(app.route(|_| {}));
    let running = start(options);
    running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
    done(&running, "delivered", 1).await;
    // The mail waits, and no attempt is counted.
    assert_eq!((running.log.count("deferred"), app.requests().len()), (0, 2));
    running.end().await;
}

#[tokio::test]
async fn mail_goes_over_tls_that_proves_the_host() {
    let (server, config) = pki::tls("localhost");
    let (other, _) = pki::tls("other.test");
    for (tls, words) in [(server, None), (other, Some("421 4.4.1 The application is not reached: its TLS failed"))] {
        let app = App::start(vec![ok()], Some(tls)).await;
        let url = format!("https://localhost:{}/", app.port);
        let (options, _) = routed(Route::agent("app", Webhook::with_config(&url, SECRET, &config).unwrap()));
        let running = start(options);
        running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
        match words {
            None => done(&running, "delivered", 1).await,
            Some(words) => {
                running.log.wait("deferred", 1).await;
                assert!(running.log.of("deferred")[0].text.contains(words), "{:?}", running.log.all());
                assert_eq!(app.requests().len(), 0);
            }
        }
        running.end().await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_reached_defers_all_its_mail_without_asking() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (_, config) = pki::tls("unused.test");
    let webhook = Webhook::with_config(&format!("http://localhost:{port}/"), SECRET, &config).unwrap();
    let (mut options, _) = routed(Route::agent("app", webhook));
    options.delivery.retry.waits = vec![Duration::from_secs(3_600)];
    let running = start(options);
    for _ in 0..20 {
        running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
    }
    running.log.wait("deferred", 20).await;
    assert!(
        running.log.of("deferred").iter().all(|seen| seen.text.contains("421 4.4.1 The application is not reached"))
    );
    running.end().await;
}

#[tokio::test]
async fn many_recipients_are_in_several_requests() {
    let app = App::start(vec![ok()], None).await;
    let (options, _) = routed(app.route(|_| {}));
    let running = start(options);
    let names: Vec<_> = (0..100).map(|index| format!("<{}{index}@agent.test>", "x".repeat(50))).collect();
    let rcpts: Vec<_> = names.iter().map(String::as_str).collect();
    running.submit("<me@sender.test>", &rcpts, b"Subject: x\r\n\r\nbody\r\n").await;
    done(&running, "delivered", 100).await;
    running.end().await;
    let requests = app.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.len() < 8_000));
}

/// An application that takes this many requests on each connection, and then closes it without a
/// word. Returns its port, and the number of connections.
async fn persistent(most: usize, tls: Option<Arc<ServerConfig>>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, SeqCst);
            match &tls {
                Some(tls) => answer(TlsAcceptor::from(Arc::clone(tls)).accept(stream).await.unwrap(), most).await,
                None => answer(stream, most).await,
            }
        }
    });
    (port, connections)
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, most: usize) {
    for _ in 0..most {
        if next(&mut stream, false).await.is_none() {
            return;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nDone").await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_serves_many_messages_and_one_that_the_server_has_closed_costs_no_attempt() {
    let (server, config) = pki::tls("localhost");
    let idle = Duration::from_secs(60);
    for (most, idle, tls, expected) in [
        (100, idle, false, 1..=1),
        (100, idle, true, 1..=1),
        (5, idle, false, 3..=4),
        (1, idle, false, 12..=12),
        (100, Duration::ZERO, false, 12..=12),
    ] {
        let (port, connections) = persistent(most, tls.then(|| Arc::clone(&server))).await;
        let scheme = if tls { "https" } else { "http" };
        let mut webhook = Webhook::with_config(&format!("{scheme}://localhost:{port}/"), SECRET, &config).unwrap();
        webhook.idle = idle;
        let (mut options, _) = routed(Route::agent("app", webhook));
        options.delivery.concurrency_per_site = 1;
        let running = start(options);
        for count in 1..=12 {
            running.submit("<me@sender.test>", &["<jo@agent.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
            done(&running, "delivered", count).await;
        }
        assert_eq!(running.log.count("deferred"), 0);
        let connections = connections.load(SeqCst);
        assert!(expected.contains(&connections), "{most} {idle:?} {tls} {connections}");
        running.end().await;
    }
}

#[tokio::test]
async fn an_answer_takes_some_recipients_and_refuses_others() {
    let json = "Content-Type: application/json\r\n";
    let decides = r#"{"refused":{"gone@agent.test":"5.1.1 No such list"},"later":{"busy@agent.test":"Not now"}}"#;
    let app = App::start(vec![says("200 OK", json, decides), ok()], None).await;
    let (options, reports) = routed(app.route(|_| {}));
    let running = start(options);
    let rcpts = ["<jo@agent.test>", "<gone@agent.test>", "<busy@agent.test>"];
    running.submit("<me@sender.test>", &rcpts, b"Subject: x\r\n\r\nbody\r\n").await;
    running.empty().await;
    let seen = |what: &str| running.log.of(what).into_iter().map(|seen| seen.text).collect::<Vec<_>>();
    assert!(seen("failed")[0].contains("550 5.1.1 No such list"), "{:?}", seen("failed"));
    assert!(seen("deferred")[0].contains("451 4.3.0 Not now"), "{:?}", seen("deferred"));
    // The second request has the one recipient that is left.
    let requests = app.requests();
    assert!(requests.len() == 2 && requests[1].contains(r#""to":["busy@agent.test"]"#), "{requests:?}");
    assert!(reports.all().len() == 1 && reports.all()[0].contains("No such list"), "{:?}", reports.all());
    running.end().await;
    // What cannot be understood leaves all of them in the queue.
    let app = App::start(vec![says("200 OK", json, r#"{"refused":["gone@agent.test"]}"#), ok()], None).await;
    let (options, _) = routed(app.route(|_| {}));
    let running = start(options);
    running.submit("<me@sender.test>", &rcpts, b"Subject: x\r\n\r\nbody\r\n").await;
    running.log.wait("deferred", 3).await;
    assert!(running.log.of("deferred")[0].text.contains("Status 200, but `refused` is no object"));
    done(&running, "delivered", 3).await;
    running.end().await;
}
