//! What both sides of a conversation have said.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

/// The conversation so far, which a client and its replies share.
#[derive(Debug, Clone, Default)]
pub(super) struct Transcript(Arc<Mutex<String>>);

/// Bytes of a transcript. Beyond it nothing more is written.
const MOST: usize = 1 << 20;
/// Lines of one write that are shown. Of more, the first ones and their number are.
const LINES: usize = 40;
/// Characters of a line that are shown.
const COLUMNS: usize = 1_000;

impl Transcript {
    /// The client has sent these octets.
    pub(super) fn client(&self, octets: &[u8]) {
        let lines = octets.split_inclusive(|octet| *octet == b'\n');
        for (shown, line) in lines.clone().enumerate() {
            if shown == LINES {
                let (more, octets) = (lines.count() - LINES, octets.len());
                return self.note(&format!("{more} more lines, {octets} octets in all"));
            }
            match line.strip_suffix(b"\r\n") {
                Some(line) => self.line("C: ", line),
                None => self.line("C- ", line),
            }
        }
    }

    /// The client has sent a line that is not the same in every run, or secret.
    pub(super) fn client_shown(&self, line: &str) {
        self.line("C: ", line.as_bytes());
    }

    /// The server has said this line.
    pub(super) fn server(&self, line: &[u8]) {
        self.line("S: ", line);
    }

    /// Something has happened that is no octet.
    pub(super) fn note(&self, what: &str) {
        self.line("# ", what.as_bytes());
    }

    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails the test.
    #[track_caller]
    pub(super) fn fail(&self, what: &str) -> ! {
        let text = self.text();
        let hint = if text.lines().any(|line| line.starts_with("C- ") && line.ends_with("\\n")) {
            "\n\nThe client has sent lines that end with LF alone (`C-`): write \\r\\n."
        } else {
            ""
        };
        panic!("{what}{hint}\n\nThe conversation:\n{text}");
    }

    fn line(&self, mark: &str, line: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() >= MOST {
            return;
        }
        write_line(&mut text, mark, line);
        if text.len() >= MOST {
            text.push_str("# the transcript is full\n");
        }
    }
}

/// One line, escaped and cut.
fn write_line(text: &mut String, mark: &str, line: &[u8]) {
    text.push_str(mark);
    // Nearly every line; the loop below is slow without optimization.
    let is_plain = |octet: &u8| matches!(octet, b' '..=b'~') && *octet != b'\\';
    if line.len() < COLUMNS
        && line.iter().all(is_plain)
        && let Ok(line) = std::str::from_utf8(line)
    {
        text.push_str(line);
        text.push('\n');
        return;
    }
    let mut left = COLUMNS;
    for chunk in line.utf8_chunks() {
        for character in chunk.valid().chars().take(left) {
            left -= 1;
            match character {
                '\\' => text.push_str("\\\\"),
                '\0' => text.push_str("\\0"),
                '\r' => text.push_str("\\r"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                // ASCII alone has control characters of one octet.
                character if character.is_ascii_control() => {
                    let _ = write!(text, "\\x{:02X}", u32::from(character));
                }
                character => text.push(character),
            }
        }
        for octet in chunk.invalid().iter().take(left) {
            left -= 1;
            let _ = write!(text, "\\x{octet:02X}");
        }
    }
    if left == 0 {
        let _ = write!(text, " .. {} octets", line.len());
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_written_so_that_it_can_be_read() {
        let transcript = Transcript::default();
        transcript.client(b"NOOP\r\nb\xfccher b\xc3\xbccher\0\x01\\\tx\n.\r\nno end");
        transcript.server(b"250 Ok");
        transcript.note("TLS");
        let expected = "C: NOOP\nC- b\\xFCcher b\u{fc}cher\\0\\x01\\\\\\tx\\n\nC: .\nC- no end\nS: 250 Ok\n# TLS\n";
        assert_eq!(transcript.text(), expected);
    }

    #[test]
    fn long_lines_and_long_contents_are_cut_and_the_whole_is_bounded() {
        let transcript = Transcript::default();
        transcript.client("x\r\n".repeat(LINES + 2).as_bytes());
        assert!(transcript.text().ends_with("C: x\n# 2 more lines, 126 octets in all\n"), "{}", transcript.text());
        transcript.client(&[b'y'; 5_000]);
        assert!(transcript.text().ends_with(&format!("{} .. 5000 octets\n", "y".repeat(COLUMNS))));
        for _ in 0..2_000 {
            transcript.server(&[b'z'; COLUMNS - 1]);
        }
        assert!(transcript.text().len() < MOST + 2 * COLUMNS, "{}", transcript.text().len());
        assert!(transcript.text().ends_with("# the transcript is full\n"));
    }
}
