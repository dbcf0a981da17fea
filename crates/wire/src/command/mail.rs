//! MAIL and its parameters.

use alloc::string::String;
use core::fmt;

use crate::{
    address::ReversePath,
    error::{SyntaxError, SyntaxErrorKind},
    parameter::{Cursor, Parameter, Parameters, number},
    xtext::Xtext,
};

/// The most octets of an ENVID value that is emitted (RFC 3461 section 4.4).
const MAX_ENVID: usize = 100;

/// `MAIL FROM:<reverse-path>` with its parameters.
///
/// `Mail<&str>` borrows from the line, `Mail` owns its text, so that a relay carries it from its server side to its
/// client side without turning it into text in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail<S: AsRef<str> = String> {
    /// Where failures are reported to.
    pub reverse_path: ReversePath<S>,
    /// `SIZE=`: octets that the client expects to send (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152, RFC 3030).
    pub body: Option<BodyType>,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `RET=`: how much of the message a failure report returns (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461 section 4.4).
    pub envid: Option<Xtext<S>>,
    /// `AUTH=`: who submitted the message first, `<>` or a mailbox in xtext (RFC 4954 section 5).
    pub auth: Option<Xtext<S>>,
    /// Every parameter as it came; [`Mail::unknown`] gives those without a field here.
    pub parameters: Parameters<S>,
}

/// The body's kind (RFC 6152 section 3, RFC 3030 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyType {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`: any octets, by BDAT only.
    BinaryMime,
}

/// How much a failure report returns (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ret {
    /// `FULL`: the whole message.
    Full,
    /// `HDRS`: its header only.
    Headers,
}

/// The keywords that have a field.
const KNOWN: [&str; 6] = ["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"];

impl<'a> Mail<&'a str> {
    /// A command without parameters.
    pub const fn new(reverse_path: ReversePath<&'a str>) -> Self {
        Self {
            reverse_path,
            size: None,
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
            auth: None,
            parameters: Parameters::NONE,
        }
    }

    /// Parses what follows the verb and its space.
    pub(super) fn parse(argument: &'a str) -> Result<Self, SyntaxError> {
        let (path, path_offset) = after_keyword(argument, "FROM:")?;
        let (reverse_path, rest) = ReversePath::parse_prefix(path).map_err(|error| error.at(path_offset))?;
        let base = argument.len() - rest.len();
        let mut mail = Self::new(reverse_path);
        mail.parse_parameters(rest).map_err(|error| error.at(base))?;
        let needs_utf8 = mail.reverse_path.mailbox().is_some_and(|mailbox| !mailbox.is_ascii());
        if needs_utf8 && !mail.smtputf8 {
            return Err(SyntaxError::new(SyntaxErrorKind::NotAscii, path_offset));
        }
        Ok(mail)
    }

    fn parse_parameters(&mut self, rest: &'a str) -> Result<(), SyntaxError> {
        if !rest.is_empty() && !rest.starts_with(' ') {
            return Err(SyntaxError::new(SyntaxErrorKind::Parameter, 0));
        }
        let mut cursor = Cursor { text: rest, offset: 0 };
        while let Some(parameter) = cursor.next()? {
            let value = || parameter.value.ok_or(parameter.error(SyntaxErrorKind::ParameterValue));
            let malformed = || parameter.error(SyntaxErrorKind::ParameterValue);
            if parameter.is("SIZE") {
                let size = number(value()?).ok_or(parameter.error(SyntaxErrorKind::Number))?;
                set(&mut self.size, size, &parameter)?;
            } else if parameter.is("BODY") {
                set(&mut self.body, BodyType::parse(value()?).ok_or_else(malformed)?, &parameter)?;
            } else if parameter.is("SMTPUTF8") {
                if parameter.value.is_some() {
                    return Err(malformed());
                }
                let mut seen = self.smtputf8.then_some(());
                set(&mut seen, (), &parameter)?;
                self.smtputf8 = true;
            } else if parameter.is("RET") {
                set(&mut self.ret, Ret::parse(value()?).ok_or_else(malformed)?, &parameter)?;
            } else if parameter.is("ENVID") {
                let envid = Xtext::parse(value()?).map_err(|_| malformed())?;
                if envid.as_str().len() > MAX_ENVID {
                    return Err(malformed());
                }
                set(&mut self.envid, envid, &parameter)?;
            } else if parameter.is("AUTH") {
                set(&mut self.auth, Xtext::parse(value()?).map_err(|_| malformed())?, &parameter)?;
            }
        }
        self.parameters = Parameters::parse(rest)?;
        Ok(())
    }

    /// The owned form.
    pub fn into_owned(self) -> Mail {
        Mail {
            reverse_path: self.reverse_path.into_owned(),
            size: self.size,
            body: self.body,
            smtputf8: self.smtputf8,
            ret: self.ret,
            envid: self.envid.map(Xtext::into_owned),
            auth: self.auth.map(Xtext::into_owned),
            parameters: self.parameters.into_owned(),
        }
    }

    /// The parameters that have no field.
    pub fn unknown(&self) -> impl Iterator<Item = Parameter<'a>> {
        self.parameters.iter().filter(|parameter| !KNOWN.iter().any(|known| parameter.is(known)))
    }
}

impl<S: AsRef<str>> Mail<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Mail<&str> {
        Mail {
            reverse_path: self.reverse_path.borrowed(),
            size: self.size,
            body: self.body,
            smtputf8: self.smtputf8,
            ret: self.ret,
            envid: self.envid.as_ref().map(Xtext::borrowed),
            auth: self.auth.as_ref().map(Xtext::borrowed),
            parameters: self.parameters.borrowed(),
        }
    }
}

/// What follows `MAIL ` on the line: the path and the parameters.
impl<S: AsRef<str>> fmt::Display for Mail<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reverse_path)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if let Some(body) = self.body {
            write!(f, " BODY={}", body.as_str())?;
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if let Some(ret) = self.ret {
            write!(f, " RET={}", ret.as_str())?;
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={envid}")?;
        }
        if let Some(auth) = &self.auth {
            write!(f, " AUTH={auth}")?;
        }
        let borrowed = self.borrowed();
        borrowed.unknown().try_for_each(|parameter| emit(f, &parameter))
    }
}

impl BodyType {
    fn parse(text: &str) -> Option<Self> {
        [Self::SevenBit, Self::EightBitMime, Self::BinaryMime]
            .into_iter()
            .find(|kind| text.eq_ignore_ascii_case(kind.as_str()))
    }

    /// The keyword of RFC 6152 or RFC 3030.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        }
    }
}

impl Ret {
    fn parse(text: &str) -> Option<Self> {
        [Self::Full, Self::Headers].into_iter().find(|ret| text.eq_ignore_ascii_case(ret.as_str()))
    }

    /// The keyword of RFC 3461.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }
}

/// What follows `FROM:` or `TO:`, and where it starts. Spaces behind the colon are tolerated, as every server does.
pub(super) fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Result<(&'a str, usize), SyntaxError> {
    let fault = SyntaxError::new(SyntaxErrorKind::PathKeyword, 0);
    let (found, rest) = argument.split_at_checked(keyword.len()).ok_or(fault)?;
    if !found.eq_ignore_ascii_case(keyword) {
        return Err(fault);
    }
    let path = rest.trim_start_matches(' ');
    Ok((path, argument.len() - path.len()))
}

/// Fills a field once.
pub(super) fn set<T>(field: &mut Option<T>, value: T, parameter: &Parameter<'_>) -> Result<(), SyntaxError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(parameter.error(SyntaxErrorKind::DuplicateParameter)),
    }
}

/// Writes an unknown parameter as it came.
pub(super) fn emit(f: &mut fmt::Formatter<'_>, parameter: &Parameter<'_>) -> fmt::Result {
    match parameter.value {
        Some(value) => write!(f, " {}={value}", parameter.keyword),
        None => write!(f, " {}", parameter.keyword),
    }
}
