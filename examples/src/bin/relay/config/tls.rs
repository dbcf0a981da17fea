//! TLS with next hops: from files to what rustls takes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use posthaste::client::tls::{Roots, TlsError, any_certificate, verified_by};
use posthaste::server::{rustls::ClientConfig, tls::Pem};

use super::findings::{At, Findings, Place};

/// TLS that verifies certificates by the authorities of the configuration or of this host. `None`:
/// there are none.
pub(super) fn verified(
    authorities: Option<&At<PathBuf>>,
    folder: &Path,
    findings: &mut Findings,
) -> Option<Arc<ClientConfig>> {
    let Some(name) = authorities else { return by_system() };
    let pem = found(name.place, Pem::file(folder.join(&name.value)), findings)?;
    let roots = found(name.place, Roots::empty().add_pem(&pem), findings)?;
    let certificates: Vec<_> = pem.certificates().ok()?.into_iter().map(|one| one.to_vec()).collect();
    known(certificates, roots)
}

/// By the authorities of this host, as they are at the start.
fn by_system() -> Option<Arc<ClientConfig>> {
    static SYSTEM: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    SYSTEM.get_or_init(|| verified_by(Roots::system().ok()?).ok()).clone()
}

/// What verifies by these authorities: the same as before, so that a route that has not changed is
/// equal to what it was.
fn known(certificates: Vec<Vec<u8>>, roots: Roots) -> Option<Arc<ClientConfig>> {
    type Known = (Vec<Vec<u8>>, Arc<ClientConfig>);
    static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(own, config)| *own == certificates || Arc::strong_count(config) > 1);
    if let Some((_, config)) = all.iter().find(|(own, _)| *own == certificates) {
        return Some(Arc::clone(config));
    }
    let config = verified_by(roots).ok()?;
    all.push((certificates, Arc::clone(&config)));
    Some(config)
}

/// TLS that takes any certificate.
pub(super) fn any() -> Result<Arc<ClientConfig>, TlsError> {
    static ANY: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    match ANY.get() {
        Some(config) => Ok(Arc::clone(config)),
        None => any_certificate().map(|config| Arc::clone(ANY.get_or_init(|| config))),
    }
}

/// `None`: an error, which is now a finding.
pub(super) fn found<T>(place: Place, result: Result<T, TlsError>, findings: &mut Findings) -> Option<T> {
    result.map_err(|error| findings.error(place, error)).ok()
}
