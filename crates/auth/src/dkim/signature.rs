//! The DKIM-Signature field (RFC 6376 section 3.5).

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Algorithm, SignError, SignerOptions, SigningKey,
    header::{fields, write_canonical},
};

/// A signature: a DKIM-Signature field with its line end, to be put in front of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    text: String,
    domain: String,
    selector: String,
    algorithm: Algorithm,
}

/// Octets of a line at most, as far as its parts can be parted (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 78;

/// What all signatures of a message have in common.
#[derive(Debug)]
pub(crate) struct Signed<'s> {
    pub(crate) options: &'s SignerOptions,
    /// The value of `h=`.
    pub(crate) names: &'s [String],
    /// The canonical form of these fields.
    pub(crate) header: &'s [u8],
    pub(crate) body_hash: [u8; 32],
    pub(crate) now: SystemTime,
}

impl Signature {
    pub(crate) fn new(signed: &Signed<'_>, key: &SigningKey) -> Result<Self, SignError> {
        let failed = || SignError::Provider { domain: key.domain().into(), selector: key.selector().into() };
        let mut field = unsigned(signed, key);
        let mut input = signed.header.to_vec();
        // The field itself is signed last, with an empty `b=` and without its line end.
        let own = fields(field.text.as_bytes())?;
        let own = own.first().ok_or_else(failed)?;
        write_canonical(signed.options.header, *own, &mut input);
        let signature = key.key().sign(&input).map_err(|_| failed())?;
        field.push_pieces(&STANDARD.encode(signature));
        field.text.push_str("\r\n");
        Ok(Self {
            text: field.text,
            domain: key.domain().to_owned(),
            selector: key.selector().to_owned(),
            algorithm: key.algorithm(),
        })
    }

    /// The field, with its line end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The domain that signed.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The selector of the key.
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// The field.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The field up to an empty `b=`.
fn unsigned(signed: &Signed<'_>, key: &SigningKey) -> Folded {
    let options = signed.options;
    let mut field = Folded::new("DKIM-Signature: v=1;");
    field.push(&format!(" a={};", key.algorithm().as_str()));
    field.push(&format!(" c={}/{};", options.header.as_str(), options.body.as_str()));
    field.push(&format!(" d={};", key.domain()));
    field.push(&format!(" s={};", key.selector()));
    let now = signed.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    field.push(&format!(" t={};", now.as_secs()));
    if let Some(expires_after) = options.expires_after {
        // RFC 6376 section 3.5: it is greater than `t=`.
        let after = expires_after.max(Duration::from_secs(1));
        field.push(&format!(" x={};", now.saturating_add(after).as_secs()));
    }
    if let Some(identity) = &key.identity {
        field.push(&format!(" i={};", quoted_printable(identity)));
    }
    for (index, name) in signed.names.iter().enumerate() {
        let before = if index == 0 { " h=" } else { "" };
        let after = if index + 1 == signed.names.len() { ";" } else { ":" };
        field.push(&format!("{before}{name}{after}"));
    }
    field.push(&format!(" bh={};", STANDARD.encode(signed.body_hash)));
    field.push(" b=");
    field
}

/// `dkim-quoted-printable` (RFC 6376 section 2.11).
fn quoted_printable(text: &str) -> String {
    let mut written = String::new();
    for octet in text.bytes() {
        match octet {
            b'!'..=b':' | b'<' | b'>'..=b'~' => written.push(char::from(octet)),
            _ => written.push_str(&format!("={octet:02X}")),
        }
    }
    written
}

/// A field whose lines are folded between its parts.
struct Folded {
    text: String,
    /// Octets of the last line.
    line: usize,
}

impl Folded {
    fn new(start: &str) -> Self {
        Self { text: start.into(), line: start.len() }
    }

    /// Adds a part. A new line begins with a tab in place of the part's blank.
    fn push(&mut self, part: &str) {
        let mut part = part;
        if self.line + part.len() > MAX_LINE {
            part = part.trim_start();
            self.text.push_str("\r\n\t");
            // A tab counts as one octet.
            self.line = 1;
        }
        self.text.push_str(part);
        self.line += part.len();
    }

    /// Adds base64, of which each line takes what it has room for.
    fn push_pieces(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let room = if self.line + 4 > MAX_LINE { MAX_LINE - 1 } else { MAX_LINE - self.line };
            let (piece, after) = rest.split_at_checked(room).unwrap_or((rest, ""));
            self.push(piece);
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_tag_is_quoted() {
        assert_eq!(quoted_printable("\"a;b=c d\"@x.test"), "\"a=3Bb=3Dc=20d\"@x.test");
        assert_eq!(quoted_printable("me+x@x.test"), "me+x@x.test");
    }

    #[test]
    fn lines_are_folded_between_parts_alone() {
        let mut field = Folded::new("A: b;");
        field.push(&format!(" c={};", "x".repeat(65)));
        field.push(" d=e;");
        field.push(&format!(" f={};", "x".repeat(200)));
        field.push(" b=");
        field.push_pieces(&"y".repeat(100));
        let lines: Vec<usize> = field.text.split("\r\n").map(str::len).collect();
        assert_eq!(lines, [74, 5, 204, 78, 26]);
    }
}
