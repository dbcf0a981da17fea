//! AUTH, and who a client is remembered as.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::{sync::Arc, time::Duration};

use posthaste_server::{
    ServerOptions, Tls,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    session::ServerSettings,
    wire::{Mechanism, MechanismSet},
};
use support::{Talk, start};
use tokio_rustls::TlsConnector;

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
async fn every_way_to_log_in_and_not_to() {
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
    let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(default_provider());
    let config =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let server = start(settings(), Tls::StartTls(Arc::new(config)), ServerOptions::default()).await;
    let identity = || server.names.seen.lock().unwrap().pop().unwrap().0;

    let mut talk = Talk::connect(server.address).await.greeted().await;
    talk.expect(&format!("AUTH PLAIN {RIGHT}"), "235").await;
    talk.expect("RSET", "250").await;
    talk.expect("EHLO other.test", "250").await;
    talk.message("a@b.test", "x").await;
    let peer = identity();
    assert_eq!((peer.identity.as_deref(), peer.tls, peer.extended), (Some("me"), false, true));
    assert_eq!(peer.hello.unwrap().to_string(), "other.test");

    talk.expect("STARTTLS", "220").await;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let stream = TlsConnector::from(config).connect("mx.test".try_into().unwrap(), talk.stream).await.unwrap();
    let mut talk = Talk::new(stream);
    talk.expect("MAIL FROM:<a@b.test>", "503").await;
    let offers = talk.ask("EHLO again.test").await;
    assert!(offers.contains("AUTH") && !offers.contains("STARTTLS"), "{offers}");
    talk.message("a@b.test", "x").await;
    let peer = identity();
    assert_eq!((peer.identity, peer.tls), (None, true));
}
