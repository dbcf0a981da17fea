//! SASLprep (RFC 4013).

use alloc::borrow::Cow;

use thiserror::Error;

/// SASLprep refuses the name or password: control characters, private or unassigned code points,
/// mixed writing directions, or an empty result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("SASLprep refuses the name or password")]
pub struct PrepareError;

/// Prepares a name or a password for a comparison, as a stored string. Code points that Unicode 3.2
/// did not have are refused (RFC 5802 section 2.2).
///
/// Without the `std` feature only printable ASCII is taken, which SASLprep does not change. So two
/// builds never prepare a text differently.
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
/// [`PrepareError`], also if the result is empty.
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
