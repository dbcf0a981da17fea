//! ESMTP parameters: `keyword[=value]`, separated by spaces (RFC 5321 section 4.1.2).

use alloc::string::String;

use nom::{
    IResult, Parser, bytes::complete::take_while1, character::complete::char, combinator::opt, sequence::preceded,
};

use crate::error::{SyntaxError, SyntaxErrorKind};

/// The parameters of a MAIL or RCPT command as they came, in order, known and unknown.
///
/// The typed fields of [`Mail`](crate::Mail) and [`Rcpt`](crate::Rcpt) are views of the known ones; nothing is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Parameters<S = String>(S);

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The keyword as it came; keywords compare without regard to case.
    pub keyword: &'a str,
    /// The value, when there was a `=`.
    pub value: Option<&'a str>,
    /// Where the parameter starts, in octets of the parameters' text.
    pub offset: usize,
}

impl Parameter<'_> {
    /// Whether this is the parameter with that keyword.
    pub fn is(&self, keyword: &str) -> bool {
        self.keyword.eq_ignore_ascii_case(keyword)
    }

    pub(crate) fn error(&self, kind: SyntaxErrorKind) -> SyntaxError {
        SyntaxError::new(kind, self.offset)
    }
}

impl<'a> Parameters<&'a str> {
    /// No parameters.
    pub const NONE: Parameters<&'static str> = Parameters("");

    /// Takes the text behind a path.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Parameter`] where something is no parameter.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let mut rest = Cursor { text, offset: 0 };
        while rest.next()?.is_some() {}
        Ok(Self(text))
    }

    /// The owned form.
    pub fn into_owned(self) -> Parameters {
        Parameters(self.0.into())
    }

    /// The parameters one after another.
    pub fn iter(self) -> impl Iterator<Item = Parameter<'a>> {
        let mut rest = Cursor { text: self.0, offset: 0 };
        // The constructor went through the same text, so an error is not possible here.
        core::iter::from_fn(move || rest.next().ok().flatten())
    }
}

impl<S: AsRef<str>> Parameters<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Parameters<&str> {
        Parameters(self.0.as_ref())
    }
}

/// Reads parameters one after another and knows where it stands.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a str,
    pub(crate) offset: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn next(&mut self) -> Result<Option<Parameter<'a>>, SyntaxError> {
        let rest = self.text.get(self.offset..).unwrap_or_default();
        let trimmed = rest.trim_start_matches(' ');
        // Trailing white space is tolerated (RFC 5321 section 4.1.1).
        if trimmed.trim_end_matches([' ', '\t']).is_empty() {
            return Ok(None);
        }
        let offset = self.offset + (rest.len() - trimmed.len());
        let error = SyntaxError::new(SyntaxErrorKind::Parameter, offset);
        let (left, (keyword, value)) = parameter(trimmed).map_err(|_| error)?;
        if !(left.is_empty() || left.starts_with([' ', '\t'])) {
            return Err(error);
        }
        self.offset = self.text.len() - left.len();
        Ok(Some(Parameter { keyword, value, offset }))
    }
}

/// `esmtp-keyword ["=" esmtp-value]`; the value may hold UTF-8 for the parameters of RFC 6533.
fn parameter(input: &str) -> IResult<&str, (&str, Option<&str>)> {
    let keyword = take_while1(|c: char| c.is_ascii_alphanumeric() || c == '-');
    let value = take_while1(|c: char| c > ' ' && c != '=' && c != '\u{7f}');
    let (rest, (keyword, value)) = (keyword, opt(preceded(char('='), value))).parse(input)?;
    if keyword.starts_with('-') {
        return Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Verify)));
    }
    Ok((rest, (keyword, value)))
}

/// A decimal number of up to 64 bits, digits only.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
