//! SASLprep (RFC 4013).

use alloc::borrow::Cow;

use thiserror::Error;

/// A name or password that SASLprep does not take: control characters, private or unassigned code points, mixed writing
/// directions, or nothing left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("SASLprep does not take it")]
pub struct PrepareError;

/// Prepares a name or a password for a comparison, as a stored string: code points that Unicode 3.2 did not have are
/// refused (RFC 5802 section 2.2).
///
/// Without the `std` feature only printable ASCII is taken, which SASLprep leaves as it is; never does one build prepare
/// to another result than the other.
///
/// ```
/// use posthaste_session::sasl::prepare;
/// assert_eq!(prepare("pencil")?, "pencil");
/// # #[cfg(feature = "std")]
/// assert_eq!(prepare("\u{2168}")?, "IX");
/// assert!(prepare("\u{7}").is_err());
/// # Ok::<(), posthaste_session::sasl::PrepareError>(())
/// ```
///
/// # Errors
/// [`PrepareError`], also when nothing is left of it.
pub fn prepare(text: &str) -> Result<Cow<'_, str>, PrepareError> {
    let prepared = saslprep(text)?;
    if prepared.is_empty() { Err(PrepareError) } else { Ok(prepared) }
}

#[cfg(feature = "std")]
fn saslprep(text: &str) -> Result<Cow<'_, str>, PrepareError> {
    stringprep::saslprep(text).map_err(|_| PrepareError)
}

#[cfg(not(feature = "std"))]
fn saslprep(text: &str) -> Result<Cow<'_, str>, PrepareError> {
    if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) { Ok(Cow::Borrowed(text)) } else { Err(PrepareError) }
}
