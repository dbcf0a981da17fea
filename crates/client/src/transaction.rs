//! One message to many recipients, each with an outcome of its own.

use bytes::Bytes;
use posthaste_io::{
    ClientError, ClientEvent, Content,
    session::{
        client::downgrade::{self, Undeliverable},
        table::Phase,
    },
    wire::{Command, Mail, Rcpt, Reply, Severity, capability::Keyword},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Client;

/// What came of a transaction.
#[derive(Debug)]
pub struct Transaction {
    /// One outcome for each recipient, in their order.
    pub recipients: Vec<RecipientOutcome>,
    /// Why the conversation broke off; without it, the connection can be used again.
    pub broken: Option<ClientError>,
    /// The end of the content may have left when it broke off: the server may have the message all the same, and sending
    /// it again may make a duplicate (RFC 1047).
    pub in_doubt: bool,
}

/// What came of one recipient.
#[derive(Debug, Clone)]
pub enum RecipientOutcome {
    /// The server has the message, and said this to the end of the content.
    Accepted(Reply),
    /// The server refused, in these words; [`is_for_good`](Self::is_for_good) says what that means.
    Refused(Reply, RefusedAt),
    /// The server cannot take this message; for good.
    Undeliverable(Undeliverable),
    /// The conversation broke off before there was an answer: try again.
    Lost,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedAt {
    /// The reverse-path.
    Mail,
    /// The recipient.
    Rcpt,
    /// DATA, before the content.
    Data,
    /// The content, at its end or within it.
    Content,
}

/// How many RCPT are on their way at once, so that neither side's window fills while both write (RFC 2920 section 3.1).
const GROUP: usize = 100;

/// The code that RFC 821 had for too many recipients.
const STORAGE_EXCEEDED: u16 = 552;

impl RecipientOutcome {
    /// Whether another attempt would come to the same: the server refused with 5yz, or cannot take the message.
    ///
    /// A 552 to RCPT is not for good: servers of RFC 821 say it where 452 is meant (RFC 5321 section 4.5.3.1.10).
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Refused(reply, RefusedAt::Rcpt) if reply.code().get() == STORAGE_EXCEEDED => false,
            Self::Refused(reply, _) => reply.code().severity() == Severity::PermanentNegative,
            Self::Undeliverable(_) => true,
            Self::Accepted(_) | Self::Lost => false,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends one message. Commands are pipelined as far as the server offers it.
    pub async fn transact(
        &mut self,
        mail: Mail<&str>,
        recipients: &[Rcpt<&str>],
        content: impl Content,
    ) -> Transaction {
        let mut attempt = Attempt { outcomes: vec![None; recipients.len()] };
        if recipients.is_empty() {
            return Transaction { recipients: Vec::new(), broken: None, in_doubt: false };
        }
        let mail = match downgrade::mail(mail, self.capabilities()) {
            Ok(mail) => mail,
            Err(why) => {
                let recipients = recipients.iter().map(|_| RecipientOutcome::Undeliverable(why)).collect();
                return Transaction { recipients, broken: None, in_doubt: false };
            }
        };
        let mut broken = attempt.run(self, mail, recipients, content).await.err();
        if self.driver.session().phase() == Phase::Closed && broken.is_none() {
            // Every recipient has its answer, and the last of them was a 421.
            broken = Some(ClientError::Closed);
        }
        let in_doubt = self.driver.message_in_doubt() && attempt.outcomes.iter().any(Option::is_none);
        let recipients =
            attempt.outcomes.into_iter().map(|outcome| outcome.unwrap_or(RecipientOutcome::Lost)).collect();
        Transaction { recipients, broken, in_doubt }
    }
}

struct Attempt {
    outcomes: Vec<Option<RecipientOutcome>>,
}

impl Attempt {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Client<S>,
        mail: Mail<&str>,
        recipients: &[Rcpt<&str>],
        mut content: impl Content,
    ) -> Result<(), ClientError> {
        let pipelining = client.capabilities().offers(Keyword::Pipelining);
        client.driver.send(&Command::Mail(mail))?;
        if !pipelining {
            let reply = client.reply().await?;
            if !reply.code().is_positive() {
                self.settle(&reply, RefusedAt::Mail);
                return Ok(());
            }
        }
        let mut groups = recipients.chunks(if pipelining { GROUP } else { 1 }).peekable();
        let mut mail_answered = !pipelining;
        while let Some(group) = groups.next() {
            for rcpt in group {
                let rcpt = downgrade::rcpt(*rcpt, client.capabilities());
                client.driver.send(&Command::Rcpt(rcpt))?;
            }
            // DATA leaves with the last group; everything else waits for the group's replies.
            if pipelining && groups.peek().is_none() {
                break;
            }
            let expected = group.len() + usize::from(!mail_answered);
            mail_answered = true;
            for _ in 0..expected {
                self.answer(client.driver.next().await?)?;
            }
            // A refused MAIL leaves nothing to name recipients for.
            match client.driver.session().phase() {
                Phase::Mail | Phase::Rcpt => {}
                Phase::Closed => return Err(ClientError::Closed),
                _ => return Ok(()),
            }
        }
        if !pipelining && self.outcomes.iter().all(Option::is_some) {
            return reset(client).await;
        }
        let data = client.driver.send(&Command::Data)?;
        loop {
            match client.driver.next().await? {
                ClientEvent::SendBody { .. } => break,
                ClientEvent::Reply { to, reply, .. } if to == data => {
                    self.settle(&reply, RefusedAt::Data);
                    return reset(client).await;
                }
                event => self.answer(event)?,
            }
        }
        if self.outcomes.iter().all(Option::is_some) {
            // 354 though everybody was refused: a lone dot, whose reply says nothing about anybody (RFC 2920 section 3.1).
            client.driver.send_content(&mut Bytes::new()).await?;
            client.reply().await?;
            return Ok(());
        }
        let end = match client.driver.send_content(&mut content).await {
            Err(ClientError::EarlyReply(reply)) => {
                self.settle(&reply, RefusedAt::Content);
                return Err(ClientError::EarlyReply(reply));
            }
            sent => sent?,
        };
        loop {
            match client.driver.next().await? {
                ClientEvent::Reply { to, reply, .. } if to == end => {
                    self.settle(&reply, RefusedAt::Content);
                    return Ok(());
                }
                event => self.answer(event)?,
            }
        }
    }

    /// Takes the reply to MAIL or to a RCPT.
    fn answer(&mut self, event: ClientEvent) -> Result<(), ClientError> {
        match event {
            ClientEvent::Reply { reply, .. } if reply.code().is_positive() => {}
            ClientEvent::Reply { recipient: Some(index), reply, .. } => {
                let slot = usize::try_from(index).ok().and_then(|index| self.outcomes.get_mut(index));
                if let Some(slot @ None) = slot {
                    *slot = Some(RecipientOutcome::Refused(reply, RefusedAt::Rcpt));
                }
            }
            // MAIL was refused, and with it every recipient.
            ClientEvent::Reply { reply, .. } => self.settle(&reply, RefusedAt::Mail),
            _ => return Err(ClientError::Closed),
        }
        Ok(())
    }

    /// Every recipient without an answer gets this one.
    fn settle(&mut self, reply: &Reply, at: RefusedAt) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(if reply.code().is_positive() {
                RecipientOutcome::Accepted(reply.clone())
            } else {
                RecipientOutcome::Refused(reply.clone(), at)
            });
        }
    }
}

/// Leaves no transaction open.
async fn reset<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) -> Result<(), ClientError> {
    if client.driver.session().phase() == Phase::Closed {
        return Err(ClientError::Closed);
    }
    client.command(&Command::Rset).await.map(drop)
}
