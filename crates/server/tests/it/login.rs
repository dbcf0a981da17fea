//! AUTH, and the identity that it gives a client.

use std::time::Duration;

use crate::support::{self, start};
use posthaste_server::{
    Credentials, ServerOptions, Tls,
    session::{
        ServerSettings,
        sasl::{BearerToken, ClientContext, ClientCredentials, ClientMechanism, Nonce, Protection},
    },
    wire::{Mechanism, MechanismSet, Secret},
};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use tokio::net::TcpStream;

/// `\0me\0right`, and with another password.
const RIGHT: &str = "AG1lAHJpZ2h0";
const WRONG: &str = "AG1lAHdyb25n";

fn settings() -> ServerSettings {
    let mut settings = support::settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.offers.auth_in_clear = true;
    settings.timeouts.verdict = Duration::from_millis(200);
    settings
}

#[tokio::test]
async fn passwords_log_in_or_are_refused() {
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    for (lines, code) in [
        (&[&format!("AUTH PLAIN {RIGHT}")[..]][..], "235"),
        (&["AUTH PLAIN", RIGHT], "235"),
        (&["AUTH LOGIN", "bWU=", "cmlnaHQ="], "235"),
        (&["AUTH LOGIN bWU=", "cmlnaHQ="], "235"),
        (&["AUTH PLAIN", WRONG], "535 5.7.8"),
        (&["AUTH PLAIN", "*"], "501 5.7.0"),
        (&["AUTH LOGIN", "bWU=", "*"], "501 5.7.0"),
        (&["AUTH PLAIN !!!"], "501"),
        (&["AUTH PLAIN", "!!!"], "501 5.5.2"),
        (&["AUTH CRAM-MD5"], "504"),
        (&["AUTH PLAIN AGxhdGUAeA=="], "454 4.7.0"),
    ] {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        let mut said = String::new();
        for line in lines {
            said = talk.ask(line).await;
        }
        assert!(said.starts_with(code), "{lines:?}: {said}");
        assert!(talk.message("a@b.test", "x").await.starts_with("250"), "{lines:?}");
        let seen = server.names.seen.lock().unwrap().pop().unwrap();
        assert_eq!(seen.0.identity.as_deref(), (code == "235").then_some("me"), "{lines:?}");
    }
}

#[tokio::test]
async fn too_many_failures_end_the_session_whatever_is_between_them() {
    let server = start(settings(), Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await.greeted().await;
    for _ in 0..3 {
        talk.expect(&format!("AUTH PLAIN {WRONG}"), "535").await;
        talk.expect("RSET", "250").await;
        talk.expect("EHLO c.test", "250").await;
    }
    talk.expect(&format!("AUTH PLAIN {WRONG}"), "535").await;
    assert!(talk.reply().await.starts_with("421 4.7.0"));
    assert_eq!(talk.reply().await, "<eof>");
}

#[tokio::test]
async fn an_identity_survives_rset_and_ehlo_and_not_starttls() {
    let (config, client) = tls("mx.test");
    let server = start(settings(), Tls::StartTls(config), ServerOptions::default()).await;
    let identity = || server.names.seen.lock().unwrap().pop().unwrap().0;

    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.expect(&format!("AUTH PLAIN {RIGHT}"), "235").await;
    talk.expect("RSET", "250").await;
    talk.expect("EHLO other.test", "250").await;
    talk.message("a@b.test", "x").await;
    let peer = identity();
    assert_eq!((peer.identity.as_deref(), peer.tls.is_some(), peer.extended), (Some("me"), false, true));
    assert_eq!(peer.hello.unwrap().to_string(), "other.test");

    talk.expect("STARTTLS", "220").await;
    let mut talk = Talk::new(handshake(talk.stream, &client).await);
    talk.expect("MAIL FROM:<a@b.test>", "503").await;
    let offers = talk.ask("EHLO again.test").await;
    assert!(offers.contains("AUTH") && !offers.contains("STARTTLS"), "{offers}");
    talk.message("a@b.test", "x").await;
    let peer = identity();
    assert_eq!((peer.identity, peer.tls.is_some()), (None, true));
}

/// Logs in. Returns the last reply, and `true` if the client accepts the server's proof.
async fn log_in(talk: &mut Talk<TcpStream>, mechanism: Mechanism, credentials: ClientCredentials) -> (String, bool) {
    let mut context = ClientContext::new(Nonce::from_random([1; 18]));
    context.secrets_need = Protection::None;
    let exchange = ClientMechanism::choose(MechanismSet::of(&[mechanism]), credentials, context).unwrap();
    support::log_in(talk, exchange).await
}

fn password(name: &str, password: &str, acts_as: Option<&str>) -> ClientCredentials {
    ClientCredentials::Password(Credentials {
        authorization_identity: acts_as.map(str::to_owned),
        authentication_identity: name.to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

fn token(name: &str, token: &str) -> ClientCredentials {
    let token = Secret::new(token.to_owned());
    ClientCredentials::Token(BearerToken {
        authorization_identity: Some(name.to_owned()),
        token,
        host: None,
        port: None,
    })
}

#[tokio::test]
async fn every_mechanism_asks_its_question() {
    use Mechanism::{Anonymous, Login, OauthBearer, Plain, ScramSha256, ScramSha256Plus, XOauth2};
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(Mechanism::ALL);
    // SCRAM-SHA-256 is slow in a debug build, and only the handler has this limit.
    settings.timeouts.verdict = Duration::from_secs(1);
    let server = start(settings, Tls::Off, ServerOptions::default()).await;
    let anonymous = |trace: &str| ClientCredentials::Anonymous(trace.to_owned());
    for (mechanism, credentials, code, identity) in [
        (Plain, password("me", "right", None), "235", Some("me")),
        (Login, password("me", "right", None), "235", Some("me")),
        (ScramSha256, password("me", "right", None), "235", Some("me")),
        (ScramSha256, password("me", "wrong", None), "535 5.7.8", None),
        (ScramSha256, password("me", "right", Some("boss")), "535 5.7.8", None),
        (ScramSha256, password("nobody", "right", None), "535 5.7.8", None),
        (ScramSha256, password("broken", "right", None), "454 4.7.0", None),
        (ScramSha256, password("late", "right", None), "454 4.7.0", None),
        (OauthBearer, token("me", "right"), "235", Some("me")),
        (OauthBearer, token("me", "wrong"), "535 5.7.8", None),
        (OauthBearer, token("me", "late"), "454 4.7.0", None),
        (XOauth2, token("me", "right"), "235", Some("me")),
        (XOauth2, token("me", "wrong"), "535 5.7.8", None),
        (Anonymous, anonymous("a@b.test"), "235", Some("anonymous")),
        (Anonymous, anonymous("me"), "535 5.7.8", None),
    ] {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        let (reply, proved) = log_in(&mut talk, mechanism, credentials).await;
        assert!(reply.starts_with(code), "{mechanism}: {reply}");
        assert_eq!(proved, identity.is_some() || mechanism != ScramSha256, "{mechanism}");
        talk.message("a@b.test", "x").await;
        let seen = server.names.seen.lock().unwrap().pop().unwrap();
        assert_eq!(seen.0.identity.as_deref(), identity, "{mechanism}");
    }
    // Without TLS there is no certificate and no channel binding.
    for mechanism in [ScramSha256Plus, Mechanism::External, Mechanism::CramMd5] {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        talk.expect(&format!("AUTH {mechanism}"), "504 5.5.4").await;
    }
}

#[tokio::test]
async fn an_unknown_name_gets_the_same_salt_on_every_connection() {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::ScramSha256]);
    let server = start(settings, Tls::Off, ServerOptions::default()).await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        // n,,n=nobody,r=abc
        heard.push(talk.ask("AUTH SCRAM-SHA-256 biwsbj1ub2JvZHkscj1hYmM=").await);
    }
    let [one, other] = &heard[..] else { panic!() };
    assert!(one.starts_with("334 ") && one.len() == other.len());
    // `r=` and its value have 29 octets. The base64 of the rest begins at the 30th.
    assert_ne!(one[..40], other[..40], "a fresh nonce");
    assert_eq!(one[4 + 40..], other[4 + 40..], "the same salt");
}
