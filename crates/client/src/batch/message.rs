//! A message of a batch.

use posthaste_tokio::wire::{AddressError, Mail, Rcpt};

use crate::{SendError, send::addresses};

/// A message of a batch: sender, recipients and content.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message<C> {
    /// The sender, with its parameters. SIZE and SMTPUTF8 are added where they belong.
    pub mail: Mail,
    /// The recipients, at least one.
    pub recipients: Vec<Rcpt>,
    /// The content.
    pub content: C,
}

impl<C> Message<C> {
    /// A message with addresses as for [`Client::send`](crate::Client::send).
    ///
    /// # Errors
    /// [`SendError::Address`] and [`SendError::NoRecipient`].
    pub fn new<M, R>(from: M, to: impl IntoIterator<Item = R>, content: C) -> Result<Self, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        let (mail, recipients) = addresses(from, to)?;
        Ok(Self { mail, recipients, content })
    }
}
