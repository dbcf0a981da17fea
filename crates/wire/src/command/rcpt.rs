//! RCPT and its parameters.

use alloc::string::String;
use core::fmt;

use super::mail::{after_keyword, emit, set};
use crate::{
    address::ForwardPath,
    error::{SyntaxError, SyntaxErrorKind},
    parameter::{Cursor, Parameter, Parameters},
    xtext::Xtext,
};

/// The most octets of an ORCPT value (RFC 3461 section 4.2).
const MAX_ORCPT: usize = 500;

/// `RCPT TO:<forward-path>` with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcpt<S: AsRef<str> = String> {
    /// Where the message goes to.
    pub forward_path: ForwardPath<S>,
    /// `NOTIFY=`: which reports the sender wants (RFC 3461 section 4.1).
    pub notify: Option<Notify>,
    /// `ORCPT=`: the recipient as the sender knew it (RFC 3461 section 4.2).
    pub orcpt: Option<OriginalRecipient<S>>,
    /// Every parameter as it came; [`Rcpt::unknown`] gives those without a field here.
    pub parameters: Parameters<S>,
}

/// The reports that the sender wants (RFC 3461 section 4.1). Nothing set means `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Notify {
    /// `SUCCESS`.
    pub success: bool,
    /// `FAILURE`.
    pub failure: bool,
    /// `DELAY`.
    pub delay: bool,
}

/// `addr-type ";" xtext` (RFC 3461 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OriginalRecipient<S = String> {
    text: S,
    /// Octets before the semicolon.
    kind: u16,
}

/// The keywords that have a field.
const KNOWN: [&str; 2] = ["NOTIFY", "ORCPT"];

impl<'a> Rcpt<&'a str> {
    /// A command without parameters.
    pub const fn new(forward_path: ForwardPath<&'a str>) -> Self {
        Self { forward_path, notify: None, orcpt: None, parameters: Parameters::NONE }
    }

    /// Parses what follows the verb and its space.
    pub(super) fn parse(argument: &'a str) -> Result<Self, SyntaxError> {
        let (path, path_offset) = after_keyword(argument, "TO:")?;
        let (forward_path, rest) = ForwardPath::parse_prefix(path).map_err(|error| error.at(path_offset))?;
        let base = argument.len() - rest.len();
        let mut rcpt = Self::new(forward_path);
        rcpt.parse_parameters(rest).map_err(|error| error.at(base))?;
        Ok(rcpt)
    }

    fn parse_parameters(&mut self, rest: &'a str) -> Result<(), SyntaxError> {
        if !rest.is_empty() && !rest.starts_with(' ') {
            return Err(SyntaxError::new(SyntaxErrorKind::Parameter, 0));
        }
        let mut cursor = Cursor { text: rest, offset: 0 };
        while let Some(parameter) = cursor.next()? {
            let value = || parameter.value.ok_or(parameter.error(SyntaxErrorKind::ParameterValue));
            let malformed = || parameter.error(SyntaxErrorKind::ParameterValue);
            if parameter.is("NOTIFY") {
                set(&mut self.notify, Notify::parse(value()?).ok_or_else(malformed)?, &parameter)?;
            } else if parameter.is("ORCPT") {
                set(&mut self.orcpt, OriginalRecipient::parse(value()?).ok_or_else(malformed)?, &parameter)?;
            }
        }
        self.parameters = Parameters::parse(rest)?;
        Ok(())
    }

    /// The owned form.
    pub fn into_owned(self) -> Rcpt {
        Rcpt {
            forward_path: self.forward_path.into_owned(),
            notify: self.notify,
            orcpt: self.orcpt.map(|orcpt| OriginalRecipient { text: orcpt.text.into(), kind: orcpt.kind }),
            parameters: self.parameters.into_owned(),
        }
    }

    /// The parameters that have no field.
    pub fn unknown(&self) -> impl Iterator<Item = Parameter<'a>> {
        self.parameters.iter().filter(|parameter| !KNOWN.iter().any(|known| parameter.is(known)))
    }
}

impl<S: AsRef<str>> Rcpt<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Rcpt<&str> {
        Rcpt {
            forward_path: self.forward_path.borrowed(),
            notify: self.notify,
            orcpt: self.orcpt.as_ref().map(|orcpt| OriginalRecipient { text: orcpt.text.as_ref(), kind: orcpt.kind }),
            parameters: self.parameters.borrowed(),
        }
    }
}

/// What follows `RCPT ` on the line: the path and the parameters.
impl<S: AsRef<str>> fmt::Display for Rcpt<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.forward_path)?;
        if let Some(notify) = self.notify {
            write!(f, " NOTIFY={notify}")?;
        }
        if let Some(orcpt) = &self.orcpt {
            write!(f, " ORCPT={}", orcpt.as_str())?;
        }
        let borrowed = self.borrowed();
        borrowed.unknown().try_for_each(|parameter| emit(f, &parameter))
    }
}

impl Notify {
    /// `NEVER`: no report whatever happens.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    /// `NEVER` stands alone; the others stand once each.
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Some(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in text.split(',') {
            let field = if word.eq_ignore_ascii_case("SUCCESS") {
                &mut notify.success
            } else if word.eq_ignore_ascii_case("FAILURE") {
                &mut notify.failure
            } else if word.eq_ignore_ascii_case("DELAY") {
                &mut notify.delay
            } else {
                return None;
            };
            if core::mem::replace(field, true) {
                return None;
            }
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("NEVER");
        }
        let words = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let mut separator = "";
        for (_, word) in words.into_iter().filter(|(wanted, _)| *wanted) {
            write!(f, "{separator}{word}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl<'a> OriginalRecipient<&'a str> {
    fn parse(text: &'a str) -> Option<Self> {
        let (kind, address) = text.split_once(';')?;
        let is_atom = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        if text.len() > MAX_ORCPT || kind.is_empty() || address.is_empty() || !kind.bytes().all(is_atom) {
            return None;
        }
        // utf-8-addr-xtext (RFC 6533 section 3) has escapes of its own; its characters were checked as UTF-8 with the line.
        let is_utf8 = kind.eq_ignore_ascii_case("utf-8") && !address.chars().any(char::is_control);
        if !is_utf8 && Xtext::parse(address).is_err() {
            return None;
        }
        Some(Self { text, kind: u16::try_from(kind.len()).ok()? })
    }
}

impl<S: AsRef<str>> OriginalRecipient<S> {
    /// The value as it came.
    pub fn as_str(&self) -> &str {
        self.text.as_ref()
    }

    /// The address type, such as `rfc822`.
    pub fn address_type(&self) -> &str {
        self.as_str().get(..usize::from(self.kind)).unwrap_or_default()
    }

    /// The address, still encoded.
    pub fn address(&self) -> &str {
        self.as_str().get(usize::from(self.kind) + 1..).unwrap_or_default()
    }
}
