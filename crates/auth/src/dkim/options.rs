//! What a signer may be told.

use std::time::Duration;

use super::SignedFields;

/// How a header or a body is brought into a form that survives its way (RFC 6376 section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Canonicalization {
    /// Nearly nothing may change. In the body, empty lines at the end do not count.
    Simple,
    /// Blanks and, in names of fields, case may change.
    Relaxed,
}

impl Canonicalization {
    /// The word in `c=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Relaxed => "relaxed",
        }
    }
}

/// How messages are signed.
///
/// ```
/// use std::time::Duration;
/// use posthaste_auth::dkim::{Canonicalization, SignedFields, SignerOptions};
///
/// let mut options = SignerOptions::default();
/// options.body = Canonicalization::Simple;
/// options.expires_after = Some(Duration::from_secs(14 * 86_400));
/// options.fields = SignedFields::default().if_present("Feedback-ID")?;
/// # Ok::<(), posthaste_auth::dkim::FieldNameError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignerOptions {
    /// The form of the header. Default: relaxed, since relays fold fields in their own way.
    pub header: Canonicalization,
    /// The form of the body. Default: relaxed, since relays cut blanks at the ends of lines.
    pub body: Canonicalization,
    /// The fields that are signed.
    pub fields: SignedFields,
    /// The time after which a signature is no longer valid, `x=`. Default `None`: it stays valid.
    ///
    /// It bounds how long a message can be replayed. It has to exceed the time for which a message
    /// may wait in queues, mostly five days.
    pub expires_after: Option<Duration>,
    /// Octets of a header at most, since it is held in memory until its end. Default
    /// [`DEFAULT_MAX_HEADER`]. Beyond it: [`SignError::HeaderTooLong`](super::SignError).
    pub max_header: usize,
}

/// 256 KiB: Received and ARC fields of many relays have some tens of KiB.
pub const DEFAULT_MAX_HEADER: usize = 256 * 1_024;

impl Default for SignerOptions {
    fn default() -> Self {
        Self {
            header: Canonicalization::Relaxed,
            body: Canonicalization::Relaxed,
            fields: SignedFields::default(),
            expires_after: None,
            max_header: DEFAULT_MAX_HEADER,
        }
    }
}
