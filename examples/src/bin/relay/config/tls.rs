//! TLS with next hops: from files to what rustls takes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use posthaste::client::tls::{Roots, TlsError, any_certificate, verified_by};
use posthaste::server::rustls::ClientConfig;

use super::findings::{At, Findings, Place};

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

/// `None`: an error, which is now a finding.
pub(super) fn found<T>(place: Place, result: Result<T, TlsError>, findings: &mut Findings) -> Option<T> {
    result.map_err(|error| findings.error(place, error)).ok()
}
