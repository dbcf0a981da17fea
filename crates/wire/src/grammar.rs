//! What the grammars share: the classes of octets, where a parser stopped, and keywords as numbers.
//!
//! The parsers are nom's, over octets. Text is checked to be UTF-8 before it gets here, and every class takes all
//! octets of a character outside ASCII or none of them, so a parser stops between characters only.

use nom::{
    IResult,
    bytes::complete::take_while,
    error::{ErrorKind, ParseError},
};

use crate::error::{SyntaxError, SyntaxErrorKind};

/// Classes of octets; an octet may be in several. Those with "UTF-8" take every octet of a character outside ASCII
/// (RFC 6531 section 3.3).
pub(crate) mod class {
    /// `atext` of RFC 5321 section 4.1.2, UTF-8.
    pub(crate) const ATEXT: u8 = 1;
    /// `Let-dig` or `-`, UTF-8: the octets of a label.
    pub(crate) const LABEL: u8 = 2;
    /// `qtextSMTP`, UTF-8.
    pub(crate) const QTEXT: u8 = 4;
    /// `dcontent`: the octets of an address literal.
    pub(crate) const DCONTENT: u8 = 8;
    /// `esmtp-value`, UTF-8 for the parameters of RFC 6533.
    pub(crate) const VALUE: u8 = 16;
    /// `xchar` of RFC 3461 section 4: itself in xtext.
    pub(crate) const XCHAR: u8 = 32;
    /// `QCHAR` of RFC 6533 section 3: itself in utf-8-addr-xtext.
    pub(crate) const QCHAR: u8 = 64;
    /// A letter, a digit or `-`: the octets of keywords and verbs.
    pub(crate) const KEYWORD: u8 = 128;
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
        0..=b' ' | 0x7f => {
            if octet == b' ' {
                QTEXT
            } else {
                0
            }
        }
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => {
            ATEXT | LABEL | QTEXT | DCONTENT | VALUE | XCHAR | QCHAR | KEYWORD
        }
        b'!' | b'#'..=b'\'' | b'*' | b'/' | b'?' | b'^'..=b'`' | b'{'..=b'~' => {
            ATEXT | QTEXT | DCONTENT | VALUE | XCHAR | QCHAR
        }
        b'+' => ATEXT | QTEXT | DCONTENT | VALUE,
        b'=' => ATEXT | QTEXT | DCONTENT,
        b'"' => DCONTENT | VALUE | XCHAR | QCHAR,
        b'\\' => VALUE | XCHAR,
        b'[' | b']' => QTEXT | VALUE | XCHAR | QCHAR,
        b'(' | b')' | b',' | b'.' | b':' | b';' | b'<' | b'>' | b'@' => QTEXT | DCONTENT | VALUE | XCHAR | QCHAR,
        0x80.. => ATEXT | LABEL | QTEXT | VALUE,
    }
}

/// Whether an octet is in a class.
pub(crate) const fn is(class: u8) -> impl Fn(u8) -> bool + Copy {
    move |octet| CLASSES[octet as usize] & class != 0
}

/// What a parser gives: the rest, and what it found.
pub(crate) type Parsed<'a, T = &'a [u8]> = IResult<&'a [u8], T, Fault>;

/// Where a parser stopped, as octets that were left, and what it wanted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    kind: SyntaxErrorKind,
    left: usize,
}

impl Fault {
    pub(crate) const fn at<T>(rest: &[u8], kind: SyntaxErrorKind) -> Result<T, nom::Err<Self>> {
        Err(nom::Err::Error(Self { kind, left: rest.len() }))
    }

    /// The error in a text of so many octets.
    pub(crate) fn in_text(fault: nom::Err<Self>, octets: usize) -> SyntaxError {
        match fault {
            nom::Err::Error(fault) | nom::Err::Failure(fault) => {
                SyntaxError { kind: fault.kind, offset: octets.saturating_sub(fault.left), cut_off: fault.left == 0 }
            }
            // Only streaming parsers say so, and none is used.
            nom::Err::Incomplete(_) => SyntaxError { kind: SyntaxErrorKind::Verb, offset: octets, cut_off: true },
        }
    }
}

impl ParseError<&[u8]> for Fault {
    fn from_error_kind(input: &[u8], _: ErrorKind) -> Self {
        // Every parser of this crate names what it wants by `expect`.
        Self { kind: SyntaxErrorKind::Verb, left: input.len() }
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// One octet or more of a class.
pub(crate) fn some_of(class: u8, kind: SyntaxErrorKind) -> impl Fn(&[u8]) -> Parsed<'_> {
    move |input| {
        let (rest, found) = take_while(is(class))(input)?;
        if found.is_empty() { Fault::at(input, kind) } else { Ok((rest, found)) }
    }
}

/// One given octet.
pub(crate) fn octet(wanted: u8, kind: SyntaxErrorKind) -> impl Fn(&[u8]) -> Parsed<'_, ()> {
    move |input| match input.split_first() {
        Some((found, rest)) if *found == wanted => Ok((rest, ())),
        _ => Fault::at(input, kind),
    }
}
