//! Sends a message whose addresses are texts.

use posthaste_tokio::{
    Content,
    wire::{AddressError, Mail, Rcpt, capability::Keyword},
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Client, ConnectError, Delivered, Recipient, RecipientOutcome, Sent, delivery::Course};

/// Why a message was not begun. The server got no part of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The sender or a recipient is not an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The list of recipients is empty.
    #[error("the message has no recipient; name one")]
    NoRecipient,
    /// No server of the [`Pool`](crate::Pool) could be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The [`Pool`](crate::Pool) was closed.
    #[error("the pool was closed; make another")]
    Closed,
}

impl SendError {
    /// Returns `true` if another attempt would fail as well: only
    /// [`Connect`](Self::Connect) may be [transient](ConnectError::is_permanent).
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_permanent(),
            Self::Address(_) | Self::NoRecipient | Self::Closed => true,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends a message and returns the outcome of each recipient.
    ///
    /// `from` is a text such as `"me@example.org"`, or a [`Mail`] with parameters. `to` is a list
    /// of such texts, or of [`Rcpt`], for one recipient too: `["you@example.net"]`. SIZE is added
    /// where the content's length is known, SMTPUTF8 where an address is not ASCII and the server
    /// offers it. Everything else is as for [`transact`](Self::transact).
    ///
    /// If the future is dropped, the connection is of no use any more, and the server may have the
    /// message.
    ///
    /// # Errors
    /// [`SendError`]. A refusal, or a conversation that breaks off, is an
    /// outcome: see [`Sent::failed`].
    pub async fn send<M, R>(
        &mut self,
        from: M,
        to: impl IntoIterator<Item = R>,
        content: impl Content,
    ) -> Result<Sent, SendError>
    where
        M: TryInto<Mail, Error: Into<AddressError>>,
        R: TryInto<Rcpt, Error: Into<AddressError>>,
    {
        let (mut mail, recipients) = addresses(from, to)?;
        mail.size = mail.size.or_else(|| content.length());
        // Where it is not offered, the recipients that need it are refused alone.
        let is_offered = self.capabilities().offers(Keyword::SmtpUtf8);
        mail.smtputf8 |= is_offered && recipients.iter().any(|rcpt| !rcpt.forward_path.is_ascii());
        let recipients: Vec<_> = recipients.iter().map(Rcpt::borrowed).collect();
        Ok(self.transact(mail.borrowed(), &recipients, content).await.into_owned())
    }
}

/// The sender and the recipients, at least one.
pub(crate) fn addresses<M, R>(from: M, to: impl IntoIterator<Item = R>) -> Result<(Mail, Vec<Rcpt>), SendError>
where
    M: TryInto<Mail, Error: Into<AddressError>>,
    R: TryInto<Rcpt, Error: Into<AddressError>>,
{
    let mail = from.try_into().map_err(Into::into)?;
    let recipients = to.into_iter().map(|rcpt| rcpt.try_into().map_err(Into::into));
    let recipients = recipients.collect::<Result<Vec<Rcpt>, AddressError>>()?;
    if recipients.is_empty() { Err(SendError::NoRecipient) } else { Ok((mail, recipients)) }
}

/// The recipients with their outcomes.
pub(crate) fn delivered(recipients: impl Iterator<Item = (Rcpt, Course)>) -> Delivered {
    let recipient = |(rcpt, course): (Rcpt, Course)| Recipient {
        path: rcpt.forward_path,
        outcome: course.outcome.unwrap_or(RecipientOutcome::Postponed),
        server: course.server,
        broken: course.broken,
        in_doubt: course.in_doubt,
    };
    Delivered { recipients: recipients.map(recipient).collect() }
}
