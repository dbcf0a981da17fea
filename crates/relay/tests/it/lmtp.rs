//! Next hops that speak LMTP, over TCP and over a Unix socket.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_relay::{RelayOptions, Route};
use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service, accepted, refusal,
    session::ServerSettings, wire::Rcpt,
};

use crate::{
    agents::{self, Collector},
    support::start,
};

/// Takes all but `no`, and `later` at its second attempt.
#[derive(Debug, Clone, Default)]
struct Mailboxes(Arc<State>);

#[derive(Debug, Default)]
struct State {
    sessions: AtomicUsize,
    later: AtomicUsize,
    mails: Mutex<Vec<String>>,
}

impl Service for Mailboxes {
    type Handler = Self;

    async fn connect(&self, _: &Context) -> Result<Self, Refusal> {
        self.0.sessions.fetch_add(1, SeqCst);
        Ok(self.clone())
    }
}

impl Handler for Mailboxes {
    async fn rcpt(&mut self, _: &Context, _: &Rcpt) -> Result<(), Refusal> {
        Ok(())
    }

    async fn deliver(
        &mut self,
        _: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> Result<Vec<Result<Accepted, Refusal>>, Refusal> {
        body.collect(1 << 20).await?;
        self.0.mails.lock().unwrap().push(envelope.mail.to_string());
        let decide = |rcpt: &Rcpt| match rcpt.forward_path.to_string().as_str() {
            "<no@lmtp.test>" => Err(refusal!("550 5.1.1 No such mailbox")),
            "<later@lmtp.test>" if self.0.later.fetch_add(1, SeqCst) == 0 => Err(refusal!("451 4.2.0 Busy mailbox")),
            _ => Ok(accepted!("250 2.0.0 Stored")),
        };
        Ok(envelope.recipients.iter().map(decide).collect())
    }

    async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
        Err(refusal!("554 5.5.1 LMTP only"))
    }
}

/// A server on a Unix socket, or on TCP, and the route to it.
async fn lmtp(folder: &Path, on_unix: bool) -> (Mailboxes, Route) {
    let (mailboxes, socket) = (Mailboxes::default(), folder.join("lmtp"));
    let settings = ServerSettings::lmtp("mailboxes.test".parse().unwrap());
    let server = Server::new(mailboxes.clone());
    let route = if on_unix {
        let listener = Listener::bind_unix(&socket, 0o600, settings).await.unwrap();
        tokio::spawn(server.listen(listener).serve());
        Route::lmtp_unix(socket.to_str().unwrap())
    } else {
        let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
        let port = listener.local_address().unwrap().port();
        tokio::spawn(server.listen(listener).serve());
        Route::lmtp([("[127.0.0.1]", port)])
    };
    (mailboxes, route)
}

/// Options with this route for `lmtp.test`, and a collector of reports for `sender.test`.
fn routed(route: Route) -> (RelayOptions, Collector) {
    let (mut options, reports) = agents::routed(Route::agent("unused", Collector::default()));
    options.routes.push(["lmtp.test".parse().unwrap()], route);
    (options, reports)
}

#[tokio::test]
async fn each_recipient_has_its_own_answer_to_the_message() {
    for on_unix in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (mailboxes, route) = lmtp(folder.path(), on_unix).await;
        let (options, reports) = routed(route);
        let running = start(options);
        let rcpts = ["<yes@lmtp.test>", "<no@lmtp.test>", "<later@lmtp.test>"];
        running.submit("<me@sender.test>", &rcpts, b"Subject: x\r\n\r\nbody\r\n").await;
        running.empty().await;
        let who = |what| running.log.of(what).into_iter().map(|seen| seen.who).collect::<Vec<_>>();
        assert_eq!(who("deferred"), ["<later@lmtp.test>"], "{on_unix}");
        assert_eq!(who("failed"), ["<no@lmtp.test>"]);
        assert!(who("delivered").starts_with(&["<yes@lmtp.test>".to_owned()]));
        assert!(who("delivered").contains(&"<later@lmtp.test>".to_owned()));
        assert_eq!(mailboxes.0.mails.lock().unwrap().len(), 2);
        let reports = reports.all();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains("Final-Recipient: rfc822; no@lmtp.test"), "{}", reports[0]);
        // The path of a socket is no host, and none of the sender's business.
        assert_eq!(reports[0].contains("Remote-MTA: dns; [127.0.0.1]"), !on_unix, "{}", reports[0]);
        assert!(!reports[0].contains("unix:"), "{}", reports[0]);
        running.end().await;
    }
}

#[tokio::test]
async fn a_connection_by_lmtp_is_kept_for_the_next_message() {
    for on_unix in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (mailboxes, route) = lmtp(folder.path(), on_unix).await;
        let (mut options, _) = routed(route);
        options.delivery.concurrency_per_site = 1;
        options.delivery.idle = Duration::from_secs(60);
        let running = start(options);
        for _ in 0..5 {
            running.submit("<me@sender.test>", &["<yes@lmtp.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
            running.empty().await;
        }
        assert_eq!((running.log.count("delivered"), mailboxes.0.sessions.load(SeqCst)), (5, 1), "{on_unix}");
        running.end().await;
    }
}

#[tokio::test]
async fn requiretls_mail_goes_to_a_unix_socket_and_not_to_lmtp_over_a_network() {
    for on_unix in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (mailboxes, route) = lmtp(folder.path(), on_unix).await;
        let (options, _) = routed(route);
        let running = start(options);
        running.submit("<me@sender.test> REQUIRETLS", &["<yes@lmtp.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
        running.log.wait(if on_unix { "delivered" } else { "failed" }, 1).await;
        let mails = mailboxes.0.mails.lock().unwrap().clone();
        assert_eq!(mails.len(), usize::from(on_unix));
        assert!(mails.iter().all(|mail| !mail.contains("REQUIRETLS")), "{mails:?}");
        running.end().await;
    }
}

#[tokio::test]
async fn mail_goes_to_the_next_host_while_a_socket_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (mailboxes, _) = lmtp(folder.path(), true).await;
    let hosts = ["gone", "lmtp"].map(|name| (format!("unix:{}", folder.path().join(name).display()), 0));
    let (options, _) = routed(Route::lmtp(hosts));
    let running = start(options);
    running.submit("<me@sender.test>", &["<yes@lmtp.test>"], b"Subject: x\r\n\r\nbody\r\n").await;
    running.empty().await;
    assert_eq!((running.log.count("delivered"), mailboxes.0.sessions.load(SeqCst)), (1, 1));
    running.end().await;
}

#[tokio::test]
async fn a_sender_hears_that_a_server_without_dsn_has_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let (_, route) = lmtp(folder.path(), true).await;
    let (options, reports) = routed(route);
    let running = start(options);
    running.submit("<me@sender.test>", &["<yes@lmtp.test> NOTIFY=SUCCESS"], b"Subject: x\r\n\r\nbody\r\n").await;
    running.empty().await;
    assert!(reports.all()[0].contains("Action: relayed\r\n"), "{:?}", reports.all());
    running.end().await;
}
