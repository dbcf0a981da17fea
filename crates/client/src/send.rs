//! Sends a message whose addresses are texts.

use posthaste_tokio::{
    Content,
    wire::{AddressError, Capabilities, ForwardPath, Mail, Mailbox, Rcpt, capability::Keyword},
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
        let (given, recipients) = addresses(from, to)?;
        let addresses = Addresses::of(&given, recipients.iter(), self.capabilities());
        let (mut mail, named) = addresses.borrowed(&given, recipients.iter());
        mail.size = mail.size.or_else(|| content.length());
        let mut sent = self.transact(mail, &named, content).await.into_owned();
        // As they were given.
        for (outcome, rcpt) in sent.recipients.iter_mut().zip(recipients) {
            outcome.path = rcpt.forward_path;
        }
        Ok(sent)
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

/// The form in which a server takes the addresses of a message: the domains of recipients go as
/// A-labels to one that does not offer SMTPUTF8. With SMTPUTF8 in MAIL the content may need it as
/// well, and nothing is converted.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// The recipients that go in A-labels, by place. Empty: none does.
    ascii: Vec<Option<Mailbox>>,
    takes_utf8: bool,
}

impl Addresses {
    pub(crate) fn of<'a>(mail: &Mail, recipients: impl Iterator<Item = &'a Rcpt>, server: &Capabilities) -> Self {
        let takes_utf8 = server.offers(Keyword::SmtpUtf8);
        let mut ascii = Vec::new();
        if !takes_utf8 && !mail.smtputf8 {
            let given = recipients.enumerate().filter(|(_, rcpt)| !rcpt.forward_path.is_ascii());
            for (place, rcpt) in given {
                ascii.resize(place, None);
                ascii.push(rcpt.forward_path.mailbox().and_then(a_labels).filter(Mailbox::is_ascii));
            }
        }
        Self { ascii, takes_utf8 }
    }

    /// The same sender and recipients in that form.
    pub(crate) fn borrowed<'a>(
        &'a self,
        mail: &'a Mail,
        recipients: impl Iterator<Item = &'a Rcpt>,
    ) -> (Mail<&'a str>, Vec<Rcpt<&'a str>>) {
        let mut mail = mail.borrowed();
        let ascii = self.ascii.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let in_form = |(rcpt, ascii): (&'a Rcpt, Option<&'a Mailbox>)| {
            let mut rcpt = rcpt.borrowed();
            if let Some(ascii) = ascii {
                rcpt.forward_path = ForwardPath::Mailbox(ascii.borrowed());
            }
            rcpt
        };
        let recipients: Vec<_> = recipients.zip(ascii).map(in_form).collect();
        // Where it is not offered, the recipients that need it are refused alone.
        mail.smtputf8 |= self.takes_utf8 && recipients.iter().any(|rcpt| !rcpt.forward_path.is_ascii());
        (mail, recipients)
    }
}

/// The mailbox with its domain in A-labels.
#[cfg(feature = "idna")]
fn a_labels(mailbox: &Mailbox) -> Option<Mailbox> {
    mailbox.to_a_labels().ok()
}

/// Without the feature no name is converted.
#[cfg(not(feature = "idna"))]
const fn a_labels(_: &Mailbox) -> Option<Mailbox> {
    None
}
