//! What a session came to (RFC 8460 sections 4.3 and 6.6).

use posthaste_tokio::{
    ClientError,
    rustls::{CertificateError, Error},
};

use crate::{ConnectError, Stage};

/// The kind of policy that a session followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyType {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// None was found.
    NoPolicyFound,
}

/// Why a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResultType {
    /// The host does not offer STARTTLS.
    StarttlsNotSupported,
    /// The certificate is not for the host's name.
    CertificateHostMismatch,
    /// The certificate has expired, or is not valid yet.
    CertificateExpired,
    /// No authority that is trusted has signed the certificate.
    CertificateNotTrusted,
    /// Another failure, such as a host that the policy does not permit. Give a reason.
    ValidationFailure,
    /// No TLSA record is valid.
    TlsaInvalid,
    /// The DNS answer is not validated.
    DnssecInvalid,
    /// The sender demands DANE and the host has no usable record.
    DaneRequired,
    /// The MTA-STS policy cannot be fetched.
    StsPolicyFetchError,
    /// The MTA-STS policy or its TXT record has a fault.
    StsPolicyInvalid,
    /// The certificate of the MTA-STS policy host proves nothing.
    StsWebpkiInvalid,
}

impl PolicyType {
    /// The word of the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tlsa => "tlsa",
            Self::Sts => "sts",
            Self::NoPolicyFound => "no-policy-found",
        }
    }
}

impl ResultType {
    /// The word of the report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StarttlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }

    /// What a connection that failed is reported as. `None`: TLS was not the reason.
    pub fn of(error: &ConnectError) -> Option<Self> {
        match error {
            ConnectError::TlsUnavailable | ConnectError::Refused { stage: Stage::StartTls, .. } => {
                Some(Self::StarttlsNotSupported)
            }
            ConnectError::Tls(ClientError::Io(error)) => {
                let fault = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
                Some(fault.map_or(Self::ValidationFailure, Self::from))
            }
            ConnectError::OpportunisticTls(error) => Some(Self::of(error).unwrap_or(Self::ValidationFailure)),
            error if error.stage() == Stage::StartTls => Some(Self::ValidationFailure),
            _ => None,
        }
    }
}

/// A handshake that failed.
impl From<&Error> for ResultType {
    fn from(error: &Error) -> Self {
        let Error::InvalidCertificate(fault) = error else { return Self::ValidationFailure };
        match fault {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::CertificateHostMismatch
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::CertificateExpired,
            _ => Self::CertificateNotTrusted,
        }
    }
}

#[cfg(feature = "mta-sts")]
impl From<&crate::mta_sts::Problem> for ResultType {
    fn from(problem: &crate::mta_sts::Problem) -> Self {
        use crate::mta_sts::{FetchError, Problem};
        match problem {
            Problem::Fetch(FetchError::Certificate(_)) => Self::StsWebpkiInvalid,
            Problem::Dns(_) | Problem::Fetch(_) => Self::StsPolicyFetchError,
            Problem::Record(_) | Problem::Policy(_) => Self::StsPolicyInvalid,
        }
    }
}
