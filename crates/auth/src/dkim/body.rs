//! The canonical body (RFC 6376 sections 3.4.3 and 3.4.4) and its hash, over pieces of any cut.

use memchr::memchr2;
use sha2::{Digest as _, Sha256};

use super::options::Canonicalization;

/// The hash of a canonical body. What it keeps between two pieces does not grow with them.
#[derive(Debug, Clone)]
pub(crate) struct BodyHash {
    body: Body,
    hash: Sha256,
}

/// A body on its way to its canonical form.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    canonicalization: Canonicalization,
    /// Line ends that are not written yet: at the end of the body they do not count.
    line_ends: u64,
    /// There are blanks that are not written yet. Relaxed: at the end of a line they do not count.
    has_blank: bool,
    /// The last piece ended with a CR.
    has_cr: bool,
    is_empty: bool,
    has_bare: bool,
}

/// A CR or an LF that is no line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bare;

impl BodyHash {
    pub(crate) fn new(canonicalization: Canonicalization) -> Self {
        Self { body: Body::new(canonicalization), hash: Sha256::new() }
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.body.update(piece, &mut |octets| self.hash.update(octets));
    }

    pub(crate) fn finish(mut self) -> Result<[u8; 32], Bare> {
        self.body.finish(&mut |octets| self.hash.update(octets))?;
        Ok(self.hash.finalize().into())
    }
}

impl Body {
    const fn new(canonicalization: Canonicalization) -> Self {
        Self { canonicalization, line_ends: 0, has_blank: false, has_cr: false, is_empty: true, has_bare: false }
    }

    fn update(&mut self, piece: &[u8], write: &mut impl FnMut(&[u8])) {
        let mut rest = piece;
        if std::mem::take(&mut self.has_cr) {
            match rest.strip_prefix(b"\n") {
                Some(after) => {
                    self.end_line();
                    rest = after;
                }
                None if rest.is_empty() => self.has_cr = true,
                None => self.has_bare = true,
            }
        }
        let is_relaxed = self.canonicalization == Canonicalization::Relaxed;
        while let Some((first, after)) = rest.split_first() {
            match (first, after.first()) {
                (b'\r', Some(b'\n')) => {
                    self.end_line();
                    rest = after.get(1..).unwrap_or_default();
                }
                (b'\r', None) => {
                    self.has_cr = true;
                    rest = after;
                }
                (b'\r' | b'\n', _) => {
                    self.has_bare = true;
                    rest = after;
                }
                (b' ' | b'\t', _) if is_relaxed => {
                    self.has_blank = true;
                    rest = after;
                }
                _ => {
                    let length = if is_relaxed { relaxed_run(rest) } else { simple_run(rest) };
                    // A run is never empty: what begins none was seen above.
                    let (run, after) = rest.split_at_checked(length.max(1)).unwrap_or((rest, &[]));
                    self.write_pending(write);
                    write(run);
                    self.is_empty = false;
                    rest = after;
                }
            }
        }
    }

    fn finish(&mut self, write: &mut impl FnMut(&[u8])) -> Result<(), Bare> {
        if self.has_bare || self.has_cr {
            return Err(Bare);
        }
        // All line ends at the end are one. A line without a line end gets one, which SMTP gives it
        // as well. An empty body is an empty line if simple, and nothing if relaxed.
        match self.canonicalization {
            Canonicalization::Relaxed if self.is_empty => {}
            Canonicalization::Simple | Canonicalization::Relaxed => write(b"\r\n"),
        }
        Ok(())
    }

    fn end_line(&mut self) {
        self.line_ends = self.line_ends.saturating_add(1);
        self.has_blank = false;
    }

    fn write_pending(&mut self, write: &mut impl FnMut(&[u8])) {
        while self.line_ends > 0 {
            let count = usize::try_from(self.line_ends).unwrap_or(usize::MAX).min(LINE_ENDS.len() / 2);
            write(LINE_ENDS.get(..2 * count).unwrap_or_default());
            self.line_ends = self.line_ends.saturating_sub(count as u64);
        }
        if std::mem::take(&mut self.has_blank) {
            write(b" ");
        }
    }
}

/// How many octets at the beginning are canonical as they are: a line end only before more octets.
fn simple_run(octets: &[u8]) -> usize {
    let mut end = 0;
    while let Some(found) = octets.get(end..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
        let at = end + found;
        match octets.get(at..) {
            Some([b'\r', b'\n', next, ..]) if !matches!(next, b'\r' | b'\n') => end = at + 3,
            _ => return at,
        }
    }
    octets.len()
}

/// As [`simple_run`]. A single space before a word is canonical too.
fn relaxed_run(octets: &[u8]) -> usize {
    let mut end = 0;
    while let Some(found) = octets.get(end..).and_then(|rest| rest.iter().position(|octet| *octet <= b' ')) {
        let at = end + found;
        match octets.get(at..) {
            Some([b' ', next, ..]) if *next > b' ' => end = at + 2,
            Some([b'\r', b'\n', next, ..]) if *next > b' ' => end = at + 3,
            Some([b' ' | b'\t' | b'\r' | b'\n', ..]) | None => return at,
            // A control octet is an octet like any other.
            Some(_) => end = at + 1,
        }
    }
    octets.len()
}

/// Line ends that are written at once.
const LINE_ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    /// The canonical form, over pieces of this length.
    fn canonical(canonicalization: Canonicalization, body: &[u8], length: usize) -> Result<Vec<u8>, Bare> {
        let (mut state, mut written) = (Body::new(canonicalization), Vec::new());
        for piece in body.chunks(length) {
            state.update(piece, &mut |octets| written.extend_from_slice(octets));
            state.update(b"", &mut |octets| written.extend_from_slice(octets));
        }
        state.finish(&mut |octets| written.extend_from_slice(octets))?;
        Ok(written)
    }

    /// The rules as RFC 6376 words them, a line at a time.
    fn reference(canonicalization: Canonicalization, body: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(body.to_vec()).unwrap();
        let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        if canonicalization == Canonicalization::Relaxed {
            for line in &mut lines {
                *line = line.trim_end_matches([' ', '\t']).to_owned();
                let mut reduced = String::new();
                for octet in line.chars() {
                    match octet {
                        ' ' | '\t' if reduced.ends_with(' ') => {}
                        ' ' | '\t' => reduced.push(' '),
                        other => reduced.push(other),
                    }
                }
                *line = reduced;
            }
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let written: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        match canonicalization {
            Canonicalization::Simple if written.is_empty() => b"\r\n".to_vec(),
            _ => written.into_bytes(),
        }
    }

    #[test]
    fn every_short_body_is_canonical_as_the_rfc_words_it_in_every_cut() {
        const PIECES: [&str; 6] = ["a", " ", "\t", "\r\n", "\u{1}", "bc"];
        for count in 0..=6_u32 {
            for mut index in 0..PIECES.len().pow(count) {
                let mut body = String::new();
                for _ in 0..count {
                    body.push_str(PIECES[index % PIECES.len()]);
                    index /= PIECES.len();
                }
                for canonicalization in [Canonicalization::Simple, Canonicalization::Relaxed] {
                    let expected = reference(canonicalization, body.as_bytes());
                    for length in [1, 2, 3, body.len().max(1)] {
                        let found = canonical(canonicalization, body.as_bytes(), length).unwrap();
                        assert_eq!(found, expected, "{canonicalization:?} {body:?} {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_rows_of_the_table_have_their_relaxed_body_in_every_cut() {
        for row in posthaste_testkit::rows::rows(include_str!("../../tests/canonicalization.txt")) {
            let body = crate::dkim::header::end(b"", &row.input).map_or(&b""[..], |end| &row.input[end..]);
            for length in [1, 2, 3, 64, body.len().max(1)] {
                let found = canonical(Canonicalization::Relaxed, body, length).unwrap();
                assert!(found == row.outcome, "{} {length}: {}", row.text, found.escape_ascii());
            }
        }
    }

    #[test]
    fn line_ends_that_count_are_all_written() {
        for count in [0, 1, 15, 16, 17, 33, 1_000] {
            let body = format!("a{}b\r\n", "\r\n".repeat(count));
            for canonicalization in [Canonicalization::Simple, Canonicalization::Relaxed] {
                assert_eq!(canonical(canonicalization, body.as_bytes(), 7).unwrap(), body.as_bytes());
            }
        }
    }

    #[test]
    fn a_bare_cr_or_lf_is_an_error_in_every_cut() {
        for body in ["a\rb\r\n", "a\nb\r\n", "\n", "\r", "a\r", "a\r\r\n", "a\r\n\n", "a \r\rb", " \n "] {
            for canonicalization in [Canonicalization::Simple, Canonicalization::Relaxed] {
                for length in 1..=body.len() {
                    assert_eq!(canonical(canonicalization, body.as_bytes(), length), Err(Bare), "{body:?} {length}");
                }
            }
        }
    }

    #[test]
    fn the_hash_of_an_empty_body_is_that_of_the_rfc() {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        for (canonicalization, hash) in [
            (Canonicalization::Simple, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
            (Canonicalization::Relaxed, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ] {
            assert_eq!(STANDARD.encode(BodyHash::new(canonicalization).finish().unwrap()), hash);
        }
    }
}
