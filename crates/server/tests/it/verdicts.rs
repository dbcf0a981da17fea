//! What a handler decides, and what its mistakes come to.

use std::time::Duration;

use crate::support::{self, Running, options, settings, start};
use posthaste_server::{ServerOptions, Tls};
use posthaste_testkit::talk::Talk;

/// With 200 ms for a verdict.
async fn server() -> Running {
    let mut settings = settings();
    settings.timeouts.verdict = Duration::from_millis(200);
    start(settings, Tls::Off, ServerOptions::default()).await
}

#[tokio::test]
async fn every_method_accepts_refuses_or_is_late() {
    let server = server().await;
    let mut talk = Talk::connect(server.address).await;
    assert!(talk.reply().await.starts_with("220"));
    for (name, code) in [("refuse", "550 5.7.1"), ("late", "451 4.3.0")] {
        talk.expect(&format!("EHLO {name}-hello.test"), code).await;
        talk.expect("MAIL FROM:<a@b.test>", "503").await;
    }
    talk.expect("EHLO c.test", "250").await;
    for (name, code) in [("refuse", "550 5.7.1"), ("late", "451 4.3.0")] {
        talk.expect(&format!("MAIL FROM:<{name}-mail@b.test>"), code).await;
        talk.expect("RCPT TO:<a@d.test>", "503").await;
        talk.expect(&format!("MAIL FROM:<{name}-data@b.test>"), "250").await;
        talk.expect(&format!("RCPT TO:<{name}-rcpt@d.test>"), code).await;
        talk.expect("DATA", "503").await;
        talk.expect("RCPT TO:<a@d.test>", "250").await;
        talk.expect("DATA", code).await;
        talk.expect("RSET", "250").await;
        // Before the body, half-way and at its end. The rest is swallowed, and the session goes on.
        for point in ["early", "half", "end"] {
            let said = talk.message(&format!("{name}-{point}@b.test"), "one\r\n..\r\ntwo").await;
            assert!(said.starts_with(code), "{name}-{point}: {said}");
        }
    }
    for (name, code) in [("careless", "451 4.3.0"), ("good", "250 2.0.0 Yes")] {
        let said = talk.message(&format!("{name}@b.test"), "x").await;
        assert!(said.starts_with(code), "{name}: {said}");
    }
    talk.expect("QUIT", "221").await;
    server.drain.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_gets_the_reply_and_the_end() {
    use posthaste_server::{Peer, converse};
    let (ours, theirs) = tokio::io::duplex(1_024);
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let peer = Peer::new(address("192.0.2.1:1"), address("192.0.2.2:25"));
    let conversation = tokio::spawn(async move {
        let (names, settings) = (support::Names::default(), std::sync::Arc::new(settings()));
        converse(theirs, peer, &names, settings, Tls::Off, std::future::pending()).await
    });
    let mut talk = Talk::new(ours);
    assert_eq!((talk.reply().await.as_str(), talk.reply().await.as_str()), ("554 5.7.1 Go away", "<eof>"));
    assert_eq!(conversation.await.unwrap().unwrap(), posthaste_server::session::server::CloseReason::Application);
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_own_connection_alone() {
    let server = start(settings(), Tls::Off, options(|options| options.connections = 2)).await;
    let mut other = Talk::connect(server.address).await.greeted().await;
    for _ in 0..3 {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        assert_eq!(talk.ask("MAIL FROM:<panic-mail@b.test>").await, "<eof>");
    }
    assert!(other.message("a@b.test", "x").await.starts_with("250"));
    server.drain.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn an_envelope_never_leaks_into_the_next_message() {
    let server = server().await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    for begun in [
        &["RSET"][..],
        &["EHLO c.test"],
        &["DATA", "x\r\nbare \n lf\r\n."],
        &["DATA", "x\r\n."],
        &["MAIL FROM:<second@b.test>", "RSET"],
    ] {
        talk.expect("MAIL FROM:<leak-refuse-end@b.test>", "250").await;
        talk.expect("RCPT TO:<leak@d.test>", "250").await;
        for line in begun {
            talk.ask(line).await;
        }
        talk.expect("RCPT TO:<late@d.test>", "503").await;
        talk.expect("DATA", "503").await;
        assert!(talk.message("good@b.test", "x").await.starts_with("250"));
    }
    let seen = server.names.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 5);
    for (_, envelope, octets) in seen {
        assert_eq!((envelope.mail.reverse_path.to_string(), octets), ("<good@b.test>".to_owned(), 3));
        assert_eq!(envelope.recipients.len(), 1);
    }
}

/// The octets wait in the buffers of the client and the kernel, and not in the server's.
#[tokio::test]
async fn a_slow_handler_slows_the_client_down() {
    use tokio::io::AsyncWriteExt as _;
    let server = server().await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.expect("MAIL FROM:<slow@b.test>", "250").await;
    talk.expect("RCPT TO:<a@d.test>", "250").await;
    talk.expect("DATA", "354").await;
    let line = b"0123456789abcde\r\n".repeat(4_096);
    let mut written = 0_usize;
    let flood = async {
        for _ in 0..1_024 {
            talk.stream.write_all(&line).await.unwrap();
            written += line.len();
        }
    };
    // 64 MiB would take seconds at 16 KiB in 20 ms.
    assert!(tokio::time::timeout(Duration::from_millis(600), flood).await.is_err());
    let taken = server.names.taken.load(std::sync::atomic::Ordering::SeqCst);
    // The difference is in the kernel, whose buffers on loopback hold some megabytes.
    assert!(taken > 0 && written < taken + 16 * 1_024 * 1_024, "{written} {taken}");
    assert!(taken < 8 * 1_024 * 1_024, "{taken}");
}
