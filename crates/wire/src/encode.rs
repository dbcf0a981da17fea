//! The last check before a line leaves.

use core::fmt::{self, Write as _};

use bytes::BytesMut;

/// A line that must not be sent. The output did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The finished line has a CR, LF or NUL before its end.
    ControlCharacter,
    /// The finished line is longer than the limit for its kind, in octets with CRLF.
    TooLong {
        /// The limit, in octets.
        limit: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlCharacter => f.write_str("the line has a CR, LF or NUL: remove it"),
            Self::TooLong { limit } => write!(f, "the line is longer than {limit} octets with CRLF: shorten it"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Appends `line` and CRLF to `out`. Changes nothing if that is not one line within `limit`.
///
/// The types cannot hold a line break. This second check is there in release builds as well.
pub(crate) fn line(out: &mut BytesMut, limit: usize, line: fmt::Arguments<'_>) -> Result<(), EncodeError> {
    let start = out.len();
    // A write to a BytesMut fails only if the buffer cannot grow, and then the process aborts.
    let written = out.write_fmt(line);
    let text = out.get(start..).unwrap_or_default();
    let fault = if written.is_err() || text.len().saturating_add(2) > limit {
        Some(EncodeError::TooLong { limit })
    } else if text.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
        Some(EncodeError::ControlCharacter)
    } else {
        None
    };
    if let Some(fault) = fault {
        out.truncate(start);
        return Err(fault);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_line_that_must_not_leave_leaves_nothing() {
        let mut out = BytesMut::from(&b"before"[..]);
        for (text, limit, fault) in [
            ("12345", 7, None),
            ("12345", 6, Some(EncodeError::TooLong { limit: 6 })),
            ("1234567", 6, Some(EncodeError::TooLong { limit: 6 })),
            ("1\r2", 9, Some(EncodeError::ControlCharacter)),
            ("1\n2", 9, Some(EncodeError::ControlCharacter)),
            ("1\x002", 9, Some(EncodeError::ControlCharacter)),
        ] {
            out.truncate(6);
            let written = line(&mut out, limit, format_args!("{text}"));
            assert_eq!(written.err(), fault, "{text:?}");
            assert_eq!(out.len(), if fault.is_some() { 6 } else { 13 }, "{text:?}");
        }
    }

    #[test]
    fn an_encode_error_names_its_limit_or_octet() {
        assert!(EncodeError::TooLong { limit: 512 }.to_string().contains("512"));
        assert!(EncodeError::ControlCharacter.to_string().contains("CR"));
    }
}
