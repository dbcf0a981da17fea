//! `Debug` of a driver shows no password, wherever in it one is.

use crate::support::{driver, settings};
use posthaste_tokio::{
    ClientDriver, ClientEvent, Connection, ServerEvent,
    session::{Ask, ClientSettings, Verdict, sasl::Nonce},
    wire::{Auth, Command, Mechanism, MechanismSet, Secret},
};
use tokio::io::AsyncWriteExt as _;

/// `\0me\0right` and `right`.
const PLAIN: &str = "AG1lAHJpZ2h0";
const LOGIN: &str = "cmlnaHQ=";

fn assert_silent(shown: &str) {
    for secret in [PLAIN, LOGIN, "right"] {
        let list = format!("{:?}", secret.as_bytes());
        assert!(!shown.contains(secret) && !shown.contains(list.trim_matches(['[', ']'])), "{secret}: {shown}");
    }
}

#[tokio::test]
async fn the_debug_text_of_a_server_driver_has_no_secret() {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.offers.auth_in_clear = true;
    let (mut client, server) = tokio::io::duplex(4_096);
    let mut driver = driver(server, settings);
    // All at once, so that what is read waits in the input.
    let text =
        format!("EHLO c.test\r\nAUTH LOGIN bWU=\r\n{LOGIN}\r\nAUTH PLAIN {PLAIN}\r\nAUTH PLAIN\r\n{PLAIN}\r\nQUIT\r\n");
    client.write_all(text.as_bytes()).await.unwrap();
    let (mut shown, mut logins) = (String::new(), 0);
    loop {
        let event = driver.next().await.unwrap();
        shown += &format!("{event:?} {driver:?} ");
        match event {
            ServerEvent::Ask(ask) => {
                logins += usize::from(matches!(ask, Ask::Auth { .. } | Ask::AuthResponse(_)));
                let verdict = match ask {
                    Ask::Auth { initial_response: None, .. } => Verdict::Challenge(Vec::new()),
                    Ask::Auth { mechanism: Mechanism::Login, .. } => Verdict::Challenge(b"Password:".to_vec()),
                    Ask::Auth { .. } | Ask::AuthResponse(_) => {
                        Verdict::Refuse(posthaste_tokio::session::sasl::SaslError::Credentials.refusal())
                    }
                    _ => Verdict::Accept(None),
                };
                driver.answer(verdict).unwrap();
            }
            ServerEvent::Closed(_) => break,
            other => panic!("{other:?}"),
        }
        shown += &format!("{driver:?} ");
    }
    assert_eq!(logins, 5, "{shown}");
    assert_silent(&shown);
}

#[tokio::test]
async fn the_debug_text_of_a_client_driver_has_no_secret() {
    let (mut server, ours) = tokio::io::duplex(4_096);
    let mut driver = ClientDriver::new(Connection::new(ours), ClientSettings::default());
    server.write_all(b"220 mx\r\n").await.unwrap();
    driver.next().await.unwrap();
    driver.send(&Command::parse(b"EHLO c.test").unwrap()).unwrap();
    server.write_all(b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n").await.unwrap();
    driver.next().await.unwrap();
    let initial_response = Some(Secret::new(PLAIN));
    driver.send(&Command::Auth(Auth { mechanism: "PLAIN", initial_response })).unwrap();
    // It waits in the output.
    let mut shown = format!("{driver:?} {:?} ", driver.sasl_context(Nonce::from_random([1; 18])));
    // A server may send back what it likes.
    server.write_all(format!("334 {LOGIN}\r\n").as_bytes()).await.unwrap();
    let event = driver.next().await.unwrap();
    assert!(matches!(event, ClientEvent::Challenge(_)));
    shown += &format!("{event:?} {driver:?} ");
    driver.respond(Some(Secret::new(LOGIN))).unwrap();
    shown += &format!("{driver:?} ");
    assert_silent(&shown);
}
