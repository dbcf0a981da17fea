//! MAIL and its parameters.

use alloc::string::String;
use core::{fmt, str::FromStr};

use crate::{
    address::ReversePath,
    error::{SyntaxError, SyntaxErrorKind},
    grammar::{LONG, key},
    parameter::{BodyType, DeliverBy, Hold, Parameter, Parameters, Priority, Ret, Solicitation, fault, number},
    xtext::Xtext,
};

/// The most octets of an ENVID value (RFC 3461 section 4.4).
const MAX_ENVID: usize = 100;

/// `MAIL FROM:<reverse-path>` with its parameters.
///
/// `Mail<&str>` borrows from the line, `Mail` owns its text, so that a relay carries it from its server side to its
/// client side without turning it into text in between.
///
/// ```
/// use posthaste_wire::{Mail, BodyType};
/// let mail: Mail = "<a@example.org> size=1000 BODY=8BITMIME FOO=bar".parse()?;
/// assert_eq!((mail.size, mail.body), (Some(1000), Some(BodyType::EightBitMime)));
/// assert_eq!(mail.to_string(), "<a@example.org> SIZE=1000 BODY=8BITMIME FOO=bar");
/// # Ok::<(), posthaste_wire::AddressError>(())
/// ```
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
    /// `REQUIRETLS`: never over a connection without verified TLS (RFC 8689).
    pub require_tls: bool,
    /// `RET=`: how much of the message a failure report returns (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461 section 4.4).
    pub envid: Option<Xtext<S>>,
    /// `AUTH=`: who submitted the message first, `<>` or a mailbox in xtext (RFC 4954 section 5).
    pub auth: Option<Xtext<S>>,
    /// `BY=`: by when it is to be delivered (RFC 2852).
    pub by: Option<DeliverBy>,
    /// `HOLDFOR=` or `HOLDUNTIL=`: how long it is to be held (RFC 4865).
    pub hold: Option<Hold<S>>,
    /// `MT-PRIORITY=` (RFC 6710).
    pub mt_priority: Option<Priority>,
    /// `SOLICIT=` (RFC 3865).
    pub solicit: Option<Solicitation<S>>,
    /// Every parameter as it came; [`Mail::unknown`] gives those without a field here.
    pub parameters: Parameters<S>,
}

/// The keywords of more than eight octets that have a field.
const REQUIRETLS: &str = "REQUIRETLS";
const HOLDUNTIL: &str = "HOLDUNTIL";
const MT_PRIORITY: &str = "MT-PRIORITY";

/// The other keywords that have a field.
mod known {
    use super::key;

    pub(super) const SIZE: u64 = key("SIZE");
    pub(super) const BODY: u64 = key("BODY");
    pub(super) const SMTPUTF8: u64 = key("SMTPUTF8");
    pub(super) const RET: u64 = key("RET");
    pub(super) const ENVID: u64 = key("ENVID");
    pub(super) const AUTH: u64 = key("AUTH");
    pub(super) const BY: u64 = key("BY");
    pub(super) const HOLDFOR: u64 = key("HOLDFOR");
    pub(super) const SOLICIT: u64 = key("SOLICIT");
}

impl<S: AsRef<str> + Default> Mail<S> {
    /// A command without parameters.
    #[inline]
    pub fn new(reverse_path: ReversePath<S>) -> Self {
        Self {
            reverse_path,
            size: None,
            body: None,
            smtputf8: false,
            require_tls: false,
            ret: None,
            envid: None,
            auth: None,
            by: None,
            hold: None,
            mt_priority: None,
            solicit: None,
            parameters: Parameters::default(),
        }
    }
}

impl<'a> Mail<&'a str> {
    /// Parses a reverse-path and the parameters behind it: what follows `MAIL FROM:` on the line.
    ///
    /// # Errors
    /// A [`SyntaxError`] that knows the offset and its reply; [`SyntaxErrorKind::ReversePathNotAscii`] for an
    /// internationalised mailbox without `SMTPUTF8` (RFC 6531 section 3.4).
    #[inline]
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let (reverse_path, rest) = ReversePath::parse_prefix(text)?;
        let base = text.len() - rest.len();
        let mut mail = Self::new(reverse_path);
        mail.parameters =
            Parameters::parse_each(rest, |parameter| mail.take(parameter)).map_err(|error| error.at(base))?;
        if !mail.smtputf8 && !mail.reverse_path.is_ascii() {
            return Err(SyntaxError::new(SyntaxErrorKind::ReversePathNotAscii, 0));
        }
        Ok(mail)
    }

    /// Fills the parameter's field, when there is one.
    #[inline(always)]
    fn take(&mut self, parameter: &Parameter<'a>) -> Result<bool, SyntaxError> {
        match parameter.key() {
            known::SIZE => parameter.set(&mut self.size, number),
            known::BODY => parameter.set(&mut self.body, BodyType::from_str),
            known::SMTPUTF8 => parameter.flag(&mut self.smtputf8),
            known::RET => parameter.set(&mut self.ret, Ret::from_str),
            known::ENVID => parameter.set(&mut self.envid, |text| match text.len() <= MAX_ENVID {
                true => Xtext::parse(text),
                false => Err(fault(MAX_ENVID)),
            }),
            known::AUTH => parameter.set(&mut self.auth, Xtext::parse),
            known::BY => parameter.set(&mut self.by, DeliverBy::from_str),
            known::HOLDFOR => parameter.set(&mut self.hold, Hold::parse_for),
            known::SOLICIT => parameter.set(&mut self.solicit, Solicitation::parse),
            LONG if parameter.is(REQUIRETLS) => parameter.flag(&mut self.require_tls),
            LONG if parameter.is(HOLDUNTIL) => parameter.set(&mut self.hold, Hold::parse_until),
            LONG if parameter.is(MT_PRIORITY) => parameter.set(&mut self.mt_priority, Priority::from_str),
            _ => Ok(false),
        }
    }

    /// The owned form.
    pub fn into_owned(self) -> Mail {
        Mail {
            reverse_path: self.reverse_path.into_owned(),
            size: self.size,
            body: self.body,
            smtputf8: self.smtputf8,
            require_tls: self.require_tls,
            ret: self.ret,
            envid: self.envid.map(Xtext::into_owned),
            auth: self.auth.map(Xtext::into_owned),
            by: self.by,
            hold: self.hold.map(Hold::into_owned),
            mt_priority: self.mt_priority,
            solicit: self.solicit.map(Solicitation::into_owned),
            parameters: self.parameters.into_owned(),
        }
    }

    /// The parameters that have no field.
    pub fn unknown(&self) -> impl Iterator<Item = Parameter<'a>> {
        self.parameters.iter().filter(|parameter| Self::new(ReversePath::Null).take(parameter) == Ok(false))
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
            require_tls: self.require_tls,
            ret: self.ret,
            envid: self.envid.as_ref().map(Xtext::borrowed),
            auth: self.auth.as_ref().map(Xtext::borrowed),
            by: self.by,
            hold: self.hold.as_ref().map(Hold::borrowed),
            mt_priority: self.mt_priority,
            solicit: self.solicit.as_ref().map(Solicitation::borrowed),
            parameters: self.parameters.borrowed(),
        }
    }
}

/// What follows `MAIL FROM:` on the line: the path, the parameters with a field in the order of the fields, and the
/// others in theirs.
impl<S: AsRef<str>> fmt::Display for Mail<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reverse_path)?;
        emit(f, "SIZE", self.size)?;
        emit(f, "BODY", self.body)?;
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if self.require_tls {
            f.write_str(" REQUIRETLS")?;
        }
        emit(f, "RET", self.ret)?;
        emit(f, "ENVID", self.envid.as_ref())?;
        emit(f, "AUTH", self.auth.as_ref())?;
        emit(f, "BY", self.by)?;
        if let Some(hold) = &self.hold {
            write!(f, " {hold}")?;
        }
        emit(f, MT_PRIORITY, self.mt_priority)?;
        emit(f, "SOLICIT", self.solicit.as_ref())?;
        self.borrowed().unknown().try_for_each(|parameter| write!(f, " {parameter}"))
    }
}

/// Writes a parameter that has a value.
pub(super) fn emit(f: &mut fmt::Formatter<'_>, keyword: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {keyword}={value}"),
        None => Ok(()),
    }
}
