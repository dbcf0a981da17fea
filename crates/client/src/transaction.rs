//! One message to many recipients, each with an outcome of its own.

use bytes::Bytes;
use posthaste_io::{
    ClientError, ClientEvent, Content,
    session::client::downgrade::{self, Undeliverable},
    wire::{Command, Mail, Rcpt, Reply},
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
    /// The end of the content had left when it broke off: the server may have the message all the same, and sending it
    /// again may make a duplicate (RFC 1047).
    pub in_doubt: bool,
}

/// What came of one recipient.
#[derive(Debug, Clone)]
pub enum RecipientOutcome {
    /// The server has the message, and said this to the end of the content.
    Accepted(Reply),
    /// The server refused, at whatever point, in these words: 4yz for now, 5yz for good.
    Refused(Reply),
    /// The server cannot take this message; for good.
    Undeliverable(Undeliverable),
    /// The conversation broke off before there was an answer: try again.
    Lost,
}

/// How many RCPT are on their way at once, so that neither side's window fills while both write (RFC 2920 section 3.1).
const GROUP: usize = 100;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends one message. Commands are pipelined as far as the server offers it.
    pub async fn transact(
        &mut self,
        mail: Mail<&str>,
        recipients: &[Rcpt<&str>],
        content: impl Content,
    ) -> Transaction {
        let mut attempt = Attempt { outcomes: vec![None; recipients.len()], sent: false };
        let mail = match downgrade::mail(mail, self.capabilities()) {
            Ok(mail) => mail,
            Err(why) => {
                let recipients = recipients.iter().map(|_| RecipientOutcome::Undeliverable(why)).collect();
                return Transaction { recipients, broken: None, in_doubt: false };
            }
        };
        let broken = attempt.run(self, mail, recipients, content).await.err();
        let in_doubt = attempt.sent && broken.is_some();
        let recipients =
            attempt.outcomes.into_iter().map(|outcome| outcome.unwrap_or(RecipientOutcome::Lost)).collect();
        Transaction { recipients, broken, in_doubt }
    }
}

struct Attempt {
    outcomes: Vec<Option<RecipientOutcome>>,
    /// The end of the content has left, or may have.
    sent: bool,
}

impl Attempt {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Client<S>,
        mail: Mail<&str>,
        recipients: &[Rcpt<&str>],
        mut content: impl Content,
    ) -> Result<(), ClientError> {
        let pipelining = client.capabilities().pipelining;
        client.driver.send(&Command::Mail(mail))?;
        if !pipelining {
            let reply = client.reply().await?;
            if !reply.code().is_positive() {
                self.refuse_rest(&reply);
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
        }
        if !pipelining && self.outcomes.iter().all(Option::is_some) {
            return reset(client).await;
        }
        let data = client.driver.send(&Command::Data)?;
        loop {
            match client.driver.next().await? {
                ClientEvent::SendBody { .. } => break,
                ClientEvent::Reply { to, reply, .. } if to == data => {
                    self.refuse_rest(&reply);
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
        let end = client.driver.send_content(&mut content).await?;
        self.sent = true;
        loop {
            match client.driver.next().await? {
                ClientEvent::Reply { to, reply, .. } if to == end => {
                    for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
                        *outcome = Some(if reply.code().is_positive() {
                            RecipientOutcome::Accepted(reply.clone())
                        } else {
                            RecipientOutcome::Refused(reply.clone())
                        });
                    }
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
                    *slot = Some(RecipientOutcome::Refused(reply));
                }
            }
            // MAIL was refused, and with it every recipient.
            ClientEvent::Reply { reply, .. } => self.refuse_rest(&reply),
            _ => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
        }
        Ok(())
    }

    fn refuse_rest(&mut self, reply: &Reply) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(RecipientOutcome::Refused(reply.clone()));
        }
    }
}

/// Leaves no transaction open.
async fn reset<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) -> Result<(), ClientError> {
    client.command(&Command::Rset).await.map(drop)
}
