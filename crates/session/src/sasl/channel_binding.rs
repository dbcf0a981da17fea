//! Channel bindings, which tie an exchange to its TLS connection (RFC 5056).

use alloc::vec::Vec;
use core::fmt;

use posthaste_wire::Secret;

/// The label for the export of keying material for [`ChannelBinding::tls_exporter`]. Export 32
/// octets with an empty context (RFC 9266 section 2).
pub const TLS_EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A kind of channel binding. `tls-unique` (RFC 5929) is left out because TLS 1.3 does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelBindingKind {
    /// `tls-exporter` (RFC 9266): bound to this connection. For TLS 1.3, and for TLS 1.2 with an
    /// extended master secret.
    TlsExporter,
    /// `tls-server-end-point` (RFC 5929 section 4): bound to the server's certificate.
    TlsServerEndPoint,
}

impl ChannelBindingKind {
    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsExporter => "tls-exporter",
            Self::TlsServerEndPoint => "tls-server-end-point",
        }
    }
}

impl fmt::Display for ChannelBindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The channel binding of one TLS connection. Both sides must have the same.
#[derive(Debug, Clone)]
pub struct ChannelBinding {
    pub(super) kind: ChannelBindingKind,
    pub(super) data: Secret<Vec<u8>>,
}

impl ChannelBinding {
    /// From the keying material exported with [`TLS_EXPORTER_LABEL`].
    pub fn tls_exporter(keying_material: [u8; 32]) -> Self {
        Self { kind: ChannelBindingKind::TlsExporter, data: Secret::new(keying_material.to_vec()) }
    }

    /// From the hash of the server's certificate in DER. Use the hash function of its signature,
    /// and SHA-256 in place of MD5 and SHA-1 (RFC 5929 section 4.1).
    pub fn tls_server_end_point(certificate_hash: &[u8]) -> Self {
        Self { kind: ChannelBindingKind::TlsServerEndPoint, data: Secret::new(certificate_hash.to_vec()) }
    }

    /// The kind.
    pub const fn kind(&self) -> ChannelBindingKind {
        self.kind
    }
}
