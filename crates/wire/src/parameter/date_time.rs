//! Points in time (RFC 3339), as HOLDUNTIL and RRVS have them.

use alloc::string::String;
use core::fmt;

use super::{fault, fault_in};
use crate::error::SyntaxError;

/// A `date-time` of RFC 3339 section 5.6, kept as it came.
///
/// ```
/// use posthaste_wire::parameter::DateTime;
/// let time = DateTime::parse("2009-07-07T04:00:00+02:00")?;
/// assert_eq!(time.unix_seconds(), 1_246_932_000);
/// assert!(DateTime::parse("2009-02-29T00:00:00Z").is_err(), "no such day");
/// # Ok::<(), posthaste_wire::SyntaxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateTime<S = String> {
    text: S,
    seconds: i64,
}

impl<'a> DateTime<&'a str> {
    /// Takes a point in time: the years 0000 to 9999, a leap second, any offset from UTC.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`](crate::SyntaxErrorKind::ParameterValue) at the field that is out of its range
    /// or no number.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let mut fields = Fields { text, at: 0 };
        let year = fields.number(4, 0..=9_999)?;
        fields.octet(b"-")?;
        let month = fields.number(2, 1..=12)?;
        fields.octet(b"-")?;
        let day = fields.number(2, 1..=days_in(year, month))?;
        fields.octet(b"Tt")?;
        let hour = fields.number(2, 0..=23)?;
        fields.octet(b":")?;
        let minute = fields.number(2, 0..=59)?;
        fields.octet(b":")?;
        // 60 is a leap second; it counts as the first of the next minute.
        let second = fields.number(2, 0..=60)?;
        if fields.octet(b".").is_ok() {
            fields.fraction()?;
        }
        let sign = match fields.octet(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => 0,
        };
        let mut offset = 0;
        if sign != 0 {
            offset = fields.number(2, 0..=23)? * 60;
            fields.octet(b":")?;
            offset += fields.number(2, 0..=59)?;
        }
        if fields.at != text.len() {
            return Err(fault(fields.at));
        }
        let seconds =
            days_since_1970(year, month, day) * 86_400 + hour * 3_600 + (minute - sign * offset) * 60 + second;
        Ok(Self { text, seconds })
    }

    /// The owned form.
    pub fn into_owned(self) -> DateTime {
        DateTime { text: self.text.into(), seconds: self.seconds }
    }
}

impl<S: AsRef<str>> DateTime<S> {
    /// The text as it came.
    pub fn as_str(&self) -> &str {
        self.text.as_ref()
    }

    /// The borrowed form.
    pub fn borrowed(&self) -> DateTime<&str> {
        DateTime { text: self.text.as_ref(), seconds: self.seconds }
    }

    /// Seconds since 1970-01-01T00:00:00Z without leap seconds; a fraction is dropped.
    pub const fn unix_seconds(&self) -> i64 {
        self.seconds
    }
}

impl<S: AsRef<str>> fmt::Display for DateTime<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct Fields<'a> {
    text: &'a str,
    at: usize,
}

impl Fields<'_> {
    fn number(&mut self, digits: usize, range: core::ops::RangeInclusive<i64>) -> Result<i64, SyntaxError> {
        let mut number = 0;
        for at in self.at..self.at + digits {
            match self.text.as_bytes().get(at) {
                Some(digit @ b'0'..=b'9') => number = number * 10 + i64::from(digit - b'0'),
                _ => return Err(fault_in(self.text, at)),
            }
        }
        if !range.contains(&number) {
            return Err(fault(self.at));
        }
        self.at += digits;
        Ok(number)
    }

    fn octet(&mut self, wanted: &[u8]) -> Result<u8, SyntaxError> {
        match self.text.as_bytes().get(self.at) {
            Some(octet) if wanted.contains(octet) => {
                self.at += 1;
                Ok(*octet)
            }
            _ => Err(fault_in(self.text, self.at)),
        }
    }

    fn fraction(&mut self) -> Result<(), SyntaxError> {
        self.number(1, 0..=9)?;
        while self.number(1, 0..=9).is_ok() {}
        Ok(())
    }
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar; the year starts in March, so that a leap day is its last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1985-04-12T23:20:50.52Z", 482_196_050),
            ("1996-12-19T16:39:57-08:00", 851_042_397),
            ("1990-12-31T23:59:60Z", 662_688_000),
            ("1937-01-01T12:00:27.87+00:20", -1_041_337_173),
            ("2000-02-29t00:00:00z", 951_782_400),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(DateTime::parse(text).map(|time| time.unix_seconds()), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn faults_are_told_where_they_stand() {
        for (text, offset, cut_off) in [
            ("", 0, true),
            ("2024", 4, true),
            ("2024-13-01T00:00:00Z", 5, false),
            ("2023-02-29T00:00:00Z", 8, false),
            ("2024-01-01 00:00:00Z", 10, false),
            ("2024-01-01T24:00:00Z", 11, false),
            ("2024-01-01T00:00:61Z", 17, false),
            ("2024-01-01T00:00:00.Z", 20, false),
            ("2024-01-01T00:00:00", 19, true),
            ("2024-01-01T00:00:00+0100", 22, false),
            ("2024-01-01T00:00:00Zx", 20, false),
            ("+024-01-01T00:00:00Z", 0, false),
        ] {
            let error = DateTime::parse(text).unwrap_err();
            assert_eq!((error.offset, error.cut_off), (offset, cut_off), "{text}");
        }
    }
}
