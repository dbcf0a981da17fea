//! How a client logs in, and at what it does not.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use crate::support::{Policy, options};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_client::{
    Client, ConnectError, Stage,
    rustls::ServerConfig,
    session::{
        Ask, ServerSession, ServerSettings, Transport, Verdict,
        sasl::{
            BearerToken, ChooseError, ClientCredentials, Credentials, MAX_ITERATIONS, MIN_ITERATIONS, Nonce, SaslError,
            ScramKey, ServerContext, ServerFault, ServerMechanism, ServerStep, Strength, UnknownUsers,
        },
    },
    wire::{Mechanism, MechanismSet, Secret},
};
use posthaste_testkit::{
    pki::tls,
    script::{polite, serve},
};
use posthaste_tokio::{Connection, ServerDriver, ServerEvent};
use tokio::io::DuplexStream;

fn password(password: &str) -> ClientCredentials {
    ClientCredentials::Password(Credentials {
        authorization_identity: None,
        authentication_identity: "me".to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

/// Logs in under TLS at a server that offers these, and says to AUTH and what follows whatever
/// `auth` says.
async fn log_in(
    offers: &'static str,
    credentials: ClientCredentials,
    weakest: Strength,
    mut auth: impl FnMut(&str) -> String + Send + 'static,
) -> (Result<(), ConnectError>, Vec<String>) {
    let (server, config) = tls("mx.test");
    let mut authenticating = false;
    let script = move |_, line: &str| {
        authenticating |= line.starts_with("AUTH");
        if !authenticating {
            return polite(line, &["STARTTLS", offers]);
        }
        let said = auth(line);
        authenticating = said.starts_with("334");
        said
    };
    let (stream, heard) = serve(script, Some(server));
    let mut options = options(Policy::Verified.tls(config));
    (options.credentials, options.weakest_login) = (Some(credentials.into()), weakest);
    let started = Client::start(stream, "mx.test", &options).await.map(drop);
    (started, heard.all().into_iter().map(|(_, line)| line).skip_while(|line| !line.starts_with("AUTH")).collect())
}

/// A server that knows one password.
fn scram_server() -> impl FnMut(&str) -> String + Send + 'static {
    let context = ServerContext::new(Nonce::from_random([2; 18]), UnknownUsers::new(Secret::new([3; 32]), 4_096));
    let mut exchange = ServerMechanism::new(Mechanism::ScramSha256, context).unwrap();
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
                Err(error) => {
                    return String::from_utf8_lossy(error.refusal().reply().as_bytes()).into_owned();
                }
            };
        }
    }
}

/// Servers that offer a mechanism that they do not have.
#[tokio::test]
async fn the_next_mechanism_is_tried_for_one_that_the_server_lacks() {
    let plain = format!("AUTH PLAIN {}", STANDARD.encode("\0me\0right"));
    for (offers, script, ends_with, is_in) in [
        // Refused at once, or after the challenge.
        ("AUTH CRAM-MD5 LOGIN PLAIN", &["504 5.5.4 What", "235 2.7.0 yes"][..], &*plain, true),
        ("AUTH CRAM-MD5 LOGIN PLAIN", &["334 PDFAaG9wPg==", "535 5.7.8 no", "235 2.7.0 yes"], &plain, true),
        ("AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN", &["504 5.5.4 What", "504 5.5.4 What", "235 2.7.0 yes"], &plain, true),
        // A wrong password is no missing mechanism.
        ("AUTH PLAIN LOGIN", &["535 5.7.8 no"], &plain, false),
        ("AUTH CRAM-MD5", &["504 5.5.4 What"], "AUTH CRAM-MD5", false),
        ("AUTH CRAM-MD5 PLAIN", &["454 4.7.0 later"], "AUTH CRAM-MD5", false),
        ("AUTH CRAM-MD5 PLAIN", &["504 5.5.4 What", "535 5.7.8 no"], &plain, false),
    ] {
        let mut replies = script.iter();
        let server = move |_: &str| format!("{}\r\n", replies.next().unwrap());
        let (started, said) = log_in(offers, password("right"), Strength::Secret, server).await;
        assert_eq!(started.is_ok(), is_in, "{offers} {script:?} {started:?}");
        assert_eq!(said.last().map(String::as_str), Some(ends_with), "{offers} {script:?} {said:?}");
        let last = script.last().unwrap().get(..3).unwrap();
        if let Err(error) = started {
            assert_eq!(error.reply().unwrap().code().to_string(), last);
        }
    }
    // The least strength holds for the next one too.
    let server = |_: &str| "504 5.5.4 What\r\n".to_owned();
    let (_, said) = log_in("AUTH CRAM-MD5 PLAIN", password("right"), Strength::Hashed, server).await;
    assert!(said.iter().all(|line| !line.starts_with("AUTH PLAIN")), "{said:?}");
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
            authorization_identity: Some("me".to_owned()),
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

/// A server with TLS from the first octet that knows one key: the names of the mechanisms that were
/// used, once it is over.
async fn bound_server(
    stream: DuplexStream,
    config: Arc<ServerConfig>,
    offers: MechanismSet,
    key: ScramKey,
) -> Vec<String> {
    let mut connection = Connection::new(stream);
    connection.accept_tls(config).await.unwrap();
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.auth = offers;
    let mut driver = ServerDriver::new(connection, ServerSession::new(Arc::new(settings), Transport::Tls));
    let (mut used, mut exchange) = (Vec::new(), None);
    loop {
        let Ok(ServerEvent::Ask(ask)) = driver.next().await else { return used };
        let step = match ask {
            Ask::Auth { mechanism, initial_response } => {
                let unknown_users = UnknownUsers::new(Secret::new([3; 32]), MIN_ITERATIONS);
                let context = driver.sasl_context(Nonce::from_random([2; 18]), unknown_users);
                let exchange = exchange.insert(ServerMechanism::new(mechanism, context).unwrap());
                used.push(mechanism.to_string());
                exchange.start(initial_response.as_ref().map(|text| text.expose().as_str()))
            }
            Ask::AuthResponse(response) => exchange.as_mut().unwrap().respond(response.expose().as_bytes()),
            _ => {
                driver.answer(Verdict::Accept(None)).unwrap();
                continue;
            }
        };
        let exchange = exchange.as_mut().unwrap();
        let step = match step {
            Ok(ServerStep::ScramKey(_)) => exchange.found(Ok(Some(key.clone()))),
            Ok(ServerStep::Password(who)) => {
                let known = key.verify(who.password.expose());
                exchange.decide(known.then_some(who.authentication_identity).ok_or(SaslError::Credentials))
            }
            step => step,
        };
        let verdict = match step {
            Ok(ServerStep::Challenge(challenge)) => Verdict::Challenge(challenge),
            Ok(ServerStep::Done(_)) => Verdict::Accept(None),
            Ok(step) => panic!("{step:?}"),
            Err(error) => Verdict::Refuse(error.refusal()),
        };
        driver.answer(verdict).unwrap();
    }
}

#[tokio::test]
async fn a_login_is_bound_to_the_connection_wherever_that_can_be() {
    use Mechanism::{Login, Plain, ScramSha256, ScramSha256Plus};
    let key = ScramKey::derive("right", &[7; 16], MIN_ITERATIONS).unwrap();
    for (offers, secret, weakest, used, succeeds) in [
        (&[Plain, ScramSha256, ScramSha256Plus][..], "right", Strength::Secret, Some("SCRAM-SHA-256-PLUS"), true),
        (&[Plain, ScramSha256, ScramSha256Plus], "right", Strength::Bound, Some("SCRAM-SHA-256-PLUS"), true),
        (&[ScramSha256, ScramSha256Plus], "wrong", Strength::Secret, Some("SCRAM-SHA-256-PLUS"), false),
        (&[Plain, ScramSha256], "right", Strength::Secret, Some("SCRAM-SHA-256"), true),
        (&[Plain, ScramSha256], "right", Strength::Bound, None, false),
        (&[Plain, Login], "right", Strength::Secret, Some("PLAIN"), true),
    ] {
        let (server, client) = tls("mx.test");
        let (ours, theirs) = tokio::io::duplex(64 * 1_024);
        let server = tokio::spawn(bound_server(theirs, server, MechanismSet::of(offers), key.clone()));
        let mut options = options(Policy::Implicit.tls(client));
        (options.credentials, options.weakest_login) = (Some(password(secret).into()), weakest);
        let started = Client::start(ours, "mx.test", &options).await;
        assert_eq!(started.is_ok(), succeeds, "{offers:?}: {:?}", started.err());
        drop(started);
        assert_eq!(server.await.unwrap(), used.into_iter().collect::<Vec<_>>(), "{offers:?}");
    }
}

/// A thief in between ends TLS with a certificate that the client trusts, and passes on what
/// is said inside.
#[tokio::test]
async fn a_server_in_between_cannot_pass_a_bound_login_on() {
    let key = ScramKey::derive("right", &[7; 16], MIN_ITERATIONS).unwrap();
    let (server_config, trusted_by_thief) = tls("mx.test");
    let (thiefs_config, trusted_by_client) = tls("mx.test");
    let (thief_out, theirs) = tokio::io::duplex(64 * 1_024);
    let (ours, thief_in) = tokio::io::duplex(64 * 1_024);
    let offers = MechanismSet::of(&[Mechanism::ScramSha256, Mechanism::ScramSha256Plus]);
    let server = tokio::spawn(bound_server(theirs, server_config, offers, key));
    tokio::spawn(async move {
        let mut inside = tokio_rustls::TlsAcceptor::from(thiefs_config).accept(thief_in).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(trusted_by_thief);
        let mut outside = connector.connect("mx.test".try_into().unwrap(), thief_out).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
    });
    let mut options = options(Policy::Implicit.tls(trusted_by_client));
    options.credentials = Some(password("right").into());
    let started = Client::start(ours, "mx.test", &options).await.map(drop);
    let refused =
        matches!(&started, Err(ConnectError::Refused { stage: Stage::Auth, reply }) if reply.code().get() == 535);
    assert!(refused, "{started:?}");
    assert_eq!(server.await.unwrap(), ["SCRAM-SHA-256-PLUS"]);
}

#[tokio::test]
async fn a_server_that_asks_for_too_much_work_gets_none() {
    for iterations in [MIN_ITERATIONS - 1, MAX_ITERATIONS + 1, u32::MAX] {
        let script = move |line: &str| match line.strip_prefix("AUTH SCRAM-SHA-256 ") {
            Some(initial) => {
                let first = String::from_utf8(STANDARD.decode(initial).unwrap()).unwrap();
                let nonce = first.rsplit_once("r=").unwrap().1;
                let challenge = format!("r={nonce}more,s=c2FsdHNhbHQ=,i={iterations}");
                format!("334 {}\r\n", STANDARD.encode(challenge))
            }
            None => "501 5.7.0 cancelled\r\n".to_owned(),
        };
        let (started, said) = log_in("AUTH SCRAM-SHA-256", password("right"), Strength::Secret, script).await;
        assert!(matches!(started, Err(ConnectError::Sasl(ServerFault::Iterations))), "{started:?}");
        assert_eq!(said.get(1..), Some(&["*".to_owned()][..]));
    }
}

/// How often other tasks have had their turn while a key was derived, on a runtime with one thread.
#[tokio::test]
async fn a_key_derivation_does_not_block_the_runtime() {
    let turns = Arc::new(AtomicUsize::new(0));
    let others = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let (mut answer, mut said_at) = (scram_server(), 0);
    let script = {
        let waits = Arc::clone(&waits);
        move |line: &str| {
            waits.lock().unwrap().push(turns.load(SeqCst) - said_at);
            let said = answer(line);
            said_at = turns.load(SeqCst);
            said
        }
    };
    let (started, _) = log_in("AUTH SCRAM-SHA-256", password("right"), Strength::Secret, script).await;
    others.abort();
    assert!(started.is_ok(), "{started:?}");
    // AUTH, the proof, and the empty response to the server's.
    let waits = waits.lock().unwrap();
    assert!(matches!(waits[..], [_, proof, last] if proof > 100 && proof > 4 * last), "{waits:?}");
}

#[tokio::test]
async fn quit_ends_with_a_close_notify() {
    let (config, client) = tls("mx.test");
    let (ours, theirs) = tokio::io::duplex(64 * 1_024);
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(theirs).await.unwrap();
        for (said, upto) in [("220 mx.test\r\n", "EHLO client.test\r\n"), ("250 ok\r\n", "QUIT\r\n")] {
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut heard = vec![0; upto.len()];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, upto.as_bytes());
        }
        stream.write_all(b"221 bye\r\n").await.unwrap();
        // An end without close_notify is an error.
        stream.read_to_end(&mut Vec::new()).await
    });
    let client = Client::start(ours, "mx.test", &options(Policy::Implicit.tls(client))).await.unwrap();
    client.quit().await;
    assert_eq!(server.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn nothing_of_a_client_shows_a_secret() {
    let key = ScramKey::derive("s3cret", &[7; 16], MIN_ITERATIONS).unwrap();
    let mut shown = String::new();
    for (mechanism, secret) in [Mechanism::Plain, Mechanism::ScramSha256Plus, Mechanism::Login]
        .into_iter()
        .flat_map(|mechanism| [(mechanism, "s3cret"), (mechanism, "wr0ng!")])
    {
        let (server, client) = tls("mx.test");
        let (ours, theirs) = tokio::io::duplex(64 * 1_024);
        tokio::spawn(bound_server(theirs, server, MechanismSet::of(&[mechanism]), key.clone()));
        let mut options = options(Policy::Implicit.tls(client));
        options.credentials = Some(password(secret).into());
        shown += &format!("{options:?}");
        match Client::start(ours, "mx.test", &options).await {
            Ok(client) => shown += &format!("{client:?}"),
            Err(error) => shown += &format!("{error:?} {error}"),
        }
    }
    for secret in ["s3cret", "wr0ng!"] {
        let list = format!("{:?}", secret.as_bytes());
        for form in [
            secret,
            &STANDARD.encode(secret),
            &STANDARD.encode(format!("\0me\0{secret}")),
            list.trim_matches(['[', ']']),
        ] {
            assert!(!shown.contains(form), "{form} is shown");
        }
    }
}

/// Each connection asks for its own.
#[tokio::test]
async fn credentials_may_be_asked_for() {
    use posthaste_client::{BearerToken, Login};
    let (server, config) = tls("mx.test");
    let number = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut options = options(Policy::Verified.tls(config));
    let asked = Arc::clone(&number);
    options.credentials = Some(Login::asked(move || {
        let number = asked.fetch_add(1, SeqCst);
        async move {
            match number {
                2 => Err("the identity provider is down".into()),
                number => Ok(BearerToken::new("me@d.test", &format!("token-{number}")).into()),
            }
        }
    }));
    let mut said = Vec::new();
    for _ in 0..2 {
        let script = |_, line: &str| polite(line, &["STARTTLS", "AUTH XOAUTH2"]);
        let (stream, heard) = serve(script, Some(Arc::clone(&server)));
        Client::start(stream, "mx.test", &options).await.unwrap();
        said.extend(heard.lines(&["AUTH"]));
    }
    assert!(said.len() == 2 && said[0] != said[1], "{said:?}");
    let (stream, heard) = serve(|_, line| polite(line, &["STARTTLS", "AUTH XOAUTH2"]), Some(server));
    let error = Client::start(stream, "mx.test", &options).await.unwrap_err();
    assert!(error.to_string().contains("identity provider is down") && !error.is_permanent(), "{error}");
    assert_eq!(heard.count("AUTH"), 0);
}
