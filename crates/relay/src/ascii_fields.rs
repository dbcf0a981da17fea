//! Finds out if all header fields of a message are ASCII.

/// Watches content whose MAIL says SMTPUTF8. Such a message can go without SMTPUTF8 if all its
/// addresses and header fields are ASCII, those of its MIME parts included (RFC 6531 section 3.6).
/// The body may be 8-bit.
///
/// It reads no MIME structure. A header is what lies before the first empty line. If that names a
/// multipart type, so is what lies between a line that could be a delimiter (RFC 2046 section
/// 5.1.1) and the next empty line. The fields of a message within a message are not looked for:
/// content that names such a type counts as not ASCII. So ASCII fields may be missed, and others
/// are not.
#[derive(Debug)]
pub(crate) struct AsciiFields {
    at: At,
    in_header: bool,
    has_parts: bool,
    /// How much of these words was read: in a header, without a difference of case.
    multipart: Sought,
    message: Sought,
    are_ascii: bool,
}

/// The position in a line.
#[derive(Debug, Clone, Copy)]
enum At {
    Begin,
    /// After one hyphen.
    Hyphen,
    /// After two hyphens, and blanks. A line with no more than that is no delimiter, but the line
    /// before a signature.
    Hyphens,
    Rest,
}

/// A word that begins with an octet that it has once.
#[derive(Debug)]
struct Sought {
    octets: &'static [u8],
    read: usize,
}

impl AsciiFields {
    /// `is_watched`: MAIL says SMTPUTF8. Other content costs nothing.
    pub(crate) const fn new(is_watched: bool) -> Self {
        Self {
            at: At::Begin,
            in_header: true,
            has_parts: false,
            multipart: Sought { octets: b"multipart", read: 0 },
            message: Sought { octets: b"message/", read: 0 },
            are_ascii: is_watched,
        }
    }

    /// `false`: one is not, or they were not watched.
    pub(crate) const fn are_ascii(&self) -> bool {
        self.are_ascii
    }

    pub(crate) fn inspect(&mut self, mut content: &[u8]) {
        while self.are_ascii && (self.in_header || self.has_parts) {
            // In a body only the beginning of a line counts.
            if !self.in_header && matches!(self.at, At::Rest) {
                let Some(end) = content.iter().position(|octet| *octet == b'\n') else { return };
                content = content.get(end..).unwrap_or_default();
            }
            let Some((octet, rest)) = content.split_first() else { return };
            content = rest;
            if self.in_header {
                self.read_header(*octet);
            } else {
                self.read_body(*octet);
            }
        }
    }

    fn read_header(&mut self, octet: u8) {
        if !octet.is_ascii() || self.message.is_read(octet) {
            self.are_ascii = false;
        }
        self.has_parts |= self.multipart.is_read(octet);
        self.at = match (self.at, octet) {
            (At::Begin, b'\n') => {
                self.in_header = false;
                At::Begin
            }
            (_, b'\n') => At::Begin,
            (at, b'\r') => at,
            _ => At::Rest,
        };
    }

    fn read_body(&mut self, octet: u8) {
        self.at = match (self.at, octet) {
            (_, b'\n') => At::Begin,
            (At::Begin, b'-') => At::Hyphen,
            (At::Hyphen, b'-') => At::Hyphens,
            (At::Hyphens, b' ' | b'\t' | b'\r') => At::Hyphens,
            (At::Hyphens, _) => {
                self.in_header = true;
                self.are_ascii = octet.is_ascii();
                At::Rest
            }
            _ => At::Rest,
        };
    }
}

impl Sought {
    /// Reads one more octet. Returns `true` if it is the last one of the word.
    fn is_read(&mut self, octet: u8) -> bool {
        let octet = octet.to_ascii_lowercase();
        let is_next = |at: usize| self.octets.get(at) == Some(&octet);
        self.read = if is_next(self.read) { self.read.saturating_add(1) } else { usize::from(is_next(0)) };
        self.read == self.octets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_ascii_in_the_header_and_in_each_part_however_they_are_split() {
        let parts = "Content-Type: MultiPart/mixed; boundary=b\r\n\r\npr\u{e9}face\r\n";
        for (content, are_ascii) in [
            ("Subject: x\r\n\r\n\u{e4}\r\n".to_owned(), true),
            ("Subject: \u{e4}\r\n\r\nx\r\n".to_owned(), false),
            ("Subject: x\r\n \u{e4}\r\n\r\nx\r\n".to_owned(), false),
            ("\r\n\u{e4}\r\n".to_owned(), true),
            ("Subject: x\n\n\u{e4}\n".to_owned(), true),
            // There is no header, and the first lines count as one.
            ("\u{e4}\r\n".to_owned(), false),
            ("Subject: x\r\n\r\n--b\r\n\u{e4}\r\n".to_owned(), true),
            (format!("{parts}--b\r\n\r\n\u{e4}\r\n--b--\r\n"), true),
            (format!("{parts}--b\r\nContent-Type: text/plain\r\n\r\n\u{e4}\r\n\r\n\u{e4}\r\n"), true),
            (format!("{parts}--b\r\n\r\nx\r\n-- \r\nJ\u{f6}rg\r\n--\r\n\u{e4}\r\n-\u{e4}\r\n - -\u{e4}\r\n"), true),
            (format!("{parts}--b\r\nContent-Description: \u{e4}\r\n\r\nx\r\n"), false),
            (format!("{parts}--b\r\n\r\n\u{e4}\r\n--b\r\nContent-Disposition: x;\r\n\tfilename=\u{e4}\r\n\r\n"), false),
            (format!("{parts}-- b\r\nX: \u{e4}\r\n\r\n"), false),
            (format!("{parts}--\u{e4}\r\n"), false),
            (format!("{parts}--b\r\nContent-Type: multipart/x; boundary=c\r\n\r\n--c\r\nX: \u{e4}\r\n"), false),
            (format!("{parts}--b\r\nContent-Type: Message/rfc822\r\n\r\nSubject: x\r\n"), false),
            ("Content-Type: mmessage/global\r\n\r\n".to_owned(), false),
            ("Message-ID: <a@b>\r\nSubject: messages\r\n\r\nmessage/global \u{e4}".to_owned(), true),
        ] {
            let content = content.as_bytes();
            for split in 0..=content.len() {
                for is_watched in [true, false] {
                    let mut fields = AsciiFields::new(is_watched);
                    fields.inspect(&content[..split]);
                    fields.inspect(&content[split..]);
                    let text = String::from_utf8_lossy(content);
                    assert_eq!(fields.are_ascii(), are_ascii && is_watched, "{text:?} {split}");
                }
            }
        }
    }
}
