//! Mistakes in certificates, keys and features: each is an error that names the file and a remedy.

use std::{fs, path::PathBuf};

use posthaste_tokio::tls::{ClientCertificate, Pem, Roots, TlsError, server_config, verified_by};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

const V1: &[u8] = include_bytes!("../pem/v1.pem");
const V1_KEY: &[u8] = include_bytes!("../pem/v1.key");

/// What some editors put in front of a text.
const MARKED: &str = "is not well-formed PEM: it has a byte-order mark; save it as plain text in ASCII";

fn certificate() -> (Pem, Pem) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    (Pem::from(cert.pem().as_bytes()), Pem::from(signing_key.serialize_pem().as_bytes()))
}

#[test]
fn a_mistake_in_the_files_of_a_server_or_a_client_is_an_error_with_a_remedy() {
    let (good, key) = certificate();
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let pem = |text: &[u8]| Pem::from(text);
    for (certificate, key, words) in [
        (pem(b""), key.clone(), "no certificate in it; name a PEM file with a certificate"),
        (key.clone(), key.clone(), "no certificate in it"),
        (pem(b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"), key.clone(), "not well-formed PEM"),
        (
            pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n"),
            key.clone(),
            "is not well-formed PEM: it is cut off, `-----END CERTIFICATE-----` is missing; copy it again as a whole",
        ),
        (pem(b"-----BEGIN CERTIF"), key.clone(), "not well-formed PEM: a line with `-----BEGIN` is cut off; copy"),
        (
            good.clone(),
            pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END"),
            "is not well-formed PEM: it is cut off, `-----END PRIVATE KEY-----` is missing; copy it again as a whole",
        ),
        (pem(b"\xef\xbb\xbf-----BEGIN CERTIFICATE-----\n"), key.clone(), MARKED),
        // In front of the second of two files that were put together: not silently half of them.
        (pem(&[V1, b"\xef\xbb\xbf", V1].concat()), key.clone(), MARKED),
        (pem(b"\xff\xfe-\0-\0-\0-\0-\0B\0"), key.clone(), MARKED),
        (good.clone(), pem(b"\xef\xbb\xbf-----BEGIN PRIVATE KEY-----\n"), MARKED),
        (good.clone(), pem(b"\xfe\xff\0-\0-\0-\0-\0-\0B"), MARKED),
        (
            pem(include_bytes!("../pem/rsa-1024.pem")),
            pem(include_bytes!("../pem/rsa-1024.key")),
            "cannot be used, because it is damaged, of another kind or too short; \
             make one of RSA with 2,048 bits or more, of ECDSA or Ed25519 (failed to parse",
        ),
        (
            pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            key.clone(),
            "cannot be used: the certificate is not well-formed; make or copy it again",
        ),
        (pem(V1), pem(V1_KEY), "X.509 version 1, which TLS does not take; make one of version 3"),
        (good.clone(), pem(b"no key"), "no private key in it; name a PEM file with the certificate's private key"),
        (good.clone(), good.clone(), "no private key in it"),
        (good.clone(), pem(other_key.as_bytes()), "does not fit the certificate in the PEM text; name the key"),
        (good.clone(), pem(include_bytes!("../pem/encrypted.key")), "is encrypted; decrypt it with `openssl pkey"),
        (good.clone(), pem(include_bytes!("../pem/encrypted-sec1.key")), "is encrypted; decrypt it with `openssl pkey"),
        (
            good.clone(),
            pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "make one of RSA with 2,048 bits or more, of ECDSA or Ed25519 (failed to parse private key",
        ),
    ] {
        let error = server_config(&certificate, &key).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
        assert_eq!(ClientCertificate::new(&certificate, &key).unwrap_err().to_string(), error);
    }
    assert!(server_config(&good, &key).is_ok() && ClientCertificate::new(&good, &key).is_ok());
    // A key in front of the certificate, in one file.
    let (good, key) = (fs::read("tests/pem/v1.pem").unwrap(), fs::read("tests/pem/v1.key").unwrap());
    let both = Pem::from([key, good].concat().as_slice());
    assert!(both.certificates().is_ok() && both.private_key().is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let missing = folder.join("missing.pem");
    let error = Pem::file(&missing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read {}: ", missing.display())), "{error}");
    assert!(error.ends_with("; name a PEM file that this program may read"), "{error}");

    let long = folder.join("long.pem");
    fs::write(&long, vec![b'x'; (4 << 20) + 1]).unwrap();
    assert!(Pem::file(&long).unwrap_err().to_string().contains("it has more than 4 MiB"));

    let empty = folder.join("empty.pem");
    fs::write(&empty, "").unwrap();
    let error = Pem::file(&empty).unwrap().certificates().unwrap_err();
    assert_eq!(error.to_string().split(" has no").next(), Some(empty.display().to_string().as_str()));
    assert!(matches!(error, TlsError::NoCertificate { name } if name.path() == Some(&empty)));
}

#[test]
fn authorities_come_from_pem_and_none_is_an_error() {
    let error = verified_by(Roots::empty()).unwrap_err().to_string();
    assert!(error.contains("no certificate authority is trusted; install the system's"), "{error}");
    let (own, key) = certificate();
    assert!(verified_by(Roots::empty().add_pem(&own).unwrap()).is_ok());
    assert!(Roots::empty().add_pem(&key).unwrap_err().to_string().contains("no certificate in it"));
    let junk = Pem::from(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(Roots::empty().add_pem(&junk).unwrap_err().to_string().contains("is not well-formed"));
}

#[test]
fn cargo_features_choose_the_authorities() {
    match Roots::system() {
        Ok(roots) => assert!(verified_by(roots).is_ok()),
        // The features are off, or this host has no authority.
        Err(error) => assert!(matches!(error, TlsError::NoRoots) && cfg!(not(feature = "webpki-roots"))),
    }
}

#[test]
fn a_private_key_is_not_in_the_debug_text() {
    let (_, key) = certificate();
    assert_eq!(format!("{key:?}"), "Pem(PemName(None))");
}
