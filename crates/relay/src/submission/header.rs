//! The fields of a header that is in memory.

use std::ops::Range;

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field<'h> {
    pub(super) name: &'h [u8],
    /// All after the colon, with the line ends.
    pub(super) value: &'h [u8],
    /// Where the whole field stands in the header.
    pub(super) at: Range<usize>,
}

/// The fields in their order. Lines that belong to no field are passed over. They are the fields
/// that the relay's [`Inspector`](crate::trace::Inspector) sees: a blank before the colon does not
/// hide one, and a line ends with its LF.
pub(super) fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = header.get(at..).filter(|rest| !rest.is_empty())?;
            let start = at;
            at = start.saturating_add(whole_field(rest));
            let octets = header.get(start..at)?;
            if let Some(length) = name_len(octets) {
                let name = octets.get(..length)?;
                let colon = octets.iter().position(|octet| *octet == b':')?;
                return Some(Field { name, value: octets.get(colon.saturating_add(1)..)?, at: start..at });
            }
        }
    })
}

/// The octets of the first line, and of those after it that begin with a blank.
fn whole_field(text: &[u8]) -> usize {
    let mut ends = text.iter().enumerate().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at.saturating_add(1));
    ends.find(|end| !matches!(text.get(*end), Some(b' ' | b'\t'))).unwrap_or(text.len())
}

/// The octets of the name on a line. `None`: the line begins no field.
fn name_len(line: &[u8]) -> Option<usize> {
    let length = line.iter().position(|octet| !matches!(octet, b'!'..=b'9' | b';'..=b'~'))?;
    let colon = line.get(length..)?.iter().find(|octet| !matches!(octet, b' ' | b'\t'))?;
    (length > 0 && *colon == b':').then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_folded_lines() {
        for (header, found) in [
            ("", &[][..]),
            ("\r\n", &[]),
            ("A: b\r\nC : d\r\n\te\r\n\r\n", &[("A", " b\r\n"), ("C", " d\r\n\te\r\n")]),
            ("A:b", &[("A", "b")]),
            ("no field\r\n goes on\r\nA:b:c\r\n", &[("A", "b:c\r\n")]),
            ("From me Mon Jan 1 00:00\r\nA: b\r\n", &[("A", " b\r\n")]),
            (": x\r\n\u{e4}: x\r\nA\r\n:b\r\nA\r\n", &[]),
            ("A: b\nC: d\n e\n", &[("A", " b\n"), ("C", " d\n e\n")]),
            ("A:\r\n \r\n\r\n", &[("A", "\r\n \r\n")]),
            ("A: b\r\n ", &[("A", " b\r\n ")]),
        ] {
            let fields: Vec<_> = fields(header.as_bytes()).collect();
            let text = |octets| std::str::from_utf8(octets).unwrap();
            let seen: Vec<_> = fields.iter().map(|field| (text(field.name), text(field.value))).collect();
            assert_eq!(seen, found, "{header:?}");
            assert!(fields.iter().all(|field| header[field.at.clone()].starts_with(text(field.name))));
        }
    }
}
