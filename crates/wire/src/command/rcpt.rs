//! RCPT and its parameters.

use alloc::string::String;
use core::{fmt, str::FromStr};

use super::mail::emit;
use crate::{
    address::ForwardPath,
    error::SyntaxError,
    grammar::key,
    parameter::{Notify, OriginalRecipient, Parameter, Parameters, Rrvs},
};

/// `RCPT TO:<forward-path>` with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcpt<S: AsRef<str> = String> {
    /// Where the message goes to.
    pub forward_path: ForwardPath<S>,
    /// `NOTIFY=`: which reports the sender wants (RFC 3461 section 4.1).
    pub notify: Option<Notify>,
    /// `ORCPT=`: the recipient as the sender knew it (RFC 3461 section 4.2).
    pub orcpt: Option<OriginalRecipient<S>>,
    /// `RRVS=`: since when the mailbox must have been the same person's (RFC 7293).
    pub rrvs: Option<Rrvs<S>>,
    /// Every parameter as it came; [`Rcpt::unknown`] gives those without a field here.
    pub parameters: Parameters<S>,
}

/// The keywords that have a field.
mod known {
    use super::key;

    pub(super) const NOTIFY: u64 = key("NOTIFY");
    pub(super) const ORCPT: u64 = key("ORCPT");
    pub(super) const RRVS: u64 = key("RRVS");
}

impl<S: AsRef<str> + Default> Rcpt<S> {
    /// A command without parameters.
    #[inline]
    pub fn new(forward_path: ForwardPath<S>) -> Self {
        Self { forward_path, notify: None, orcpt: None, rrvs: None, parameters: Parameters::default() }
    }
}

impl<'a> Rcpt<&'a str> {
    /// Parses a forward-path and the parameters behind it: what follows `RCPT TO:` on the line.
    ///
    /// # Errors
    /// A [`SyntaxError`] that knows the offset and its reply.
    #[inline]
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let (forward_path, rest) = ForwardPath::parse_prefix(text)?;
        let base = text.len() - rest.len();
        let mut rcpt = Self::new(forward_path);
        rcpt.parameters =
            Parameters::parse_each(rest, |parameter| rcpt.take(parameter)).map_err(|error| error.at(base))?;
        Ok(rcpt)
    }

    /// Fills the parameter's field, when there is one.
    #[inline(always)]
    fn take(&mut self, parameter: &Parameter<'a>) -> Result<bool, SyntaxError> {
        match parameter.key() {
            known::NOTIFY => parameter.set(&mut self.notify, Notify::from_str),
            known::ORCPT => parameter.set(&mut self.orcpt, OriginalRecipient::parse),
            known::RRVS => parameter.set(&mut self.rrvs, Rrvs::parse),
            _ => Ok(false),
        }
    }

    /// The owned form.
    pub fn into_owned(self) -> Rcpt {
        Rcpt {
            forward_path: self.forward_path.into_owned(),
            notify: self.notify,
            orcpt: self.orcpt.map(OriginalRecipient::into_owned),
            rrvs: self.rrvs.map(Rrvs::into_owned),
            parameters: self.parameters.into_owned(),
        }
    }

    /// The parameters that have no field.
    pub fn unknown(&self) -> impl Iterator<Item = Parameter<'a>> {
        self.parameters.iter().filter(|parameter| Self::new(ForwardPath::Postmaster).take(parameter) == Ok(false))
    }
}

impl<S: AsRef<str>> Rcpt<S> {
    /// The borrowed form.
    pub fn borrowed(&self) -> Rcpt<&str> {
        Rcpt {
            forward_path: self.forward_path.borrowed(),
            notify: self.notify,
            orcpt: self.orcpt.as_ref().map(OriginalRecipient::borrowed),
            rrvs: self.rrvs.as_ref().map(Rrvs::borrowed),
            parameters: self.parameters.borrowed(),
        }
    }
}

/// What follows `RCPT TO:` on the line: the path, the parameters with a field, and the others as they came.
impl<S: AsRef<str>> fmt::Display for Rcpt<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.forward_path)?;
        emit(f, "NOTIFY", self.notify)?;
        emit(f, "ORCPT", self.orcpt.as_ref())?;
        emit(f, "RRVS", self.rrvs.as_ref())?;
        self.borrowed().unknown().try_for_each(|parameter| write!(f, " {parameter}"))
    }
}
