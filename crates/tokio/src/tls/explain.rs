//! What rustls says, in words that an operator can act on.

use rustls::{CertificateError, Error};

/// The reason why a certificate or a handshake failed, and the remedy.
///
/// The text has no name that the peer chose, so it may go into a log or a report.
pub fn explain(error: &Error) -> String {
    let words = match error {
        Error::InvalidCertificate(fault) => return certificate(fault),
        Error::General(words) => words,
        Error::NoCertificatesPresented => "the server shows no certificate; it has to be given one",
        Error::AlertReceived(alert) => return format!("the server refused it ({alert:?})"),
        Error::InvalidMessage(_) => "what the server says is no TLS; see that the port is the right one",
        Error::PeerIncompatible(_) => return format!("{error}; the server has to allow TLS 1.2 or 1.3"),
        _ => return error.to_string(),
    };
    words.to_owned()
}

fn certificate(fault: &CertificateError) -> String {
    let words = match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired; it has to be renewed, unless this host's clock is wrong"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet; see that this host's clock is right"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name; connect by a name that it has, or get one for this name"
        }
        CertificateError::UnknownIssuer => {
            "the certificate is signed by no authority that is trusted here; add that authority to the roots"
        }
        CertificateError::BadSignature => {
            "the certificate is not signed by the authority that it names, or not the server's own"
        }
        CertificateError::BadEncoding => "the certificate is not well-formed; make or copy it again",
        CertificateError::Revoked => "the certificate is revoked; it has to be replaced",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not for servers; get one with the purpose `serverAuth`"
        }
        // What webpki or DANE finds, and rustls has no name for.
        CertificateError::Other(fault) => match format!("{:?}", fault.0).as_str() {
            "CaUsedAsEndEntity" => {
                "the certificate is an authority's own and not a server's; make the server one with \
                 `openssl req -x509 -addext basicConstraints=critical,CA:FALSE`, or trust this very one with \
                 `tls::pinned_to`"
            }
            "UnsupportedCertVersion" => {
                "the certificate is of X.509 version 1, which TLS does not take; make one of version 3, with \
                 `openssl req -x509`, or `openssl x509 -req` with -extfile"
            }
            "NotPinned" => {
                "the certificate is none of those that are trusted; if the server has a new one, trust that one"
            }
            "NoTlsaMatch" => {
                "no TLSA record in the DNS is about the certificate; publish a record for it, or correct the one there"
            }
            fault => return format!("the certificate is not good ({fault}); get another"),
        },
        fault => return format!("the certificate is not good ({fault:?}); get another"),
    };
    words.to_owned()
}
