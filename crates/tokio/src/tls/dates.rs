//! Certificates that are shown although no peer should take them now.

use posthaste_session::wire::parameter::DateTime;
use rustls::pki_types::{CertificateDer, UnixTime};
use tracing::warn;
use webpki::{EndEntityCert, Error, KeyUsage};

use super::PemName;

/// Warns of the first certificate of a chain that has expired, or is not valid yet.
pub(super) fn warn_of(name: &PemName, chain: &[CertificateDer<'static>]) {
    let now = UnixTime::now();
    let fault = (1..).zip(chain).find_map(|(nth, certificate)| Some((nth, fault(certificate, now)?)));
    match fault {
        Some((nth, Fault::Expired(not_after))) => {
            warn!(certificate = %name, nth, %not_after, "certificate has expired, shown all the same");
        }
        Some((nth, Fault::NotYetValid(not_before))) => {
            warn!(certificate = %name, nth, %not_before, "certificate is not valid yet, shown all the same");
        }
        None => {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Expired(DateTime),
    NotYetValid(DateTime),
}

/// `None`: the certificate is valid at that time, or cannot be read.
fn fault(certificate: &CertificateDer<'_>, time: UnixTime) -> Option<Fault> {
    // The dates come first: without a root the path would end in another error.
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    match certificate.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None) {
        Err(Error::CertExpired { not_after, .. }) => Some(Fault::Expired(date(not_after)?)),
        Err(Error::CertNotValidYet { not_before, .. }) => Some(Fault::NotYetValid(date(not_before)?)),
        _ => None,
    }
}

fn date(time: UnixTime) -> Option<DateTime> {
    DateTime::from_unix_seconds(time.as_secs().try_into().ok()?)
}
