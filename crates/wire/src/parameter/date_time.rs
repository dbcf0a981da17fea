//! Points in time (RFC 3339), for HOLDUNTIL and RRVS.

use alloc::{format, string::String};
use core::{fmt, ops::RangeInclusive};

use nom::{
    Parser,
    combinator::{cond, cut, opt},
    sequence::preceded,
};

use crate::{
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{Fault, Parsed, octet, one_of, whole},
};

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
    /// Parses a point in time: the years 0000 to 9999, leap seconds, any offset from UTC.
    ///
    /// # Errors
    /// [`SyntaxErrorKind::ParameterValue`](crate::SyntaxErrorKind::ParameterValue) at the field
    /// that is out of its range or not a number.
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        whole(text, KIND, date_time).map(|seconds| Self { text, seconds })
    }

    /// The owned form.
    pub fn into_owned(self) -> DateTime {
        DateTime { text: self.text.into(), seconds: self.seconds }
    }
}

impl DateTime {
    /// Writes seconds since 1970-01-01T00:00:00Z as a point in time in UTC. `None`: outside the
    /// years 0000 to 9999.
    ///
    /// ```
    /// use posthaste_wire::parameter::DateTime;
    /// assert_eq!(DateTime::from_unix_seconds(1_246_932_000).unwrap().as_str(), "2009-07-07T02:00:00Z");
    /// ```
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let (year, month, day) = day_since_1970(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        (0..=9_999).contains(&year).then(|| Self {
            text: format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            seconds,
        })
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

    /// Seconds since 1970-01-01T00:00:00Z, without leap seconds. Fractions are dropped.
    pub const fn unix_seconds(&self) -> i64 {
        self.seconds
    }
}

impl<S: AsRef<str>> fmt::Display for DateTime<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const KIND: SyntaxErrorKind = SyntaxErrorKind::ParameterValue;

/// `date-time` of RFC 3339 section 5.6, as seconds since 1970.
fn date_time(input: &[u8]) -> Parsed<'_, i64> {
    let (rest, year) = number(4, 0..=9_999)(input)?;
    let (rest, month) = preceded(octet(b'-', KIND), number(2, 1..=12)).parse(rest)?;
    let (rest, day) = preceded(octet(b'-', KIND), number(2, 1..=days_in(year, month))).parse(rest)?;
    let (rest, hour) = preceded(one_of(b"Tt", KIND), number(2, 0..=23)).parse(rest)?;
    let (rest, minute) = preceded(octet(b':', KIND), number(2, 0..=59)).parse(rest)?;
    // 60 is a leap second. It counts as the first second of the next minute.
    let (rest, second) = preceded(octet(b':', KIND), number(2, 0..=60)).parse(rest)?;
    let (rest, _) = opt(preceded(octet(b'.', KIND), cut(fraction))).parse(rest)?;
    let (rest, sign) = one_of(b"Zz+-", KIND)(rest)?;
    let sign = match sign {
        b'+' => 1,
        b'-' => -1,
        _ => 0,
    };
    let offset = (number(2, 0..=23), preceded(octet(b':', KIND), number(2, 0..=59)));
    let (rest, offset) = cond(sign != 0, offset).parse(rest)?;
    let minutes = offset.map_or(0, |(hours, minutes)| sign * (hours * 60 + minutes));
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + (minute - minutes) * 60 + second;
    Ok((rest, seconds))
}

/// A number of `digits` digits.
fn number(digits: u32, range: RangeInclusive<i64>) -> impl Fn(&[u8]) -> Parsed<'_, i64> {
    move |input| {
        let (mut rest, mut number) = (input, 0);
        for left in (1..=digits).rev() {
            number = match rest.split_first() {
                Some((digit @ b'0'..=b'9', behind)) => {
                    rest = behind;
                    number * 10 + i64::from(digit - b'0')
                }
                // Cut off if a number in the range starts like this.
                None => {
                    let power = 10_i64.pow(left);
                    let (least, most) = (number * power, number * power + power - 1);
                    let is_open = least <= *range.end() && *range.start() <= most;
                    return Fault::at(if is_open { rest } else { input }, KIND);
                }
                _ => return Fault::at(rest, KIND),
            };
        }
        if range.contains(&number) { Ok((rest, number)) } else { Fault::at(input, KIND) }
    }
}

/// A fraction of a second: one digit or more. It is not used.
fn fraction(input: &[u8]) -> Parsed<'_> {
    let digits = input.iter().take_while(|octet| octet.is_ascii_digit()).count();
    match input.split_at_checked(digits) {
        Some((found, rest)) if digits > 0 => Ok((rest, found)),
        _ => Fault::at(input, KIND),
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

/// Days of the proleptic Gregorian calendar. The year starts in March, so a leap day is its last
/// day.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let days_before_month = (153 * ((month + 9) % 12) + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + days_before_month + day - 1 - 719_468
}

/// The year, month and day of a day: the inverse of [`days_since_1970`].
const fn day_since_1970(days: i64) -> (i64, i64, i64) {
    // 146,097 days are 400 years; a year of the calculation starts in March.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = year_of_era + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_the_text_that_is_parsed_to_them() {
        let (first, last) = (-62_167_219_200, 253_402_300_799);
        let steps = (first..=last).step_by(86_399 * 17).chain([-1, 0, 951_782_400, 951_868_800, last]);
        for seconds in steps {
            let time = DateTime::from_unix_seconds(seconds).unwrap();
            assert_eq!(DateTime::parse(time.as_str()).unwrap().unix_seconds(), seconds, "{time}");
        }
        assert_eq!(DateTime::from_unix_seconds(first).unwrap().as_str(), "0000-01-01T00:00:00Z");
        for beyond in [first - 1, last + 1, i64::MIN / 86_400, i64::MAX / 86_400] {
            assert_eq!(DateTime::from_unix_seconds(beyond), None);
        }
    }

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
    fn a_fault_in_a_date_time_has_its_offset() {
        for (text, offset, cut_off) in [
            ("", 0, true),
            ("2024", 4, true),
            ("2024-1", 6, true),
            ("2024-2", 5, false),
            ("2024-02-3", 8, false),
            ("2024-01-3", 9, true),
            ("2024-01-01T00:00:00.", 20, true),
            ("2024-01-01T00:00:00+2", 21, true),
            ("2024-01-01T00:00:00+3", 20, false),
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
