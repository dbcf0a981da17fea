//! Certificates and keys: from files to what rustls takes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use posthaste_client::unverified;
use posthaste_server::rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

use super::{
    file::TlsFiles,
    findings::{At, Findings, Place},
};

/// TLS for clients, by the certificate and the key of the configuration. `None`: there is a mistake, which is found now.
pub(super) fn server(
    files: &TlsFiles,
    folder: &Path,
    host_name: &str,
    provider: &Arc<CryptoProvider>,
    findings: &mut Findings,
) -> Option<Arc<ServerConfig>> {
    let certificate = files.certificate.as_ref()?;
    let chain = certificates(certificate, folder, "name a PEM file with the certificate", findings);
    let key = files.key.as_ref().and_then(|name| {
        let path = folder.join(&name.value);
        let read = PrivateKeyDer::from_pem_file(&path).map_err(|error| {
            let remedy = "name a PEM file with the certificate's private key";
            findings.error(name.place, format_args!("cannot read {}: {error}; {remedy}", path.display()));
        });
        read.ok().map(|key| (name.place, path, key))
    });
    let chain = chain?;
    let first = chain.first()?;
    let name = folder.join(&certificate.value);
    let parsed = match ParsedCertificate::try_from(first) {
        Ok(parsed) => parsed,
        Err(error) => {
            unusable(certificate.place, &name, &error, findings);
            return None;
        }
    };
    if let Ok(server_name) = ServerName::try_from(host_name)
        && verify_server_name(&parsed, &server_name).is_err()
    {
        let problem = format!("{} is not for {host_name}, and clients that look will not take it", name.display());
        findings
            .warn(certificate.place, format_args!("{problem}; get one for that name, or write its name as `hostname`"));
    }
    out_of_time(certificate.place, &name, &parsed, &chain, provider, findings);
    let (key_place, key_path, key) = key?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions();
    let builder = match builder {
        Ok(builder) => builder,
        Err(error) => {
            let text = format_args!("TLS cannot be set up: {error}; this is a fault of the program");
            findings.error(certificate.place, text);
            return None;
        }
    };
    match builder.with_no_client_auth().with_single_cert(chain.clone(), key) {
        Ok(config) => Some(Arc::new(config)),
        Err(error @ Error::InvalidCertificate(_)) => {
            unusable(certificate.place, &name, &error, findings);
            None
        }
        Err(error) => {
            let problem = format!("{} does not fit the certificate: {error}", key_path.display());
            findings.error(key_place, format_args!("{problem}; name the key that it was made with"));
            None
        }
    }
}

/// A certificate that no server can have.
fn unusable(place: Place, name: &Path, error: &Error, findings: &mut Findings) {
    let name = name.display();
    // rustls has no words of its own for it.
    if format!("{error:?}").contains("UnsupportedCertVersion") {
        let remedy = "make one of version 3, with `openssl req -x509`, or `openssl x509 -req` with -extfile";
        findings.error(
            place,
            format_args!("{name} is a certificate of X.509 version 1, which TLS does not take; {remedy}"),
        );
    } else {
        findings.error(place, format_args!("{name} cannot be used: {error}; get another certificate"));
    }
}

/// Looks at the time of a certificate alone: clients look at the rest.
fn out_of_time(
    place: Place,
    name: &Path,
    certificate: &ParsedCertificate<'_>,
    chain: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
    findings: &mut Findings,
) {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain.last().cloned());
    let algorithms = provider.signature_verification_algorithms.all;
    let verified = verify_server_cert_signed_by_trust_anchor(certificate, &roots, chain, UnixTime::now(), algorithms);
    let Err(Error::InvalidCertificate(error)) = verified else { return };
    let problem = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet",
        _ => return,
    };
    let text = format!("{} {problem}, and clients that look will not take it", name.display());
    findings.warn(place, format_args!("{text}; get another, and see that this host's clock is right"));
}

/// TLS that verifies certificates, by the authorities of the configuration or of this host. `None`: there are none.
pub(super) fn verified(
    authorities: Option<&At<PathBuf>>,
    folder: &Path,
    provider: &Arc<CryptoProvider>,
    findings: &mut Findings,
) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(name) => {
            for certificate in certificates(name, folder, "name a PEM file with certificates", findings)? {
                if let Err(error) = roots.add(certificate) {
                    let path = folder.join(&name.value);
                    let text = format!("{} has a certificate that is none: {error}; take it out", path.display());
                    findings.error(name.place, text);
                }
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return None;
    }
    // The provider has ciphers for TLS 1.2 and 1.3.
    posthaste_client::verified(Arc::clone(provider), roots).ok().map(Arc::new)
}

fn certificates(
    name: &At<PathBuf>,
    folder: &Path,
    remedy: &str,
    findings: &mut Findings,
) -> Option<Vec<CertificateDer<'static>>> {
    let path = folder.join(&name.value);
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
    let problem = match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) => format!("{} has no certificate in it", path.display()),
        Err(error) => format!("cannot read {}: {error}", path.display()),
    };
    findings.error(name.place, format_args!("{problem}; {remedy}"));
    None
}

/// TLS that takes any certificate.
pub(super) fn any(provider: &Arc<CryptoProvider>) -> Option<Arc<ClientConfig>> {
    // The provider has ciphers for TLS 1.2 and 1.3; without a configuration a policy that demands TLS delivers nothing.
    unverified(Arc::clone(provider)).ok().map(Arc::new)
}
