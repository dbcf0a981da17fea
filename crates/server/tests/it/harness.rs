//! The client for tests of services: what it does, and how it fails.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_server::{
    BearerToken, Body, Context, Credentials, Envelope, Service, Tls, accepted, handlers, refusal,
    session::{ServerSettings, sasl::ClientCredentials, server::Protocol},
    test::{Client, client_fingerprint},
    tls::{Pem, server_config},
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::pki::Authority;
use tokio::sync::mpsc;

use crate::support::{Names, options, settings};

const LETTER: &str = "Subject: x\r\n\r\nHi\r\n";

/// A service that gives its messages to the test.
fn inbox() -> (impl Service, mpsc::UnboundedReceiver<(Context, Envelope, Bytes)>) {
    let (inbox, messages) = mpsc::unbounded_channel();
    let service = handlers::message(move |cx: Context, envelope: Envelope, body: Body<'static>| {
        let inbox = inbox.clone();
        async move {
            let content = body.collect(10_000).await?;
            inbox.send((cx, envelope, content)).map_err(std::io::Error::other)?;
            Ok(accepted!("250 2.0.0 Yes"))
        }
    });
    (service, messages)
}

fn with_logins() -> ServerSettings {
    use Mechanism::{Anonymous, External, Login, OauthBearer, Plain, ScramSha256, ScramSha256Plus, XOauth2};
    let mut settings = settings();
    settings.offers.auth =
        MechanismSet::of(&[Plain, Login, ScramSha256, ScramSha256Plus, External, OauthBearer, XOauth2, Anonymous]);
    settings.offers.auth_in_clear = true;
    settings
}

/// The certificate is for the name that the client asks for, and of no authority that it knows.
#[tokio::test(start_paused = true)]
async fn a_program_is_tested_with_its_own_certificate() {
    let [certificate, key] = Authority::new("own").pem(&["mx.test"]);
    let config = server_config(&Pem::from(certificate.as_bytes()), &Pem::from(key.as_bytes())).unwrap();
    for tls in [Tls::StartTls(config.clone()), Tls::Implicit(config)] {
        let (service, mut messages) = inbox();
        let implicit = matches!(tls, Tls::Implicit(_));
        let mut client = Client::connect(service).settings(settings()).tls(tls).await;
        client.ehlo().await;
        if !implicit {
            client.starttls().await;
            client.ehlo().await;
        }
        client.send("me@a.test", ["you@b.test"], LETTER).await.expect("250");
        let (cx, ..) = messages.recv().await.unwrap();
        assert_eq!(cx.peer.tls.unwrap().server_name.as_deref(), Some("mx.test"));
    }
    let mut client = Client::connect(Names::default()).tls(Tls::Off).await;
    assert!(!client.ehlo().await.as_str().contains("STARTTLS"));
}

#[tokio::test(start_paused = true)]
async fn clients_come_through_a_proxy_with_its_header() {
    let (service, mut messages) = inbox();
    let mut client = Client::connect(service).implicit_tls().proxy("192.0.2.9").peer("2001:db8::7").await;
    for (address, header) in [
        ("[2001:db8::7]:40000", "C: PROXY TCP6 2001:db8::7 2001:db8::25 40000 25\n# TLS\nS: 220 "),
        ("198.51.100.3:7", "C: PROXY TCP4 198.51.100.3 192.0.2.25 7 25\n# TLS\nS: 220 "),
        // It does not know its client.
        ("local", "C: PROXY UNKNOWN\n# TLS\nS: 220 "),
    ] {
        assert!(client.transcript().starts_with(header), "{}", client.transcript());
        client.ehlo().await;
        client.send("me@a.test", ["you@b.test"], LETTER).await.expect("250");
        let (cx, ..) = messages.recv().await.unwrap();
        let proxy = "192.0.2.9:40000".to_owned();
        match cx.peer.proxy {
            Some(named) => {
                assert_eq!((cx.peer.address.to_string(), named.address.to_string()), (address.into(), proxy))
            }
            None => assert_eq!((address, cx.peer.address.to_string()), ("local", proxy)),
        }
        client = client.another_from(if address.contains("::") { "198.51.100.3:7" } else { "local" }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_say_xclient_if_the_test_has_it() {
    let mut client = Client::connect(Names::default()).settings(with_logins()).await;
    client.says("XCLIENT ADDR=192.0.2.7").await.expect("550 5.7.0");

    let (service, mut messages) = inbox();
    let mut client = Client::connect(service).settings(with_logins()).xclient().peer("local").await;
    client.ehlo().await;
    client.says("XFORWARD NAME=a.test").await.expect("250");
    client.says("XCLIENT ADDR=192.0.2.7 LOGIN=me").await.expect("220");
    client.ehlo().await;
    client.send("me@a.test", ["you@b.test"], LETTER).await.expect("250");
    let (cx, ..) = messages.recv().await.unwrap();
    assert_eq!((cx.peer.address.to_string().as_str(), cx.peer.identity.as_deref()), ("192.0.2.7:0", Some("me")));
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_written_down_and_is_the_same_in_each_run() {
    for _ in 0..2 {
        let mut settings = with_logins();
        settings.offers.chunking = true;
        let mut client = Client::connect(Names::default()).settings(settings).starttls().await;
        client.greeting().expect("220 mx.test");
        client.ehlo().await;
        client.starttls().await;
        client.ehlo().await;
        client.login("me", "right").await.expect("235");
        let to = ["you@b.test", "refuse-rcpt@b.test"];
        client.send("me@a.test", to, ".one\r\n\r\nno end").await.expect_each(["250 2.0.0 Yes", "550 5.7.1 No"]);
        client.send_chunks("me@a.test", ["you@b.test"], ["on", "e\r\n"]).await.expect("250");
        client.wait(Duration::from_secs(3_600)).await;
        client.reply().await.expect("421 4.4.2");
        client.closed().await;
        let expected = "\
S: 220 mx.test ESMTP ready
C: EHLO client.example.org
S: 250-mx.test
S: 250-PIPELINING
S: 250-SIZE 52428800
S: 250-8BITMIME
S: 250-ENHANCEDSTATUSCODES
S: 250-CHUNKING
S: 250-STARTTLS
S: 250 AUTH PLAIN LOGIN ANONYMOUS XOAUTH2 OAUTHBEARER SCRAM-SHA-256
C: STARTTLS
S: 220 2.0.0 Start the TLS handshake
# TLS
C: EHLO client.example.org
S: 250-mx.test
S: 250-PIPELINING
S: 250-SIZE 52428800
S: 250-8BITMIME
S: 250-ENHANCEDSTATUSCODES
S: 250-CHUNKING
S: 250 AUTH PLAIN LOGIN ANONYMOUS XOAUTH2 OAUTHBEARER SCRAM-SHA-256 SCRAM-SHA-256-PLUS
C: AUTH SCRAM-SHA-256-PLUS <response>
S: 334 <challenge>
C: <response>
S: 334 <challenge>
C: <response>
S: 235 2.7.0 Authenticated
C: MAIL FROM:<me@a.test>
S: 250 2.1.0 Sender ok
C: RCPT TO:<you@b.test>
S: 250 2.1.5 Recipient ok
C: RCPT TO:<refuse-rcpt@b.test>
S: 550 5.7.1 No
C: DATA
S: 354 End data with <CR><LF>.<CR><LF>
C: ..one
C: 
C: no end
C: .
S: 250 2.0.0 Yes
C: MAIL FROM:<me@a.test>
S: 250 2.1.0 Sender ok
C: RCPT TO:<you@b.test>
S: 250 2.1.5 Recipient ok
C: BDAT 2
C- on
S: 250 2.0.0 Chunk taken
C: BDAT 3 LAST
C: e
S: 250 2.0.0 Yes
# 3600s pass
S: 421 4.4.2 Silent for too long
S: <closed>
";
        assert_eq!(client.transcript(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_stops_where_the_server_refuses_it() {
    let mut client = Client::connect(Names::default()).await;
    client.ehlo().await;
    for (from, to, replies, last) in [
        (
            "refuse-mail@a.test",
            &["one@b.test", "two@b.test"][..],
            &["550", "550"][..],
            "MAIL FROM:<refuse-mail@a.test>",
        ),
        ("me@a.test", &["refuse-rcpt@b.test"], &["550"], "RSET"),
        ("refuse-data@a.test", &["one@b.test"], &["550"], "RSET"),
        ("refuse-end@a.test", &["one@b.test", "refuse-rcpt@b.test"], &["550", "550"], "."),
        ("me@a.test", &["refuse-rcpt@b.test", "two@b.test"], &["550", "250"], "."),
    ] {
        client.send(from, to, LETTER).await.expect_each(replies.iter().copied());
        let said = client.transcript();
        assert_eq!(said.lines().filter_map(|line| line.strip_prefix("C: ")).next_back(), Some(last), "{said}");
        client.says("NOOP").await.expect("250");
    }
}

#[tokio::test(start_paused = true)]
async fn content_arrives_as_it_was_given() {
    let (service, mut messages) = inbox();
    let mut settings = settings();
    settings.offers.chunking = true;
    let mut client = Client::connect(service).settings(settings).await;
    client.ehlo().await;
    for (content, arrived) in
        [(".\r\n..\r\n.x\r\n", ".\r\n..\r\n.x\r\n"), ("no end", "no end\r\n"), ("", ""), ("\r\n.\r\n", "\r\n.\r\n")]
    {
        client.send("me@a.test", ["you@b.test"], content).await.expect("250 2.0.0 Yes");
        assert_eq!(messages.recv().await.unwrap().2, arrived);
    }
    client.send_chunks("me@a.test", ["you@b.test"], ["a", ".\r", "\n", ""]).await.expect("250 2.0.0 Yes");
    assert_eq!(messages.recv().await.unwrap().2, "a.\r\n");
}

#[tokio::test(start_paused = true)]
async fn under_lmtp_each_recipient_has_its_reply() {
    let mut settings = settings();
    settings.protocol = Protocol::Lmtp;
    let mut client = Client::connect(Names::default()).settings(settings).peer("local").await;
    assert!(client.ehlo().await.lines().any(|line| line == "PIPELINING"));
    let to = ["one@b.test", "refuse-rcpt@b.test", "two@b.test"];
    let sent = client.send("me@a.test", to, LETTER).await;
    sent.expect_each(["250 2.0.0 Yes", "550", "250 2.0.0 Yes"]);
    assert_eq!((sent.iter().count(), sent[1].code()), (3, 550));
    client.quit().await;
    assert_eq!(client.transcript().matches("S: 250 2.0.0 Yes").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn tls_is_real_and_so_is_the_peer() {
    let (service, mut messages) = inbox();
    let mut client = Client::connect(service).implicit_tls().peer("[2001:db8::7]:1234").await;
    client.ehlo().await;
    client.send("me@a.test", ["you@b.test"], LETTER).await.expect("250");
    let peer = messages.recv().await.unwrap().0.peer;
    assert!(peer.tls.is_some() && peer.certificate().is_none());
    assert_eq!(
        (peer.address.to_string().as_str(), peer.network.to_string().as_str()),
        ("[2001:db8::7]:1234", "2001:db8::")
    );
    client.quit().await;
    let mut other = client.another_from("192.0.2.9").await;
    other.ehlo().await;
    other.send("me@a.test", ["you@b.test"], LETTER).await.expect("250");
    assert_eq!(messages.recv().await.unwrap().0.peer.address.to_string(), "192.0.2.9:40000");
}

#[tokio::test(start_paused = true)]
async fn every_mechanism_logs_in_with_a_word() {
    let mut settings = with_logins();
    settings.limits.auth_failures = 100;
    let server = || Client::connect(Names::default()).settings(settings.clone()).implicit_tls().certificate();
    let me = |password: &str| ClientCredentials::from(Credentials::new("me", password));
    for (mechanism, credentials, code) in [
        (Mechanism::Plain, me("right"), "235"),
        (Mechanism::Plain, me("wrong"), "535"),
        (Mechanism::Login, me("right"), "235"),
        (Mechanism::Login, me("wrong"), "535"),
        (Mechanism::ScramSha256, me("right"), "235"),
        (Mechanism::ScramSha256, me("wrong"), "535"),
        (Mechanism::ScramSha256Plus, me("right"), "235"),
        (Mechanism::ScramSha256Plus, me("wrong"), "535"),
        (Mechanism::OauthBearer, BearerToken::new("me", "right").into(), "235"),
        (Mechanism::XOauth2, BearerToken::new("me", "late").into(), "454"),
        (Mechanism::Anonymous, ClientCredentials::Anonymous("me@a.test".to_owned()), "235"),
        (Mechanism::External, ClientCredentials::External(None), "235"),
        (Mechanism::External, ClientCredentials::External(Some("other".to_owned())), "535"),
    ] {
        let mut client = server().await;
        client.ehlo().await;
        client.login_by(mechanism, credentials).await.expect(code);
    }
    let mut client = server().await;
    client.ehlo().await;
    client.login("me", "wrong").await.expect("535 5.7.8");
    client.login("me", "right").await.expect("235");
    assert!(client.transcript().contains("AUTH SCRAM-SHA-256-PLUS"));
    assert_eq!(client_fingerprint().len(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_half_way_leaves_no_message() {
    for tls in [false, true] {
        let (service, mut messages) = inbox();
        let connect = Client::connect(service);
        let mut client = if tls { connect.implicit_tls().await } else { connect.await };
        client.ehlo().await;
        let _ = client.pipeline(["MAIL FROM:<me@a.test>", "RCPT TO:<you@b.test>", "DATA"]).await;
        client.write("half a mes").await;
        client.close().await;
        client.closed().await;
        assert!(messages.try_recv().is_err());
        drop(client.another().await);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_server_share_its_limits_and_its_drain() {
    let mut first =
        Client::connect(Names::default()).options(options(|options| options.connections_per_network = 1)).await;
    first.ehlo().await;
    let mut second = first.another().await;
    second.greeting().expect("421 4.3.2");
    second.closed().await;
    let mut other = first.another_from("192.0.2.99").await;
    other.greeting().expect("220");
    first.says("MAIL FROM:<me@a.test>").await.expect("250");
    first.drain();
    other.reply().await.expect("421 4.3.2");
    first.reply().await.expect("421 4.3.2");
    first.drained().await;
    first.another().await.greeting().expect("<closed>");
}

/// The message of the panic.
async fn failure(test: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(test).await.unwrap_err().into_panic();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_shows_what_was_expected_and_the_whole_conversation() {
    let text = failure(async {
        let mut client = Client::connect(Names::default()).settings(settings()).await;
        client.says("HELO c").await.expect("250");
        client.says("MAIL FROM:<refuse-mail@a.test>").await.expect("250 2.1.0");
    });
    let expected = "\
The reply to MAIL FROM:<refuse-mail@a.test> is \"550 5.7.1 No\", and not \"250 2.1.0\".

The conversation:
S: 220 mx.test ESMTP ready
C: HELO c
S: 250 mx.test
C: MAIL FROM:<refuse-mail@a.test>
S: 550 5.7.1 No
";
    assert_eq!(text.await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_use_is_named() {
    async fn greeted() -> Client {
        let mut client = Client::connect(Names::default()).settings(settings()).await;
        client.ehlo().await;
        client
    }
    type Test = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let tests: [(&str, Test); 12] = [
        (
            "has a line break: `says` sends one line",
            Box::pin(async {
                let _ = greeted().await.says("NOOP\r\nNOOP").await;
            }),
        ),
        (
            "connect with `Client::connect(..).starttls()`",
            Box::pin(async {
                greeted().await.starttls().await;
            }),
        ),
        (
            "Say EHLO before a login",
            Box::pin(async {
                let _ = Client::connect(Names::default()).await.login("me", "right").await;
            }),
        ),
        (
            "`settings.offers.auth`",
            Box::pin(async {
                let _ = greeted().await.login("me", "right").await;
            }),
        ),
        (
            "No login is possible",
            Box::pin(async {
                let _ = greeted().await.login_by(Mechanism::Plain, BearerToken::new("me", "right")).await;
            }),
        ),
        (
            "a message needs a recipient",
            Box::pin(async {
                let _ = greeted().await.send("me@a.test", [""; 0], LETTER).await;
            }),
        ),
        (
            "`expect_each` takes one start",
            Box::pin(async {
                greeted().await.send("me@a.test", ["you@b.test"], LETTER).await.expect_each(["250", "250"]);
            }),
        ),
        (
            "The client has sent lines that end with LF alone",
            Box::pin(async {
                greeted().await.send("me@a.test", ["you@b.test"], "Subject: x\n\nHi\n").await.expect("250");
            }),
        ),
        (
            "and not \"elsewhere\"",
            Box::pin(async {
                Client::connect(Names::default()).peer("elsewhere").await;
            }),
        ),
        (
            "add `starttls` or `implicit_tls`",
            Box::pin(async {
                Client::connect(Names::default()).certificate().await;
            }),
        ),
        (
            "The server says \"250 2.0.0 Ok\" where it should close",
            Box::pin(async {
                let mut client = greeted().await;
                client.write("NOOP\r\n").await;
                client.closed().await;
            }),
        ),
        (
            "The client has waited 25 hours of virtual time for a reply",
            Box::pin(async {
                let mut settings = settings();
                settings.timeouts.verdict = Duration::MAX;
                settings.timeouts.session = Duration::MAX;
                let mut client = Client::connect(Names::default()).settings(settings).await;
                let _ = client.says("EHLO late-hello").await;
            }),
        ),
    ];
    for (words, test) in tests {
        let text = failure(test).await;
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// What a service says that refuses its clients, and one that ends without a word.
#[tokio::test(start_paused = true)]
async fn a_refused_connection_has_the_refusal_as_its_greeting() {
    let service = |_| async { Err::<Names, _>(refusal!("554 5.7.1 Go away")) };
    let mut client = Client::connect(service).await;
    client.greeting().expect("554 5.7.1 Go away");
    client.closed().await;
    client.says("NOOP").await.expect("<closed>");
}

/// Prints how fast the harness is, which no test depends on.
#[tokio::test(start_paused = true)]
async fn a_thousand_conversations() {
    // In nanoseconds, of this thread alone: the runtime has no other.
    let processor = || -> f64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default()
    };
    for (what, tls, conversations) in [("in clear", false, 1_000), ("in TLS", true, 100)] {
        let (service, mut messages) = inbox();
        let service = Arc::new(service);
        let (begun, used) = (Instant::now(), processor());
        for _ in 0..conversations {
            let connect = Client::connect(Arc::clone(&service));
            let mut client = if tls { connect.implicit_tls().await } else { connect.await };
            client.ehlo().await;
            client.send("me@a.test", ["you@b.test"], LETTER).await.expect("250");
            client.quit().await;
        }
        let each = (processor() - used) / f64::from(conversations) / 1e3;
        let rate = f64::from(conversations) / begun.elapsed().as_secs_f64();
        println!("{rate:.0} conversations a second {what}, {each:.0} us of processor time each");
        for _ in 0..conversations {
            assert_eq!(messages.recv().await.unwrap().2, LETTER);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_come_whole_is_decided_after_its_client_has_gone() {
    let stored = Arc::new(AtomicBool::new(false));
    let storing = Arc::clone(&stored);
    let service = handlers::message(move |_, _, body| {
        let stored = Arc::clone(&storing);
        async move {
            body.collect(1 << 20).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            stored.store(true, Ordering::Relaxed);
            Ok(accepted!("250 2.0.0 Stored"))
        }
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA"] {
        assert!(client.says(line).await.code() < 400);
    }
    client.write("Subject: x\r\n\r\n.\r\n").await;
    client.wait(Duration::from_secs(1)).await;
    drop(client);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(stored.load(Ordering::Relaxed));
}
