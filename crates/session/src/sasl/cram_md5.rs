//! The client's side of CRAM-MD5 (RFC 2195).

use alloc::{format, string::String};
use core::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;

use super::{ChooseError, ClientStep, Credentials, ServerFault};

/// An exchange of one challenge.
#[derive(Debug)]
pub(super) struct CramMd5(Option<Credentials>);

impl CramMd5 {
    pub(super) fn new(who: Credentials) -> Result<Self, ChooseError> {
        let is_fit = |text: &str| !text.is_empty() && !text.contains('\0');
        // CRAM-MD5 has no authorization identity.
        if who.authorization_identity.is_none() && is_fit(&who.authentication_identity) && is_fit(who.password.expose())
        {
            Ok(Self(Some(who)))
        } else {
            Err(ChooseError::Credentials)
        }
    }

    /// Octets of the response.
    pub(super) fn response_length(&self) -> usize {
        self.0.as_ref().map_or(0, |who| who.authentication_identity.len() + " ".len() + 2 * 16)
    }

    /// `user SP digest`, with the password as the key and the challenge as it came.
    pub(super) fn respond(&mut self, challenge: &[u8]) -> ClientStep {
        // The answer to an empty challenge could be used elsewhere.
        if challenge.is_empty() {
            return ClientStep::GiveUp(ServerFault::Malformed);
        }
        let Some(who) = self.0.take() else { return ClientStep::GiveUp(ServerFault::UnexpectedChallenge) };
        // An HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Md5>::new_from_slice(who.password.expose().as_bytes()) else {
            return ClientStep::GiveUp(ServerFault::Malformed);
        };
        mac.update(challenge);
        let digest = mac.finalize().into_bytes().iter().fold(String::new(), |mut hex, octet| {
            // Writing to a String does not fail.
            let _ = write!(hex, "{octet:02x}");
            hex
        });
        ClientStep::respond(format!("{} {digest}", who.authentication_identity))
    }
}
