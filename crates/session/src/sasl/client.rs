//! The client's side of PLAIN and LOGIN.

use alloc::{format, string::String};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_wire::{Mechanism, MechanismSet, Secret};

use super::Credentials;

/// A SASL exchange as a client holds it.
#[derive(Debug)]
pub struct ClientMechanism {
    kind: Kind,
    credentials: Credentials,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    /// How many responses have been given.
    Login(u8),
}

impl ClientMechanism {
    /// The best mechanism that the server offers for a password: PLAIN, then LOGIN.
    ///
    /// Both show the password to whoever reads the connection: use them inside TLS only.
    pub fn choose(offered: MechanismSet, credentials: Credentials) -> Option<Self> {
        let kind = match offered {
            _ if offered.contains(Mechanism::Plain) => Kind::Plain,
            _ if offered.contains(Mechanism::Login) => Kind::Login(0),
            _ => return None,
        };
        Some(Self { kind, credentials })
    }

    /// The mechanism's name.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Plain => "PLAIN",
            Kind::Login(_) => "LOGIN",
        }
    }

    /// The initial response in base64, for mechanisms that begin with one.
    pub fn initial_response(&self) -> Option<Secret<String>> {
        match self.kind {
            Kind::Plain => Some(self.plain()),
            Kind::Login(_) => None,
        }
    }

    /// The response to a challenge in base64; nothing when the mechanism has no more to say, which ends the exchange.
    pub fn respond(&mut self) -> Option<Secret<String>> {
        let text = match &mut self.kind {
            Kind::Plain => return None,
            Kind::Login(given) => {
                *given = given.saturating_add(1);
                match given {
                    1 => &self.credentials.authentication_identity,
                    2 => self.credentials.password.expose(),
                    _ => return None,
                }
            }
        };
        Some(Secret::new(STANDARD.encode(text)))
    }

    fn plain(&self) -> Secret<String> {
        let who = &self.credentials;
        let authzid = who.authorisation_identity.as_deref().unwrap_or_default();
        Secret::new(STANDARD.encode(format!("{authzid}\0{}\0{}", who.authentication_identity, who.password.expose())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sasl::{ServerMechanism, ServerStep};

    #[test]
    fn both_sides_understand_each_other() {
        let credentials = Credentials {
            authorisation_identity: None,
            authentication_identity: "tester".into(),
            password: Secret::new("s3cret pass".into()),
        };
        for offered in [MechanismSet::of(&[Mechanism::Plain]), MechanismSet::of(&[Mechanism::Login])] {
            let mut client = ClientMechanism::choose(offered, credentials.clone()).unwrap();
            let mut server = ServerMechanism::new(client.name()).unwrap();
            let initial = client.initial_response();
            let mut step = server.start(initial.as_ref().map(|text| text.expose().as_str())).unwrap();
            let verified = loop {
                match step {
                    ServerStep::Verify(credentials) => break credentials,
                    ServerStep::Challenge(_) => {
                        step = server.respond(client.respond().unwrap().expose().as_bytes()).unwrap();
                    }
                }
            };
            assert_eq!(verified.authentication_identity, "tester");
            assert_eq!(*verified.password.expose(), "s3cret pass");
        }
    }
}
