//! All lines of a reply to EHLO.

use alloc::{borrow::Cow, string::String};
use core::fmt;

use bytes::Bytes;
use memchr::memchr;

use super::{Capability, Keyword, Limits, MechanismSet};
use crate::reply::{Lines, ReplyRef};

/// The capabilities of a server, from its reply to EHLO: typed views, and every line as it came.
///
/// `S` holds the lines: `Capabilities<&[u8]>` borrows them from the reply without an allocation,
/// `Capabilities` (`Bytes`) owns them. The views are made once, when the reply is read. If a
/// keyword comes twice, the mechanisms of AUTH add up, and the stricter of two numbers counts.
///
/// ```
/// use posthaste_wire::{Capabilities, Mechanism, ReplyRef, capability::Keyword};
/// let reply = ReplyRef::parse(b"250-mx.example\r\n250-SIZE 1000\r\n250-AUTH PLAIN\r\n250 X-ODD\r\n")?;
/// let offered = Capabilities::from_reply(&reply);
/// assert!(offered.offers(Keyword::Size) && !offered.offers(Keyword::Dsn));
/// assert_eq!(offered.size(), Some(1000));
/// assert!(offered.auth().contains(Mechanism::Plain));
/// assert!(offered.lines().any(|line| line == b"X-ODD"));
/// # Ok::<(), posthaste_wire::reply::ParseReplyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities<S = Bytes> {
    views: Views,
    /// The reply's lines after the first, with codes and CRLFs, so that they need no index.
    octets: S,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Views {
    /// One bit for each [`Keyword`].
    offered: u32,
    auth: MechanismSet,
    /// 0: no limit.
    size: u64,
    min_by_time: Option<u32>,
    limits: Limits,
}

impl<'a> Capabilities<&'a [u8]> {
    /// Reads a positive reply to EHLO, except its first line, which names the server. Lines beyond
    /// [`MAX`](Capabilities::MAX) are dropped.
    pub fn from_reply(reply: &ReplyRef<'a>) -> Self {
        let octets = reply.as_bytes();
        let first = memchr(b'\n', octets).map_or(octets.len(), |at| at + 1);
        let octets = octets.get(first..).unwrap_or_default();
        let mut views = Views::default();
        let mut end = 0;
        for _ in 0..Capabilities::MAX {
            let Some(line) = octets.get(end + "250-".len()..) else { break };
            let (keyword, length) = Keyword::at_front(line);
            let text = match keyword {
                // The usual line is a keyword alone. Its end is known already.
                Some(keyword) if keyword.stands_alone() && line.get(length) == Some(&b'\r') => {
                    views.offered |= bit(keyword);
                    length
                }
                _ => {
                    let text = memchr(b'\n', line).unwrap_or(0).saturating_sub(1);
                    let line = line.get(..text).unwrap_or_default();
                    if let Some(capability) = Capability::of_line(line, keyword, length) {
                        views.add(&capability);
                    }
                    text
                }
            };
            end += "250-".len() + text + "\r\n".len();
        }
        // A last line with a code alone has no separator, and then `end` is one too far.
        Self { views, octets: octets.get(..end).unwrap_or(octets) }
    }
}

impl Capabilities {
    /// The most lines that are kept: 64, more than twice the keywords that have a typed view.
    /// Further lines of a reply are dropped.
    pub const MAX: usize = 64;
}

impl<S: AsRef<[u8]>> Capabilities<S> {
    /// Returns `true` if the server offers the keyword, with arguments that are understood.
    pub const fn offers(&self, keyword: Keyword) -> bool {
        self.views.offered & bit(keyword) != 0
    }

    /// `SIZE`: the octets of the largest message (RFC 1870 section 4). `None`: the server does not
    /// offer SIZE, or has no fixed limit.
    pub const fn size(&self) -> Option<u64> {
        match self.views.size {
            0 => None,
            limit => Some(limit),
        }
    }

    /// The known mechanisms of `AUTH`, and of the old form `AUTH=`. [`iter`](Self::iter) gives the
    /// others.
    pub const fn auth(&self) -> MechanismSet {
        self.views.auth
    }

    /// `DELIVERBY`: the least time that a client may ask for, in seconds (RFC 2852 section 2).
    /// `None`: the server gave none.
    pub const fn min_by_time(&self) -> Option<u32> {
        self.views.min_by_time
    }

    /// The known limits of `LIMITS` (RFC 9422). [`iter`](Self::iter) gives the others.
    pub const fn limits(&self) -> Limits {
        self.views.limits
    }

    /// The first line with this keyword, with all its arguments. `None`: no line has it.
    pub fn get(&self, keyword: Keyword) -> Option<Capability<'_>> {
        self.iter().find(|capability| capability.keyword() == Some(keyword))
    }

    /// The lines as values, known and unknown, without those that are not text.
    pub fn iter(&self) -> impl Iterator<Item = Capability<'_>> + Clone {
        self.lines().filter_map(Capability::parse)
    }

    /// At most [`MAX`](Capabilities::MAX) lines as octets, without code, separator and CRLF.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> + Clone {
        Lines { rest: self.octets.as_ref() }
    }

    /// The lines as text, with U+FFFD for octets that are not UTF-8.
    pub fn text_lines(&self) -> impl Iterator<Item = Cow<'_, str>> + Clone {
        self.lines().map(String::from_utf8_lossy)
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> Capabilities<&[u8]> {
        Capabilities { views: self.views, octets: self.octets.as_ref() }
    }

    /// The owned form. Allocates once.
    pub fn into_owned(self) -> Capabilities {
        Capabilities { views: self.views, octets: Bytes::copy_from_slice(self.octets.as_ref()) }
    }
}

impl Views {
    fn add(&mut self, capability: &Capability<'_>) {
        let Some(keyword) = capability.keyword() else { return };
        self.offered |= bit(keyword);
        match capability {
            Capability::Size(limit) if *limit != 0 => {
                self.size = if self.size == 0 { *limit } else { self.size.min(*limit) };
            }
            Capability::Auth(auth) => self.auth = self.auth.union(auth.known),
            Capability::DeliverBy(seconds) => self.min_by_time = self.min_by_time.max(*seconds),
            Capability::Limits(limits) => self.limits.merge(limits.known),
            _ => {}
        }
    }
}

impl<S: AsRef<[u8]>> fmt::Debug for Capabilities<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.text_lines()).finish()
    }
}

const _: () = assert!(Keyword::ALL.len() <= u32::BITS as usize, "each keyword has a bit");

const fn bit(keyword: Keyword) -> u32 {
    1 << keyword as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Mechanism;
    use alloc::{string::ToString, vec::Vec};

    #[test]
    fn known_keywords_are_typed_and_all_are_kept() {
        let reply = b"250-mx.test hello\r\n250-PIPELINING\r\n250-size 1000\r\n250-8BITMIME\r\n250-AUTH=LOGIN\r\n\
            250-AUTH PLAIN XFOO\r\n250-DELIVERBY 60\r\n250-LIMITS RCPTMAX=9 NEW\r\n250-\xff\r\n250-\r\n250 X-ODD a=b\r\n";
        let reply = ReplyRef::parse(reply).unwrap();
        let borrowed = Capabilities::from_reply(&reply);
        let owned = borrowed.into_owned();
        assert_eq!(owned.borrowed(), borrowed);
        assert!(owned.offers(Keyword::Pipelining) && owned.offers(Keyword::EightBitMime));
        assert!(!owned.offers(Keyword::StartTls));
        assert_eq!(owned.size(), Some(1000));
        assert_eq!(owned.auth(), MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]));
        assert_eq!((owned.min_by_time(), owned.limits().rcpt_max.map(|limit| limit.get())), (Some(60), Some(9)));
        assert!(owned.lines().eq(reply.lines().skip(1)));
        assert_eq!(owned.lines().count(), 10);
        assert_eq!(owned.iter().count(), 8, "two lines are no text");
        assert_eq!(owned.get(Keyword::Limits).unwrap().to_string(), "LIMITS RCPTMAX=9 NEW");
    }

    #[test]
    fn a_keyword_that_comes_twice_adds_mechanisms_and_keeps_the_stricter_number() {
        let reply =
            b"250-mx.test\r\n250-SIZE 0\r\n250-SIZE 500\r\n250-SIZE 900\r\n250-SIZE\r\n250-LIMITS MAILMAX=5\r\n\
            250-DELIVERBY\r\n250-DELIVERBY 9\r\n250-DELIVERBY 4\r\n250 LIMITS MAILMAX=7 MAILMAX=6 RCPTMAX=1\r\n";
        let offered = Capabilities::from_reply(&ReplyRef::parse(reply).unwrap());
        assert_eq!((offered.size(), offered.min_by_time()), (Some(500), Some(9)));
        assert_eq!(offered.limits().mail_max.map(|limit| limit.get()), Some(5));
    }

    #[test]
    fn capability_lines_beyond_the_most_are_dropped() {
        let mut reply = b"250-mx.test\r\n".to_vec();
        (0..64).for_each(|_| reply.extend_from_slice(b"250-X-FILL 1\r\n"));
        reply.extend_from_slice(b"250 DSN\r\n");
        let offered = Capabilities::from_reply(&ReplyRef::parse(&reply).unwrap());
        assert_eq!(offered.lines().collect::<Vec<_>>(), [b"X-FILL 1"; 64]);
        assert!(!offered.offers(Keyword::Dsn));
    }

    #[test]
    fn a_reply_without_keywords_offers_nothing() {
        for reply in [&b"250 mx.test\r\n"[..], b"250\r\n", b"250-mx.test\r\n250\r\n", b"250-mx.test\r\n250 \r\n"] {
            let offered = Capabilities::from_reply(&ReplyRef::parse(reply).unwrap());
            assert_eq!((offered.views, offered.iter().count()), (Views::default(), 0));
            assert!(offered.lines().all(<[u8]>::is_empty));
        }
    }
}
