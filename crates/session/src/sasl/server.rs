//! The server's side of PLAIN and LOGIN.

use alloc::{string::String, vec::Vec};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_wire::Secret;
use thiserror::Error;

/// A SASL exchange as a server holds it.
///
/// ```
/// use posthaste_session::sasl::{ServerMechanism, ServerStep};
/// let mut exchange = ServerMechanism::new("plain").unwrap();
/// let ServerStep::Verify(credentials) = exchange.start(Some("AHRpbQB0YW5zdGFhZnRhbnN0YWFm"))? else { panic!() };
/// assert_eq!(credentials.authentication_identity, "tim");
/// # Ok::<(), posthaste_session::sasl::SaslError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerMechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN (draft-murchison-sasl-login), with the user name once it has come.
    Login(Option<String>),
}

/// What a server does next.
#[derive(Debug)]
pub enum ServerStep {
    /// Send this challenge, which is not yet in base64.
    Challenge(Vec<u8>),
    /// Check these credentials; the exchange is over.
    Verify(Credentials),
}

/// Who somebody says to be.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Whom to act as, when that was said and is somebody else (RFC 4616: authzid).
    pub authorisation_identity: Option<String>,
    /// Whose password it is (RFC 4616: authcid).
    pub authentication_identity: String,
    /// The password.
    pub password: Secret<String>,
}

/// A response that the mechanism cannot read. The reply is 501 5.5.2 (RFC 4954 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SaslError {
    /// It is no base64.
    #[error("the response is no base64")]
    Base64,
    /// It is not what the mechanism says.
    #[error("the response is not what the mechanism asks for")]
    Malformed,
}

impl ServerMechanism {
    /// The mechanism with that name, in any case.
    pub fn new(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("PLAIN") {
            Some(Self::Plain)
        } else if name.eq_ignore_ascii_case("LOGIN") {
            Some(Self::Login(None))
        } else {
            None
        }
    }

    /// Starts with the initial response of AUTH in base64, `=` for an empty one.
    ///
    /// # Errors
    /// [`SaslError`].
    pub fn start(&mut self, initial_response: Option<&str>) -> Result<ServerStep, SaslError> {
        match (initial_response, &self) {
            (Some("="), _) => self.respond(b""),
            (Some(text), _) => self.respond(text.as_bytes()),
            (None, Self::Plain) => Ok(ServerStep::Challenge(Vec::new())),
            (None, Self::Login(_)) => Ok(ServerStep::Challenge(b"Username:".to_vec())),
        }
    }

    /// Goes on with a response in base64.
    ///
    /// # Errors
    /// [`SaslError`].
    pub fn respond(&mut self, response: &[u8]) -> Result<ServerStep, SaslError> {
        let octets = STANDARD.decode(response).map_err(|_| SaslError::Base64)?;
        let text = String::from_utf8(octets).map_err(|_| SaslError::Malformed)?;
        match self {
            Self::Plain => plain(&text).map(ServerStep::Verify),
            Self::Login(name @ None) => {
                *name = Some(text);
                Ok(ServerStep::Challenge(b"Password:".to_vec()))
            }
            Self::Login(Some(name)) => Ok(ServerStep::Verify(Credentials {
                authorisation_identity: None,
                authentication_identity: core::mem::take(name),
                password: Secret::new(text),
            })),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
fn plain(message: &str) -> Result<Credentials, SaslError> {
    let mut parts = message.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(authzid), Some(authcid), Some(password), None) if !authcid.is_empty() && !password.is_empty() => {
            Ok(Credentials {
                authorisation_identity: (!authzid.is_empty() && authzid != authcid).then(|| authzid.into()),
                authentication_identity: authcid.into(),
                password: Secret::new(password.into()),
            })
        }
        _ => Err(SaslError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        STANDARD.encode(text)
    }

    #[test]
    fn plain_reads_three_parts_and_no_more() {
        for (message, who) in [
            ("\0tester\0s3cret pass", Some((None, "tester"))),
            ("tester\0tester\0x", Some((None, "tester"))),
            ("admin\0tester\0x", Some((Some("admin"), "tester"))),
            ("\0tester\0x\0extra", None),
            ("\0\0x", None),
            ("\0tester\0", None),
            ("tester", None),
            ("", None),
        ] {
            let step = ServerMechanism::Plain.start(Some(&encoded(message)));
            let found = step.ok().and_then(|step| match step {
                ServerStep::Verify(credentials) => {
                    Some((credentials.authorisation_identity, credentials.authentication_identity))
                }
                ServerStep::Challenge(_) => None,
            });
            assert_eq!(found, who.map(|(one, two)| (one.map(String::from), String::from(two))), "{message:?}");
        }
    }

    #[test]
    fn login_asks_for_the_name_and_the_password() {
        let mut exchange = ServerMechanism::new("LOGIN").unwrap();
        assert!(matches!(exchange.start(None), Ok(ServerStep::Challenge(text)) if text == b"Username:"));
        assert!(matches!(exchange.respond(b"dGVzdGVy"), Ok(ServerStep::Challenge(text)) if text == b"Password:"));
        assert!(matches!(exchange.respond(b"eA=="), Ok(ServerStep::Verify(who)) if *who.password.expose() == "x"));
    }

    #[test]
    fn what_is_no_base64_is_told_apart() {
        assert!(matches!(ServerMechanism::Plain.respond(b"!!!"), Err(SaslError::Base64)));
        assert!(matches!(ServerMechanism::Plain.respond(b"/w=="), Err(SaslError::Malformed)));
    }
}
