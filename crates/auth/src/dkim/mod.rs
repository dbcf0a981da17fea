//! DKIM signatures (RFC 6376), with RSA (RFC 8301) and with Ed25519 (RFC 8463).
//!
//! ```text
//!  SigningKey ─▶ KeyRing ─▶ Signer ─ begin ─▶ Signing ─ update* ─ finish(now) ─▶ [Signature], to be put in front
//! ```
//!
//! # Which key signs
//!
//! The domain of the From field decides, or the caller with [`Signer::begin_for`]. First the keys
//! of that very domain are asked, then those of its parents whose [`SigningKey::covers_subdomains`]
//! says so. The nearest domain with a key that is valid now signs, once for each algorithm. Of
//! several valid keys with one algorithm, the one that [`begins`](SigningKey::begins) last signs.
//! Without a key there is no signature, which is no error.
//!
//! # Rotation
//!
//! Add the new key with [`begins`](SigningKey::begins) at a time when its record can be seen
//! everywhere, some days ahead. Until then the old key signs, from then on the new one alone. The
//! old record stays published while mail with its signatures may be on its way, for a week.
//!
//! # What is signed
//!
//! Each field that is signed is sealed: it is named once more in `h=` than the message has it. So
//! it cannot be added again without breaking the signature (RFC 6376 section 8.15). The whole body
//! is signed: there is no `l=`, which would let any host append to it (section 8.2).
//!
//! # What is not signed
//!
//! A message that its readers could understand in different ways is an error. It has a bare CR or
//! LF, a line in the header that is no field, more than one From field, or From with mailboxes of
//! several domains. The caller sends it without a signature, or refuses it.

mod author;
mod body;
mod crypto;
mod error;
mod fields;
mod header;
mod key;
mod options;
mod ring;
mod signature;
mod signer;
#[cfg(test)]
mod vectors;

pub use error::{FieldNameError, KeyError, KeyFault, SignError};
pub use fields::SignedFields;
pub use key::{Algorithm, MAX_KEY_FILE, SigningKey};
pub use options::{Canonicalization, DEFAULT_MAX_HEADER, SignerOptions};
pub use ring::KeyRing;
pub use signature::Signature;
pub use signer::{MAX_SIGNED, Signer, Signing};
