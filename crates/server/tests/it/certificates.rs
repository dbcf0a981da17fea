//! Which certificate a client gets, what it has to show, and the exchange of certificates.

use std::sync::Arc;

use posthaste_server::{
    PeerTls, ServerOptions, Tls,
    rustls::{
        ALL_VERSIONS, CipherSuite, ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
        crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs::default_provider},
        version::{TLS12, TLS13},
    },
    tls::{Certificates, Pem, Roots, any_certificate},
};
use posthaste_testkit::{
    pki::Authority,
    talk::{Talk, handshake},
};
use rcgen::{PKCS_ECDSA_P256_SHA256 as ECDSA, PKCS_ED25519 as ED25519, SignatureAlgorithm};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Running, settings, start};

fn pair(authority: &Authority, names: &[&str], kind: &'static SignatureAlgorithm) -> (Pem, Pem) {
    let [certificate, key] = authority.pem_of_kind(names, kind);
    (Pem::from(certificate.as_bytes()), Pem::from(key.as_bytes()))
}

fn roots(authority: &Authority) -> Roots {
    Roots::empty().add_pem(&Pem::from(authority.pem_of_its_own().as_bytes())).unwrap()
}

async fn implicit(certificates: &Certificates) -> Running {
    start(settings(), Tls::Implicit(certificates.server_config().unwrap()), ServerOptions::default()).await
}

async fn connect(server: &Running, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name.to_owned().try_into().unwrap(), stream).await
}

/// The certificate that a client gets who asks for this name.
async fn shown(server: &Running, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    connect(server, config, name).await.unwrap().get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(pair: &(Pem, Pem)) -> Vec<u8> {
    pair.0.certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new("one");
    let pairs = [&["mx.test"][..], &["Other.test", "*.wild.test"], &["a.wild.test"]];
    let pairs = pairs.map(|names| pair(&authority, names, &ECDSA));
    let server = implicit(&Certificates::new(&pairs).unwrap()).await;
    let any = any_certificate().unwrap();
    for (name, nth) in [
        ("mx.test", 0),
        ("MX.Test", 0),
        ("other.test", 1),
        ("b.wild.test", 1),
        // The name itself comes before the wildcard.
        ("a.wild.test", 2),
        // No certificate has these.
        ("a.b.wild.test", 0),
        ("wild.test", 0),
        ("x.mx.test", 0),
        ("test", 0),
        // An address is no name to ask for.
        ("127.0.0.1", 0),
    ] {
        assert!(shown(&server, &any, name).await == der(&pairs[nth]), "{name}");
    }
}

#[tokio::test]
async fn a_client_gets_a_certificate_whose_kind_of_key_it_can_check() {
    let authority = Authority::new("one");
    let pairs = [("mx.test", &ED25519), ("mx.test", &ECDSA), ("other.test", &ED25519)];
    let pairs = pairs.map(|(name, kind)| pair(&authority, &[name], kind));
    let server = implicit(&Certificates::new(&pairs).unwrap()).await;
    let knows = |ed25519: bool| {
        let mut provider = default_provider();
        let all = provider.signature_verification_algorithms;
        let mapping = all.mapping.iter().filter(|(scheme, _)| ed25519 || !format!("{scheme:?}").contains("ED25519"));
        let mapping = Box::leak(mapping.copied().collect::<Vec<_>>().into_boxed_slice());
        provider.signature_verification_algorithms = WebPkiSupportedAlgorithms { all: all.all, mapping };
        client_with(provider, &authority)
    };
    // Without Ed25519 the client has no certificate for the other name, and would not take this
    // one.
    for (ed25519, name, nth) in [(true, "mx.test", 0), (false, "mx.test", 1), (true, "other.test", 2)] {
        assert!(shown(&server, &knows(ed25519), name).await == der(&pairs[nth]), "{ed25519} {name}");
    }
    let error = connect(&server, &knows(false), "other.test").await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

fn client_with(provider: CryptoProvider, authority: &Authority) -> Arc<ClientConfig> {
    let client = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(ALL_VERSIONS).unwrap();
    Arc::new(client.with_root_certificates(authority.roots()).with_no_client_auth())
}

/// Holds a short session, after which the client has its tickets. Returns `true` if it was resumed.
async fn resumes(server: &Running, config: &Arc<ClientConfig>) -> bool {
    let stream = connect(server, config, "mx.test").await.unwrap();
    let mut talk = Talk::new(stream).greeted().await;
    talk.expect("QUIT", "221").await;
    let kind = talk.stream.get_ref().1.handshake_kind().unwrap();
    // An end without close_notify would be an error.
    assert_eq!(talk.stream.read(&mut [0; 8]).await.unwrap(), 0);
    kind == HandshakeKind::Resumed
}

#[tokio::test]
async fn certificates_are_exchanged_while_sessions_go_on_and_are_resumed() {
    for version in [&TLS12, &TLS13] {
        let [old, new] = ["old", "new"].map(Authority::new);
        let certificates = Certificates::new(&[pair(&old, &["mx.test"], &ECDSA)]).unwrap();
        let server = implicit(&certificates).await;
        let versions: &[&'static SupportedProtocolVersion] = &[version];
        let knows_old = old.client(versions, None);
        assert!(!resumes(&server, &knows_old).await);
        assert!(resumes(&server, &knows_old).await);
        let mut open = Talk::new(connect(&server, &knows_old, "mx.test").await.unwrap()).greeted().await;

        certificates.replace(&[pair(&new, &["mx.test"], &ECDSA)]).unwrap();
        open.expect("NOOP", "250").await;
        assert!(resumes(&server, &knows_old).await);
        assert!(connect(&server, &old.client(versions, None), "mx.test").await.is_err());
        assert!(!resumes(&server, &new.client(versions, None)).await);
        assert!(format!("{certificates:?}").contains("Certificates(1)"));
    }
}

#[tokio::test]
async fn after_an_error_the_old_certificates_stay() {
    let authority = Authority::new("one");
    let [good, other] = [(); 2].map(|()| pair(&authority, &["mx.test"], &ECDSA));
    let certificates = Certificates::new(std::slice::from_ref(&good)).unwrap();
    let server = implicit(&certificates).await;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let key = folder.join("another.key");
    std::fs::write(&key, authority.pem_of_kind(&["mx.test"], &ECDSA)[1].as_bytes()).unwrap();
    let misfit = (good.0.clone(), Pem::file(&key).unwrap());
    for (pairs, words) in [
        (vec![], "a server with TLS needs a certificate"),
        (vec![other.clone(), misfit], "another.key does not fit the certificate in the PEM text"),
        (vec![other.clone(), (good.1.clone(), good.1.clone())], "no certificate in it"),
    ] {
        let error = certificates.replace(&pairs).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
        assert!(Certificates::new(&pairs).unwrap_err().to_string() == error);
        assert!(shown(&server, &any_certificate().unwrap(), "mx.test").await == der(&good));
    }
}

#[tokio::test]
async fn a_client_of_another_protocol_gets_no_handshake() {
    let authority = Authority::new("one");
    let certificates = Certificates::new(&[pair(&authority, &["mx.test"], &ECDSA)]).unwrap();
    let server = implicit(&certificates).await;
    for (offers, agreed) in [
        (&[][..], Some(None)),
        (&["smtp"], Some(Some("smtp"))),
        (&["h2", "esmtp"], Some(Some("esmtp"))),
        (&["h2", "http/1.1"], None),
        (&["imap"], None),
    ] {
        let mut config = ClientConfig::clone(&authority.client(ALL_VERSIONS, None));
        config.alpn_protocols = offers.iter().map(|offer| Vec::from(*offer)).collect();
        match connect(&server, &Arc::new(config), "mx.test").await {
            Ok(stream) => assert_eq!(Some(stream.get_ref().1.alpn_protocol()), agreed.map(|p| p.map(str::as_bytes))),
            Err(error) => assert!(agreed.is_none() && error.to_string().contains("NoApplicationProtocol"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_clients_certificate_is_asked_for_and_kept_when_its_session_is_resumed() {
    let [ours, clients] = ["one", "two"].map(Authority::new);
    let certificates = Certificates::new(&[pair(&ours, &["mx.test"], &ECDSA)]).unwrap();
    let config = certificates.server_config_asking(roots(&ours)).unwrap();
    let server = start(settings(), Tls::Implicit(config), ServerOptions::default()).await;
    for version in [&TLS12, &TLS13] {
        for shows in [false, true] {
            let config = ours.client(&[version], shows.then_some(("client.test", 2120)));
            for resumed in [false, true] {
                let mut talk = Talk::new(connect(&server, &config, "mx.test").await.unwrap()).greeted().await;
                talk.message("a@b.test", "x").await;
                let peer = server.names.seen.lock().unwrap().pop().unwrap().0;
                assert_eq!(peer.certificate().is_some(), shows, "{resumed}");
                let kind = talk.stream.get_ref().1.handshake_kind();
                assert_eq!(kind == Some(HandshakeKind::Resumed), resumed);
            }
        }
        // Expired, and signed by another authority.
        let wrong = [ours.client(&[version], Some(("client.test", 2021))), {
            let mut config = ClientConfig::clone(&clients.client(&[version], Some(("client.test", 2120))));
            config.dangerous().set_certificate_verifier(ours.verifier());
            Arc::new(config)
        }];
        for config in wrong {
            let ended = match connect(&server, &config, "mx.test").await {
                Ok(mut stream) => stream.read_u8().await.is_err(),
                Err(_) => true,
            };
            assert!(ended);
        }
    }
    assert!(certificates.server_config_asking(Roots::empty()).is_err());
}

#[tokio::test]
async fn a_handler_sees_what_tls_has_agreed_on() {
    let authority = Authority::new("one");
    let certificates = Certificates::new(&[pair(&authority, &["mx.test"], &ECDSA)]).unwrap();
    for starttls in [false, true] {
        let config = certificates.server_config().unwrap();
        let tls = if starttls { Tls::StartTls(config) } else { Tls::Implicit(config) };
        let server = start(settings(), tls, ServerOptions::default()).await;
        for (version, number, suite) in [
            (&TLS12, ProtocolVersion::TLSv1_2, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
            (&TLS13, ProtocolVersion::TLSv1_3, CipherSuite::TLS13_AES_256_GCM_SHA384),
        ] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            if starttls {
                let mut talk = Talk::new(stream).greeted().await;
                talk.expect("STARTTLS", "220").await;
                stream = talk.stream;
            }
            let mut talk = Talk::new(handshake(stream, &authority.client(&[version], None)).await);
            if !starttls {
                talk.reply().await;
            }
            talk.expect("EHLO c.test", "250").await;
            talk.message("a@b.test", "x").await;
            let peer = server.names.seen.lock().unwrap().pop().unwrap().0;
            let mut expected = PeerTls::new(number);
            expected.cipher_suite = Some(suite);
            expected.server_name = Some("mx.test".to_owned());
            assert_eq!(peer.tls.as_deref(), Some(&expected));
            // Closed as it should be, so that the server logs no fault.
            talk.stream.shutdown().await.unwrap();
        }
    }
}
