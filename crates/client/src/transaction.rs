//! One message to many recipients, each with an outcome of its own.

use bytes::Bytes;
use posthaste_io::{
    ChunksSent, ClientError, ClientEvent, Content,
    session::{
        Ticket,
        client::{
            BodyKind,
            downgrade::{self, Undeliverable},
        },
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
    /// The server has said that it takes fewer recipients, or fewer domains of them, in one transaction (RFC 9422): this one
    /// was not named to it. Send the message to it in another transaction; [`Client::recipients_at_once`] says how many fit.
    Postponed,
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
            Self::Accepted(_) | Self::Postponed | Self::Lost => false,
        }
    }

    fn of(reply: Reply, at: RefusedAt) -> Self {
        if reply.code().is_positive() { Self::Accepted(reply) } else { Self::Refused(reply, at) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends one message. Commands are pipelined as far as the server offers it; the content goes by BDAT where it offers
    /// CHUNKING and [`ClientSettings::chunking`](posthaste_io::session::ClientSettings::chunking) is on, or where the content
    /// is binary, and by DATA otherwise.
    pub async fn transact(
        &mut self,
        mail: Mail<&str>,
        recipients: &[Rcpt<&str>],
        content: impl Content,
    ) -> Transaction {
        let mut attempt = Attempt { outcomes: vec![None; recipients.len()], named: Vec::new() };
        let mut broken = None;
        match downgrade::mail(mail, self.next_hop()) {
            Err(why) => attempt.outcomes.fill(Some(RecipientOutcome::Undeliverable(why))),
            Ok(mail) => {
                let named = attempt.choose(self, recipients);
                if !named.is_empty() {
                    broken = attempt.run(self, mail, &named, content).await.err();
                }
            }
        }
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
    /// Which recipient each RCPT of the transaction names.
    named: Vec<usize>,
}

impl Attempt {
    /// The recipients that are named to the server, as it can take them; the others have their outcome then.
    fn choose<'a, S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &Client<S>,
        recipients: &[Rcpt<&'a str>],
    ) -> Vec<Rcpt<&'a str>> {
        let most = client.recipients_at_once(recipients);
        let mut chosen = Vec::with_capacity(most);
        for (index, (rcpt, outcome)) in recipients.iter().zip(&mut self.outcomes).enumerate() {
            match downgrade::rcpt(*rcpt, client.next_hop()) {
                Err(why) => *outcome = Some(RecipientOutcome::Undeliverable(why)),
                Ok(_) if index >= most => *outcome = Some(RecipientOutcome::Postponed),
                Ok(rcpt) => {
                    chosen.push(rcpt);
                    self.named.push(index);
                }
            }
        }
        chosen
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Client<S>,
        mail: Mail<&str>,
        recipients: &[Rcpt<&str>],
        mut content: impl Content,
    ) -> Result<(), ClientError> {
        let pipelining = client.capabilities().offers(Keyword::Pipelining);
        client.driver.send(&Command::Mail(mail))?;
        let kind = client.driver.session().body_kind();
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
                client.driver.send(&Command::Rcpt(*rcpt))?;
            }
            // DATA leaves with the last group; everything else waits for the group's replies.
            if pipelining && kind == BodyKind::Data && groups.peek().is_none() {
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
        if (!pipelining || kind == BodyKind::Chunks) && self.outcomes.iter().all(Option::is_some) {
            return reset(client).await;
        }
        let sent = match kind {
            BodyKind::Data => match self.ask(client).await? {
                true => client.driver.send_content(&mut content).await.map(ChunksSent::Whole),
                false => return Ok(()),
            },
            BodyKind::Chunks => client.driver.send_chunks(&mut content).await,
        };
        match sent {
            Ok(ChunksSent::Whole(end)) => self.end(client, end).await,
            Ok(ChunksSent::Refused(reply)) => {
                self.settle(&reply, RefusedAt::Content);
                reset(client).await
            }
            Err(ClientError::EarlyReply(reply)) => {
                self.settle(&reply, RefusedAt::Content);
                Err(ClientError::EarlyReply(reply))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends DATA, and says whether there is content to send.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&mut self, client: &mut Client<S>) -> Result<bool, ClientError> {
        let data = client.driver.send(&Command::Data)?;
        loop {
            match client.driver.next().await? {
                ClientEvent::SendBody { .. } => break,
                ClientEvent::Reply { to, reply, .. } if to == data => {
                    self.settle(&reply, RefusedAt::Data);
                    reset(client).await?;
                    return Ok(false);
                }
                event => self.answer(event)?,
            }
        }
        if self.outcomes.iter().any(Option::is_none) {
            return Ok(true);
        }
        // 354 though everybody was refused: a lone dot, whose reply says nothing about anybody (RFC 2920 section 3.1).
        client.driver.send_content(&mut Bytes::new()).await?;
        client.reply().await?;
        Ok(false)
    }

    /// Waits for the reply to the end of the content; in LMTP for the one of each recipient.
    async fn end<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Client<S>,
        end: Ticket,
    ) -> Result<(), ClientError> {
        while client.driver.session().is_unanswered(end) {
            match client.driver.next().await? {
                ClientEvent::Reply { to, recipient: Some(index), reply } if to == end => {
                    let outcome = RecipientOutcome::of(reply, RefusedAt::Content);
                    self.set(index, outcome);
                }
                ClientEvent::Reply { to, reply, .. } if to == end => self.settle(&reply, RefusedAt::Content),
                event => self.answer(event)?,
            }
        }
        Ok(())
    }

    /// Takes the reply to MAIL or to a RCPT.
    fn answer(&mut self, event: ClientEvent) -> Result<(), ClientError> {
        match event {
            ClientEvent::Reply { reply, .. } if reply.code().is_positive() => {}
            ClientEvent::Reply { recipient: Some(index), reply, .. } => {
                self.set(index, RecipientOutcome::Refused(reply, RefusedAt::Rcpt));
            }
            // MAIL was refused, and with it every recipient.
            ClientEvent::Reply { reply, .. } => self.settle(&reply, RefusedAt::Mail),
            _ => return Err(ClientError::Closed),
        }
        Ok(())
    }

    /// The outcome of the recipient that the RCPT of this number names, unless it has one.
    fn set(&mut self, index: u32, outcome: RecipientOutcome) {
        let recipient = usize::try_from(index).ok().and_then(|index| self.named.get(index));
        if let Some(slot @ None) = recipient.and_then(|recipient| self.outcomes.get_mut(*recipient)) {
            *slot = Some(outcome);
        }
    }

    /// Every recipient without an answer gets this one.
    fn settle(&mut self, reply: &Reply, at: RefusedAt) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(RecipientOutcome::of(reply.clone(), at));
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
