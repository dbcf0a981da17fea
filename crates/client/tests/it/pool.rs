//! Connections that are kept, retired, and replaced.

use std::{sync::Arc, time::Duration};

use posthaste_client::{ClientOptions, Delivered, Pool, PoolOptions, RecipientOutcome, SendError, Tcp, Tls};
use posthaste_testkit::script::{Script, Scripted, polite};

use crate::support::options;

const CONTENT: &str = "Subject: x\r\n\r\nbody\r\n";

fn pool(ports: &[u16], change: impl FnOnce(&mut ClientOptions, &mut PoolOptions)) -> Pool {
    let (mut client, mut limits) = (options(Tls::Off), PoolOptions::default());
    change(&mut client, &mut limits);
    Pool::with(ports.iter().map(|port| ("127.0.0.1", *port)), client, limits, Tcp::default()).unwrap()
}

async fn send(pool: &Pool) -> Result<Delivered, SendError> {
    pool.send("a@b.test", ["c@d.test"], CONTENT).await
}

async fn sent(pool: &Pool) {
    let sent = send(pool).await.unwrap();
    assert!(sent.is_complete(), "{sent:?}");
}

/// Says something else at a line of this connection.
fn except(connection: usize, at: &'static str, says: &'static str) -> impl Script {
    move |place, line| match place.connection == connection && line.starts_with(at) {
        true => says.to_owned(),
        false => polite(line, &[]),
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_closed_with_quit() {
    let server = Scripted::polite().await;
    let pool = pool(&[server.port], |_, _| {});
    for _ in 0..3 {
        sent(&pool).await;
    }
    assert_eq!((server.count("<connect>"), server.count("<end>"), server.count("QUIT")), (1, 3, 0));
    pool.close().await;
    assert_eq!(server.count("QUIT"), 1);
    assert!(matches!(send(&pool).await, Err(SendError::Closed)));
}

#[tokio::test]
async fn no_more_connections_than_the_limit_and_messages_wait_for_one() {
    let server = Scripted::start(|_, line| match line {
        "<end>" => format!("after 20 {}", polite(line, &[])),
        line => polite(line, &[]),
    })
    .await;
    let pool = pool(&[server.port], |_, limits| limits.connections = 3);
    let sends: Vec<_> = (0..30)
        .map(|_| {
            tokio::spawn({
                let pool = pool.clone();
                async move { sent(&pool).await }
            })
        })
        .collect();
    for send in sends {
        send.await.unwrap();
    }
    assert_eq!((server.count("<connect>"), server.count("<end>")), (3, 30));
}

#[tokio::test]
async fn a_connection_is_retired_after_its_messages() {
    let server = Scripted::polite().await;
    let pool = pool(&[server.port], |_, limits| limits.messages = 2);
    for _ in 0..5 {
        sent(&pool).await;
    }
    server.wait("QUIT").await;
    assert_eq!((server.count("<connect>"), server.count("<end>")), (3, 5));
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_its_time() {
    let server = Scripted::polite().await;
    let pool = pool(&[server.port], |_, limits| limits.idle = Duration::from_millis(100));
    sent(&pool).await;
    server.wait("QUIT").await;
    sent(&pool).await;
    assert_eq!(server.count("<connect>"), 2);
    // The pool is dropped with a connection in it: that is closed.
    drop(pool);
    server.wait("<eof>").await;
}

#[tokio::test]
async fn no_message_fails_because_a_kept_connection_has_ended() {
    // The server closes after the first message, at once or when the second begins.
    for (at, says) in [
        ("MAIL", "421 4.3.2 too many messages\r\n"),
        ("MAIL", "close"),
        ("RCPT", "421 4.3.2 too many messages\r\n"),
        ("DATA", "421 4.3.2 too many messages\r\n"),
        ("DATA", "close"),
    ] {
        let mut messages = 0;
        let server = Scripted::start(move |place, line| {
            messages += usize::from(line.starts_with("MAIL"));
            let is_second = place.connection == 0 && messages == 2;
            if is_second && line.starts_with(at) { says.to_owned() } else { polite(line, &[]) }
        })
        .await;
        let pool = pool(&[server.port], |_, _| {});
        for _ in 0..3 {
            sent(&pool).await;
        }
        assert_eq!((server.count("<connect>"), server.count("<end>")), (2, 3), "{at} {says:?}");
    }
}

#[tokio::test]
async fn a_server_that_said_421_while_nothing_was_sent_costs_no_round_trip() {
    let server = Scripted::start(|place, line| match (place.connection, line) {
        (0, "<end>") => "250 ok\r\n421 4.4.2 idle\r\n".to_owned(),
        (_, line) => polite(line, &[]),
    })
    .await;
    let pool = pool(&[server.port], |_, _| {});
    sent(&pool).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    sent(&pool).await;
    let second: Vec<_> = server.heard.all().into_iter().filter(|(place, _)| place.connection == 0).collect();
    assert_eq!(second.iter().filter(|(_, line)| line.starts_with("MAIL")).count(), 1, "{second:?}");
}

#[tokio::test]
async fn the_next_server_gets_the_message_if_the_first_takes_none() {
    for (at, says) in [
        ("<connect>", "421 4.3.2 later\r\n"),
        ("<connect>", ""),
        ("EHLO", "close"),
        ("MAIL", "421 4.3.2 later\r\n"),
        ("MAIL", "close"),
    ] {
        let (first, second) = (Scripted::start(except(0, at, says)).await, Scripted::polite().await);
        let pool = pool(&[first.port, second.port], |_, _| {});
        sent(&pool).await;
        assert_eq!((first.count("<end>"), second.count("<end>")), (0, 1), "{at} {says:?}");
    }
}

#[tokio::test]
async fn what_a_message_was_refused_for_is_its_outcome_and_the_connection_stays() {
    let server = Scripted::start(|_, line| match line {
        line if line.starts_with("RCPT") => "450 4.2.1 later\r\n".to_owned(),
        line => polite(line, &[]),
    })
    .await;
    let pool = pool(&[server.port], |_, _| {});
    for _ in 0..2 {
        let sent = send(&pool).await.unwrap();
        assert!(
            matches!(&sent.recipients[0].outcome, RecipientOutcome::Refused(reply, _) if reply.code().get() == 450)
        );
    }
    assert_eq!(server.count("<connect>"), 1);
}

#[tokio::test]
async fn content_that_was_begun_is_not_sent_again() {
    let server = Scripted::start(except(0, "<end>", "close")).await;
    let pool = pool(&[server.port], |_, _| {});
    let sent = send(&pool).await.unwrap();
    assert!(sent.recipients[0].in_doubt && !sent.is_complete());
    assert_eq!((server.count("<connect>"), server.count("<end>")), (1, 1));
}

#[tokio::test]
async fn a_dropped_message_closes_its_connection_and_gives_its_place_back() {
    let server = Scripted::start(except(0, "<end>", "")).await;
    let pool = pool(&[server.port], |_, limits| limits.connections = 1);
    assert!(tokio::time::timeout(Duration::from_millis(300), send(&pool)).await.is_err());
    sent(&pool).await;
    assert_eq!(server.count("<connect>"), 2);
}

#[tokio::test]
async fn without_a_server_the_error_says_why() {
    let pool = pool(&[1], |_, _| {});
    let error = send(&pool).await.unwrap_err();
    assert!(matches!(error, SendError::Connect(_)) && error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(!error.is_permanent(), "the server may be there later");
    assert!(Pool::new(["mx.test"], options(Tls::Off)).is_err());
    let none: [&str; 0] = [];
    let empty = Pool::new(none, options(Tls::Off)).unwrap();
    assert!(matches!(send(&empty).await, Err(SendError::Connect(_))));
    let shared = Arc::new(pool);
    assert!(format!("{shared:?}").contains("127.0.0.1"));
}
