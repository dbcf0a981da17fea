//! Closures and clones as services.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use posthaste_server::{
    Accepted, Body, BodyError, Context, Envelope, Handler, Layer, Refusal, ServerOptions, Service as _, accepted,
    handlers, layers::Headers, refusal, test::Client, wire::Rcpt,
};

use crate::support::settings;

const LETTER: &str = "Subject: x\r\n\r\nHi\r\n";

#[tokio::test(start_paused = true)]
async fn a_closure_has_what_a_handler_has() {
    let service = handlers::message(async |cx, envelope, body| {
        let content = body.collect(1_000).await?;
        let (peer, recipients) = (cx.peer.address, envelope.recipients.len());
        Ok(accepted!("250 2.0.0 {} octets for {} from {}", content.len(), recipients, peer))
    });
    let mut client = Client::connect(service).peer("192.0.2.7:25").await;
    client.ehlo().await;
    let sent = client.send("me@a.test", ["you@b.test", "and@b.test"], LETTER).await;
    sent.expect("250 2.0.0 18 octets for 2 from 192.0.2.7:25");
    client.send("me@a.test", ["you@b.test"], "x".repeat(998) + "\r\nyz").await.expect("552 5.3.4");
    client.send("me@a.test", ["you@b.test"], LETTER).await.expect("250 2.0.0 18");
}

#[tokio::test(start_paused = true)]
async fn a_closure_may_refuse_early_or_accept_too_early() {
    let service = handlers::message(async |_, envelope, mut body| {
        let from = envelope.mail.reverse_path.to_string();
        if from.contains("half") {
            let _ = body.next().await?;
        }
        if from.contains("refuse") { Err(refusal!("554 5.7.1 No")) } else { Ok(accepted!("250 2.0.0 Yes")) }
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for (from, reply) in [
        ("refuse@a.test", "554 5.7.1 No"),
        ("refuse-half@a.test", "554 5.7.1 No"),
        ("careless@a.test", "451 4.3.0"),
        ("half@a.test", "451 4.3.0"),
    ] {
        client.send(from, ["you@b.test"], LETTER).await.expect(reply);
    }
}

/// A future may be polled only when it was woken, and another task may read the body.
#[tokio::test(start_paused = true)]
async fn a_closure_reads_its_body_in_any_way() {
    let service = handlers::message(async |_, envelope, mut body| {
        let way = envelope.mail.reverse_path.to_string();
        let content = match &way[1..way.find('@').unwrap_or(1)] {
            "unordered" => {
                let mut reading: FuturesUnordered<_> = std::iter::once(body.collect(100_000)).collect();
                reading.next().await.transpose()?.unwrap_or_default()
            }
            "spawned" => tokio::spawn(body.collect(100_000)).await.map_err(std::io::Error::other)??,
            "dropped" => {
                let mut all = Vec::new();
                loop {
                    // Each wait is given up several times before its piece comes.
                    let Ok(piece) = tokio::time::timeout(Duration::from_millis(300), body.next()).await else {
                        continue;
                    };
                    let Some(piece) = piece? else { break };
                    all.extend_from_slice(&piece);
                }
                Bytes::from(all)
            }
            _ => Err(refusal!("550 5.1.7 Which way?"))?,
        };
        Ok(accepted!("250 2.0.0 {} octets", content.len()))
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for way in ["unordered", "spawned", "dropped"] {
        for line in [&format!("MAIL FROM:<{way}@a.test>"), "RCPT TO:<you@b.test>", "DATA"] {
            assert!(client.says(line).await.code() < 400);
        }
        for _ in 0..5 {
            client.write("0123456789abcdef\r\n".repeat(1_000)).await;
            client.wait(Duration::from_secs(1)).await;
        }
        client.says(".").await.expect("250 2.0.0 90000 octets");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_outlives_its_closure_is_at_its_end() {
    let kept = Arc::new(Mutex::new(None));
    let service = handlers::message({
        let kept = Arc::clone(&kept);
        move |_, _, body| {
            *kept.lock().unwrap() = Some(body);
            std::future::ready(Err::<Accepted, _>(refusal!("554 5.7.1 No")))
        }
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    client.send("me@a.test", ["you@b.test"], LETTER).await.expect("554");
    let mut body = kept.lock().unwrap().take().unwrap();
    assert!(matches!(body.next().await, Err(BodyError::Disconnected)));
}

/// The octets wait in the pipe, and not in the server.
#[tokio::test(start_paused = true)]
async fn a_slow_closure_slows_the_client_down() {
    let taken = Arc::new(AtomicUsize::new(0));
    let service = handlers::message({
        let taken = Arc::clone(&taken);
        move |_, _, mut body: Body<'static>| {
            let taken = Arc::clone(&taken);
            async move {
                while let Some(piece) = body.next().await? {
                    taken.fetch_add(piece.len(), SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok(accepted!("250 2.0.0 Yes"))
            }
        }
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for line in ["MAIL FROM:<me@a.test>", "RCPT TO:<you@b.test>", "DATA"] {
        assert!(client.says(line).await.code() < 400);
    }
    let flood = client.write("0123456789abcdef\r\n".repeat(100_000));
    assert!(tokio::time::timeout(Duration::from_secs(10), flood).await.is_err());
    // Ten pieces of at most 16 KiB, and no more was read.
    let taken = taken.load(SeqCst);
    assert!((16_384..=11 * 16_384).contains(&taken), "{taken}");
}

/// Counts its own messages and those of all connections.
#[derive(Clone, Default)]
struct Counts {
    own: usize,
    all: Arc<AtomicUsize>,
}

impl Handler for Counts {
    async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        body.collect(1_000).await?;
        self.own += 1;
        Ok(accepted!("250 2.0.0 {} of {}", self.own, self.all.fetch_add(1, SeqCst) + 1))
    }
}

#[derive(Clone)]
struct OnlyYou;

impl Layer for OnlyYou {
    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let known = rcpt.forward_path.to_string() == "<you@b.test>";
        if known { Ok(()) } else { Err(refusal!("550 5.1.1 No such mailbox")) }
    }
}

#[tokio::test(start_paused = true)]
async fn clones_share_their_arcs_and_nothing_else() {
    let mut first = Client::connect(handlers::cloned(Counts::default()).layer(OnlyYou)).settings(settings()).await;
    first.ehlo().await;
    first.send("me@a.test", ["you@b.test"], LETTER).await.expect("250 2.0.0 1 of 1");
    let mut second = first.another().await;
    second.ehlo().await;
    second.send("me@a.test", ["you@b.test"], LETTER).await.expect("250 2.0.0 1 of 2");
    second.send("me@a.test", ["they@b.test"], LETTER).await.expect("550 5.1.1");
    first.send("me@a.test", ["you@b.test"], LETTER).await.expect("250 2.0.0 2 of 3");
}

#[tokio::test(start_paused = true)]
async fn a_layer_stands_before_a_closure() {
    let service = handlers::message(async |_, _, body| {
        body.collect(1_000).await?;
        Ok(accepted!("250 2.0.0 Yes"))
    });
    let mut client = Client::connect(service.layer(OnlyYou)).await;
    client.ehlo().await;
    client.send("me@a.test", ["you@b.test", "they@b.test"], LETTER).await.expect_each(["250", "550 5.1.1"]);
}

/// What handlers keep counts, through layers that change the body and through closures.
#[tokio::test(start_paused = true)]
async fn content_in_memory_has_one_limit_for_all_connections() {
    let kept: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let keeper = Arc::clone(&kept);
    let service = handlers::message(move |_, envelope, body| {
        let kept = Arc::clone(&keeper);
        async move {
            let content = body.collect(1 << 20).await?;
            if envelope.mail.reverse_path.to_string().contains("keep") {
                kept.lock().unwrap().push(content);
            }
            Ok(accepted!("250 2.0.0 Taken"))
        }
    });
    let mut options = ServerOptions::default();
    options.contents = 100_000;
    let mut one = Client::connect(service.layer(Headers::default())).options(options).await;
    let mut other = one.another().await;
    let letter = "\r\n".to_owned() + &"x\r\n".repeat(20_000);
    one.ehlo().await;
    other.ehlo().await;
    for _ in 0..3 {
        one.send("a@a.test", ["you@b.test"], &letter).await.expect("250");
    }
    one.send("keep@a.test", ["you@b.test"], &letter).await.expect("250");
    other.send("a@a.test", ["you@b.test"], &letter).await.expect("452 4.3.1 Out of memory for messages");
    other.send("a@a.test", ["you@b.test"], LETTER).await.expect("250");
    kept.lock().unwrap().clear();
    other.send("a@a.test", ["you@b.test"], &letter).await.expect("250");
}
