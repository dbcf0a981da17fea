//! The signatures of mail that is taken, and of reports.
//!
//! A signature is known after the last octet of a message, and stands before the first. So it is no
//! part of the content in the queue: it is the *front* in the message's record, which readers of
//! the content put before it. Signed is all that follows our Received field.

#[cfg(feature = "dkim")]
mod dkim;
#[cfg(not(feature = "dkim"))]
mod off;

#[cfg(feature = "dkim")]
pub use dkim::{DkimOptions, SignFor, SignatureError, Unsignable};
#[cfg(feature = "dkim")]
pub(crate) use dkim::{Signatures, Signing};
#[cfg(not(feature = "dkim"))]
pub(crate) use off::{SignatureError, Signatures, Signing};
