//! RCPT and its parameters.

use alloc::string::String;
use core::{fmt, str::FromStr};

use super::table::envelope_command;
use crate::{
    address::ForwardPath,
    error::SyntaxError,
    grammar::LONG,
    parameter::{Notify, OriginalRecipient, Parameter, Parameters, Rrvs},
};

envelope_command! {
    /// `RCPT TO:<forward-path>` with its parameters.
    ///
    /// Exhaustive and set as [`Mail`](crate::Mail) is:
    ///
    /// ```
    /// use posthaste_wire::{Notify, Rcpt};
    /// let mut rcpt: Rcpt = "b@example.net".parse()?;
    /// rcpt.notify = Some(Notify::NEVER);
    /// assert_eq!(rcpt.to_string(), "<b@example.net> NOTIFY=NEVER");
    /// # Ok::<(), posthaste_wire::AddressError>(())
    /// ```
    pub struct Rcpt {
        /// The address that the message goes to.
        forward_path: ForwardPath = Postmaster,
        /// `NOTIFY=`: which reports the sender wants (RFC 3461 section 4.1).
        value notify: Option<Notify> = NOTIFY "NOTIFY" => Notify::from_str;
        /// `ORCPT=`: the recipient as the sender knew it (RFC 3461 section 4.2).
        text orcpt: Option<OriginalRecipient<S>> = ORCPT "ORCPT" => OriginalRecipient::parse;
        /// `RRVS=`: since when the mailbox must have had the same owner (RFC 7293).
        text rrvs: Option<Rrvs<S>> = RRVS "RRVS" => Rrvs::parse;
    }
}

impl<'a> Rcpt<&'a str> {
    /// Parses a forward-path and its parameters: the text after `RCPT TO:` on the line.
    ///
    /// # Errors
    /// A [`SyntaxError`] with the offset and a reply.
    #[inline]
    pub fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        let (forward_path, rest) = ForwardPath::parse_prefix(text)?;
        let base = text.len() - rest.len();
        let mut rcpt = Self::new(forward_path);
        rcpt.parameters =
            Parameters::parse_each(rest, |parameter| rcpt.take(parameter)).map_err(|error| error.at(base))?;
        Ok(rcpt)
    }
}
