//! A server that is trusted by its very certificate.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_client::{
    Client, Identity, Tls,
    rustls::{ServerConfig, pki_types::CertificateDer},
    tls::{Pem, Roots},
};
use posthaste_testkit::script::{Scripted, polite};

use crate::support::{certificates::Certified, options};

fn pem(certificates: &[&CertificateDer<'_>]) -> Pem {
    let one = |der: &&CertificateDer<'_>| {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
    };
    Pem::from(certificates.iter().map(one).collect::<String>().as_bytes())
}

/// Connects by address. Returns what is wrong, or if the server counts as proved.
async fn connect(server: Arc<ServerConfig>, identity: Identity) -> Result<bool, String> {
    let server = Scripted::with_tls(server, |_, line| polite(line, &["STARTTLS"])).await;
    let client = Client::connect(("127.0.0.1", server.port), &options(Tls::Required(identity))).await;
    client.map(|client| client.is_verified()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_pinned_certificate_is_taken_and_no_other() {
    // As `openssl req -x509` makes one: it is marked as an authority, and is for another name.
    let (bridge, other) = (Certified::root("bridge"), Certified::root("bridge"));
    let expired = bridge.server_of(&["localhost"], 2020, 2021);
    let below = bridge.server(&["127.0.0.1"]);
    let (only, both) = (pem(&[&bridge.der]), pem(&[&other.der, &bridge.der]));
    let others = "the certificate is none of those that are trusted; if the server has a new one, trust that one";
    for (row, server, pinned, expected) in [
        ("the certificate", bridge.serves(&[]), &only, Ok(true)),
        ("one of two", bridge.serves(&[]), &both, Ok(true)),
        ("with others after it", bridge.serves(&[&other]), &only, Ok(true)),
        ("one that has expired", expired.serves(&[]), &pem(&[&expired.der]), Ok(true)),
        ("another", other.serves(&[]), &only, Err(others)),
        ("one that it has signed", below.serves(&[&bridge]), &only, Err(others)),
        ("the certificate without its key", other.serves_unchecked(vec![bridge.der.clone()]), &only, Err("handshake")),
        ("another before it", other.serves(&[&bridge]), &only, Err(others)),
    ] {
        let found = connect(server, Identity::pinned(pinned).unwrap()).await;
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{row}"),
            (Err(error), Err(words)) => assert!(error.contains(words), "{row}: {error}"),
            _ => panic!("{row}: {found:?}"),
        }
    }
    // By the authorities the same certificate is none, and the error says what to do.
    let roots = Roots::empty().add_pem(&only).unwrap();
    let error = connect(bridge.serves(&[]), Identity::verified(roots).unwrap()).await.unwrap_err();
    assert!(error.contains("; make the server one with ") && error.contains(" with `tls::pinned_to`"), "{error}");
}

#[test]
fn a_text_without_a_good_certificate_pins_nothing() {
    let junk = Pem::from(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (text, words) in [(Pem::from(b""), "has no certificate in it"), (junk, "is not well-formed")] {
        let error = Identity::pinned(&text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
