//! What a handler decides, what its mistakes come to, and what the client sees of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use crate::support::{Names, Running, options, settings, start};
use posthaste_server::{Body, Context, Envelope, ServerOptions, Tls, accepted, handlers, refusal, test::Client};
use posthaste_testkit::talk::Talk;

const CONTENT: &str = "one\r\n..\r\ntwo\r\n";

#[tokio::test(start_paused = true)]
async fn every_method_accepts_refuses_or_is_late() {
    let mut client = Client::connect(Names::default()).await;
    for (name, reply) in [("refuse", "550 5.7.1"), ("late", "451 4.3.0")] {
        client.says(&format!("EHLO {name}-hello.test")).await.expect(reply);
        client.says("MAIL FROM:<a@b.test>").await.expect("503");
    }
    client.ehlo().await;
    for (name, reply) in [("refuse", "550 5.7.1"), ("late", "451 4.3.0")] {
        client.says(&format!("MAIL FROM:<{name}-mail@b.test>")).await.expect(reply);
        client.says("RCPT TO:<a@d.test>").await.expect("503");
        client.says(&format!("MAIL FROM:<{name}-data@b.test>")).await.expect("250");
        client.says(&format!("RCPT TO:<{name}-rcpt@d.test>")).await.expect(reply);
        client.says("DATA").await.expect("503");
        client.says("RCPT TO:<a@d.test>").await.expect("250");
        client.says("DATA").await.expect(reply);
        client.says("RSET").await.expect("250");
        // Before the body, half-way and at its end. The rest is swallowed, and the session goes on.
        for point in ["early", "half", "end"] {
            client.send(&format!("{name}-{point}@b.test"), ["a@d.test"], CONTENT).await.expect(reply);
        }
    }
    for (name, reply) in [("careless", "451 4.3.0"), ("good", "250 2.0.0 Yes")] {
        client.send(&format!("{name}@b.test"), ["a@d.test"], CONTENT).await.expect(reply);
    }
    client.quit().await;
    client.drain();
    client.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_ends_its_own_connection_alone() {
    let mut other = Client::connect(Names::default()).options(options(|options| options.connections = 2)).await;
    other.ehlo().await;
    for point in ["hello", "mail", "rcpt", "data", "early", "half", "end"] {
        let mut client = other.another().await;
        let hello = if point == "hello" { "EHLO panic-hello.test" } else { "EHLO c.test" };
        if client.says(hello).await.is_closed() {
            continue;
        }
        assert_ne!(point, "hello");
        let to = if point == "rcpt" { "panic-rcpt@d.test" } else { "a@d.test" };
        client.send(&format!("panic-{point}@b.test"), [to], CONTENT).await.expect("<closed>");
    }
    other.send("a@b.test", ["a@d.test"], CONTENT).await.expect("250");
    other.drain();
    other.drained().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_panics_or_never_answers_ends_its_own_connection_alone() {
    let service = |cx: Context| async move {
        match cx.peer.address.to_string().as_str() {
            "192.0.2.1:1" => panic!("a service"),
            "192.0.2.1:2" => std::future::pending().await,
            _ => Ok(Names::default()),
        }
    };
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    client.another_from("192.0.2.1:1").await.greeting().expect("<closed>");
    let mut late = client.another_from("192.0.2.1:2").await;
    late.greeting().expect("451 4.3.0");
    late.closed().await;
    let mut other = client.another().await;
    other.ehlo().await;
    other.send("a@b.test", ["a@d.test"], CONTENT).await.expect("250");
}

/// The client waits for the thread, and has its reply then. Clients on other threads do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_delays_its_own_client() {
    let (free, blocked) = mpsc::channel::<()>();
    let (blocks, mut has_blocked) = tokio::sync::mpsc::unbounded_channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let service = handlers::message(move |_, envelope: Envelope, body: Body<'static>| {
        let (blocked, blocks) = (Arc::clone(&blocked), blocks.clone());
        async move {
            body.collect(1_000).await?;
            if envelope.mail.reverse_path.to_string().contains("blocks") {
                let _ = blocks.send(());
                let _ = blocked.lock().unwrap().recv();
            }
            Ok(accepted!("250 2.0.0 Yes"))
        }
    });
    let mut other = Client::connect(service).await;
    other.ehlo().await;
    let mut client = other.another().await;
    let sending = tokio::spawn(async move {
        client.ehlo().await;
        client.send("blocks@b.test", ["a@d.test"], CONTENT).await.expect("250 2.0.0 Yes");
        client.send("a@b.test", ["a@d.test"], CONTENT).await.expect("250 2.0.0 Yes");
    });
    has_blocked.recv().await.unwrap();
    other.send("a@b.test", ["a@d.test"], CONTENT).await.expect("250 2.0.0 Yes");
    assert!(!sending.is_finished());
    free.send(()).unwrap();
    sending.await.unwrap();
}

/// What a handler does with its body half-way, and what the client sees: the reply comes after the
/// end of the content, and the session goes on.
#[tokio::test(start_paused = true)]
async fn a_handler_that_drops_its_body_half_way_does_not_confuse_the_session() {
    let service = handlers::message(async |_, envelope, mut body| {
        let does = envelope.mail.reverse_path.to_string();
        let _ = body.next().await?;
        drop(body);
        if does.contains("late") {
            std::future::pending().await
        } else if does.contains("refuse") {
            Err(refusal!("554 5.6.0 No"))
        } else {
            Ok(accepted!("250 2.0.0 Yes"))
        }
    });
    let mut settings = settings();
    settings.offers.chunking = true;
    let mut client = Client::connect(service).settings(settings).await;
    client.ehlo().await;
    // More than one piece, with lines that would be commands.
    let content = "QUIT\r\nRSET\r\n".repeat(10_000);
    for (from, reply) in [("accept", "451 4.3.0"), ("refuse", "554 5.6.0"), ("late", "451 4.3.0")] {
        client.send(&format!("{from}@b.test"), ["a@d.test"], &content).await.expect(reply);
        client.send_chunks(&format!("{from}@b.test"), ["a@d.test"], [&content, "x\r\n"]).await.expect(reply);
        client.says("NOOP").await.expect("250");
    }
}

/// Tells when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_a_drain_cancels_is_dropped_and_its_client_told() {
    let dropped = Arc::new(AtomicBool::new(false));
    let service = handlers::message({
        let dropped = Arc::clone(&dropped);
        move |_, _, body: Body<'static>| {
            let dropped = Dropped(Arc::clone(&dropped));
            async move {
                body.collect(1_000).await?;
                std::future::pending::<()>().await;
                drop(dropped);
                Ok(accepted!("250 2.0.0 Never"))
            }
        }
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>", "DATA"] {
        assert!(client.says(line).await.code() < 400);
    }
    client.write("x\r\n.\r\n").await;
    client.wait(Duration::from_secs(10)).await;
    client.drain();
    // Within its 30 seconds the handler may still answer.
    client.wait(Duration::from_secs(29)).await;
    assert!(!dropped.load(SeqCst));
    client.reply().await.expect("421 4.3.2");
    client.closed().await;
    client.drained().await;
    assert!(dropped.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_answers_within_a_drain_keeps_its_message() {
    let service = handlers::message(async |_, _, body| {
        body.collect(1_000).await?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(accepted!("250 2.0.0 Yes"))
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>", "DATA"] {
        assert!(client.says(line).await.code() < 400);
    }
    client.write("x\r\n").await;
    client.drain();
    client.says(".").await.expect("250 2.0.0 Yes");
    client.reply().await.expect("421 4.3.2");
    client.closed().await;
    client.drained().await;
}

#[tokio::test(start_paused = true)]
async fn an_envelope_never_leaks_into_the_next_message() {
    let names = Names::default();
    let mut client = Client::connect(names.clone()).await;
    client.ehlo().await;
    for begun in [
        &["RSET"][..],
        &["EHLO c.test"],
        &["DATA", "x\r\nbare \n lf\r\n."],
        &["DATA", "x\r\n."],
        &["MAIL FROM:<second@b.test>", "RSET"],
    ] {
        client.says("MAIL FROM:<leak-refuse-end@b.test>").await.expect("250");
        client.says("RCPT TO:<leak@d.test>").await.expect("250");
        for line in begun {
            client.write(format!("{line}\r\n")).await;
            assert!(!client.reply().await.is_closed());
        }
        client.says("RCPT TO:<late@d.test>").await.expect("503");
        client.says("DATA").await.expect("503");
        client.send("good@b.test", ["a@d.test"], "x\r\n").await.expect("250");
    }
    let seen = names.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 5);
    for (_, envelope, octets) in seen {
        assert_eq!((envelope.mail.reverse_path.to_string(), octets), ("<good@b.test>".to_owned(), 3));
        assert_eq!(envelope.recipients.len(), 1);
    }
}

async fn server() -> Running {
    start(settings(), Tls::Off, ServerOptions::default()).await
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
    let taken = server.names.taken.load(SeqCst);
    // The difference is in the kernel, whose buffers on loopback hold some megabytes.
    assert!(taken > 0 && written < taken + 16 * 1_024 * 1_024, "{written} {taken}");
    assert!(taken < 8 * 1_024 * 1_024, "{taken}");
}

/// RFC 6531 section 3.7.4.
#[tokio::test(start_paused = true)]
async fn replies_are_ascii_for_clients_that_have_not_asked_for_more() {
    let service = handlers::message(async |_, envelope, body| {
        body.collect(1_000).await?;
        let sender = envelope.mail.reverse_path.to_string();
        if sender.contains("bad") {
            Err(refusal!("550 5.7.1 No {}", "b\u{fc}cher"))
        } else {
            Ok(accepted!("250 2.0.0 {}", "b\u{fc}cher"))
        }
    });
    let mut settings = settings();
    settings.offers.smtputf8 = true;
    let mut client = Client::connect(service).settings(settings).await;
    client.ehlo().await;
    for (parameter, text) in [("", "b??cher"), (" SMTPUTF8", "b\u{fc}cher"), ("", "b??cher")] {
        for (sender, reply) in [("good@a.test", "250 2.0.0"), ("bad@a.test", "550 5.7.1 No")] {
            client.says(&format!("MAIL FROM:<{sender}>{parameter}")).await.expect("250");
            client.says("RCPT TO:<b@d.test>").await.expect("250");
            client.says("DATA").await.expect("354");
            client.says(".").await.expect(&format!("{reply} {text}"));
        }
    }
}
