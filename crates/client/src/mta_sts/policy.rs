//! The policy file (RFC 8461 section 3.2), and which hosts it permits.

use std::{fmt, ops::RangeInclusive, time::Duration};

use thiserror::Error;

use super::record::is_field_name;
use crate::HostName;

/// The most bytes of a policy. RFC 8461 section 3.3 suggests the number.
pub const MAX_POLICY: usize = 64 << 10;
/// The most `mx` lines of a policy. Large providers have about ten.
pub const MAX_MX: usize = 1_000;
/// The longest lifetime of a policy: about a year (RFC 8461 section 3.2).
pub const MAX_AGE: Duration = Duration::from_secs(31_557_600);

/// The policy of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    mode: Mode,
    mx: Vec<MxPattern>,
    max_age: Duration,
}

/// What a policy asks of senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Mail goes only to hosts that match, over TLS, with a certificate for the host's name.
    Enforce,
    /// Mail goes as without a policy. Failures are reported to the domain (RFC 8460).
    Testing,
    /// No policy: the domain takes its earlier one back.
    None,
}

/// The names of hosts: one name, or those with one label before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxPattern {
    /// In lower case. With `*.` in front: of the names with one more label.
    text: Box<str>,
}

/// What is wrong with a policy file. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file is too long.
    #[error("the policy has {0} bytes; shorten it to {MAX_POLICY}")]
    TooLong(usize),
    /// A line is not UTF-8.
    #[error("line {0} of the policy is not UTF-8; write it in ASCII")]
    NotUtf8(usize),
    /// A line is no `key: value`.
    #[error("line {0} of the policy is not `key: value`; write one field a line, without space before it")]
    Field(usize),
    /// The version is another.
    #[error("line {0} of the policy has another version; write `version: STSv1`")]
    Version(usize),
    /// The mode is unknown.
    #[error("line {0} of the policy has an unknown mode; write `enforce`, `testing` or `none`")]
    Mode(usize),
    /// `max_age` is no number of 1 to 10 digits.
    #[error("line {0} of the policy has a max_age that is no number of seconds; write `max_age: 604800` for a week")]
    MaxAge(usize),
    /// An `mx` line names no host.
    #[error("line {0} of the policy has an mx that is no host name in A-labels, or `*.` before one")]
    Mx(usize),
    /// There are too many `mx` lines.
    #[error("line {0} of the policy is an mx beyond the first {MAX_MX}; write `*.` before a name that they share")]
    TooManyMx(usize),
    /// A line is missing.
    #[error("the policy has no line `{0}`; add it")]
    Missing(&'static str),
}

/// How many digits `max_age` has.
const DIGITS: RangeInclusive<usize> = 1..=10;
/// The octets of a pattern besides its text, about.
const PATTERN: usize = 32;

impl Policy {
    /// Parses a policy file. Lines end in CRLF or LF, and empty lines do not count.
    ///
    /// Of keys that come again the first counts, apart from `mx`. Unknown keys do not count. A
    /// `max_age` above [`MAX_AGE`] counts as that.
    ///
    /// # Errors
    /// [`PolicyError`]. Each names the line and the remedy.
    pub fn parse(file: &[u8]) -> Result<Self, PolicyError> {
        if file.len() > MAX_POLICY {
            return Err(PolicyError::TooLong(file.len()));
        }
        Self::parse_lines(file)
    }

    /// Parses lines of any number. As this writes a policy, it may be longer than it came.
    pub(super) fn parse_lines(file: &[u8]) -> Result<Self, PolicyError> {
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for (line, number) in file.split(|octet| *octet == b'\n').zip(1..) {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).map_err(|_| PolicyError::NotUtf8(number))?;
            let line = line.trim_end_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(PolicyError::Field(number))?;
            let value = value.trim_start_matches([' ', '\t']);
            if !is_field_name(key) || value.is_empty() || value.contains(|c: char| c.is_ascii_control()) {
                return Err(PolicyError::Field(number));
            }
            match key {
                "version" if version.is_none() => {
                    version = Some((value == "STSv1").then_some(()).ok_or(PolicyError::Version(number))?);
                }
                "mode" if mode.is_none() => mode = Some(Mode::parse(value).ok_or(PolicyError::Mode(number))?),
                "max_age" if max_age.is_none() => {
                    max_age = Some(parse_max_age(value).ok_or(PolicyError::MaxAge(number))?);
                }
                "mx" if mx.len() >= MAX_MX => return Err(PolicyError::TooManyMx(number)),
                "mx" => mx.push(MxPattern::parse(value).ok_or(PolicyError::Mx(number))?),
                _ => {}
            }
        }
        version.ok_or(PolicyError::Missing("version: STSv1"))?;
        let mode = mode.ok_or(PolicyError::Missing("mode: enforce"))?;
        let max_age = max_age.ok_or(PolicyError::Missing("max_age: 604800"))?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::Missing("mx: HOST"));
        }
        Ok(Self { mode, mx, max_age })
    }

    /// What the policy asks of senders.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// How long the policy is valid after it was fetched, [`MAX_AGE`] at most.
    pub const fn max_age(&self) -> Duration {
        self.max_age
    }

    /// The patterns of hosts. Empty only in mode `none`.
    pub fn mx(&self) -> &[MxPattern] {
        &self.mx
    }

    /// Returns `true` if a host of this name may take the domain's mail, whatever the mode (RFC
    /// 8461 section 4.1).
    pub fn permits(&self, host: &str) -> bool {
        let host = HostName::parse(host).ok().filter(HostName::is_plain);
        let host = host.map(|host| host.as_str().to_ascii_lowercase());
        host.is_some_and(|host| self.mx.iter().any(|pattern| pattern.matches_lower_case(&host)))
    }

    /// The policy's lines without their ends, as RFC 8460 reports them. Unknown keys are left out.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let head = ["version: STSv1".to_owned(), format!("mode: {}", self.mode)];
        let mx = self.mx.iter().map(|pattern| format!("mx: {pattern}"));
        head.into_iter().chain(mx).chain([format!("max_age: {}", self.max_age.as_secs())])
    }

    /// The bytes of memory that it takes, about.
    pub(super) fn size(&self) -> usize {
        self.mx.iter().map(|pattern| pattern.text.len() + PATTERN).sum()
    }
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }

    /// The word of the policy file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }
}

impl MxPattern {
    fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        // Outside ASCII there are no A-labels, and a backslash would be an escape.
        let name = HostName::parse(name).ok().filter(|host| host.is_plain() && name.is_ascii())?;
        let wildcard = if text.starts_with("*.") { "*." } else { "" };
        Some(Self { text: format!("{wildcard}{}", name.as_str().to_ascii_lowercase()).into() })
    }

    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn matches_lower_case(&self, host: &str) -> bool {
        match self.text.strip_prefix('*') {
            Some(parent) => host.find('.').and_then(|dot| host.get(dot..)) == Some(parent),
            None => host == &*self.text,
        }
    }
}

fn parse_max_age(digits: &str) -> Option<Duration> {
    let is_number = DIGITS.contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
    let seconds = digits.parse().ok().filter(|_| is_number)?;
    Some(Duration::from_secs(seconds).min(MAX_AGE))
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for MxPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A policy file that parses as this policy, unless it came in nearly [`MAX_POLICY`] bytes without
/// the spaces and CRs that are in it here.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().try_for_each(|line| write!(f, "{line}\r\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8461 section 3.2.
    const EXAMPLE: &str = "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n";

    fn parsed(file: &str) -> Result<Policy, PolicyError> {
        let policy = Policy::parse(file.as_bytes());
        if let Ok(policy) = &policy {
            assert_eq!(Policy::parse(policy.to_string().as_bytes()).as_ref(), Ok(policy), "{file:?}");
        }
        policy
    }

    #[test]
    fn the_examples_of_the_rfc_are_policies() {
        let policy = parsed(EXAMPLE).unwrap();
        assert_eq!((policy.mode(), policy.max_age().as_secs(), policy.mx().len()), (Mode::Enforce, 604_800, 3));
        assert_eq!(policy.to_string(), EXAMPLE.replace('\n', "\r\n"));
        assert_eq!(parsed(&EXAMPLE.replace('\n', "\r\n")), Ok(policy.clone()));
        assert_eq!(parsed(EXAMPLE.trim_end()), Ok(policy));
        // Section 8.3.
        let policy = parsed("version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n").unwrap();
        assert_eq!((policy.mode(), policy.max_age().as_secs(), policy.mx()), (Mode::None, 86_400, &[][..]));
    }

    #[test]
    fn what_does_not_count_changes_no_policy() {
        let policy = parsed(EXAMPLE);
        for file in [
            format!("\n\r\n{EXAMPLE}\n \t\r\n"),
            EXAMPLE.replace(": ", ":"),
            EXAMPLE.replace(": ", ":\t  ").replace('\n', " \t\n"),
            EXAMPLE.replace("example", "EXAMPLE"),
            EXAMPLE.replace(".com", ".com."),
            format!("{EXAMPLE}version: STSv2\nmode: none\nmode: ?\nmax_age: 1\nmax_age: -\n"),
            format!("{EXAMPLE}Mode: none\nx.1-_: b\u{fc}cher: y\n"),
            format!("max_age: 604800\n{EXAMPLE}"),
        ] {
            assert_eq!(parsed(&file), policy, "{file:?}");
        }
    }

    #[test]
    fn a_file_with_a_fault_is_no_policy_and_the_error_names_the_line() {
        use PolicyError::{Field, MaxAge, Missing, Mx, Version};
        for (from, to, error) in [
            ("version: STSv1", "version: STSv2", Version(1)),
            ("version: STSv1", "version: stsv1", Version(1)),
            ("version: STSv1", "\u{feff}version: STSv1", Field(1)),
            ("version: STSv1\n", "", Missing("version: STSv1")),
            ("version", "Version", Missing("version: STSv1")),
            ("version: STSv1", " version: STSv1", Field(1)),
            ("version: STSv1", "version : STSv1", Field(1)),
            ("version: STSv1", "version STSv1", Field(1)),
            ("version: STSv1", "<html>", Field(1)),
            ("mode: enforce", "mode: enforced", PolicyError::Mode(2)),
            ("mode: enforce", "mode: Enforce", PolicyError::Mode(2)),
            ("mode: enforce", "mode:", Field(2)),
            ("mode: enforce", "mode: enforce\rmode: none", Field(2)),
            ("mode: enforce\n", "", Missing("mode: enforce")),
            ("mx: mail.example.com", "mx: ", Field(3)),
            ("mail.example.com", "*", Mx(3)),
            ("mail.example.com", "*.", Mx(3)),
            ("mail.example.com", "*mail.example.com", Mx(3)),
            ("mail.example.com", "*.*.example.com", Mx(3)),
            ("mail.example.com", "mail.*.com", Mx(3)),
            ("mail.example.com", ".example.com", Mx(3)),
            ("mail.example.com", "mail..com", Mx(3)),
            ("mail.example.com", "mail example.com", Mx(3)),
            ("mail.example.com", "b\u{fc}cher.example", Mx(3)),
            ("mail.example.com", "mail\\.example.com", Mx(3)),
            ("mail.example.com", "[192.0.2.1]", Mx(3)),
            ("max_age: 604800\n", "", Missing("max_age: 604800")),
            ("604800", "-1", MaxAge(6)),
            ("604800", "+1", MaxAge(6)),
            ("604800", "1.5", MaxAge(6)),
            ("604800", "1d", MaxAge(6)),
            ("604800", "00000000001", MaxAge(6)),
            ("604800", "99999999999999999999999999", MaxAge(6)),
            ("604800", "\u{661}", MaxAge(6)),
        ] {
            assert_eq!(parsed(&EXAMPLE.replacen(from, to, 1)), Err(error), "{to:?}");
        }
        assert_eq!(parsed(""), Err(Missing("version: STSv1")));
        assert_eq!(parsed("version: STSv1\nmode: testing\nmax_age: 1\n"), Err(Missing("mx: HOST")));
        let file = [EXAMPLE.as_bytes(), b"x: \xff\n"].concat();
        assert_eq!(Policy::parse(&file), Err(PolicyError::NotUtf8(7)));
    }

    #[test]
    fn the_age_of_a_policy_is_a_year_at_most() {
        for (digits, seconds) in [
            ("0", 0),
            ("00086400", 86_400),
            ("31557600", 31_557_600),
            ("31557601", 31_557_600),
            ("9999999999", 31_557_600),
        ] {
            let policy = parsed(&EXAMPLE.replace("604800", digits)).unwrap();
            assert_eq!(policy.max_age().as_secs(), seconds, "{digits}");
        }
    }

    #[test]
    fn a_hostile_policy_is_bounded() {
        let mx = |count: usize| format!("version: STSv1\nmode: enforce\nmax_age: 1\n{}", "mx: a.b\n".repeat(count));
        assert_eq!(parsed(&mx(MAX_MX)).unwrap().mx().len(), MAX_MX);
        assert_eq!(parsed(&mx(MAX_MX + 1)), Err(PolicyError::TooManyMx(MAX_MX + 4)));
        assert_eq!(parsed(&mx(10_000)), Err(PolicyError::TooLong(10_000 * 8 + 40)));
        let padded = |length: usize| format!("{EXAMPLE}x: {}", "y".repeat(length - EXAMPLE.len() - 3));
        assert!(parsed(&padded(MAX_POLICY)).is_ok());
        assert_eq!(parsed(&padded(MAX_POLICY + 1)), Err(PolicyError::TooLong(MAX_POLICY + 1)));
        let tight =
            format!("version:STSv1\nmode:enforce\nmax_age:1\n{}", format!("mx:{}.b\n", "a".repeat(59)).repeat(999));
        let policy = Policy::parse(tight.as_bytes()).unwrap();
        assert!(policy.to_string().len() > MAX_POLICY);
        assert_eq!(Policy::parse_lines(policy.to_string().as_bytes()), Ok(policy));
        assert_eq!(Policy::parse(&vec![b'\n'; MAX_POLICY]), Err(PolicyError::Missing("version: STSv1")));
    }

    #[test]
    fn a_policy_with_any_octet_changed_is_a_policy_or_an_error() {
        for at in 0..EXAMPLE.len() {
            for octet in 0..=u8::MAX {
                let mut file = EXAMPLE.as_bytes().to_vec();
                file[at] = octet;
                if let Ok(policy) = Policy::parse(&file) {
                    assert_eq!(Policy::parse(policy.to_string().as_bytes()), Ok(policy), "{}", file.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_host_is_permitted_by_its_name_or_one_label_below_a_wildcard() {
        let policy = parsed(&EXAMPLE.replace("mail.example.com", "xn--bcher-kva.example")).unwrap();
        for (host, expected) in [
            // RFC 8461 section 4.1.
            ("mail.example.net", true),
            ("example.net", false),
            ("foo.bar.example.net", false),
            ("mail.example.net.evil.test", false),
            ("mailexample.net", false),
            (".example.net", false),
            ("*.example.net", false),
            ("MX1.Example.NET.", true),
            ("backupmx.example.com", true),
            ("x.backupmx.example.com", false),
            ("xbackupmx.example.com", false),
            ("XN--Bcher-KVA.example", true),
            ("", false),
            (".", false),
            ("[192.0.2.1]", false),
            ("a\\.example.net", false),
        ] {
            assert_eq!(policy.permits(host), expected, "{host}");
        }
        #[cfg(feature = "idna")]
        assert!(policy.permits("b\u{fc}cher.example"));
    }
}
