//! Identities, and how they are proved.

use alloc::string::String;

use posthaste_wire::Secret;

/// A name with its password.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user to act as, if it was given and differs (RFC 4616: authzid). `None`: the user of the
    /// password.
    pub authorization_identity: Option<String>,
    /// The user whose password it is (RFC 4616: authcid).
    pub authentication_identity: String,
    /// The password as it was typed. RFC 4616 section 2 has the server
    /// [`prepare`](super::prepare()) it before it compares, as
    /// [`ScramKey::verify`](super::ScramKey::verify) does.
    pub password: Secret<String>,
}

impl Credentials {
    /// A name and its password, to act as that name.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            authorization_identity: None,
            authentication_identity: name.into(),
            password: Secret::new(password.into()),
        }
    }
}

/// An OAuth 2.0 bearer token (RFC 6750), from XOAUTH2 or OAUTHBEARER (RFC 7628).
#[derive(Debug, Clone)]
pub struct BearerToken {
    /// The user to act as: the user name of XOAUTH2, which must have one, and the authzid of
    /// OAUTHBEARER.
    pub authorization_identity: Option<String>,
    /// The token, in the characters of RFC 6750 section 2.1.
    pub token: Secret<String>,
    /// The host that the client meant to connect to. A server MUST check it if it is there (RFC
    /// 7628 section 3.2). `None`: it was not given; XOAUTH2 has none.
    pub host: Option<String>,
    /// The port that the client meant to connect to, as [`Self::host`].
    pub port: Option<u16>,
}

impl BearerToken {
    /// A token for a user, as XOAUTH2 and OAUTHBEARER send it. An empty user is none.
    pub fn new(user: &str, token: &str) -> Self {
        let authorization_identity = (!user.is_empty()).then(|| String::from(user));
        Self { authorization_identity, token: Secret::new(String::from(token)), host: None, port: None }
    }
}

/// A client that is known by other means than SASL, such as TLS (RFC 4422 appendix A).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// The client, from
    /// [`ServerContext::external_identity`](super::ServerContext::external_identity).
    pub identity: String,
    /// The user to act as, if it was given and differs.
    pub authorization_identity: Option<String>,
}

/// The user whose key a SCRAM exchange needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramUser {
    /// The user's name, prepared with SASLprep.
    pub authentication_identity: String,
    /// The user to act as, if it was given and differs. Return no key if that is not allowed.
    pub authorization_identity: Option<String>,
}

/// What a client logs in with. It decides which mechanisms are possible.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientCredentials {
    /// A name and a password: the SCRAMs, CRAM-MD5, PLAIN, LOGIN.
    Password(Credentials),
    /// A token: OAUTHBEARER, XOAUTH2.
    Token(BearerToken),
    /// The identity that TLS has proved: EXTERNAL. The name is the user to act as, if that differs.
    External(Option<String>),
    /// No identity: ANONYMOUS. A trace of up to 255 characters that the server may log, such as a
    /// mail address. It may be empty.
    Anonymous(String),
}

impl From<Credentials> for ClientCredentials {
    fn from(credentials: Credentials) -> Self {
        Self::Password(credentials)
    }
}

impl From<BearerToken> for ClientCredentials {
    fn from(token: BearerToken) -> Self {
        Self::Token(token)
    }
}
