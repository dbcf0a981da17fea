//! Base64 with padding (RFC 4648 section 4), as it travels, with a bound.

use alloc::{string::String, vec::Vec};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_wire::command::MAX_AUTH_LINE;

/// Why text cannot be decoded.
pub(super) enum Undecodable {
    TooLong,
    NoBase64,
}

/// The most octets of base64 text on a line of its own.
pub(super) const MAX_TEXT: usize = MAX_AUTH_LINE - "\r\n".len();

pub(super) fn decode(text: &[u8]) -> Result<Vec<u8>, Undecodable> {
    if text.len() > MAX_TEXT {
        return Err(Undecodable::TooLong);
    }
    STANDARD.decode(text).map_err(|_| Undecodable::NoBase64)
}

pub(super) fn encode(octets: impl AsRef<[u8]>) -> String {
    STANDARD.encode(octets)
}
