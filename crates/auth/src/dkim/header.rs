//! A header in its fields, and their canonical forms (RFC 6376 sections 3.4.1 and 3.4.2).

use memchr::memmem;

use super::{SignError, options::Canonicalization};

/// A field of a header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'h> {
    /// Without the colon.
    pub(crate) name: &'h [u8],
    /// What stands after the colon, folded as it came, without the line end.
    pub(crate) value: &'h [u8],
    /// The field as it came, without the line end.
    whole: &'h [u8],
}

/// Where the empty line that ends a header ends, as an offset in `piece`. The pieces before it are
/// in `held`. A message that begins with an empty line has an empty header.
pub(crate) fn end(held: &[u8], piece: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    if held.len() < 2 {
        let start: Vec<u8> = held.iter().chain(piece).take(2).copied().collect();
        if start == b"\r\n" {
            return Some(2 - held.len());
        }
    }
    let before = held.get(held.len().saturating_sub(END.len() - 1)..).unwrap_or_default();
    let seam: Vec<u8> = before.iter().chain(piece.iter().take(END.len() - 1)).copied().collect();
    match memmem::find(&seam, END) {
        Some(at) => (at + END.len()).checked_sub(before.len()),
        None => Some(memmem::find(piece, END)? + END.len()),
    }
}

/// The fields, in order. The empty line at the end may be there or not, and so may the last line
/// end.
///
/// # Errors
/// [`SignError::NotAField`], [`SignError::BlankBeforeColon`], [`SignError::BareLineEnd`],
/// [`SignError::Nul`].
pub(crate) fn fields(header: &[u8]) -> Result<Vec<Field<'_>>, SignError> {
    let header = header.strip_suffix(b"\r\n").unwrap_or(header);
    // If there was an empty line, this is the line end of the last field.
    let header = header.strip_suffix(b"\r\n").unwrap_or(header);
    let mut fields = Vec::new();
    let mut rest = header;
    let mut line = 1;
    while !rest.is_empty() {
        let (whole, after, lines) = one(rest, line)?;
        let colon = whole.iter().position(|octet| *octet == b':').ok_or(SignError::NotAField { line })?;
        let (name, value) = whole.split_at_checked(colon).ok_or(SignError::NotAField { line })?;
        if matches!(name, [_, .., b' ' | b'\t']) {
            return Err(SignError::BlankBeforeColon { line });
        }
        if name.is_empty() || !name.iter().all(|octet| matches!(octet, b'!'..=b'~')) {
            return Err(SignError::NotAField { line });
        }
        fields.push(Field { name, value: value.get(1..).unwrap_or_default(), whole });
        rest = after;
        line += lines;
    }
    Ok(fields)
}

/// The first field without its line end, what comes after it, and its number of lines.
fn one(header: &[u8], first_line: usize) -> Result<(&[u8], &[u8], usize), SignError> {
    let mut from = 0;
    let mut lines = 1;
    loop {
        let line = first_line + lines - 1;
        let rest = header.get(from..).unwrap_or_default();
        let length = memmem::find(rest, b"\r\n").unwrap_or(rest.len());
        let text = rest.get(..length).unwrap_or_default();
        if text.iter().any(|octet| matches!(octet, b'\r' | b'\n')) {
            return Err(SignError::BareLineEnd { line: Some(line) });
        }
        if text.contains(&0) {
            return Err(SignError::Nul { line });
        }
        let end = from + length;
        let after = header.get(end + 2..).unwrap_or_default();
        if !matches!(after.first(), Some(b' ' | b'\t')) {
            return Ok((header.get(..end).unwrap_or_default(), after, lines));
        }
        from = end + 2;
        lines += 1;
    }
}

/// Writes the canonical form of a field, without its line end.
pub(crate) fn write_canonical(canonicalization: Canonicalization, field: Field<'_>, out: &mut Vec<u8>) {
    match canonicalization {
        Canonicalization::Simple => out.extend_from_slice(field.whole),
        Canonicalization::Relaxed => {
            out.extend(field.name.iter().map(u8::to_ascii_lowercase));
            out.push(b':');
            // Unfolded: a line end in a field is followed by a blank.
            let words = field.value.split(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n'));
            for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_header_is_found_in_every_cut() {
        for (message, expected) in [
            (&b"A: b\r\n\r\nbody\r\n\r\n"[..], Some(8)),
            (b"\r\nbody", Some(2)),
            (b"A: b\r\n\r\n", Some(8)),
            (b"A: b\r\n\r\r\n\r\n", Some(11)),
            (b"A: b\r\n", None),
            (b"A: b\n\n", None),
            (b"\n\r\n", None),
            (b"", None),
        ] {
            for first in 0..=message.len() {
                for second in first..=message.len() {
                    let pieces = [&message[..first], &message[first..second], &message[second..]];
                    let (mut held, mut found) = (Vec::new(), None);
                    for piece in pieces {
                        if found.is_none() {
                            found = end(&held, piece).map(|offset| held.len() + offset);
                            held.extend_from_slice(piece);
                        }
                    }
                    assert_eq!(found, expected, "{:?} {first} {second}", message.escape_ascii().to_string());
                }
            }
        }
    }

    #[test]
    fn fields_are_canonical_as_the_rfc_shows() {
        // RFC 6376 section 3.4.5, but for the blank before a colon.
        let fields = fields(b"A: X\r\nB: Y\t\r\n\tZ  \r\n\r\n").unwrap();
        let canonical = |canonicalization| {
            let mut out = Vec::new();
            for field in &fields {
                write_canonical(canonicalization, *field, &mut out);
                out.extend_from_slice(b"\r\n");
            }
            String::from_utf8(out).unwrap()
        };
        assert_eq!(canonical(Canonicalization::Relaxed), "a:X\r\nb:Y Z\r\n");
        assert_eq!(canonical(Canonicalization::Simple), "A: X\r\nB: Y\t\r\n\tZ  \r\n");
    }

    #[test]
    fn a_line_that_is_no_field_is_an_error_with_its_number() {
        for (header, expected) in [
            (&b"A: b\r\nno field\r\n\r\n"[..], SignError::NotAField { line: 2 }),
            (b"A: b\r\n c\r\n: d\r\n\r\n", SignError::NotAField { line: 3 }),
            (b" A: b\r\n\r\n", SignError::NotAField { line: 1 }),
            (b"A b: c\r\n\r\n", SignError::NotAField { line: 1 }),
            (b"A: b\r\nFrom : c\r\n\r\n", SignError::BlankBeforeColon { line: 2 }),
            (b"A\t: b\r\n\r\n", SignError::BlankBeforeColon { line: 1 }),
            (b"\xc3\xa4: b\r\n\r\n", SignError::NotAField { line: 1 }),
            (b"From a@b Mon\r\nA: b\r\n\r\n", SignError::NotAField { line: 1 }),
            (b"A: b\nBcc: c\r\n\r\n", SignError::BareLineEnd { line: Some(1) }),
            (b"A: b\r\n c\rd\r\n\r\n", SignError::BareLineEnd { line: Some(2) }),
            (b"A: b\r\nB: \0\r\n\r\n", SignError::Nul { line: 2 }),
        ] {
            let found = fields(header).map(|_| ()).unwrap_err();
            assert_eq!(found, expected, "{:?}", header.escape_ascii().to_string());
        }
        assert_eq!(fields(b"A:\r\nB:b").unwrap().len(), 2);
        assert_eq!(fields(b"\r\n").unwrap().len(), 0);
        assert_eq!(fields(b"").unwrap().len(), 0);
    }
}
