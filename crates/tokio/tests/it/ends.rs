//! A client that leaves at any octet, and one that does not read.

use std::{io::ErrorKind, time::Duration};

use crate::support::{driver, settings};
use posthaste_tokio::{
    ServerEvent,
    session::{Ask, Verdict, server::CloseReason},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

#[tokio::test]
async fn the_stream_may_end_at_every_octet() {
    let dialogue = b"EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nDATA\r\n..x\r\n.\r\nRSET\r\nQUIT\r\n";
    let end = dialogue.len() - b"RSET\r\nQUIT\r\n".len();
    for cut in 0..=dialogue.len() {
        let (mut client, server) = tokio::io::duplex(4_096);
        let mut settings = settings();
        settings.limits.forbid_unauthorized_pipelining = false;
        let mut driver = driver(server, settings);
        client.write_all(&dialogue[..cut]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut messages = 0;
        let reason = loop {
            match driver.next().await.unwrap() {
                ServerEvent::Ask(ask) => {
                    messages += usize::from(matches!(ask, Ask::Message { .. }));
                    driver.answer(Verdict::Accept(None)).unwrap();
                }
                ServerEvent::Content(_) => {}
                ServerEvent::Closed(reason) => break reason,
                other => panic!("{other:?}"),
            }
        };
        let expected = if cut == dialogue.len() { CloseReason::Quit } else { CloseReason::Eof };
        assert_eq!((reason, messages), (expected, usize::from(cut >= end)), "{cut}");
        // Everything that was answered is there to be read, and nothing else.
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("220 ") && said.ends_with("\r\n"));
        assert_eq!(said.contains("221 "), cut == dialogue.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_given_up() {
    let (mut client, server) = tokio::io::duplex(64);
    let mut driver = driver(server, settings());
    client.write_all(b"EHLO c.test\r\n").await.unwrap();
    let begun = Instant::now();
    let error = loop {
        match driver.next().await {
            Ok(ServerEvent::Ask(_)) => driver.answer(Verdict::Accept(None)).unwrap(),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::TimedOut, 300));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_gets_a_421() {
    let (mut client, server) = tokio::io::duplex(4_096);
    let mut driver = driver(server, settings());
    let reason = loop {
        match driver.next().await.unwrap() {
            ServerEvent::Ask(_) => driver.answer(Verdict::Accept(None)).unwrap(),
            ServerEvent::Closed(reason) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, CloseReason::Timeout);
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.ends_with("421 4.4.2 Silent for too long\r\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_timed_from_its_last_command() {
    let (mut client, server) = tokio::io::duplex(4_096);
    let mut driver = driver(server, settings());
    let begun = Instant::now();
    let serving = tokio::spawn(async move {
        loop {
            match driver.next().await.unwrap() {
                ServerEvent::Ask(_) => driver.answer(Verdict::Accept(None)).unwrap(),
                ServerEvent::Closed(reason) => return (reason, begun.elapsed().as_secs()),
                other => panic!("{other:?}"),
            }
        }
    });
    for _ in 0..3 {
        sleep(Duration::from_secs(240)).await;
        client.write_all(b"NOOP\r\n").await.unwrap();
    }
    assert_eq!(serving.await.unwrap(), (CloseReason::Timeout, 3 * 240 + 300));
}

#[tokio::test(start_paused = true)]
async fn hurry_shortens_a_wait_that_has_begun_and_its_end_lengthens_it() {
    for (for_good, wanted) in [(true, 30), (false, 300)] {
        let (_client, server) = tokio::io::duplex(4_096);
        let mut driver = driver(server, settings());
        let begun = Instant::now();
        assert!(matches!(driver.next().await.unwrap(), ServerEvent::Ask(_)));
        driver.answer(Verdict::Accept(None)).unwrap();
        for hurried in [false, true, for_good] {
            driver.hurry(hurried);
            assert!(timeout(Duration::from_secs(5), driver.next()).await.is_err());
        }
        assert!(matches!(driver.next().await.unwrap(), ServerEvent::Closed(CloseReason::Timeout)));
        assert_eq!(begun.elapsed().as_secs(), wanted);
    }
}
