//! How a client logs in, and at what it does not.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_client::{
    Client, ConnectError, Stage, TlsPolicy,
    session::sasl::{
        BearerToken, ChooseError, ClientCredentials, Credentials, Nonce, ScramKey, ServerContext, ServerFault,
        ServerMechanism, ServerStep, Strength, UnknownUsers,
    },
    wire::Secret,
};
use support::{options, polite, serve, tls};

fn password(password: &str) -> ClientCredentials {
    ClientCredentials::Password(Credentials {
        authorisation_identity: None,
        authentication_identity: "me".to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

/// Logs in under TLS at a server that offers these, and says to AUTH and what follows whatever `auth` says.
async fn log_in(
    offers: &'static str,
    credentials: ClientCredentials,
    weakest: Strength,
    mut auth: impl FnMut(&str) -> String + Send + 'static,
) -> (Result<(), ConnectError>, Vec<String>) {
    let (server, config) = tls("mx.test");
    let mut authenticating = false;
    let script = move |_: bool, line: &str| {
        authenticating |= line.starts_with("AUTH");
        if !authenticating {
            return polite(line, &["STARTTLS", offers]);
        }
        let said = auth(line);
        authenticating = said.starts_with("334");
        said
    };
    let (stream, heard) = serve(script, Some(server));
    let mut options = options(TlsPolicy::Required, Some(config));
    (options.credentials, options.weakest_login) = (Some(credentials), weakest);
    let started = Client::start(stream, "mx.test", &options).await.map(drop);
    let all = heard.lock().unwrap();
    let from = all.iter().position(|(_, line)| line.starts_with("AUTH")).unwrap_or(all.len());
    (started, all.iter().skip(from).map(|(_, line)| line.clone()).collect())
}

/// A server that knows one password.
fn scram_server() -> impl FnMut(&str) -> String + Send + 'static {
    let context = ServerContext::new(Nonce::from_random([2; 18]), UnknownUsers::new(Secret::new([3; 32]), 4_096));
    let mut exchange = ServerMechanism::new("SCRAM-SHA-256", context).unwrap();
    move |line| {
        let mut step = match line.strip_prefix("AUTH SCRAM-SHA-256 ") {
            Some(initial) => exchange.start(Some(initial)),
            None => exchange.respond(line.as_bytes()),
        };
        loop {
            step = match step {
                Ok(ServerStep::ScramKey(_)) => exchange.found(Ok(ScramKey::derive("right", &[7; 16], 4_096).ok())),
                Ok(ServerStep::Challenge(text)) => {
                    return format!("334 {}\r\n", STANDARD.encode(text));
                }
                Ok(ServerStep::Done(_)) => return "235 2.7.0 yes\r\n".to_owned(),
                Ok(step) => panic!("{step:?}"),
                Err(error) => return String::from_utf8_lossy(error.reply().as_ref().as_bytes()).into_owned(),
            };
        }
    }
}

#[tokio::test]
async fn the_strongest_mechanism_is_used_and_its_proofs_are_checked() {
    let offers = "AUTH PLAIN LOGIN SCRAM-SHA-256";
    let (started, said) = log_in(offers, password("right"), Strength::Secret, scram_server()).await;
    assert!(started.is_ok(), "{started:?}");
    assert!(said[0].starts_with("AUTH SCRAM-SHA-256 "), "{said:?}");
    assert_eq!(said.len(), 3, "the last one is empty: {said:?}");

    let (started, _) = log_in(offers, password("wrong"), Strength::Mutual, scram_server()).await;
    assert!(matches!(started, Err(ConnectError::Refused { stage: Stage::Auth, reply }) if reply.code().get() == 535));
}

#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_not_believed() {
    let offers = "AUTH SCRAM-SHA-256";
    let (started, _) = log_in(offers, password("right"), Strength::Secret, |_| "235 welcome\r\n".to_owned()).await;
    assert!(matches!(started, Err(ConnectError::Sasl(ServerFault::NotProved))), "{started:?}");

    // Another exchange's challenge: the client gives up, and has shown nothing.
    let replay = |line: &str| match line {
        "*" => "501 5.7.0 cancelled\r\n".to_owned(),
        _ => format!("334 {}\r\n", STANDARD.encode("r=other,s=c2FsdHNhbHQ=,i=4096")),
    };
    let (started, said) = log_in(offers, password("right"), Strength::Secret, replay).await;
    assert!(matches!(started, Err(ConnectError::Sasl(ServerFault::Nonce))), "{started:?}");
    assert_eq!(said.get(1..), Some(&["*".to_owned()][..]));
}

#[tokio::test]
async fn a_list_that_was_shortened_ends_before_anything_is_shown() {
    for (offers, weakest, error) in [
        ("AUTH PLAIN LOGIN", Strength::Mutual, ChooseError::TooWeak),
        ("AUTH GSSAPI", Strength::Secret, ChooseError::NoMechanism),
        ("SIZE", Strength::Secret, ChooseError::NoMechanism),
    ] {
        let (started, said) = log_in(offers, password("right"), weakest, |_| "235 yes\r\n".to_owned()).await;
        assert!(matches!(started, Err(ConnectError::AuthUnavailable(found)) if found == error), "{started:?}");
        assert!(said.is_empty(), "{said:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_for_auth_follows_it() {
    for octets in [100, 3_000] {
        let token = BearerToken {
            authorisation_identity: Some("me".to_owned()),
            token: Secret::new("t".repeat(octets)),
            host: None,
            port: None,
        };
        let script = |line: &str| match line {
            "AUTH OAUTHBEARER" => "334 \r\n".to_owned(),
            _ => "235 yes\r\n".to_owned(),
        };
        let (started, said) = log_in("AUTH OAUTHBEARER XOAUTH2", token.into(), Strength::Secret, script).await;
        assert!(started.is_ok(), "{started:?}");
        assert_eq!(said.len(), if octets == 100 { 1 } else { 2 });
    }
}
