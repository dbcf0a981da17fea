//! The certificates that clients are shown: from files to what listeners take, and to what is
//! exchanged while they run.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use posthaste::server::{
    rustls::{
        CertificateError, Error, RootCertStore, ServerConfig,
        client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
        pki_types::{CertificateDer, ServerName, UnixTime},
        server::ParsedCertificate,
    },
    tls::{Certificates, Pem, TlsError, provider},
};
use tracing::{
    field::display,
    info,
    subscriber::{NoSubscriber, with_default},
};
use webpki::EndEntityCert;

use super::{file::TlsFiles, findings::Findings, tls::found};

/// The certificates of the listeners.
#[derive(Debug)]
pub(crate) struct ServerCertificates {
    /// Certificate and key, in the order of the configuration.
    pairs: Vec<(Pem, Pem)>,
    chains: Vec<Chain>,
    certificates: Certificates,
    config: Arc<ServerConfig>,
}

/// A certificate with those of its issuers, as a file has it.
#[derive(Debug)]
pub(super) struct Chain {
    file: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

/// Reads the configured certificates with their keys. `None`: there are none, or one has a mistake,
/// which is now a finding.
pub(super) fn read(
    written: &[TlsFiles],
    folder: &Path,
    host_name: &str,
    findings: &mut Findings,
) -> Option<ServerCertificates> {
    let (mut pairs, mut chains) = (Vec::new(), Vec::new());
    for tls in written {
        let Some(certificate) = &tls.certificate else { continue };
        let name = folder.join(&certificate.value);
        let pem = found(certificate.place, Pem::file(&name), findings);
        let chain = pem.as_ref().and_then(|pem| found(certificate.place, Chain::of(&name, pem), findings));
        let key = tls.key.as_ref().and_then(|key| {
            let name = folder.join(&key.value);
            let pem = found(key.place, Pem::file(&name), findings)?;
            found(key.place, pem.private_key(), findings).map(|_| (key.place, pem))
        });
        let has_chain = chain.is_some();
        if let Some(chain) = chain {
            if let Some(doubt) = chain.doubt("clients") {
                findings.warn(certificate.place, doubt);
            }
            chains.push(chain);
        }
        if let (Some(pem), Some((key_place, key_pem))) = (pem.filter(|_| has_chain), key) {
            let pair = [(pem, key_pem)];
            let fits = quietly(|| Certificates::new(&pair));
            let is_of_the_key = matches!(fits, Err(TlsError::KeyMismatch { .. } | TlsError::UnusableKey { .. }));
            let place = if is_of_the_key { key_place } else { certificate.place };
            if found(place, fits, findings).is_some() {
                pairs.extend(pair);
            }
        }
    }
    let first = written.first()?.certificate.as_ref()?.place;
    if chains.len() == written.len()
        && let Some(doubt) = missing_name(&chains, host_name)
    {
        findings.warn(first, doubt);
    }
    if pairs.len() < written.len() {
        return None;
    }
    let certificates = found(first, quietly(|| Certificates::new(&pairs)), findings)?;
    let config = found(first, certificates.server_config(), findings)?;
    Some(ServerCertificates { pairs, chains, certificates, config })
}

impl ServerCertificates {
    /// What the listeners take. New certificates come into it when they are exchanged.
    pub(super) const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// What [`exchange`](Self::exchange) changes.
    pub(crate) fn running(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Gives the listeners, which have those that are `running`, these certificates. Their names
    /// and dates go to the log.
    ///
    /// # Errors
    /// Nothing has changed then. These were checked, so only the machine can be the reason.
    pub(crate) fn exchange(&self, running: &Certificates) -> Result<(), TlsError> {
        quietly(|| running.replace(&self.pairs))?;
        self.chains.iter().for_each(Chain::tell);
        Ok(())
    }
}

impl Chain {
    pub(super) fn of(file: &Path, pem: &Pem) -> Result<Self, TlsError> {
        Ok(Self { file: file.to_owned(), certificates: pem.certificates()? })
    }

    /// The certificate of the server itself. `None`: it is none of X.509 version 3.
    fn own(&self) -> Option<ParsedCertificate<'_>> {
        ParsedCertificate::try_from(self.certificates.first()?).ok()
    }

    /// Writes its names and dates to the log.
    fn tell(&self) {
        let own = self.certificates.first().and_then(|own| EndEntityCert::try_from(own).ok());
        let names: Vec<_> = own.iter().flat_map(|own| own.valid_dns_names()).collect();
        let [not_before, not_after] = self.dates().map(|date| date.map(display));
        info!(file = %self.file.display(), names = names.join(", "), not_before, not_after, "certificate exchanged");
    }

    /// The first and the last moment at which it is valid. A verification before the one, and after
    /// the other, fails with them.
    fn dates(&self) -> [Option<Timestamp>; 2] {
        let date = |now| match self.verify(UnixTime::since_unix_epoch(Duration::from_secs(now)))? {
            CertificateError::NotValidYetContext { not_before: date, .. }
            | CertificateError::ExpiredContext { not_after: date, .. } => {
                Timestamp::from_second(i64::try_from(date.as_secs()).ok()?).ok()
            }
            _ => None,
        };
        [date(0), date(YEAR_10000)]
    }

    /// What is wrong with it at this time, although it can be used, and the remedy. `peers` are
    /// shown it.
    pub(super) fn doubt(&self, peers: &str) -> Option<String> {
        let problem = match self.verify(UnixTime::now())? {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is not valid yet",
            _ => return None,
        };
        let text = format!("{} {problem}, and {peers} that verify certificates will refuse it", self.file.display());
        Some(format!("{text}; get another, and see that this host's clock is right"))
    }

    /// Looks at its time, and at nothing that only a client knows: the last certificate counts as
    /// an authority.
    fn verify(&self, now: UnixTime) -> Option<CertificateError> {
        let algorithms = provider().ok()?.signature_verification_algorithms.all;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.certificates.last().cloned());
        let verified =
            verify_server_cert_signed_by_trust_anchor(&self.own()?, &roots, &self.certificates, now, algorithms);
        match verified {
            Err(Error::InvalidCertificate(error)) => Some(error),
            _ => None,
        }
    }
}

/// Does what the library would log of the dates of certificates: here they are findings, with their
/// places.
pub(super) fn quietly<T>(make: impl FnOnce() -> T) -> T {
    with_default(NoSubscriber::new(), make)
}

/// After each date that a certificate can have, in seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

/// That no certificate is for a name, and the remedy.
fn missing_name(chains: &[Chain], host_name: &str) -> Option<String> {
    let name = ServerName::try_from(host_name).ok()?;
    let own: Vec<_> = chains.iter().filter_map(Chain::own).collect();
    if own.is_empty() || own.iter().any(|own| verify_server_name(own, &name).is_ok()) {
        return None;
    }
    let none = match chains {
        [one] => format!("{} is not", one.file.display()),
        _ => "none of the certificates is".to_owned(),
    };
    let text = format!("{none} for {host_name}, and clients that verify certificates will refuse it");
    Some(format!("{text}; get one for that name, or write its name as `hostname`"))
}
