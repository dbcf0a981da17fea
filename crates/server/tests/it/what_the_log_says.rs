//! The log has a line with the client for each refusal, failed login and lost connection.

use std::time::Duration;

use crate::support::{self, InMemory, Names, log::Log, start};
use posthaste_server::{
    Listener, Server, ServerOptions, Tls,
    session::ServerSettings,
    tls::{Certificates, Pem},
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::{
    pki::{Authority, tls},
    talk::{Talk, handshake},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc};
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

/// The spans say whose commands they are.
#[tokio::test]
async fn what_the_session_refuses_by_itself_is_a_debug_line_each_with_its_reply() {
    let (log, quiet) = (Log::default(), Log::default());
    for (log, level) in [(&quiet, Level::INFO), (&log, Level::DEBUG)] {
        let _guard = log.listen(level);
        let server = start(settings(), Tls::Off, ServerOptions::default()).await;
        let mut talk = Talk::connect(server.address).await.greeted().await;
        // One group, whose first refusal is the reason of the others.
        talk.send("MAIL FROM:<a@b c>\r\nRCPT TO:<a@d.test>\r\nDATA\r\nX\x1b[2J\r\n").await;
        for code in ["501", "503", "503", "500"] {
            assert!(talk.reply().await.starts_with(code));
        }
        talk.expect("MAIL FROM:<a@b.test> RET=HDRS", "555").await;
        talk.expect("MAIL FROM:<a@b.test>", "250").await;
        talk.expect("RCPT TO:<a@d.test> X-ODD", "555").await;
        talk.expect("RCPT TO:<a@d.test>", "250").await;
        talk.expect("BDAT 3\r\nx", "502").await;
    }
    let lines: Vec<_> = log.lines("command refused by the session");
    let replies: Vec<_> = lines.iter().map(|line| line.split_once(" reply=").expect("a reply").1).collect();
    assert_eq!(
        replies,
        [
            "501 5.1.7 A path in angle brackets was expected",
            "503 5.5.1 Send MAIL first",
            "503 5.5.1 No recipient was accepted",
            "500 5.5.2 Control or non-UTF-8 octet in a command",
            "555 5.5.4 Parameter not offered",
            "555 5.5.4 Parameter not offered",
            "502 5.5.1 Command not implemented",
        ]
    );
    assert!(lines.iter().all(|line| line.contains("DEBUG") && line.matches("address=").count() == 1), "{lines:?}");
    assert!(quiet.lines("command refused").is_empty(), "{}", quiet.text());
}

#[tokio::test]
async fn the_end_after_too_many_errors_quotes_the_last_of_them() {
    let mut strict = settings();
    (strict.limits.errors, strict.limits.auth_failures) = (1, 5);
    let mail = "MAIL FROM:<a@b.test>\r\nRCPT TO:<a@d.test>\r\n";
    for (octets, last) in [
        ("X\r\nMAIL FROM:<a\r\n".to_owned(), "501 5.1.7 The mailbox is malformed or too long"),
        ("X\r\nMAIL FROM:<refuse-mail@b.test>\r\n".to_owned(), "550 5.7.1 No"),
        ("X\r\nAUTH PLAIN AG1lAHdyb25n\r\n".to_owned(), "535 5.7.8 Credentials are wrong"),
        ("X\r\nAUTH PLAIN\r\n\u{e9}\r\n".to_owned(), "501"),
        (format!("X\r\n{mail}DATA\r\n"), "550 5.5.2 The content has a bare CR"),
    ] {
        let log = Log::default();
        let _guard = log.listen(Level::INFO);
        let server = start(strict.clone(), Tls::Off, ServerOptions::default()).await;
        let mut talk = Talk::connect(server.address).await.greeted().await;
        talk.send(&octets).await;
        if octets.contains("DATA") {
            while !talk.reply().await.starts_with("354") {}
            talk.send("a\rb\r\n.\r\n").await;
        }
        let line = log.line("session ended").await;
        assert!(line.contains(&format!("reason=TooManyErrors last_refusal={last}")), "{line}");
    }
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
    for (last, level) in [("NOOP", "DEBUG"), ("MAIL FROM:<a@b.test>", "INFO"), ("QUIT", "")] {
        let log = Log::default();
        let _guard = log.listen(Level::DEBUG);
        let (config, client) = tls("mx.test");
        let server = start(settings(), Tls::Implicit(config), ServerOptions::default()).await;
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut talk = Talk::new(handshake(stream, &client).await).greeted().await;
        talk.ask(last).await;
        drop(talk);
        let line = log.line(if level.is_empty() { "session ended" } else { "connection lost" }).await;
        assert!(level.is_empty() || line.contains(level), "{last}: {line}");
        assert_eq!(log.lines("connection lost").len(), usize::from(!level.is_empty()), "{last}");
    }
}

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// It closes its side.
    Closes,
    /// It resets the connection.
    Resets,
}

impl Leaves {
    fn leave(self, stream: TcpStream) {
        if matches!(self, Self::Resets) {
            stream.set_zero_linger().unwrap();
        }
    }
}

const LEAVES: [Leaves; 2] = [Leaves::Closes, Leaves::Resets];

/// Load balancers connect every few seconds to see if the server is there.
#[tokio::test]
async fn a_probe_that_says_nothing_is_a_debug_line_on_every_kind_of_listener() {
    let (config, _) = tls("mx.test");
    let behind_proxies = || Some("127.0.0.1".parse().unwrap());
    for (tls, proxies, octets, expected) in [
        (Tls::Off, behind_proxies(), &b""[..], "DEBUG connection lost before its PROXY header"),
        (Tls::Off, behind_proxies(), b"P", "WARN PROXY header not accepted"),
        (Tls::Implicit(config.clone()), None, b"", "DEBUG connection lost"),
        (Tls::Implicit(config.clone()), None, b"\x16", "INFO connection lost"),
        (Tls::Implicit(config), None, b"EHLO c.test\r\n", "INFO connection lost"),
    ] {
        for leaves in LEAVES {
            let log = Log::default();
            let _guard = log.listen(Level::DEBUG);
            let mut listener = Listener::bind("127.0.0.1:0", settings()).await.unwrap().with_tls(tls.clone());
            if let Some(proxies) = proxies.clone() {
                listener = listener.with_proxies(proxies);
            }
            let address = listener.local_address().unwrap();
            tokio::spawn(Server::new(Names::default()).listen(listener).serve());
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(octets).await.unwrap();
            // A reset discards what the server has not read. In each round it gets on.
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            leaves.leave(stream);
            let (level, words) = expected.split_once(' ').unwrap();
            let line = log.line(words).await;
            assert!(line.contains(level), "{octets:?} {leaves:?}: {line}");
            assert_eq!(
                log.lines("").iter().filter(|line| !line.contains("DEBUG")).count(),
                usize::from(level != "DEBUG")
            );
        }
    }
}

#[tokio::test]
async fn a_reset_is_at_info_within_a_transaction_and_else_a_debug_line() {
    let within = ["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>", "DATA"];
    for (lines, level) in [
        (&[][..], "DEBUG"),
        (&["NOOP"], "DEBUG"),
        (&within[..1], "INFO"),
        (&within[..2], "INFO"),
        (&within, "INFO"),
        (&["MAIL FROM:<a@b.test>", "RSET"], "DEBUG"),
    ] {
        let log = Log::default();
        let _guard = log.listen(Level::DEBUG);
        let server = start(settings(), Tls::Off, ServerOptions::default()).await;
        let mut talk = Talk::connect(server.address).await.greeted().await;
        for line in lines {
            talk.ask(line).await;
        }
        Leaves::Resets.leave(talk.stream);
        let line = log.line("connection lost").await;
        assert!(line.contains(level), "{lines:?}: {line}");
    }
}

#[tokio::test]
async fn a_handshake_that_fails_after_starttls_is_at_info_once_an_octet_of_it_has_come() {
    for (octets, level) in [(&b""[..], "DEBUG"), (b"\x16", "INFO"), (b"NOOP\r\n", "INFO")] {
        let log = Log::default();
        let _guard = log.listen(Level::DEBUG);
        let server = start(settings(), Tls::StartTls(tls("mx.test").0), ServerOptions::default()).await;
        let mut talk = Talk::connect(server.address).await.greeted().await;
        talk.expect("STARTTLS", "220").await;
        talk.send(octets).await;
        drop(talk);
        let line = log.line("connection lost").await;
        assert!(line.contains(level) && line.contains("the TLS handshake failed"), "{octets:?}: {line}");
    }
}

/// The operator who is asked why a client cannot send finds the reason.
#[tokio::test]
async fn a_session_that_the_server_ends_for_what_its_client_does_is_told_with_the_reason() {
    let mut strict = settings();
    (strict.limits.errors, strict.limits.idle_commands, strict.limits.auth_failures) = (1, 1, 0);
    (strict.limits.discarded_line, strict.limits.message_size, strict.limits.discarded_content) = (4_096, 10, 10);
    strict.limits.forbid_unauthorized_pipelining = false;
    let mut delayed = settings();
    delayed.timeouts.greeting_delay = Duration::from_millis(200);
    let mail = "MAIL FROM:<a@b.test>\r\nRCPT TO:<a@d.test>\r\nDATA\r\n";
    let (long_line, long_content) = ("x".repeat(8_192), format!("{mail}{}", "x\r\n".repeat(4_096)));
    let starttls = Tls::StartTls(tls("mx.test").0);
    for (settings, tls, octets, level, reason) in [
        (&strict, Tls::Off, "X\r\nX\r\n", "INFO", "TooManyErrors"),
        (&strict, Tls::Off, "NOOP\r\nNOOP\r\n", "INFO", "TooManyIdleCommands"),
        (&strict, Tls::Off, "AUTH PLAIN AG1lAHdyb25n\r\n", "INFO", "TooManyAuthFailures"),
        (&strict, Tls::Off, &long_line, "INFO", "EndlessLine"),
        (&strict, Tls::Off, &long_content, "INFO", "EndlessContent"),
        (&settings(), Tls::Off, &format!("{mail}x\r\n.\r\n"), "INFO", "UnauthorizedPipelining"),
        (&delayed, Tls::Off, "EHLO c.test\r\n", "INFO", "EarlyTalker"),
        (&settings(), starttls, "STARTTLS\r\nNOOP\r\n", "INFO", "ResidueBeforeTls"),
        (&settings(), Tls::Off, "GET / HTTP/1.1\r\n", "INFO", "ForeignProtocol"),
        (&settings(), Tls::Off, "NOOP\nNOOP\n", "INFO", "Unframeable"),
        (&settings(), Tls::Off, "QUIT\r\n", "DEBUG", "Quit"),
        (&settings(), Tls::Off, "", "DEBUG", "Eof"),
    ] {
        let log = Log::default();
        let _guard = log.listen(Level::DEBUG);
        let server = start(settings.clone(), tls, ServerOptions::default()).await;
        let mut talk = Talk::connect(server.address).await;
        if reason != "EarlyTalker" && reason != "ForeignProtocol" {
            talk = talk.greeted().await;
        }
        talk.send(octets).await;
        // The server may have gone before.
        let _ = talk.stream.shutdown().await;
        let line = log.line("session ended").await;
        assert!(line.contains(level) && line.contains(&format!("reason={reason}")), "{reason}: {line}");
        assert!(line.contains("address=127.0.0.1:"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_silent_ends_in_a_debug_line_and_one_that_trickles_in_a_line_at_info() {
    for (silent, level, reason) in [(true, "DEBUG", "Timeout"), (false, "INFO", "TooSlow")] {
        let log = Log::default();
        let _guard = log.listen(Level::DEBUG);
        let (far, near) = tokio::io::duplex(4_096);
        let (hand_over, waiting) = mpsc::channel(1);
        let listener = Listener::new(InMemory(waiting), settings());
        tokio::spawn(Server::new(Names::default()).listen(listener).serve());
        hand_over.send(near).await.unwrap();
        let mut talk = Talk::new(far).greeted().await;
        for line in ["MAIL FROM:<a@b.test>", "RCPT TO:<a@d.test>", "DATA"] {
            talk.ask(line).await;
        }
        for _ in 0..60 {
            if !silent {
                // Refused once the session has ended.
                let _ = talk.stream.write_all(b"x\r\n").await;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let line = log.line("session ended").await;
        assert!(line.contains(level) && line.contains(&format!("reason={reason}")), "{line}");
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

/// At the start, and when one is exchanged for another.
#[tokio::test]
async fn a_certificate_beyond_its_dates_is_served_with_one_warning_that_names_file_and_date() {
    let authority = Authority::new("one");
    let good: (Pem, Pem) = authority.pem(&["mx.test"]).map(|text| Pem::from(text.as_bytes())).into();
    let of_years = |from, to| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["mx.test".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        (params.self_signed(&key).unwrap().pem(), Pem::from(key.serialize_pem().as_bytes()))
    };
    let (expired, early) = (of_years(2019, 2020), of_years(4_000, 4_001));
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("expired.pem");
    std::fs::write(&path, &expired.0).unwrap();
    // The server's own is good, and the next of its chain is not.
    let own = authority.pem(&["mx.test"]);
    let chain =
        (Pem::from([own[0].as_bytes(), expired.0.as_bytes()].concat().as_slice()), Pem::from(own[1].as_bytes()));
    let log = Log::default();
    let _guard = log.listen(Level::INFO);
    let certificates = Certificates::new(std::slice::from_ref(&good)).unwrap();
    assert_eq!(log.text(), "");
    certificates.replace(&[good, (Pem::file(&path).unwrap(), expired.1)]).unwrap();
    certificates.replace(&[(Pem::from(early.0.as_bytes()), early.1)]).unwrap();
    certificates.replace(&[chain]).unwrap();
    let lines = log.lines("WARN");
    let path = path.display();
    for (line, words) in lines.iter().zip([
        format!("certificate has expired, shown all the same certificate={path} nth=1 not_after=2020-01-01T00:00:00Z"),
        "is not valid yet, shown all the same certificate=the PEM text nth=1 not_before=4000-01-01T00:00:00Z".into(),
        "has expired, shown all the same certificate=the PEM text nth=2 not_after=2020-01-01T00:00:00Z".into(),
    ]) {
        assert!(line.ends_with(&words), "{line}");
    }
    assert_eq!(lines.len(), 3, "{lines:?}");
}
