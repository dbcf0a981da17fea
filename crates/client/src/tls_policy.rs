//! The TLS that a connection needs.

use std::sync::Arc;

use posthaste_tokio::{
    rustls::ClientConfig,
    tls::{ClientCertificate, Pem, Roots, TlsError, any_certificate, pinned_to, verified_by},
};

/// The TLS that a connection needs. No mail is sent before it is there.
///
/// | | protects against eavesdroppers | refuses impostors | if TLS is not possible |
/// |---|---|---|---|
/// | `Off` | no | no | the mail goes in clear |
/// | `Opportunistic` | unless they interfere | no | the mail goes in clear |
/// | `Required`, `Implicit` with [`Identity::Unverified`] | yes | no | the mail waits |
/// | `Required`, `Implicit` with [`Identity::Verified`] | yes | yes | the mail waits |
///
/// [`opportunistic`](Self::opportunistic), [`required`](Self::required) and
/// [`implicit`](Self::implicit) need cargo features and no other setup. For an authority of your
/// own:
///
/// ```no_run
/// use posthaste_client::{Identity, Tls, tls::Roots};
///
/// let tls = Tls::Required(Identity::verified(Roots::empty().add_pem_file("authority.pem")?)?);
/// # Ok::<(), posthaste_client::tls::TlsError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// None.
    #[default]
    Off,
    /// STARTTLS if the server offers it (RFC 7435), with any certificate that the configuration
    /// takes.
    ///
    /// The mail goes in clear if the server does not offer STARTTLS or refuses it, or if no
    /// certificate can be for the name of the server. A handshake that breaks ends the connection:
    /// [`Client::connect`](crate::Client::connect) then makes another without TLS, and after
    /// [`Client::start`](crate::Client::start)
    /// [`ConnectError::suggests_clear`](crate::ConnectError::suggests_clear) says that the caller
    /// may.
    Opportunistic(Arc<ClientConfig>),
    /// STARTTLS, or no mail.
    Required(Identity),
    /// TLS from the first octet (RFC 8314), or no mail.
    Implicit(Identity),
}

/// What a handshake proves about the server, with the rustls configuration that does it.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The server is the one that the mail is for. Mail with REQUIRETLS goes only here (RFC 8689
    /// section 4.2.1), and so do passwords.
    ///
    /// The caller must keep two conditions: the configuration verifies the certificate for the
    /// server's name, or knows the certificate, and no attacker chose the name. It came from the
    /// configuration, or from DNS with DNSSEC or MTA-STS.
    Verified(Arc<ClientConfig>),
    /// The server may be an impostor. TLS protects against eavesdroppers only.
    Unverified(Arc<ClientConfig>),
}

/// The TLS of the connections to one host, where hosts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTls {
    /// The TLS, in place of [`ClientOptions::tls`](crate::ClientOptions::tls).
    pub tls: Tls,
    /// The name that the handshake tells the server (RFC 6066 section 3), and that a certificate is
    /// checked for. `None`: the name of the host.
    pub server_name: Option<Arc<str>>,
}

impl From<Tls> for HostTls {
    fn from(tls: Tls) -> Self {
        Self { tls, server_name: None }
    }
}

impl Tls {
    /// STARTTLS if it is offered, whatever the certificate. Needs the cargo feature `aws-lc-rs` or
    /// `ring`.
    ///
    /// # Errors
    /// [`TlsError::NoProvider`].
    pub fn opportunistic() -> Result<Self, TlsError> {
        Ok(Self::Opportunistic(any_certificate()?))
    }

    /// STARTTLS with a certificate of a public authority for the server's name. Needs the cargo
    /// features `aws-lc-rs` or `ring`, and `native-roots` or `webpki-roots`. Blocks on files.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`], [`TlsError::NoProvider`].
    pub fn required() -> Result<Self, TlsError> {
        Ok(Self::Required(Identity::verified(Roots::system()?)?))
    }

    /// TLS from the first octet, otherwise as [`required`](Self::required).
    ///
    /// # Errors
    /// [`TlsError::NoRoots`], [`TlsError::NoProvider`].
    pub fn implicit() -> Result<Self, TlsError> {
        Ok(Self::Implicit(Identity::verified(Roots::system()?)?))
    }

    /// Returns `true` if no mail and no password goes without TLS.
    pub const fn is_demanded(&self) -> bool {
        self.identity().is_some()
    }

    /// Returns `true` if a connection with it has proved who the server is.
    pub const fn is_verified(&self) -> bool {
        matches!(self.identity(), Some(Identity::Verified(_)))
    }

    /// The same TLS, which then proves no identity: for a name that an attacker may have chosen,
    /// such as one from DNS without DNSSEC.
    #[must_use]
    pub fn unproven(self) -> Self {
        let unproven = |identity| match identity {
            Identity::Verified(config) | Identity::Unverified(config) => Identity::Unverified(config),
        };
        match self {
            Self::Off | Self::Opportunistic(_) => self,
            Self::Required(identity) => Self::Required(unproven(identity)),
            Self::Implicit(identity) => Self::Implicit(unproven(identity)),
        }
    }

    /// The same TLS, with a certificate that the client shows to servers that ask for one. What a
    /// server has to prove stays as it is.
    #[must_use]
    pub fn showing(&self, certificate: &ClientCertificate) -> Self {
        let shown = |identity: &Identity| match identity {
            Identity::Verified(config) => Identity::Verified(certificate.shown_by(config)),
            Identity::Unverified(config) => Identity::Unverified(certificate.shown_by(config)),
        };
        match self {
            Self::Off => Self::Off,
            Self::Opportunistic(config) => Self::Opportunistic(certificate.shown_by(config)),
            Self::Required(identity) => Self::Required(shown(identity)),
            Self::Implicit(identity) => Self::Implicit(shown(identity)),
        }
    }

    const fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Off | Self::Opportunistic(_) => None,
            Self::Required(identity) | Self::Implicit(identity) => Some(identity),
        }
    }
}

impl Identity {
    /// The server's certificate is for its name and signed by one of these authorities.
    ///
    /// # Errors
    /// [`TlsError::NoRoots`], [`TlsError::NoProvider`].
    pub fn verified(roots: Roots) -> Result<Self, TlsError> {
        Ok(Self::Verified(verified_by(roots)?))
    }

    /// The server has one of these very certificates, such as one that it has signed itself. Its
    /// name and its dates do not count: see [`pinned_to`].
    ///
    /// ```no_run
    /// use posthaste_client::{Identity, Tls, tls::Pem};
    ///
    /// let tls = Tls::Required(Identity::pinned(&Pem::file("bridge.pem")?)?);
    /// # Ok::<(), posthaste_client::tls::TlsError>(())
    /// ```
    ///
    /// # Errors
    /// As [`pinned_to`].
    pub fn pinned(certificates: &Pem) -> Result<Self, TlsError> {
        Ok(Self::Verified(pinned_to(certificates)?))
    }

    /// The server has any certificate.
    ///
    /// # Errors
    /// [`TlsError::NoProvider`].
    pub fn unverified() -> Result<Self, TlsError> {
        Ok(Self::Unverified(any_certificate()?))
    }

    /// The rustls configuration.
    pub const fn config(&self) -> &Arc<ClientConfig> {
        match self {
            Self::Verified(config) | Self::Unverified(config) => config,
        }
    }
}

/// Two are equal if they share one rustls configuration.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Off, Self::Off) => true,
            (Self::Opportunistic(one), Self::Opportunistic(other)) => Arc::ptr_eq(one, other),
            (Self::Required(one), Self::Required(other)) | (Self::Implicit(one), Self::Implicit(other)) => one == other,
            (Self::Off | Self::Opportunistic(_) | Self::Required(_) | Self::Implicit(_), _) => false,
        }
    }
}

impl Eq for Tls {}

/// Two are equal if they share one rustls configuration.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Verified(one), Self::Verified(other)) | (Self::Unverified(one), Self::Unverified(other)) => {
                Arc::ptr_eq(one, other)
            }
            (Self::Verified(_), Self::Unverified(_)) | (Self::Unverified(_), Self::Verified(_)) => false,
        }
    }
}

impl Eq for Identity {}
