//! What TLS gives to a login: a channel binding and the client's certificate.

use std::sync::Arc;

use crate::support::{self, Running, log::Log, start};
use posthaste_server::{
    Credentials, ServerOptions, Tls,
    rustls::{
        ALL_VERSIONS, ClientConfig, SupportedProtocolVersion,
        version::{TLS12, TLS13},
    },
    session::{
        ServerSettings,
        sasl::{
            ChannelBinding, ClientContext, ClientCredentials, ClientMechanism, Nonce, Protection, TLS_EXPORTER_LABEL,
        },
    },
    wire::{Mechanism, MechanismSet, Secret},
};
use posthaste_testkit::{
    pki::{Pki, tls},
    talk::{Talk, handshake},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tracing::Level;

const PASSWORD: &str = "right";
const EVERY: [Mechanism; 4] =
    [Mechanism::Plain, Mechanism::External, Mechanism::ScramSha256, Mechanism::ScramSha256Plus];

type Secure = Talk<TlsStream<TcpStream>>;

fn settings(mechanisms: &[Mechanism]) -> ServerSettings {
    let mut settings = support::settings();
    settings.offers.auth = MechanismSet::of(mechanisms);
    settings
}

/// Connects, and goes as far as an EHLO inside TLS.
async fn secure(server: &Running, starttls: bool, config: &Arc<ClientConfig>) -> Secure {
    if starttls {
        let mut talk = Talk::connect(server.address).await.greeted().await;
        talk.expect("STARTTLS", "220").await;
        let mut talk = Talk::new(handshake(talk.stream, config).await);
        talk.expect("EHLO c.test", "250").await;
        talk
    } else {
        let stream = TcpStream::connect(server.address).await.unwrap();
        Talk::new(handshake(stream, config).await).greeted().await
    }
}

/// The mechanisms that AUTH offers.
async fn offered(talk: &mut Secure) -> String {
    let text = talk.ask("EHLO c.test").await;
    text.lines().find_map(|line| line.get(4..)?.strip_prefix("AUTH ")).unwrap_or_default().to_owned()
}

/// As the RFC has it, without this workspace's own code.
fn binding(talk: &Secure) -> ChannelBinding {
    let connection = talk.stream.get_ref().1;
    ChannelBinding::tls_exporter(connection.export_keying_material([0; 32], TLS_EXPORTER_LABEL, None).unwrap())
}

fn password(password: &str) -> ClientCredentials {
    ClientCredentials::Password(Credentials {
        authorization_identity: None,
        authentication_identity: "me".to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

/// Logs in as a client that was shown this list. Returns the reply, and `true` if the client
/// accepts the server's proof.
async fn log_in(
    talk: &mut Secure,
    seen: &[Mechanism],
    credentials: ClientCredentials,
    binding: Option<ChannelBinding>,
) -> (String, bool) {
    let mut context = ClientContext::new(Nonce::from_random([1; 18]));
    context.protection = Protection::Verified;
    context.channel_binding = binding;
    let exchange = ClientMechanism::choose(MechanismSet::of(seen), credentials, context).unwrap();
    support::log_in(talk, exchange).await
}

async fn each(
    versions: &[&'static SupportedProtocolVersion],
    asks: bool,
    shows: bool,
) -> Vec<(Running, bool, Arc<ClientConfig>)> {
    let mut servers = Vec::new();
    for starttls in [false, true] {
        let pki = Pki::new(versions, asks, shows);
        let tls = if starttls { Tls::StartTls(pki.server) } else { Tls::Implicit(pki.server) };
        let server = start(settings(&EVERY), tls, ServerOptions::default()).await;
        servers.push((server, starttls, pki.client));
    }
    servers
}

#[tokio::test]
async fn a_proof_holds_on_its_own_connection_alone() {
    use Mechanism::{ScramSha256, ScramSha256Plus};
    for (server, starttls, config) in each(&[&TLS13], false, false).await {
        let other = secure(&server, starttls, &config).await;
        for (seen, secret, bound_to, code) in [
            (&[ScramSha256, ScramSha256Plus][..], PASSWORD, Some("this"), "235"),
            (&[ScramSha256, ScramSha256Plus], "wrong", Some("this"), "535 5.7.8"),
            // An attacker in between has another connection to the server.
            (&[ScramSha256, ScramSha256Plus], PASSWORD, Some("other"), "535 5.7.8"),
            (&[ScramSha256, ScramSha256Plus], PASSWORD, Some("nothing"), "535 5.7.8"),
            (&[ScramSha256, ScramSha256Plus], PASSWORD, Some("certificate"), "535 5.7.8"),
            // The client can bind, and does not see that the server can: an attacker has hidden it.
            (&[ScramSha256], PASSWORD, Some("this"), "534 5.7.9"),
            // The client cannot.
            (&[ScramSha256, ScramSha256Plus], PASSWORD, None, "235"),
        ] {
            let mut talk = secure(&server, starttls, &config).await;
            assert_eq!(offered(&mut talk).await, "PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS");
            let binding = bound_to.map(|to| match to {
                "this" => binding(&talk),
                "other" => binding(&other),
                "certificate" => ChannelBinding::tls_server_end_point(&[1; 32]),
                _ => ChannelBinding::tls_exporter([0; 32]),
            });
            let (reply, proved) = log_in(&mut talk, seen, password(secret), binding).await;
            assert!(reply.starts_with(code), "{seen:?} {secret} {bound_to:?}: {reply}");
            assert_eq!(proved, code == "235");
        }
    }
}

#[tokio::test]
async fn without_tls_13_there_is_nothing_to_bind_to() {
    for (server, starttls, config) in each(&[&TLS12], false, false).await {
        let mut talk = secure(&server, starttls, &config).await;
        assert_eq!(offered(&mut talk).await, "PLAIN SCRAM-SHA-256");
        talk.expect("AUTH SCRAM-SHA-256-PLUS", "504 5.5.4").await;
        // The client knows a binding that this server does not offer: no attack.
        let seen = [Mechanism::ScramSha256];
        let binding = Some(ChannelBinding::tls_server_end_point(&[1; 32]));
        let (reply, _) = log_in(&mut talk, &seen, password(PASSWORD), binding).await;
        assert!(reply.starts_with("235"), "{reply}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_offer_it_takes_a_client_that_could() {
    let (config, client) = tls("mx.test");
    let only = [Mechanism::ScramSha256];
    let server = start(settings(&only), Tls::Implicit(config), ServerOptions::default()).await;
    let mut talk = secure(&server, false, &client).await;
    let binding = binding(&talk);
    let (reply, _) = log_in(&mut talk, &only, password(PASSWORD), Some(binding)).await;
    assert!(reply.starts_with("235"), "{reply}");
}

#[tokio::test]
async fn a_certificate_is_a_login() {
    for versions in [&[&TLS12][..], &[&TLS13]] {
        for (server, starttls, config) in each(versions, true, true).await {
            for (acts_as, code, identity) in [
                (None, "235", Some("the owner")),
                (Some("me"), "235", Some("me")),
                (Some("somebody else"), "535 5.7.8", None),
            ] {
                let mut talk = secure(&server, starttls, &config).await;
                assert!(offered(&mut talk).await.contains("EXTERNAL"));
                let credentials = ClientCredentials::External(acts_as.map(str::to_owned));
                let (reply, _) = log_in(&mut talk, &[Mechanism::External], credentials, None).await;
                assert!(reply.starts_with(code), "{acts_as:?}: {reply}");
                talk.message("a@b.test", "x").await;
                let peer = server.names.seen.lock().unwrap().pop().unwrap().0;
                assert_eq!((peer.identity.as_deref(), peer.certificate().is_some()), (identity, true));
            }
        }
    }
}

#[tokio::test]
async fn external_is_refused_without_a_client_certificate() {
    for (asks, shows) in [(false, true), (true, false)] {
        for (server, starttls, config) in each(ALL_VERSIONS, asks, shows).await {
            let mut talk = secure(&server, starttls, &config).await;
            assert!(!offered(&mut talk).await.contains("EXTERNAL"));
            talk.expect("AUTH EXTERNAL =", "504 5.5.4").await;
        }
    }
}

/// Everything that a log could show: the trace level of every crate, and `Debug` of all types with
/// a secret.
#[tokio::test]
async fn no_log_shows_a_secret() {
    let log = Log::default();
    let guard = log.listen(Level::TRACE);
    let Pki { server: config, client, keys } = Pki::new(ALL_VERSIONS, true, true);
    let tls = Tls::StartTls(config);
    let mut shown = format!("{tls:?} {client:?}");
    let server = start(settings(&EVERY), tls, ServerOptions::default()).await;
    let secret = "s3cret-and-wrong";
    for (mechanism, secret) in EVERY.into_iter().flat_map(|mechanism| [(mechanism, PASSWORD), (mechanism, secret)]) {
        let mut talk = secure(&server, true, &client).await;
        let credentials = match mechanism {
            Mechanism::External => ClientCredentials::External(None),
            _ => password(secret),
        };
        shown += &format!("{credentials:?}");
        let binding = binding(&talk);
        shown += &format!("{binding:?}");
        let bound = (mechanism == Mechanism::ScramSha256Plus).then_some(binding);
        log_in(&mut talk, &[mechanism], credentials, bound).await;
        talk.message("a@b.test", "x").await;
        talk.ask("QUIT").await;
        shown += &format!("{:?}", server.names.seen.lock().unwrap().pop());
    }
    server.drain.cancel();
    server.task.await.unwrap();
    drop(guard);
    let log = log.text();
    assert!(log.contains("session ended"), "the log is heard: {log}");
    shown += &log;
    for secret in [secret, "AG1lAHMzY3JldC1hbmQtd3Jvbmc=", "AG1lAHJpZ2h0", "\\0me\\0right", "password: \""] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
    for key in keys {
        // From the middle on, where a private key differs from every other.
        let part = &key[40..56];
        let hexadecimal: String = part.iter().map(|octet| format!("{octet:02x}")).collect();
        let list = format!("{part:?}");
        assert!(!shown.contains(&hexadecimal) && !shown.contains(list.trim_matches(['[', ']'])));
    }
}
