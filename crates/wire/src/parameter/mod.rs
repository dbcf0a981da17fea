//! ESMTP parameters: `keyword[=value]`, separated by spaces (RFC 5321 section 4.1.2), and the
//! values of known ones.

mod body;
mod date_time;
mod deliver_by;
mod future_release;
mod notify;
mod original_recipient;
mod priority;
mod rrvs;
mod solicitation;

use alloc::string::String;
use core::fmt;

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{class, count, trim_end, trim_spaces, up_to_space, word},
};

pub use body::{BodyType, Ret};
pub use date_time::DateTime;
pub use deliver_by::{DeliverBy, DeliverByMode};
pub use future_release::Hold;
pub use notify::Notify;
pub use original_recipient::{MAX_ORCPT, OriginalRecipient};
pub use priority::Priority;
pub use rrvs::{Rrvs, RrvsAction};
pub use solicitation::Solicitation;

/// The parameters of a MAIL or RCPT command as they came, in order, known and unknown.
///
/// The typed fields of [`Mail`](crate::Mail) and [`Rcpt`](crate::Rcpt) are views of the known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Parameters<S = String>(S);

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// The keyword as it came. Keywords compare without regard to case.
    pub keyword: &'a str,
    /// The value. `None`: the parameter has no `=`.
    pub value: Option<&'a str>,
    /// The octet at which the parameter starts, counted from 0 in the text after the path.
    pub offset: usize,
    key: u64,
}

impl<'a> Parameter<'a> {
    /// Returns `true` if the parameter has that keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        self.keyword.eq_ignore_ascii_case(keyword)
    }

    /// The keyword as a number: [`crate::grammar::key`].
    pub(crate) const fn key(&self) -> u64 {
        self.key
    }

    /// Checks the grammar of `esmtp-param` (RFC 5321 section 4.1.2), with UTF-8 in values (RFC 6531
    /// section 3.3).
    fn check(&self) -> Result<(), SyntaxError> {
        let wrong = |text: &str, class| Some(count(text.as_bytes(), class)).filter(|at| *at < text.len());
        let keyword = if self.keyword.starts_with('-') { Some(0) } else { wrong(self.keyword, class::KEYWORD) };
        let value = || wrong(self.value?, class::VALUE).map(|at| self.keyword.len() + 1 + at);
        match keyword.or_else(value) {
            Some(at) => Err(SyntaxError::new(SyntaxErrorKind::Parameter, self.offset + at)),
            None => Ok(()),
        }
    }

    /// Sets a field to the value. A field that is set already is a fault.
    #[inline]
    pub(crate) fn set<T>(
        &self,
        field: &mut Option<T>,
        read: impl FnOnce(&'a str) -> Result<T, SyntaxError>,
    ) -> Result<bool, SyntaxError> {
        let behind = self.offset + self.keyword.len();
        // A parameter with `=` and no value does not come here.
        let value = self.value.ok_or(SyntaxError::cut_off(SyntaxErrorKind::ParameterValue, behind))?;
        let value = read(value).map_err(|error| error.at(behind + 1))?;
        match field.replace(value) {
            None => Ok(true),
            Some(_) => Err(self.duplicate()),
        }
    }

    /// Sets a flag that has no value.
    pub(crate) fn flag(&self, field: &mut bool) -> Result<bool, SyntaxError> {
        if self.value.is_some() {
            return Err(SyntaxError::new(SyntaxErrorKind::ParameterValue, self.offset + self.keyword.len()));
        }
        match core::mem::replace(field, true) {
            false => Ok(true),
            true => Err(self.duplicate()),
        }
    }

    pub(crate) const fn duplicate(&self) -> SyntaxError {
        SyntaxError::new(SyntaxErrorKind::DuplicateParameter, self.offset)
    }
}

/// The parameter as it came.
impl fmt::Display for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword)?;
        self.value.map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

impl<'a> Parameters<&'a str> {
    /// No parameters.
    pub const NONE: Parameters<&'static str> = Parameters("");

    /// Parses the text after a path: empty, or a space and parameters. Spaces and tabs at its end
    /// are dropped (RFC 5321 section 4.1.1).
    ///
    /// # Errors
    /// [`SyntaxErrorKind::Parameter`] at a malformed parameter, [`SyntaxErrorKind::ParameterValue`]
    /// at a missing value.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        Self::parse_each(text, |_| Ok(false))
    }

    /// Parses the text after a path, and calls `each` once with each parameter. `each` returns
    /// `true` for a parameter that it knows, and so has checked.
    #[inline]
    pub(crate) fn parse_each(
        text: &'a str,
        mut each: impl FnMut(&Parameter<'a>) -> Result<bool, SyntaxError>,
    ) -> Result<Self, SyntaxError> {
        let text = text.get(..trim_end(text.as_bytes()).len()).unwrap_or_default();
        let mut cursor = Cursor { rest: text, at: 0 };
        while let Some(parameter) = cursor.next().map_err(|error| error.within(text))? {
            if !each(&parameter).map_err(|error| error.within(text))? {
                parameter.check()?;
            }
        }
        Ok(Self(text))
    }

    /// The owned form.
    pub fn into_owned(self) -> Parameters {
        Parameters(self.0.into())
    }

    /// The parameters in order.
    pub fn iter(self) -> impl Iterator<Item = Parameter<'a>> {
        let mut cursor = Cursor { rest: self.0, at: 0 };
        // `parse` has read the same text, so no error is possible.
        core::iter::from_fn(move || cursor.next().ok().flatten())
    }
}

impl<S: AsRef<str>> Parameters<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Parameters<&str> {
        Parameters(self.0.as_ref())
    }

    /// The text after the path, as it came.
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_ref()
    }
}

/// Reads parameters in order. It finds the start and end of each, and checks no octets.
#[derive(Debug)]
struct Cursor<'a> {
    /// The rest, with the space before the next parameter.
    rest: &'a str,
    /// Octets that were read.
    at: usize,
}

impl<'a> Cursor<'a> {
    // Inlined into its two loops, so that its result stays in registers.
    #[inline(always)]
    fn next(&mut self) -> Result<Option<Parameter<'a>>, SyntaxError> {
        let Some(text) = self.rest.strip_prefix(' ') else {
            return match self.rest {
                "" => Ok(None),
                _ => Err(SyntaxError::new(SyntaxErrorKind::Parameter, self.at)),
            };
        };
        let text = trim_spaces(text);
        let offset = self.at + self.rest.len() - text.len();
        let (length, key) = word(text.as_bytes());
        let Some((keyword, behind)) = text.split_at_checked(length).filter(|_| length > 0) else {
            return Err(SyntaxError::new(SyntaxErrorKind::Parameter, offset));
        };
        let (mut value, mut rest) = (None, behind);
        if let Some(behind) = behind.strip_prefix('=') {
            let Some((text, behind)) =
                behind.split_at_checked(up_to_space(behind)).filter(|(text, _)| !text.is_empty())
            else {
                Parameter { keyword, value, offset, key }.check()?;
                return Err(SyntaxError::cut_off(SyntaxErrorKind::ParameterValue, offset + length + 1));
            };
            (value, rest) = (Some(text), behind);
        }
        self.at = offset + text.len() - rest.len();
        self.rest = rest;
        Ok(Some(Parameter { keyword, value, offset, key }))
    }
}

/// A decimal number of up to 64 bits: 1 to 20 digits (RFC 1870 section 5).
pub(crate) fn number(text: impl AsRef<[u8]>) -> Result<u64, SyntaxError> {
    let octets = text.as_ref();
    let fault =
        |offset| SyntaxError { cut_off: octets.is_empty(), ..SyntaxError::new(SyntaxErrorKind::Number, offset) };
    if !(1..=20).contains(&octets.len()) {
        return Err(fault(octets.len().min(20)));
    }
    let mut number = 0_u64;
    for (at, octet) in octets.iter().enumerate() {
        let digit = octet.wrapping_sub(b'0');
        let next = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit)));
        number = next.filter(|_| digit < 10).ok_or(fault(at))?;
    }
    Ok(number)
}

/// A fault in the value of a parameter.
pub(crate) const fn fault(offset: usize) -> SyntaxError {
    SyntaxError::new(SyntaxErrorKind::ParameterValue, offset)
}

/// A fault in a value that is a whole text: cut off if the text ends there.
pub(crate) const fn fault_in(text: &str, offset: usize) -> SyntaxError {
    SyntaxError { cut_off: offset >= text.len(), ..SyntaxError::new(SyntaxErrorKind::ParameterValue, offset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec::Vec};

    #[test]
    fn parameters_are_read_in_order_and_kept() {
        let parameters = Parameters::parse(" SIZE=10  x-flag BODY=8bitmime \t").unwrap();
        let all: Vec<_> = parameters.iter().map(|p| (p.keyword, p.value, p.offset)).collect();
        assert_eq!(all, [("SIZE", Some("10"), 1), ("x-flag", None, 10), ("BODY", Some("8bitmime"), 17)]);
        let texts: Vec<_> = parameters.iter().map(|p| p.to_string()).collect();
        assert_eq!(texts, ["SIZE=10", "x-flag", "BODY=8bitmime"]);
    }

    #[test]
    fn a_fault_in_parameters_has_its_offset() {
        use SyntaxErrorKind::{Parameter, ParameterValue};
        for (text, kind, offset, cut_off) in [
            ("SIZE=1", Parameter, 0, false),
            (" -A=1", Parameter, 1, false),
            (" A=1 =", Parameter, 5, false),
            (" A_B", Parameter, 2, false),
            (" A=", ParameterValue, 3, true),
            (" A= B", ParameterValue, 3, false),
            (" A_B=", Parameter, 2, false),
            (" -A=", Parameter, 1, false),
            (" A=b=c", Parameter, 4, false),
            (" A\tB", Parameter, 2, false),
        ] {
            assert_eq!(
                Parameters::parse(text),
                Err(SyntaxError { cut_off, ..SyntaxError::new(kind, offset) }),
                "{text:?}"
            );
        }
    }

    #[test]
    fn numbers_have_64_bits() {
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(number("00000000000000000001"), Ok(1));
        for (text, offset) in
            [("18446744073709551616", 19), ("000000000000000000001", 20), ("", 0), ("1x", 1), ("-1", 0)]
        {
            assert_eq!(number(text).unwrap_err().offset, offset, "{text}");
        }
    }
}
