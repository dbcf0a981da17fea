//! Batches over a pool: its limits, other servers, and content that can be read once.

use std::time::Duration;

use bytes::Bytes;
use posthaste_client::{ClientOptions, Message, Once, Pool, PoolOptions, SendError, Tcp, Tls};
use posthaste_testkit::script::{Scripted, polite, verb};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{message, model::model, sent};
use crate::support::{connected, letters_of, options};

const BOTH: &[&str] = &["PIPELINING", "CHUNKING"];

fn pool(ports: &[u16], change: impl FnOnce(&mut ClientOptions, &mut PoolOptions)) -> Pool {
    let (mut client, mut limits) = (options(Tls::Off), PoolOptions::default());
    change(&mut client, &mut limits);
    Pool::with(ports.iter().map(|port| ("127.0.0.1", *port)), client, limits, Tcp::default()).unwrap()
}

/// The letters of each message.
async fn send(pool: &Pool, messages: impl IntoIterator<Item = Message<Bytes>, IntoIter: Send>) -> Vec<String> {
    let mut found = Vec::new();
    let mut batch = pool.send_all(messages);
    while let Some((number, delivered)) = batch.next().await {
        found.resize(found.len().max(number + 1), String::new());
        assert!(found[number].is_empty(), "message {number} has one outcome");
        found[number] = letters_of(&delivered.unwrap().recipients);
    }
    found
}

#[tokio::test]
async fn the_limits_of_a_pool_hold_in_a_batch() {
    for offers in [&[][..], &["PIPELINING"], BOTH] {
        let server = Scripted::start(move |_, line| polite(line, offers)).await;
        let pool = pool(&[server.port], |_, limits| (limits.connections, limits.messages) = (2, 7));
        assert_eq!(send(&pool, (0..35).map(|number| message(number, 1))).await, ["A"; 35]);
        pool.close().await;
        let heard = server.heard.of(&["<connect>", "MAIL"]);
        let connections = heard.iter().filter(|(_, line)| line == "<connect>").count();
        for number in 0..connections {
            let of_one = |(place, line): &&(_, String)| {
                let place: &posthaste_testkit::script::Place = place;
                place.connection == number && verb(line) == "MAIL"
            };
            assert!(heard.iter().filter(of_one).count() <= 7, "{offers:?}");
        }
        assert!((5..=7).contains(&connections), "{offers:?}: {connections}");
        assert_eq!(server.count("MAIL"), 35);
    }
}

/// A pool that may have any number of connections takes memory for those that it needs.
#[tokio::test]
async fn a_high_limit_of_connections_costs_nothing() {
    let server = Scripted::start(|_, line| polite(line, BOTH)).await;
    for connections in [5_000, usize::MAX] {
        let pool = pool(&[server.port], |_, limits| limits.connections = connections);
        let memory = allocation_counter::measure(|| {
            drop(pool.send_all((0..20).map(|number| message(number, 1))));
        });
        assert!(memory.bytes_max < 1_000_000, "{} octets for {connections} connections", memory.bytes_max);
        assert_eq!(send(&pool, (0..20).map(|number| message(number, 1))).await, ["A"; 20]);
    }
}

#[tokio::test]
async fn connections_are_kept_from_one_batch_to_the_next_and_for_a_single_message() {
    let server = Scripted::start(|_, line| polite(line, BOTH)).await;
    let pool = pool(&[server.port], |_, limits| limits.connections = 1);
    for _ in 0..2 {
        assert_eq!(send(&pool, (0..10).map(|number| message(number, 1))).await, ["A"; 10]);
        assert!(pool.send("a@b.test", ["c@d.test"], "x\r\n").await.unwrap().is_complete());
    }
    assert_eq!((server.count("<connect>"), server.count("MAIL")), (1, 22));
}

/// What the first server does not take goes to the second, each recipient once.
#[tokio::test]
async fn refused_recipients_go_on_to_the_next_server() {
    for offers in [&[][..], &["PIPELINING"], BOTH] {
        let first = Scripted::start(move |_, line| match line {
            "RCPT TO:<m1r0@d.test>" | "RCPT TO:<m3r1@d.test>" => "450 4.2.0 later\r\n".to_owned(),
            "RCPT TO:<m2r0@d.test>" => "550 5.1.1 no\r\n".to_owned(),
            _ => polite(line, offers),
        })
        .await;
        let second = Scripted::start(move |_, line| polite(line, offers)).await;
        let pool = pool(&[first.port, second.port], |_, limits| limits.connections = 1);
        let found = send(&pool, (0..5).map(|number| message(number, 2))).await;
        assert_eq!(found, ["AA", "AA", "RA", "AA", "AA"], "{offers:?}");
        let named = second.heard.lines(&["RCPT"]);
        assert_eq!(named, ["RCPT TO:<m1r0@d.test>", "RCPT TO:<m3r1@d.test>"], "{offers:?}");
    }
}

#[tokio::test]
async fn more_recipients_than_the_limit_take_several_transactions() {
    for connections in [1, 10] {
        let server = Scripted::start(|_, line| polite(line, BOTH)).await;
        let pool = pool(&[server.port], |_, limits| (limits.recipients, limits.connections) = (2, connections));
        assert_eq!(send(&pool, [message(0, 1), message(1, 5), message(2, 1)]).await, ["A", "AAAAA", "A"]);
        assert_eq!(server.count("MAIL"), 5, "{connections}");
    }
}

#[tokio::test]
async fn every_message_has_an_outcome_if_no_server_can_be_reached() {
    let pool = pool(&[1], |client, _| client.connect_timeout = Duration::from_secs(5));
    let mut batch = pool.send_all((0..20).map(|number| message(number, 1)));
    let mut count = 0;
    while let Some((_, result)) = batch.next().await {
        assert!(matches!(result, Err(SendError::Connect(_))));
        count += 1;
    }
    assert_eq!(count, 20);
    drop(batch);
    pool.close().await;
    let closed = pool.send_all([message(0, 1)]).next().await;
    assert!(matches!(closed, Some((0, Err(SendError::Closed)))));
}

/// Content that can be read once was read before its MAIL left, and is sent again nevertheless.
#[tokio::test]
async fn content_that_was_read_before_a_421_is_sent_over_another_connection() {
    let mut mails = 0;
    let server = Scripted::start(move |place, line| {
        mails += usize::from(place.connection == 0 && verb(line) == "MAIL");
        match place.connection == 0 && mails == 4 {
            true => "421 4.7.0 enough\r\n<hang>".to_owned(),
            false => polite(line, BOTH),
        }
    })
    .await;
    let pool = pool(&[server.port], |_, limits| limits.connections = 1);
    let messages = (0..12).map(|number| {
        let Message { mail, recipients, content, .. } = message(number, 1);
        Message::new(mail, recipients, Once::new(content)).unwrap()
    });
    let mut batch = pool.send_all(messages);
    let mut count = 0;
    while let Some((number, delivered)) = batch.next().await {
        let delivered = delivered.unwrap();
        assert!(delivered.is_complete(), "{number}: {delivered:?}");
        count += 1;
    }
    assert_eq!((count, server.count("<connect>")), (12, 2));
}

/// The connection of a batch that has no message for a while is for others meanwhile.
#[tokio::test]
async fn a_stream_without_messages_keeps_no_connection_from_others() {
    let server = Scripted::start(|_, line| polite(line, BOTH)).await;
    let pool = pool(&[server.port], |_, limits| limits.connections = 1);
    let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
    let messages =
        futures_util::stream::unfold(messages, |mut messages| async { Some((messages.recv().await?, messages)) });
    let mut batch = pool.send_stream(messages);
    for number in 0..3 {
        sender.send(message(number, 1)).unwrap();
        assert!(batch.next().await.unwrap().1.unwrap().is_complete());
        let other = pool.send("a@b.test", ["c@d.test"], "x\r\n");
        let other = async { tokio::time::timeout(Duration::from_secs(20), other).await };
        tokio::select! {
            biased;
            _ = batch.next() => unreachable!("the stream has no message"),
            sent = other => assert!(sent.unwrap().unwrap().is_complete()),
        }
    }
    drop(sender);
    assert!(batch.next().await.is_none());
    assert_eq!((server.count("<connect>"), server.count("MAIL")), (1, 6));
}

/// A stream that has no message for a while: those that left have their outcomes meanwhile.
#[tokio::test]
async fn a_slow_stream_holds_up_no_outcome() {
    let server = Scripted::start(|_, line| polite(line, BOTH)).await;
    let pool = pool(&[server.port], |_, _| {});
    let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
    let messages =
        futures_util::stream::unfold(messages, |mut messages| async { Some((messages.recv().await?, messages)) });
    let mut batch = pool.send_stream(messages);
    for number in 0..20 {
        sender.send(message(number, 1)).unwrap();
        let (found, delivered) = batch.next().await.unwrap();
        assert!(found == number && delivered.unwrap().is_complete());
    }
    drop(sender);
    assert!(batch.next().await.is_none());
}

/// A server that reads nothing before its reply is taken, over a path that holds little.
#[tokio::test]
async fn replies_that_wait_to_be_read_hold_up_neither_side() {
    let (ours, mut theirs) = tokio::io::duplex(512);
    let reply = |code: &str| format!("{code}-{0}\r\n{code} {0}\r\n", "x".repeat(400));
    tokio::spawn(async move {
        theirs.write_all(b"220 mx\r\n").await.unwrap();
        let (mut input, mut octets) = (Vec::new(), vec![0; 4_096]);
        loop {
            while let Some(end) = input.windows(2).position(|pair: &[u8]| pair == b"\r\n") {
                let line = String::from_utf8(input[..end].to_vec()).unwrap();
                let size = line.strip_prefix("BDAT ").map_or(0, |rest| rest.trim_end_matches(" LAST").parse().unwrap());
                if input.len() < end + 2 + size {
                    break;
                }
                input.drain(..end + 2 + size);
                let said = if verb(&line) == "EHLO" { polite(&line, BOTH) } else { reply("250") };
                theirs.write_all(said.as_bytes()).await.unwrap();
            }
            match theirs.read(&mut octets).await {
                Ok(read @ 1..) => input.extend_from_slice(&octets[..read]),
                _ => return,
            }
        }
    });
    let mut client = connected(ours).await;
    let messages = (0..100).map(|number| {
        let mut message = message(number, 3);
        message.content = Bytes::from("0123456789\r\n".repeat(500));
        message
    });
    let sending = sent(&mut client, messages.collect());
    let found = tokio::time::timeout(Duration::from_secs(20), sending).await.unwrap();
    assert_eq!(found, ["AAA"; 100]);
}

/// Sizes around the bounds of what leaves whole.
#[tokio::test]
async fn large_and_small_messages_may_follow_each_other() {
    for offers in [&["PIPELINING"][..], BOTH] {
        let (script, taken) = model(offers, false, |_, _| None);
        let server = Scripted::start(script).await;
        let pool = pool(&[server.port], |_, limits| limits.connections = 1);
        let sizes = [1, 64 * 1_024 - 20, 64 * 1_024 + 20, 1, 300_000, 1, 1, 60_000, 60_000, 60_000, 60_000, 60_000, 1];
        let messages = sizes.iter().enumerate().map(|(number, size)| {
            let mut message = message(number, 1);
            let filler = "0123456789abcd\r\n".repeat(size / 16);
            message.content = Bytes::from(String::from_utf8(message.content.to_vec()).unwrap() + &filler);
            message
        });
        assert_eq!(send(&pool, messages).await, ["A"; 13]);
        taken.check();
        assert!((0..13).all(|number| taken.count(number, 0) == 1));
    }
}

/// A server whose first reply is odd gets one message on each connection, as without a batch.
#[tokio::test]
async fn an_odd_greeting_leaves_each_connection_one_message() {
    let script = |_, line: &str| match line {
        "<connect>" => "220 mx.test\n".to_owned(),
        _ => polite(line, BOTH),
    };
    let server = Scripted::start(script).await;
    let pool = pool(&[server.port], |_, limits| limits.connections = 1);
    let sending = send(&pool, (0..5).map(|number| message(number, 1)));
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), sending).await.unwrap(), ["A"; 5]);
    assert_eq!((server.count("<connect>"), server.count("MAIL")), (5, 5));

    let (stream, _) = posthaste_testkit::script::serve(script, None);
    assert_eq!(
        sent(&mut connected(stream).await, (0..3).map(|number| message(number, 1)).collect()).await,
        ["A", "", ""]
    );
}
