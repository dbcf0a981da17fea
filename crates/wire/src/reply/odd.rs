//! Replies that are not well formed: their code, and their text in a well-formed reply.

use alloc::vec::Vec;

use super::{Reply, ReplyCode, ReplyLimits};

/// The code at the front of a line. `None`: it has no three digits, or four.
pub(super) fn code(line: &[u8]) -> Option<ReplyCode> {
    let (digits, behind) = line.split_first_chunk()?;
    ReplyCode::from_digits(*digits).filter(|_| !behind.first().is_some_and(u8::is_ascii_digit))
}

/// The line without its end, however odd that is.
pub(super) fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|octet| !matches!(octet, b'\r' | b'\n')).map_or(0, |last| last + 1);
    line.get(..end).unwrap_or_default()
}

/// The text after the code and the separator.
fn text(line: &[u8]) -> &[u8] {
    match line {
        [_, _, _, b' ' | b'-' | b'\t' | b'\r' | 0, text @ ..] | [_, _, _, text @ ..] => text,
        _ => &[],
    }
}

/// A well-formed reply with this code and the text of those lines, within the default
/// [`ReplyLimits`]. Control characters become `?`, longer lines are cut, and further lines are
/// dropped.
pub(super) fn normalized(octets: &[u8], code: ReplyCode) -> Reply {
    let limits = ReplyLimits { line: 2_048, lines: 128, octets: 16 * 1_024 };
    let prefix = "250 ".len();
    let mut normal = Vec::new();
    let mut last = 0;
    let lines = octets.split(|octet| *octet == b'\n').map(trimmed).filter(|line| !line.is_empty());
    for line in lines.take(limits.lines) {
        let text = text(line);
        let text = text.get(..limits.line - prefix - 2).unwrap_or(text);
        if normal.len() + prefix + text.len() + 2 > limits.octets {
            break;
        }
        last = normal.len();
        normal.extend_from_slice(alloc::format!("{code}-").as_bytes());
        normal.extend(text.iter().map(|octet| if octet.is_ascii_control() { b'?' } else { *octet }));
        normal.extend_from_slice(b"\r\n");
    }
    // A reply has at least the line with the code.
    if let Some(separator) = normal.get_mut(last + prefix - 1) {
        *separator = b' ';
    }
    Reply { octets: normal.into(), code }
}
