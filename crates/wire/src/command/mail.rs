//! MAIL and its parameters.

use alloc::string::String;
use core::{fmt, str::FromStr};

use super::table::envelope_command;
use crate::{
    address::ReversePath,
    error::{SyntaxError, SyntaxErrorKind},
    grammar::LONG,
    parameter::{BodyType, DeliverBy, Hold, Parameter, Parameters, Priority, Ret, Solicitation, fault, number},
    xtext::Xtext,
};

/// The most octets of an ENVID value (RFC 3461 section 4.4).
const MAX_ENVID: usize = 100;

envelope_command! {
    /// `MAIL FROM:<reverse-path>` with its parameters.
    ///
    /// `Mail<&str>` borrows from the line, `Mail` owns its text: a relay carries it from its server
    /// side to its client side without writing it as text in between.
    ///
    /// Set parameters on a finished value:
    ///
    /// ```
    /// use posthaste_wire::{BodyType, Mail};
    /// let mut mail: Mail = "a@example.org".parse()?;
    /// mail.size = Some(1000);
    /// mail.body = Some(BodyType::EightBitMime);
    /// assert_eq!(mail.to_string(), "<a@example.org> SIZE=1000 BODY=8BITMIME");
    /// let with_parameters: Mail = "<a@example.org> size=1000 BODY=8BITMIME FOO=bar".parse()?;
    /// assert_eq!((with_parameters.size, with_parameters.body), (mail.size, mail.body));
    /// # Ok::<(), posthaste_wire::AddressError>(())
    /// ```
    ///
    /// The type is exhaustive on purpose. A new field is a new major version, because a program
    /// that passes messages on has to decide about each parameter. To stay out of that decision, do
    /// as above, or write `Mail { size, ..Mail::new(path) }`.
    pub struct Mail {
        /// The address that failure reports go to.
        reverse_path: ReversePath = Null,
        /// `SIZE=`: octets that the client expects to send (RFC 1870).
        value size: Option<u64> = SIZE "SIZE" => number;
        /// `BODY=` (RFC 6152, RFC 3030).
        value body: Option<BodyType> = BODY "BODY" => BodyType::from_str;
        /// `SMTPUTF8` (RFC 6531).
        flag smtputf8: bool = SMTPUTF8 "SMTPUTF8" => ();
        /// `REQUIRETLS`: never over a connection without verified TLS (RFC 8689).
        flag require_tls: bool = REQUIRETLS "REQUIRETLS" => ();
        /// `RET=`: how much of the message a failure report returns (RFC 3461 section 4.3).
        value ret: Option<Ret> = RET "RET" => Ret::from_str;
        /// `ENVID=` (RFC 3461 section 4.4).
        text envid: Option<Xtext<S>> = ENVID "ENVID" => envid;
        /// `AUTH=`: who submitted the message first, `<>` or a mailbox in xtext (RFC 4954 section
        /// 5).
        text auth: Option<Xtext<S>> = AUTH "AUTH" => Xtext::parse;
        /// `BY=`: by when it is to be delivered (RFC 2852).
        value by: Option<DeliverBy> = BY "BY" => DeliverBy::from_str;
        /// `HOLDFOR=` or `HOLDUNTIL=`: how long it is to be held (RFC 4865).
        keyed hold: Option<Hold<S>> = HOLDFOR "HOLDFOR" => Hold::parse_for, HOLDUNTIL "HOLDUNTIL" => Hold::parse_until;
        /// `MT-PRIORITY=` (RFC 6710).
        value mt_priority: Option<Priority> = MT_PRIORITY "MT-PRIORITY" => Priority::from_str;
        /// `SOLICIT=` (RFC 3865).
        text solicit: Option<Solicitation<S>> = SOLICIT "SOLICIT" => Solicitation::parse;
    }
}

impl<'a> Mail<&'a str> {
    /// Parses a reverse-path and its parameters: the text after `MAIL FROM:` on the line.
    ///
    /// # Errors
    /// A [`SyntaxError`] with the offset and a reply; [`SyntaxErrorKind::ReversePathNotAscii`] for
    /// an internationalized mailbox without `SMTPUTF8` (RFC 6531 section 3.4).
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
}

fn envid(text: &str) -> Result<Xtext<&str>, SyntaxError> {
    if text.len() <= MAX_ENVID { Xtext::parse(text) } else { Err(fault(MAX_ENVID)) }
}
