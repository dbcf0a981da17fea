//! Many messages over one connection, a pool, or to the hosts of domains, without a wait for each.

mod by_domain;
mod ending;
mod feed;
mod flight;
mod hosts;
mod message;
mod pipeline;
mod replies;
mod send_all;
mod sending;
mod worker;

use std::{fmt, io, iter::Enumerate};

use futures_util::stream::{self, Iter, Map};
use posthaste_tokio::{
    Content,
    wire::{Mail, Rcpt},
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use message::Message;
pub use send_all::SendAll;

pub(crate) use flight::{Done, Opened, Parcel, Pieces};
pub(crate) use pipeline::Pipeline;

use crate::{Client, Recipient, RecipientOutcome, Sent};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Client<S> {
    /// Sends messages, one after another, without a wait for the reply to each: see [`Batch`].
    ///
    /// ```no_run
    /// use posthaste_client::{Client, ClientOptions, Message};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = ClientOptions::new("client.example.org".parse()?);
    /// let mut client = Client::connect("mx.example.net:25", &options).await?;
    /// let to = ["one@example.net", "two@example.net"];
    /// let messages = to.map(|to| Message::new("me@example.org", [to], "Subject: hello\r\n\r\nHello!\r\n"));
    /// let messages = messages.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let mut batch = client.send_all(messages);
    /// while let Some((number, sent)) = batch.next().await {
    ///     sent.failed().for_each(|failed| println!("message {number}: {failed}"));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn send_all<C, M>(&mut self, messages: M) -> Batch<'_, S, C, M::IntoIter>
    where
        C: Content,
        M: IntoIterator<Item = Message<C>>,
    {
        let owned: Numbering<C> =
            |(number, Message { mail, recipients, content })| Own { number, mail, recipients, content: Some(content) };
        let messages = futures_util::StreamExt::map(stream::iter(messages.into_iter().enumerate()), owned);
        Batch { pipeline: Pipeline::new(self, u32::MAX), messages }
    }
}

/// Messages on their way over one connection.
///
/// With PIPELINING the next message's MAIL, RCPT and DATA leave together with the content of the
/// one before (RFC 2920 section 3.1): one round trip for each message. With CHUNKING too, messages
/// of known length up to 64 KiB leave whole, and wait for no reply: 32 at most, of 256 KiB at most
/// together. These are read before their MAIL leaves. That begins when the server has shown, with
/// the second message, that it can do it. Messages that may not be sent so go alone: those to more
/// than 100 recipients, with BODY=BINARYMIME, or by BDAT and of unknown length.
///
/// Only the messages whose [`Sent::in_doubt`] is set may have been taken although their outcome is
/// [`Lost`](RecipientOutcome::Lost). With 421 the server says that it takes nothing more.
pub struct Batch<'c, S, C: Content, I> {
    pipeline: Pipeline<'c, S, Own<C>>,
    messages: Map<Iter<Enumerate<I>>, Numbering<C>>,
}

type Numbering<C> = fn((usize, Message<C>)) -> Own<C>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, C: Content, I: Iterator<Item = Message<C>>> Batch<'_, S, C, I> {
    /// Waits for the outcome of the next message that has one, and returns it with the message's
    /// place, counted from 0. The order is that of the messages, except for those that are not sent
    /// at all.
    ///
    /// `None`: no message is left, or the connection takes no other. Hand in the iterator by
    /// reference to keep those that were not taken from it.
    ///
    /// If the future is dropped, the connection is of no use any more, and the server may have the
    /// messages without an outcome.
    pub async fn next(&mut self) -> Option<(usize, Sent)> {
        let Done { parcel, result, .. } = self.pipeline.next(&mut self.messages).await?;
        let recipient = |(rcpt, outcome): (Rcpt, RecipientOutcome)| {
            let is_lost = matches!(outcome, RecipientOutcome::Lost);
            Recipient {
                path: rcpt.forward_path,
                server: Some(std::sync::Arc::clone(self.pipeline.facts())),
                broken: result.broken.clone().filter(|_| is_lost),
                in_doubt: result.in_doubt && is_lost,
                outcome,
            }
        };
        let recipients = parcel.recipients.into_iter().zip(result.outcomes).map(recipient).collect();
        let (broken, in_doubt, chunking_failed) = (result.broken.clone(), result.in_doubt, result.chunking_failed);
        Some((parcel.number, Sent { recipients, broken, in_doubt, chunking_failed }))
    }
}

impl<S, C: Content, I> fmt::Debug for Batch<'_, S, C, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

/// A message whose content is its own.
struct Own<C> {
    number: usize,
    mail: Mail,
    recipients: Vec<Rcpt>,
    content: Option<C>,
}

impl<C: Content> Parcel for Own<C> {
    type Content = C;

    fn mail(&self) -> &Mail {
        &self.mail
    }

    fn recipients(&self) -> &[Rcpt] {
        &self.recipients
    }

    async fn open(&mut self) -> io::Result<C> {
        self.content.take().ok_or_else(|| io::Error::other("the content was read"))
    }
}
