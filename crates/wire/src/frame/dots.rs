//! The search for dots at the start of a line, in both directions of DATA (RFC 5321 section 4.5.2).

/// Finds the dots at the start of lines, one after another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dots {
    last: Last,
}

/// The end of the octets so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// CRLF, or no octet yet: the CRLF of the DATA line counts.
    Crlf,
    Cr,
    Other,
}

impl Dots {
    /// At the start of the content.
    pub(super) const fn new() -> Self {
        Self { last: Last::Crlf }
    }

    /// Returns `true` if the next octet starts a line.
    pub(super) fn at_line_start(&self) -> bool {
        self.last == Last::Crlf
    }

    /// Passes the octets before the next dot at the start of a line, and returns their number. A
    /// dot at the front of `octets` is passed as any other octet.
    pub(super) fn pass(&mut self, octets: &[u8]) -> usize {
        let before_dot = match (self.last, octets) {
            (Last::Cr, [b'\n', b'.', ..]) => Some(1),
            _ => find_crlf_dot(octets).map(|crlf| crlf + 2),
        };
        self.last = match (self.last, octets) {
            _ if before_dot.is_some() => Last::Crlf,
            (last, []) => last,
            (_, [.., b'\r', b'\n']) | (Last::Cr, [b'\n']) => Last::Crlf,
            (_, [.., b'\r']) => Last::Cr,
            _ => Last::Other,
        };
        before_dot.unwrap_or(octets.len())
    }
}

/// The offset of the first CRLF before a dot. Preparing the search costs as much as searching 1
/// KiB, so with `std` it is done once for the program.
fn find_crlf_dot(octets: &[u8]) -> Option<usize> {
    #[cfg(feature = "std")]
    {
        static FINDER: std::sync::LazyLock<memchr::memmem::Finder<'static>> =
            std::sync::LazyLock::new(|| memchr::memmem::Finder::new(CRLF_DOT));
        FINDER.find(octets)
    }
    #[cfg(not(feature = "std"))]
    memchr::memmem::find(octets, CRLF_DOT)
}

const CRLF_DOT: &[u8] = b"\r\n.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_piece_leaves_the_state_of_dots() {
        let mut dots = Dots::new();
        assert_eq!((dots.pass(b""), dots.at_line_start()), (0, true));
        assert_eq!((dots.pass(b"a\r"), dots.pass(b""), dots.at_line_start()), (2, 0, false));
        assert_eq!((dots.pass(b"\n"), dots.at_line_start()), (1, true));
    }
}
