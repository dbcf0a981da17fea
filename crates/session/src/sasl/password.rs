//! PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).

use alloc::{format, string::String, vec::Vec};

use posthaste_wire::Secret;

use super::{ChooseError, ClientStep, Credentials, SaslError, ServerFault, ServerStep};

/// Reads `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
pub(super) fn read_plain(message: Vec<u8>) -> Result<Credentials, SaslError> {
    let text = String::from_utf8(message).map_err(|_| SaslError::Malformed)?;
    let mut parts = text.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(authzid), Some(authcid), Some(password), None) if !authcid.is_empty() && !password.is_empty() => {
            Ok(Credentials {
                authorization_identity: (!authzid.is_empty() && authzid != authcid).then(|| authzid.into()),
                authentication_identity: authcid.into(),
                password: Secret::new(password.into()),
            })
        }
        _ => Err(SaslError::Malformed),
    }
}

/// Writes it.
pub(super) fn write_plain(who: &Credentials) -> Result<Secret<String>, ChooseError> {
    check(who)?;
    let authzid = who.authorization_identity.as_deref().unwrap_or_default();
    if authzid.contains('\0') {
        return Err(ChooseError::Credentials);
    }
    Ok(Secret::new(format!("{authzid}\0{}\0{}", who.authentication_identity, who.password.expose())))
}

/// RFC 4616 has no empty names or passwords, and no NUL in them. LOGIN follows the same rule.
fn check(who: &Credentials) -> Result<(), ChooseError> {
    let is_fit = |text: &str| !text.is_empty() && !text.contains('\0');
    if is_fit(&who.authentication_identity) && is_fit(who.password.expose()) {
        Ok(())
    } else {
        Err(ChooseError::Credentials)
    }
}

/// The server's side of LOGIN: the name, once it has come.
#[derive(Debug, Default)]
pub(super) struct LoginServer(Option<String>);

impl LoginServer {
    pub(super) fn prompt() -> ServerStep {
        ServerStep::Challenge(b"Username:".to_vec())
    }

    pub(super) fn respond(&mut self, response: Vec<u8>) -> Result<ServerStep, SaslError> {
        let text = String::from_utf8(response).map_err(|_| SaslError::Malformed)?;
        if text.is_empty() || text.contains('\0') {
            return Err(SaslError::Malformed);
        }
        Ok(match self.0.take() {
            None => {
                self.0 = Some(text);
                ServerStep::Challenge(b"Password:".to_vec())
            }
            Some(name) => ServerStep::Password(Credentials {
                authorization_identity: None,
                authentication_identity: name,
                password: Secret::new(text),
            }),
        })
    }
}

/// The client's side of LOGIN. It ignores the text of the challenges, which differs between
/// servers, and relies on their order.
#[derive(Debug)]
pub(super) struct LoginClient {
    who: Credentials,
    given: u8,
}

impl LoginClient {
    pub(super) fn new(who: Credentials) -> Result<Self, ChooseError> {
        check(&who)?;
        // LOGIN has no authorization identity. Without this check mail would be sent under the
        // wrong name.
        if who.authorization_identity.is_some() {
            return Err(ChooseError::Credentials);
        }
        Ok(Self { who, given: 0 })
    }

    /// Octets of the longer of the two responses.
    pub(super) fn longest(&self) -> usize {
        self.who.authentication_identity.len().max(self.who.password.expose().len())
    }

    pub(super) fn respond(&mut self) -> ClientStep {
        self.given = self.given.saturating_add(1);
        match self.given {
            1 => ClientStep::respond(&self.who.authentication_identity),
            2 => ClientStep::respond(self.who.password.expose()),
            _ => ClientStep::GiveUp(ServerFault::UnexpectedChallenge),
        }
    }
}
