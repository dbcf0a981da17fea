//! Certificates and keys: from files to what rustls takes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use posthaste::client::tls::{Pem, Roots, TlsError, any_certificate, provider, server_config, verified_by};
use posthaste::server::rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tracing::subscriber::{NoSubscriber, with_default};

use super::{
    file::TlsFiles,
    findings::{At, Findings, Place},
};

/// TLS for clients, by the configured certificate and key. `None`: a mistake, which is now a
/// finding.
pub(super) fn server(
    files: &TlsFiles,
    folder: &Path,
    host_name: &str,
    findings: &mut Findings,
) -> Option<Arc<ServerConfig>> {
    let certificate = files.certificate.as_ref()?;
    let pem = found(certificate.place, Pem::file(folder.join(&certificate.value)), findings);
    let chain = pem.as_ref().and_then(|pem| found(certificate.place, pem.certificates(), findings));
    let key = files.key.as_ref().and_then(|key| {
        let pem = found(key.place, Pem::file(folder.join(&key.value)), findings)?;
        found(key.place, pem.private_key(), findings).map(|_| (key.place, pem))
    });
    let (pem, chain) = (pem?, chain?);
    if let Ok(parsed) = ParsedCertificate::try_from(chain.first()?) {
        let name = folder.join(&certificate.value);
        if let Ok(server_name) = ServerName::try_from(host_name)
            && verify_server_name(&parsed, &server_name).is_err()
        {
            let problem = format!(
                "{} is not for {host_name}, and clients that verify certificates will refuse it",
                name.display()
            );
            let remedy = "get one for that name, or write its name as `hostname`";
            findings.warn(certificate.place, format_args!("{problem}; {remedy}"));
        }
        out_of_time(certificate.place, &name, &parsed, &chain, findings);
    }
    let (key_place, key) = key?;
    // What the library would log of the dates is a finding already, with its place.
    let config = with_default(NoSubscriber::new(), || server_config(&pem, &key));
    let is_of_the_key = matches!(config, Err(TlsError::KeyMismatch { .. } | TlsError::UnusableKey { .. }));
    found(if is_of_the_key { key_place } else { certificate.place }, config, findings)
}

/// `None`: an error, which is now a finding.
fn found<T>(place: Place, result: Result<T, TlsError>, findings: &mut Findings) -> Option<T> {
    result.map_err(|error| findings.error(place, error)).ok()
}

/// Looks at the time of a certificate alone: clients look at the rest.
fn out_of_time(
    place: Place,
    name: &Path,
    certificate: &ParsedCertificate<'_>,
    chain: &[CertificateDer<'static>],
    findings: &mut Findings,
) {
    let Ok(provider) = provider() else { return };
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
    let text = format!("{} {problem}, and clients that verify certificates will refuse it", name.display());
    findings.warn(place, format_args!("{text}; get another, and see that this host's clock is right"));
}

/// TLS that verifies certificates by the authorities of the configuration or of this host. `None`:
/// there are none.
pub(super) fn verified(
    authorities: Option<&At<PathBuf>>,
    folder: &Path,
    findings: &mut Findings,
) -> Option<Arc<ClientConfig>> {
    let roots = match authorities {
        Some(name) => found(name.place, Roots::empty().add_pem_file(folder.join(&name.value)), findings)?,
        None => Roots::system().ok()?,
    };
    verified_by(roots).ok()
}

/// TLS that takes any certificate.
pub(super) fn any() -> Result<Arc<ClientConfig>, TlsError> {
    any_certificate()
}
