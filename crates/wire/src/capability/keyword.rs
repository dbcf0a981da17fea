//! The known keywords, and the search for the one at the start of a line.

use core::fmt;

/// Declares the keywords once: a row gives the name, and the search for it.
macro_rules! keywords {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An EHLO keyword that has a typed view.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Keyword {
            $($(#[$doc])* $variant,)*
        }

        #[allow(non_upper_case_globals, reason = "a constant for each variant, under its name")]
        mod front {
            $(pub(super) const $variant: u64 = super::front_of($name);)*
        }

        impl Keyword {
            /// Every keyword.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The keyword as it is sent, in upper case.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The keyword with these first octets. Each keyword has its own.
            const fn from_front(front: u64) -> Option<Self> {
                match front {
                    $(front::$variant => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

keywords! {
    /// RFC 2920.
    Pipelining = "PIPELINING",
    /// RFC 1870.
    Size = "SIZE",
    /// RFC 6152.
    EightBitMime = "8BITMIME",
    /// RFC 6531.
    SmtpUtf8 = "SMTPUTF8",
    /// RFC 2034.
    EnhancedStatusCodes = "ENHANCEDSTATUSCODES",
    /// RFC 3461.
    Dsn = "DSN",
    /// RFC 3030.
    Chunking = "CHUNKING",
    /// RFC 3030.
    BinaryMime = "BINARYMIME",
    /// RFC 3207.
    StartTls = "STARTTLS",
    /// RFC 4954.
    Auth = "AUTH",
    /// RFC 8689.
    RequireTls = "REQUIRETLS",
    /// RFC 2852.
    DeliverBy = "DELIVERBY",
    /// RFC 4865.
    FutureRelease = "FUTURERELEASE",
    /// RFC 6710.
    MtPriority = "MT-PRIORITY",
    /// RFC 9422.
    Limits = "LIMITS",
    /// RFC 1985.
    Etrn = "ETRN",
    /// RFC 4468.
    Burl = "BURL",
    /// RFC 3865.
    NoSoliciting = "NO-SOLICITING",
    /// RFC 7293.
    Rrvs = "RRVS",
    /// RFC 5321 section 3.5.2.
    Vrfy = "VRFY",
    /// RFC 5321 section 3.5.2.
    Expn = "EXPN",
    /// RFC 5321 section 4.1.1.8.
    Help = "HELP",
    /// Postfix, XCLIENT_README.
    XClient = "XCLIENT",
    /// Postfix, XFORWARD_README.
    XForward = "XFORWARD",
}

impl Keyword {
    /// The keyword of this name, without regard to case (RFC 5321 section 2.4). `None`: the name is
    /// not known.
    ///
    /// ```
    /// use posthaste_wire::capability::Keyword;
    /// assert_eq!(Keyword::from_name("smtpUTF8"), Some(Keyword::SmtpUtf8));
    /// assert_eq!(Keyword::from_name("X-ODD"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        match Self::at_front(name.as_bytes()) {
            (found, length) if length == name.len() => found,
            _ => None,
        }
    }

    /// Returns `true` if a line with the keyword alone offers it.
    pub(super) const fn stands_alone(self) -> bool {
        !matches!(self, Self::FutureRelease)
    }

    /// The keyword at the front of a line, and the octets of the line's first word.
    ///
    /// The first 8 octets are one integer, which finds the end of a short word and its name without
    /// a loop.
    #[inline]
    pub(super) fn at_front(line: &[u8]) -> (Option<Self>, usize) {
        let window = line.first_chunk::<FRONT>().copied().unwrap_or_else(|| {
            // Zeros follow a short line. They end a word, as a space does.
            let mut window = [0; FRONT];
            window.iter_mut().zip(line).for_each(|(to, from)| *to = *from);
            window
        });
        let octets = u64::from_le_bytes(window);
        // The lowest octet set in `ends` is at the first octet below `!`. Those above it may be
        // wrong.
        let ends = octets.wrapping_sub(u64::from_ne_bytes([b'!'; FRONT])) & !octets & u64::from_ne_bytes([0x80; FRONT]);
        if ends != 0 {
            // All bits up to the highest of that octet, then without that octet.
            let before = (ends ^ (ends - 1)) >> 8;
            return (Self::from_front(fold(octets & before)), ends.trailing_zeros() as usize / 8);
        }
        let rest = line.get(FRONT..).unwrap_or_default();
        let rest = rest.get(..rest.iter().position(|octet| *octet < b'!').unwrap_or(rest.len())).unwrap_or_default();
        // In a longer word the window gives the candidate, and the rest is compared.
        let keyword = Self::from_front(fold(octets)).filter(|keyword| {
            keyword.as_str().as_bytes().get(FRONT..).is_some_and(|name| name.eq_ignore_ascii_case(rest))
        });
        (keyword, FRONT + rest.len())
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The octets of a keyword that are compared at once.
const FRONT: usize = 8;

/// Makes letters upper case, in all octets at once. It also maps other octets from 0x60 on, but to
/// none that a keyword has.
const fn fold(octets: u64) -> u64 {
    octets & !((octets & u64::from_ne_bytes([0x40; FRONT])) >> 1)
}

/// The first octets of a name, the first one lowest.
const fn front_of(name: &str) -> u64 {
    let octets = name.as_bytes();
    let mut window = [0; FRONT];
    let mut at = 0;
    while at < octets.len() && at < FRONT {
        window[at] = octets[at];
        at += 1;
    }
    fold(u64::from_le_bytes(window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String};

    #[test]
    fn every_keyword_is_found_in_any_case_before_any_text() {
        for keyword in Keyword::ALL {
            let name = keyword.as_str();
            assert_eq!(Keyword::from_name(name), Some(*keyword));
            assert_eq!(Keyword::from_name(&name.to_ascii_lowercase()), Some(*keyword));
            for behind in ["", " ", "\r\n", " 1 2 3 4 5 6 7 8 9 10", "\r\n250 PIPELINING\r\n"] {
                let line = format!("{name}{behind}");
                assert_eq!(Keyword::at_front(line.as_bytes()), (Some(*keyword), name.len()), "{line:?}");
            }
        }
    }

    #[test]
    fn a_word_with_one_other_octet_is_no_keyword() {
        for keyword in Keyword::ALL {
            let name = keyword.as_str();
            for at in 0..name.len() {
                for octet in 0..=u8::MAX {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = octet;
                    let same = octet.eq_ignore_ascii_case(&name.as_bytes()[at]);
                    let (found, length) = Keyword::at_front(&other);
                    assert_eq!(found == Some(*keyword), same, "{:?}", String::from_utf8_lossy(&other));
                    assert_eq!(length, if octet < b'!' { at } else { name.len() });
                }
            }
            assert_eq!(Keyword::from_name(&format!("{name}X")), None);
            assert_ne!(Keyword::from_name(&name[1..]), Some(*keyword));
            assert_ne!(Keyword::from_name(&name[..name.len() - 1]), Some(*keyword));
        }
        assert_eq!(Keyword::from_name("ENHANCEDSTATUSCO"), None);
        assert_eq!(Keyword::from_name(""), None);
        assert_eq!(Keyword::from_name("SIZE "), None);
    }
}
