//! The log has a line with the client for each refusal, failed login and lost connection.

use std::time::Duration;

use crate::support::{self, log::Log, start};
use posthaste_server::{
    ServerOptions, Tls,
    session::ServerSettings,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use tokio::net::TcpStream;
use tracing::Level;

fn settings() -> ServerSettings {
    let mut settings = support::settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256]);
    settings.offers.auth_in_clear = true;
    settings
}

#[tokio::test]
async fn every_failed_login_is_one_line_with_address_name_and_mechanism() {
    let log = Log::default();
    let _guard = log.listen(Level::INFO);
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    // `\0me\0wrong`
    talk.expect("AUTH PLAIN AG1lAHdyb25n", "535").await;
    // `evil" name` and a line break, in LOGIN.
    for line in ["AUTH LOGIN", "ZXZpbCIgbmFtZQo=", "eA=="] {
        talk.ask(line).await;
    }
    // 600 letters.
    let long = "QUFB".repeat(200);
    for line in ["AUTH LOGIN", &long, "eA=="] {
        talk.ask(line).await;
    }
    let lines = log.lines("login failed");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("address=127.0.0.1:") && lines[0].contains("hello=\"c.test\""), "{lines:?}");
    assert!(lines[0].contains("name=\"me\" mechanism=\"PLAIN\""), "{lines:?}");
    assert!(lines[1].contains("LOGIN") && !lines[1].contains("name=\"evil\" name"), "{lines:?}");
    assert!(lines[2].contains(&"A".repeat(64)) && !lines[2].contains(&"A".repeat(65)), "{lines:?}");
    assert!(log.lines("wrong\0").is_empty());
}

#[tokio::test]
async fn refusals_are_told_with_the_client_and_no_more_than_ten_of_a_connection() {
    let log = Log::default();
    let _guard = log.listen(Level::INFO);
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.expect("MAIL FROM:<refuse-mail@b.test>", "550").await;
    talk.expect("MAIL FROM:<refuse-end@b.test>", "250").await;
    talk.expect("RCPT TO:<refuse-rcpt@d.test>", "550").await;
    talk.expect("RCPT TO:<a@d.test>", "250").await;
    talk.expect("DATA", "354").await;
    talk.expect("x\r\n.", "550").await;
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    talk.expect("RCPT TO:<a@d.test>", "250").await;
    talk.expect("DATA", "354").await;
    talk.expect("a bare\rCR\r\n.", "550 5.5.2").await;
    for (what, about) in [("sender", "refuse-mail@b.test"), ("recipient", "refuse-rcpt@d.test"), ("message", "")] {
        let lines = log.lines(&format!("{what} refused"));
        assert_eq!(lines.len(), if what == "message" { 2 } else { 1 }, "{what}: {lines:?}");
        for part in ["address=127.0.0.1:", "hello=\"c.test\"", "tls=false", "identity=\"\"", "reply=550", about] {
            assert!(lines[0].contains(part), "{part}: {lines:?}");
        }
        // The spans say who it is about; no field of the line repeats it.
        assert_eq!(lines[0].matches("address=").count(), 1, "{lines:?}");
    }
    let transaction = "transaction{number=2 sender=\"<refuse-end@b.test>\"}";
    assert!(log.lines("recipient refused")[0].contains(transaction), "{}", log.text());
    assert!(log.lines("message refused")[0].contains(transaction), "{}", log.text());
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    for _ in 0..12 {
        talk.expect("RCPT TO:<refuse-rcpt@d.test>", "550").await;
    }
    assert_eq!(log.lines(" refused").len(), 10);
}

#[tokio::test]
async fn a_message_accepted_before_the_end_of_its_body_is_told_with_the_cause() {
    let log = Log::default();
    let _guard = log.listen(Level::INFO);
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    assert!(talk.message("careless@b.test", "x").await.starts_with("451 4.3.0"));
    let lines = log.lines("message refused");
    assert!(lines[0].contains("accepted the message before the end of its body"), "{lines:?}");
}

#[tokio::test]
async fn guessing_is_slowed_down_and_the_owner_gets_in() {
    let mut options = ServerOptions::default();
    options.logins.burst = 3;
    options.logins.pace = Duration::from_millis(400);
    options.logins.wait = Duration::from_millis(1_000);
    let server = start(settings(), Tls::Off, options).await;
    let begun = std::time::Instant::now();
    let mut delayed = Vec::new();
    for _ in 0..2 {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        for _ in 0..3 {
            talk.expect("AUTH PLAIN AG1lAHdyb25n", "535").await;
            delayed.push(begun.elapsed());
        }
    }
    assert!(delayed[2] < Duration::from_millis(400), "{delayed:?}");
    assert!(delayed[5] >= Duration::from_millis(1_000), "{delayed:?}");
    // Several attempts at once, by every mechanism: some are refused unchecked.
    let mut guesses = tokio::task::JoinSet::new();
    for n in 0..10 {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        guesses.spawn(async move {
            if n % 2 == 0 {
                return talk.ask("AUTH PLAIN AG1lAHdyb25n").await;
            }
            // n,,n=me,r=abc
            talk.ask("AUTH SCRAM-SHA-256 biwsbj1tZSxyPWFiYw==").await
        });
    }
    let said = guesses.join_all().await;
    let refused = said.iter().filter(|said| said.starts_with("421 4.7.0")).count();
    assert!((5..10).contains(&refused), "{said:?}");
    // The owner, in the same network, a moment later: it waits and gets in.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
    // From now on it is known there, whatever others do.
    for _ in 0..10 {
        let mut guess = Talk::connect(server.address).await.greeted().await;
        // `\0you\0wrong`
        tokio::spawn(async move { guess.ask("AUTH PLAIN AHlvdQB3cm9uZw==").await });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = std::time::Instant::now();
    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
    assert!(begun.elapsed() < Duration::from_millis(400));
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_login_that_waits_for_its_turn() {
    let mut options = ServerOptions::default();
    options.logins.burst = 0;
    options.logins.pace = Duration::from_secs(20);
    let server = start(settings(), Tls::Off, options).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.send("AUTH PLAIN AG1lAHdyb25n\r\n").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = std::time::Instant::now();
    server.drain.cancel();
    server.task.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(talk.reply().await.starts_with("421 4.3.2"));
}

/// RFC 8446 section 6.1: without a close_notify, an attacker may have cut the connection. After
/// QUIT there is nothing left to cut.
#[tokio::test]
async fn tls_without_close_notify_is_a_lost_connection_unless_quit_was_said() {
    for (last, lost) in [("NOOP", 1), ("QUIT", 0)] {
        let log = Log::default();
        let guard = log.listen(Level::INFO);
        let (config, client) = tls("mx.test");
        let server = start(settings(), Tls::Implicit(config), ServerOptions::default()).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut talk = Talk::new(handshake(stream, &client).await).greeted().await;
        talk.ask(last).await;
        drop(talk);
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.drain.cancel();
        server.task.await.unwrap();
        drop(guard);
        assert_eq!(log.lines("connection lost").len(), lost, "{last}: {}", log.text());
    }
}

#[tokio::test]
async fn clients_that_find_no_room_are_one_line_in_a_while() {
    let log = Log::default();
    let _guard = log.listen(Level::INFO);
    let server = start(settings(), Tls::Off, support::options(|options| options.connections_per_network = 0)).await;
    for _ in 0..5 {
        assert!(Talk::connect(server.address).await.reply().await.starts_with("421 4.3.2"));
    }
    let lines = log.lines("clients refused, no room");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("clients=1 last=127.0.0.1"), "{lines:?}");
}
