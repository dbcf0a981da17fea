//! The key that a server stores in place of a password (RFC 5802 section 3).

use alloc::{format, string::String, vec::Vec};
use core::ops::RangeInclusive;

use hmac::{Hmac, KeyInit as _, Mac as _};
use posthaste_wire::Secret;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

use super::{MAX_ITERATIONS, MIN_ITERATIONS};
use crate::sasl::{
    base64::{decode, encode},
    prepare,
};

/// Octets of a salt, as [`UnknownUsers`] makes them. Use the same length for real users, so that a
/// client cannot tell which users exist.
pub const SALT_LENGTH: usize = 16;

/// Octets of a salt that are accepted. With more, the challenge would not fit a reply line.
const SALT_LENGTHS: RangeInclusive<usize> = 8..=64;

const SCHEME: &str = "SCRAM-SHA-256";

/// The stored key of a user. It checks a password or a proof, and is no password itself. With a
/// stolen key a thief can impersonate the server, and can test guesses of the password.
///
/// ```
/// use posthaste_session::sasl::ScramKey;
/// // Use a fresh random salt for each user.
/// let key = ScramKey::derive("pencil", &[9; 16], 4_096)?;
/// let stored = key.to_text();
/// assert!(stored.expose().starts_with("SCRAM-SHA-256$4096:CQkJCQkJCQkJCQkJCQkJCQ==$"));
/// let key: ScramKey = stored.expose().parse()?;
/// assert!(key.verify("pencil") && !key.verify("pen"));
/// # Ok::<(), posthaste_session::sasl::KeyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ScramKey {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Secret<[u8; 32]>,
    server_key: Secret<[u8; 32]>,
    /// `false`: made up for a user who does not exist.
    is_real: bool,
}

/// Why a key cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// SASLprep refuses the password.
    #[error("SASLprep refuses the password")]
    Password,
    /// The salt does not have 8 to 64 octets.
    #[error("a salt has 8 to 64 octets")]
    Salt,
    /// The iteration count is below [`MIN_ITERATIONS`] or above [`MAX_ITERATIONS`].
    #[error("the iteration count is not within 4,096 to 1,000,000")]
    Iterations,
    /// The text is no stored key of SCRAM-SHA-256.
    #[error("the text is no stored key of SCRAM-SHA-256")]
    Text,
}

/// How to answer for users who do not exist, so that a client cannot tell which users do. A name
/// always gets the same salt, and the login is refused at the end.
#[derive(Debug, Clone)]
pub struct UnknownUsers {
    secret: Secret<[u8; 32]>,
    iterations: u32,
}

impl ScramKey {
    /// Derives the key from a password, which SASLprep prepares. It blocks for the time of the
    /// iterations.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Result<Self, KeyError> {
        check(salt, iterations)?;
        let password = prepare(password).map_err(|_| KeyError::Password)?;
        let salted = salted_password(&password, salt, iterations);
        Ok(Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: Secret::new(hash(&client_key(&salted))),
            server_key: Secret::new(server_key(&salted)),
            is_real: true,
        })
    }

    /// Makes a key from the parts that a database has.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_parts(
        salt: &[u8],
        iterations: u32,
        stored_key: Secret<[u8; 32]>,
        server_key: Secret<[u8; 32]>,
    ) -> Result<Self, KeyError> {
        check(salt, iterations)?;
        Ok(Self { salt: salt.to_vec(), iterations, stored_key, server_key, is_real: true })
    }

    /// The key as text to store, in the form of RFC 5803, as PostgreSQL has it:
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
    pub fn to_text(&self) -> Secret<String> {
        let (stored, server) = (encode(self.stored_key.expose()), encode(self.server_key.expose()));
        Secret::new(format!("{SCHEME}${}:{}${stored}:{server}", self.iterations, encode(&self.salt)))
    }

    /// Returns `true` if it is the key of this password, for PLAIN and LOGIN. It blocks for the
    /// time of the iterations, for the key of an unknown user too.
    pub fn verify(&self, password: &str) -> bool {
        let Ok(password) = prepare(password) else { return false };
        let salted = salted_password(&password, &self.salt, self.iterations);
        self.is_of(&client_key(&salted)).into()
    }

    /// The salt.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The number of iterations of PBKDF2.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Returns `true` if a client's proof is right (RFC 5802 section 3), in constant time.
    pub(super) fn proves(&self, auth_message: &str, proof: &[u8; 32]) -> bool {
        let signature = hmac(self.stored_key.expose(), auth_message.as_bytes());
        self.is_of(&xor(proof, &signature)).into()
    }

    /// The server's signature.
    pub(super) fn server_signature(&self, auth_message: &str) -> [u8; 32] {
        hmac(self.server_key.expose(), auth_message.as_bytes())
    }

    fn is_of(&self, client_key: &[u8; 32]) -> Choice {
        hash(client_key).ct_eq(self.stored_key.expose()) & Choice::from(u8::from(self.is_real))
    }
}

impl core::str::FromStr for ScramKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut fields = text.split('$');
        let (Some(SCHEME), Some(salted), Some(keys), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(KeyError::Text);
        };
        let (iterations, salt) = salted.split_once(':').ok_or(KeyError::Text)?;
        let (stored, server) = keys.split_once(':').ok_or(KeyError::Text)?;
        let octets = |text: &str| decode(text.as_bytes()).map_err(|_| KeyError::Text);
        let key = |text| octets(text)?.try_into().map(Secret::new).map_err(|_| KeyError::Text);
        let iterations = iterations.parse().map_err(|_| KeyError::Text)?;
        Self::from_parts(&octets(salt)?, iterations, key(stored)?, key(server)?)
    }
}

impl UnknownUsers {
    /// Takes a secret of 32 random octets and the number of iterations. The secret is the same for
    /// all servers of one service, and after a restart.
    ///
    /// Use the number of iterations of your users' keys. With another number a client can tell
    /// which users do not exist. A number below [`MIN_ITERATIONS`] or above [`MAX_ITERATIONS`]
    /// counts as that limit.
    pub fn new(secret: Secret<[u8; 32]>, iterations: u32) -> Self {
        Self { secret, iterations: iterations.clamp(MIN_ITERATIONS, MAX_ITERATIONS) }
    }

    /// A key for a name without a user. Its salt is always the same, and no password is right.
    pub fn key(&self, name: &str) -> ScramKey {
        let part = |purpose: &str| hmac(self.secret.expose(), format!("{purpose}\0{name}").as_bytes());
        ScramKey {
            salt: part("salt").into_iter().take(SALT_LENGTH).collect(),
            iterations: self.iterations,
            stored_key: Secret::new(part("stored key")),
            server_key: Secret::new(part("server key")),
            is_real: false,
        }
    }
}

fn check(salt: &[u8], iterations: u32) -> Result<(), KeyError> {
    if !SALT_LENGTHS.contains(&salt.len()) {
        return Err(KeyError::Salt);
    }
    if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
        return Err(KeyError::Iterations);
    }
    Ok(())
}

/// `Hi(Normalize(password), salt, i)` of a prepared password.
pub(super) fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, iterations)
}

pub(super) fn client_key(salted_password: &[u8; 32]) -> [u8; 32] {
    hmac(salted_password, b"Client Key")
}

pub(super) fn server_key(salted_password: &[u8; 32]) -> [u8; 32] {
    hmac(salted_password, b"Server Key")
}

pub(super) fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // 32 octets fit a block, so this cannot fail.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    Hmac::<Sha256>::new(&block).chain_update(message).finalize().into_bytes().into()
}

pub(super) fn hash(octets: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(octets).into()
}

pub(super) fn xor(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    let mut result = *one;
    result.iter_mut().zip(other).for_each(|(octet, with)| *octet ^= with);
    result
}
