//! The part of a report that returns the message, or its header (RFC 3461 section 6.2, RFC 6522
//! section 3, RFC 6533 section 4).

use posthaste_server::wire::{BodyType, Ret};

use super::{Action, Entry, mime::Part, mime::is_clean};
use crate::record::Outside;

/// The most octets of a header that a report returns. A longer header is cut after a line.
pub(crate) const MAX_HEADER: usize = 64 * 1_024;

/// The message that a report is about, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Original {
    /// Its octets, from the first on.
    pub(crate) octets: Vec<u8>,
    /// `octets` has all of it, to be returned whole.
    pub(crate) whole: bool,
    /// The size of the message, in octets.
    pub(crate) of: u64,
}

impl Original {
    /// Returns `true` if it can be returned whole without encoding.
    pub(super) fn is_returned_whole(&self) -> bool {
        self.whole && is_clean(&self.octets)
    }
}

/// Returns `true` if the whole message is to be returned: the sender asks for that, the client was
/// trusted, and a delivery has failed. Never if the message required TLS (RFC 8689 section 5).
/// Never if its content is binary, since few hosts take a binary report.
pub(crate) fn returns_whole(outside: &Outside, entries: &[Entry]) -> bool {
    let mail = &outside.mail;
    outside.trusted
        && mail.ret == Some(Ret::Full)
        && !mail.require_tls
        && mail.body != Some(BodyType::BinaryMime)
        && entries.iter().any(|entry| entry.action == Action::Failed)
}

pub(super) fn part(outside: &Outside, original: &Original, whole: bool) -> Part {
    let octets = &original.octets;
    let utf8 = outside.mail.smtputf8 && !octets.is_ascii();
    if whole {
        return match utf8 {
            true => Part::new("message/global", octets.clone()),
            false => Part::new("message/rfc822", octets.clone()).unencoded(),
        };
    }
    let header = header(octets);
    match outside.mail.smtputf8 && !header.is_ascii() {
        true => Part::new("message/global-headers", header.to_vec()),
        false => Part::new("text/rfc822-headers", header.to_vec()),
    }
}

/// The header at the start of a message, without the empty line. It has whole lines only.
pub(super) fn header(start: &[u8]) -> &[u8] {
    if start.starts_with(b"\r\n") {
        return &[];
    }
    let start = start.get(..MAX_HEADER).unwrap_or(start);
    let end = start.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 2);
    let cut = || start.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
    start.get(..end.unwrap_or_else(cut)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_header_ends_at_the_empty_line_or_after_a_line() {
        let long = [b"A: b\r\n".repeat(11_000), b"\r\nbody".to_vec()].concat();
        for (start, length) in [
            (&b"A: b\r\nC: d\r\n\r\nbody\r\n"[..], 12),
            (b"A: b\r\nC: d\r\ncut", 12),
            (b"no line", 0),
            (b"\r\nno header\r\n\r\n", 0),
            (b"", 0),
            (&long, MAX_HEADER / 6 * 6),
        ] {
            assert_eq!(header(start).len(), length, "{}", String::from_utf8_lossy(&start[..start.len().min(40)]));
        }
    }
}
