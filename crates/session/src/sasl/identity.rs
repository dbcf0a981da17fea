//! EXTERNAL (RFC 4422 appendix A) and ANONYMOUS (RFC 4505): no secret travels.

use alloc::{string::String, vec::Vec};

use super::{ChooseError, External, SaslError};

/// The most characters of a trace (RFC 4505 section 2).
const MAX_TRACE: usize = 255;

/// Reads the user to act as, which may be empty.
pub(super) fn read_external(message: Vec<u8>, identity: Option<&str>) -> Result<External, SaslError> {
    let text = String::from_utf8(message).map_err(|_| SaslError::Malformed)?;
    if text.contains('\0') {
        return Err(SaslError::Malformed);
    }
    let identity = identity.ok_or(SaslError::Credentials)?;
    let authorization_identity = (!text.is_empty() && text != identity).then_some(text);
    Ok(External { identity: identity.into(), authorization_identity })
}

/// Writes it.
pub(super) fn write_external(authorization_identity: Option<String>) -> Result<String, ChooseError> {
    let text = authorization_identity.unwrap_or_default();
    if text.contains('\0') { Err(ChooseError::Credentials) } else { Ok(text) }
}

/// Reads a trace. It is logged, so it must be one line.
pub(super) fn read_anonymous(message: Vec<u8>) -> Result<String, SaslError> {
    String::from_utf8(message).ok().filter(|trace| is_trace(trace)).ok_or(SaslError::Malformed)
}

/// Writes a trace.
pub(super) fn write_anonymous(trace: String) -> Result<String, ChooseError> {
    if is_trace(&trace) { Ok(trace) } else { Err(ChooseError::Credentials) }
}

/// RFC 4505 section 3: no line ends, terminal controls or changes of direction (RFC 3454 tables C.2
/// and C.8).
fn is_trace(text: &str) -> bool {
    let is_control = |character: char| {
        character.is_control()
            || matches!(character, '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(character, '\u{70f}' | '\u{180e}' | '\u{feff}' | '\u{fff9}'..='\u{fffd}')
    };
    text.chars().count() <= MAX_TRACE && !text.contains(is_control)
}
