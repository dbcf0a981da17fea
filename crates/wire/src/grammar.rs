//! Parts that the grammars share: classes of octets, faults, and keywords as numbers.
//!
//! The parsers have the shape and the errors of nom's, over octets. The loops that take the time
//! are here. Text is checked for UTF-8 before a parser sees it, and a parser stops only between
//! characters. No class has a control character, in ASCII or outside.
//!
//! Most tokens have fewer than ten octets, and a call that returns through memory costs as much as
//! a token. So the work for each token is always inlined, and rare work never is.

use nom::{
    IResult,
    error::{ErrorKind, ParseError},
};

use crate::error::{SyntaxError, SyntaxErrorKind};

/// Classes of octets. An octet may be in several. Characters outside ASCII are in those of
/// [`UTF8`](class::UTF8).
pub(crate) mod class {
    /// `atext` of RFC 5321 section 4.1.2.
    pub(crate) const ATEXT: u8 = 1;
    /// `Let-dig`, `-` or `_`: the octets of labels in the DNS, of host names and others.
    pub(crate) const LABEL: u8 = 2;
    /// `qtextSMTP`.
    pub(crate) const QTEXT: u8 = 4;
    /// `dcontent`: the octets of an address literal.
    pub(crate) const DCONTENT: u8 = 8;
    /// `esmtp-value`.
    pub(crate) const VALUE: u8 = 16;
    /// `xchar` of RFC 3461 section 4: itself in xtext.
    pub(crate) const XCHAR: u8 = 32;
    /// `QCHAR` of RFC 6533 section 3: itself in utf-8-addr-xtext.
    pub(crate) const QCHAR: u8 = 64;
    /// A letter, a digit or `-`: the octets of keywords and verbs.
    pub(crate) const KEYWORD: u8 = 128;

    /// The classes with characters outside ASCII other than control characters (RFC 6531 section
    /// 3.3).
    pub(super) const UTF8: u8 = ATEXT | LABEL | QTEXT | VALUE;
}

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        classes[octet] = classes_of(octet as u8);
        octet += 1;
    }
    classes
};

const fn classes_of(octet: u8) -> u8 {
    use class::{ATEXT, DCONTENT, KEYWORD, LABEL, QCHAR, QTEXT, VALUE, XCHAR};
    match octet {
        0..b' ' | 0x7f => 0,
        b' ' => QTEXT,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => {
            ATEXT | LABEL | QTEXT | DCONTENT | VALUE | XCHAR | QCHAR | KEYWORD
        }
        b'_' => ATEXT | LABEL | QTEXT | DCONTENT | VALUE | XCHAR | QCHAR,
        b'!' | b'#'..=b'\'' | b'*' | b'/' | b'?' | b'^' | b'`' | b'{'..=b'~' => {
            ATEXT | QTEXT | DCONTENT | VALUE | XCHAR | QCHAR
        }
        b'+' => ATEXT | QTEXT | DCONTENT | VALUE,
        b'=' => ATEXT | QTEXT | DCONTENT,
        b'"' => DCONTENT | VALUE | XCHAR | QCHAR,
        b'\\' => VALUE | XCHAR,
        b'[' | b']' => QTEXT | VALUE | XCHAR | QCHAR,
        b'(' | b')' | b',' | b'.' | b':' | b';' | b'<' | b'>' | b'@' => QTEXT | DCONTENT | VALUE | XCHAR | QCHAR,
        0x80.. => 0,
    }
}

/// Returns `true` for an octet of ASCII in the class.
pub(crate) const fn is(class: u8) -> impl Fn(u8) -> bool + Copy {
    move |octet| CLASSES[octet as usize] & class != 0
}

/// The result of a parser: the rest, and the value that it found.
pub(crate) type Parsed<'a, T = &'a [u8]> = IResult<&'a [u8], T, Fault>;

/// The place where a parser stopped, in octets that were left, and what it expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    kind: SyntaxErrorKind,
    left: usize,
}

impl Fault {
    pub(crate) const fn at<T>(rest: &[u8], kind: SyntaxErrorKind) -> Result<T, nom::Err<Self>> {
        Err(nom::Err::Error(Self { kind, left: rest.len() }))
    }

    /// The octets that were left.
    pub(crate) const fn left(fault: &nom::Err<Self>) -> usize {
        match fault {
            nom::Err::Error(fault) | nom::Err::Failure(fault) => fault.left,
            nom::Err::Incomplete(_) => 0,
        }
    }

    /// The error in a text of `octets` octets.
    pub(crate) fn in_text(fault: nom::Err<Self>, octets: usize) -> SyntaxError {
        match fault {
            nom::Err::Error(fault) | nom::Err::Failure(fault) => {
                let error = SyntaxError::new(fault.kind, octets.saturating_sub(fault.left));
                SyntaxError { cut_off: fault.left == 0, ..error }
            }
            // Only streaming parsers return it, and this crate has none.
            nom::Err::Incomplete(_) => SyntaxError::cut_off(SyntaxErrorKind::Verb, octets),
        }
    }
}

impl ParseError<&[u8]> for Fault {
    fn from_error_kind(input: &[u8], _: ErrorKind) -> Self {
        // Each parser of this crate names what it expects.
        Self { kind: SyntaxErrorKind::Verb, left: input.len() }
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Counts the octets of a class at the front.
#[inline(always)]
pub(crate) fn count(octets: &[u8], class: u8) -> usize {
    let mut count = 0;
    while let Some(octet) = octets.get(count) {
        if !is(class)(*octet) {
            let is_utf8 = !octet.is_ascii() && class & class::UTF8 != 0;
            return if is_utf8 { count_utf8(octets, count, class) } else { count };
        }
        count += 1;
    }
    count
}

/// Continues the count at a character outside ASCII.
#[inline(never)]
fn count_utf8(octets: &[u8], mut count: usize, class: u8) -> usize {
    while let Some(rest) = octets.get(count..) {
        match rest {
            // U+0080 to U+009F are control characters. There are none beyond.
            [0xc2, 0x80..=0x9f, ..] => break,
            [octet, ..] if !octet.is_ascii() || is(class)(*octet) => count += 1,
            _ => break,
        }
    }
    count
}

/// Returns `true` if four octets are of a class: for text that is mostly longer.
#[inline(always)]
pub(crate) const fn all(octets: [u8; 4], class: u8) -> bool {
    let [a, b, c, d] = octets;
    CLASSES[a as usize] & CLASSES[b as usize] & CLASSES[c as usize] & CLASSES[d as usize] & class != 0
}

/// One octet or more of a class.
#[inline(always)]
pub(crate) fn some_of(class: u8, kind: SyntaxErrorKind) -> impl Fn(&[u8]) -> Parsed<'_> {
    move |input| match input.split_at_checked(count(input, class)) {
        Some((found, rest)) if !found.is_empty() => Ok((rest, found)),
        _ => Fault::at(input, kind),
    }
}

/// The text without the spaces at its front.
#[inline(always)]
pub(crate) fn trim_spaces(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix(' ') {
        text = rest;
    }
    text
}

/// The octets without the spaces and tabs at their end.
#[inline(always)]
pub(crate) fn trim_end(mut octets: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = octets {
        octets = rest;
    }
    octets
}

/// One given octet.
pub(crate) fn octet(wanted: u8, kind: SyntaxErrorKind) -> impl Fn(&[u8]) -> Parsed<'_, ()> {
    move |input| match input.split_first() {
        Some((found, rest)) if *found == wanted => Ok((rest, ())),
        _ => Fault::at(input, kind),
    }
}

/// One of the given octets of ASCII.
pub(crate) fn one_of(wanted: &[u8], kind: SyntaxErrorKind) -> impl Fn(&[u8]) -> Parsed<'_, u8> {
    move |input| match input.split_first() {
        Some((found, rest)) if wanted.contains(found) => Ok((rest, *found)),
        _ => Fault::at(input, kind),
    }
}

/// Parses a whole text.
pub(crate) fn whole<'a, T>(
    text: &'a str,
    kind: SyntaxErrorKind,
    parser: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Result<T, SyntaxError> {
    let octets = text.as_bytes();
    match parser(octets) {
        Ok(([], found)) => Ok(found),
        Ok((rest, _)) => Err(SyntaxError::new(kind, octets.len() - rest.len())),
        Err(fault) => Err(Fault::in_text(fault, octets.len())),
    }
}

/// The length of the word at the front, and its [`key`]. The word ends before a `=`, before an
/// octet below `-` such as a space or a comma, or with the text.
///
/// Verbs and keywords are the most frequent tokens, so this reads eight octets at once.
#[inline(always)]
pub(crate) fn word(octets: &[u8]) -> (usize, u64) {
    let packed = match octets.first_chunk() {
        Some(front) => u64::from_le_bytes(*front),
        None => pack(octets),
    };
    let below_hyphen = packed.wrapping_sub(EACH * b'-' as u64) & !packed & (EACH << 7);
    let ends = below_hyphen | places(packed, b'=');
    match ends.trailing_zeros() {
        64 => {
            let is_end = |octet: &u8| *octet < b'-' || *octet == b'=';
            let end = octets.iter().position(is_end).unwrap_or(octets.len());
            (end, if end == 8 { upper(packed) } else { LONG })
        }
        bit => {
            let word = !(u64::MAX << (bit & !7));
            (bit as usize / 8, upper(packed & word | SPACES & !word))
        }
    }
}

/// Counts the octets before the first space.
#[inline(always)]
pub(crate) fn up_to_space(text: &str) -> usize {
    let mut rest = text.as_bytes();
    while let Some((front, behind)) = rest.split_first_chunk() {
        let spaces = places(u64::from_le_bytes(*front), b' ');
        if spaces != 0 {
            return text.len() - rest.len() + spaces.trailing_zeros() as usize / 8;
        }
        rest = behind;
    }
    text.len() - rest.len() + rest.iter().position(|octet| *octet == b' ').unwrap_or(rest.len())
}

/// Sets the topmost bit of each of eight octets that is the wanted one. Bits above the first such
/// octet may be wrong.
const fn places(octets: u64, wanted: u8) -> u64 {
    let zero = octets ^ (EACH * wanted as u64);
    zero.wrapping_sub(EACH) & !zero & (EACH << 7)
}

/// The key of a text that is one word. [`LONG`]: it is not, or it has more than eight octets.
#[inline(always)]
pub(crate) fn key_of(text: &str) -> u64 {
    match word(text.as_bytes()) {
        (end, key) if end == text.len() => key,
        _ => LONG,
    }
}

/// The key of a keyword of up to eight octets, for a `match`.
pub(crate) const fn key(keyword: &str) -> u64 {
    assert!(keyword.len() <= 8, "a longer keyword has no key of its own");
    upper(pack(keyword.as_bytes()))
}

/// The key of any keyword: [`LONG`] if it has more than eight octets.
pub(crate) const fn key_or_long(keyword: &str) -> u64 {
    if keyword.len() > 8 { LONG } else { key(keyword) }
}

/// The key of every word of more than eight octets. A shorter word never has it: see [`upper`].
pub(crate) const LONG: u64 = u64::MAX;

/// Up to eight octets, followed by spaces. A word has no space, so different words give different
/// numbers.
#[inline(always)]
const fn pack(mut octets: &[u8]) -> u64 {
    // Most words here are verbs of four octets. Two halves that overlap make them without a loop.
    if let (Some(front), Some(back), 4..8) = (octets.first_chunk(), octets.last_chunk(), octets.len()) {
        let (front, back) = (u32::from_le_bytes(*front) as u64, u32::from_le_bytes(*back) as u64);
        return front | back << (octets.len() * 8 - 32) | SPACES << (octets.len() * 8);
    }
    let mut packed = SPACES;
    while let [before @ .., octet] = octets {
        packed = packed << 8 | *octet as u64;
        octets = before;
    }
    packed
}

/// The number 1 in each of eight octets.
const EACH: u64 = u64::MAX / 255;
const SPACES: u64 = EACH * b' ' as u64;

/// Clears the bit that distinguishes lower-case letters. No other octet becomes a letter by that.
const fn upper(packed: u64) -> u64 {
    packed & !((packed & (EACH << 6)) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_at_a_space_an_equals_sign_or_the_end() {
        for (text, end) in [
            ("", 0),
            (" A", 0),
            ("A", 1),
            ("MAIL FROM:<a@b>", 4),
            ("Mt-Priority=3", 11),
            ("A=B C", 1),
            ("A,B C", 1),
            ("SMTPUTF8 RET=FULL", 8),
            ("ABCDEFGHIJKLMNO=", 15),
        ] {
            assert_eq!(word(text.as_bytes()), (end, key_of(&text[..end])), "{text}");
            let long = [text, &" ".repeat(8)].concat();
            assert_eq!(word(long.as_bytes()), (end, key_of(&text[..end])), "{text}");
        }
        for (text, end) in [("ABCDEFGHI", 9), ("ABCDEFGHI=", 9), ("LONGWORDSIZE=1", 12)] {
            assert_eq!(word(text.as_bytes()), (end, LONG), "{text}");
        }
    }

    #[test]
    fn keys_of_words_differ_without_regard_to_case() {
        assert_eq!(key_of("8bitMime"), key("8BITMIME"));
        for other in ["8BITMIM", "8BITMIME\0", "8BITMIME-", "8BITMIM\u{5}", "\u{c5}BITMIME", "8BITMI-E"] {
            assert_ne!(key_of(other), key("8BITMIME"), "{other}");
        }
        for other in ["FULL ", "FULL    ", " FULL", "FULL=", "FULL,", "FULL\0"] {
            assert_ne!(key_of(other), key("FULL"), "{other}");
        }
    }

    #[test]
    fn only_words_of_more_than_eight_octets_are_long() {
        for octet in 0..=u8::MAX {
            assert_ne!(upper(pack(&[octet; 8])), LONG, "{octet}");
        }
        assert_eq!((key_of("123456789"), key_of("SIZE SIZE SIZE")), (LONG, LONG));
    }
}
