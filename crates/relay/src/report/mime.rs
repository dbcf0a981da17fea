//! The multipart of a report. Encoding keeps its lines short and its octets plain (RFC 2045, RFC
//! 6522).

use bytes::{BufMut, Bytes, BytesMut};
use posthaste_server::wire::frame::ContentCheck;

use super::Charset;

/// The most octets of a line of content, without CRLF (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;

/// A part of a report.
#[derive(Debug)]
pub(super) struct Part {
    /// If it ends in `charset=`, the charset is added.
    content_type: &'static str,
    /// Lines with their CRLF.
    octets: Vec<u8>,
    has_charset: bool,
    /// The part is message/rfc822, which must not be encoded (RFC 2046 section 5.2.1).
    unencoded: bool,
}

/// How a part is encoded (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    SevenBit,
    EightBit,
    QuotedPrintable,
}

impl Part {
    pub(super) const fn new(content_type: &'static str, octets: Vec<u8>) -> Self {
        Self { content_type, octets, has_charset: false, unencoded: false }
    }

    pub(super) fn with_charset(self) -> Self {
        Self { has_charset: true, ..self }
    }

    pub(super) fn unencoded(self) -> Self {
        Self { unencoded: true, ..self }
    }

    fn encoding(&self, charset: Charset) -> Encoding {
        if !self.unencoded && !is_clean(&self.octets) {
            Encoding::QuotedPrintable
        } else if self.octets.is_ascii() {
            Encoding::SevenBit
        } else if self.unencoded || charset == Charset::Utf8 {
            Encoding::EightBit
        } else {
            Encoding::QuotedPrintable
        }
    }

    pub(super) fn write(&self, out: &mut BytesMut, charset: Charset) {
        let encoding = self.encoding(charset);
        let name = match (self.has_charset, self.octets.is_ascii()) {
            (false, _) => "",
            (true, true) => "us-ascii",
            (true, false) => "utf-8",
        };
        put(out, &format!("Content-Type: {}{name}", self.content_type));
        match encoding {
            Encoding::SevenBit => {}
            Encoding::EightBit => put(out, "Content-Transfer-Encoding: 8bit"),
            Encoding::QuotedPrintable => put(out, "Content-Transfer-Encoding: quoted-printable"),
        }
        put(out, "");
        match encoding {
            Encoding::SevenBit | Encoding::EightBit => out.put_slice(&self.octets),
            Encoding::QuotedPrintable => quoted_printable(&self.octets, out),
        }
    }
}

/// The whole message.
pub(super) fn report(header: &[String], parts: &[Part], boundary: &str, charset: Charset) -> Bytes {
    let mut out = BytesMut::new();
    header.iter().for_each(|line| put(&mut out, line));
    put(&mut out, "MIME-Version: 1.0");
    put(&mut out, "Content-Type: multipart/report; report-type=delivery-status;");
    put(&mut out, &format!("\tboundary=\"{boundary}\""));
    for part in parts {
        // The CRLF before a boundary belongs to the boundary.
        put(&mut out, &format!("\r\n--{boundary}"));
        part.write(&mut out, charset);
    }
    put(&mut out, &format!("\r\n--{boundary}--"));
    out.freeze()
}

/// Returns `true` if the octets can be content without encoding: lines of at most 998 octets that
/// end in CRLF, without NUL.
pub(super) fn is_clean(octets: &[u8]) -> bool {
    let mut check = ContentCheck::new(MAX_LINE);
    check.check(octets).is_ok() && check.finish().is_ok() && (octets.is_empty() || octets.ends_with(b"\r\n"))
}

/// Folds a long line at spaces, or at any character if there is no space. The lines stay well below
/// 998 octets.
pub(super) fn folded(line: &str, indent: &str) -> String {
    const WIDTH: usize = 120;
    let mut out = String::with_capacity(line.len());
    let mut width = 0;
    for character in line.chars() {
        if (width > WIDTH && character == ' ') || width > 4 * WIDTH {
            out.push_str("\r\n");
            out.push_str(indent);
            width = 0;
            if character == ' ' && !indent.is_empty() {
                continue;
            }
        }
        out.push(character);
        width += character.len_utf8();
    }
    out
}

/// A text of one line as the value of a field: in encoded words (RFC 2047) unless it is ASCII.
pub(super) fn encoded(text: &str) -> String {
    /// Octets of a word, less what is around them: 75 in all.
    const MOST: usize = 63;
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars() {
        let mut octets = [0; 4];
        let coded: String = match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '!' | '*' | '+' | '/' => c.to_string(),
            ' ' => "_".to_owned(),
            _ => c.encode_utf8(&mut octets).bytes().map(|octet| format!("={octet:02X}")).collect(),
        };
        // A character stays within its word.
        if word.len() + coded.len() > MOST {
            out.push_str(&format!("=?utf-8?q?{word}?=\r\n "));
            word.clear();
        }
        word.push_str(&coded);
    }
    out + &format!("=?utf-8?q?{word}?=")
}

/// A text of one line as the name before an address (RFC 5322 section 3.2.5).
pub(super) fn phrase(text: &str) -> String {
    let is_atom = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    match text {
        text if !text.is_ascii() => encoded(text),
        text if text.chars().all(is_atom) => text.to_owned(),
        text => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

fn put(out: &mut BytesMut, line: &str) {
    out.put_slice(line.as_bytes());
    out.put_slice(b"\r\n");
}

/// Encodes as RFC 2045 section 6.7: lines have at most 76 octets, and all but printable ASCII is in
/// hexadecimal. It is written here, since a crate would bring a decoder too.
fn quoted_printable(octets: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut width = 0;
    let mut rest = octets;
    while let Some((octet, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            out.put_slice(b"\r\n");
            (rest, width) = (after, 0);
            continue;
        }
        rest = after;
        let at_end = rest.is_empty() || rest.starts_with(b"\r\n");
        let plain = matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !at_end);
        let size = if plain { 1 } else { 3 };
        // Room is left for the `=` of a soft line break.
        if width + size > 75 {
            out.put_slice(b"=\r\n");
            width = 0;
        }
        width += size;
        if plain {
            out.put_u8(*octet);
        } else {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.put_slice(&[b'=', digit(octet >> 4), digit(octet & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_printable_is_short_and_plain() {
        let long = [b"x".repeat(75), b"y".to_vec()].concat();
        let soft = [&b"x".repeat(75)[..], b"=\r\ny"].concat();
        for (octets, encoded) in [
            (&b"plain text\r\n"[..], &b"plain text\r\n"[..]),
            (b"a=b\r\n", b"a=3Db\r\n"),
            ("\u{e9}\r\n".as_bytes(), b"=C3=A9\r\n"),
            (b"space \r\ntab\t", b"space=20\r\ntab=09"),
            (b"\0\r\n\ra\nb", b"=00\r\n=0Da=0Ab"),
            (&long, &soft),
        ] {
            let mut out = BytesMut::new();
            quoted_printable(octets, &mut out);
            assert_eq!(out, encoded, "{}", String::from_utf8_lossy(octets));
        }
    }

    #[test]
    fn a_subject_outside_ascii_is_in_encoded_words() {
        let euros = "=E2=82=AC".repeat(7);
        for (text, value) in [
            ("plain = text?", "plain = text?".to_owned()),
            ("Gr\u{fc}\u{df}e, {a}_?=", "=?utf-8?q?Gr=C3=BC=C3=9Fe=2C_=7Ba=7D=5F=3F=3D?=".to_owned()),
            (&"\u{20ac}".repeat(15), format!("=?utf-8?q?{euros}?=\r\n =?utf-8?q?{euros}?=\r\n =?utf-8?q?=E2=82=AC?=")),
        ] {
            assert_eq!(encoded(text), value);
            assert!(value.split("\r\n").all(|line| line.len() <= 76));
        }
    }

    #[test]
    fn only_complete_lines_without_control_characters_are_clean() {
        for (octets, clean) in [
            (&b""[..], true),
            (b"a\r\n\r\nb\r\n", true),
            (b"a", false),
            (b"a\n", false),
            (b"a\rb\r\n", false),
            (b"a\0\r\n", false),
            (&[&b"x".repeat(998)[..], b"\r\n"].concat(), true),
            (&[&b"x".repeat(999)[..], b"\r\n"].concat(), false),
        ] {
            assert_eq!(is_clean(octets), clean, "{}", String::from_utf8_lossy(octets));
        }
    }

    #[test]
    fn long_lines_are_folded_whatever_they_hold() {
        for text in ["x".repeat(3_000), "\u{20ac}".repeat(3_000), "word ".repeat(600), "\u{20ac} ".repeat(900)] {
            let folded = folded(&text, "\t");
            assert!(folded.split("\r\n").all(|line| line.len() < MAX_LINE), "{folded}");
            let back: String = folded.replace("\r\n\t", " ");
            assert_eq!(back.replace(' ', ""), text.replace(' ', ""));
        }
    }
}
