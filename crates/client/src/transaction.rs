//! One message to many recipients, each with an outcome of its own.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_tokio::{
    ChunksSent, ClientError, ClientEvent, Content,
    session::{
        ApiMisuse, Ticket,
        client::{BodyKind, downgrade},
        table::Phase,
    },
    wire::{BodyType, Command, Mail, Rcpt, Reply},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Client, Recipient, RecipientOutcome, RefusedAt, Sent, Stage, client::Remote, outcome::is_unknown_command};

/// RCPT commands that are on their way at once. More could fill both sides' windows while both
/// write (RFC 2920 section 3.1).
pub(crate) const GROUP: usize = 100;

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends one message, with all parameters, to these recipients. An empty list sends nothing.
    ///
    /// Commands are pipelined if the server offers PIPELINING. The content goes by BDAT if the
    /// server offers CHUNKING and
    /// [`ClientSettings::chunking`](posthaste_tokio::session::ClientSettings::chunking) is on, or
    /// if it is BODY=BINARYMIME, and otherwise by DATA. What the server does not offer is left out
    /// of MAIL and RCPT where the message does not need it
    /// ([`downgrade`](posthaste_tokio::session::client::downgrade)).
    ///
    /// If the future is dropped, the connection is of no use any more, and the server may have the
    /// message.
    pub async fn transact<'r>(
        &mut self,
        mail: Mail<&str>,
        recipients: &[Rcpt<&'r str>],
        content: impl Content,
    ) -> Sent<&'r str> {
        let mut attempt = Attempt::new(recipients.len());
        let (mut broken, mut is_begun) = (None, false);
        let is_binary = mail.body == Some(BodyType::BinaryMime);
        match downgrade::mail(mail, self.next_hop()) {
            Err(why) => attempt.outcomes.fill(Some(RecipientOutcome::Undeliverable(why))),
            Ok(mail) => {
                let named = attempt.choose(self, recipients);
                if !named.is_empty() {
                    is_begun = true;
                    broken = attempt.run(self, mail, &named, content).await.err();
                }
            }
        }
        let lacks_tls = self.note_lack_of_tls(&mut attempt.outcomes);
        let session = self.driver.session();
        if session.phase() == Phase::Closed && broken.is_none() {
            // The last reply was a 421.
            broken = Some(ClientError::Closed);
        }
        if let (Some(oddity), None | Some(ClientError::Closed)) = (session.oddity(), &broken) {
            broken = Some(ClientError::Peer(oddity));
        }
        let in_doubt = session.message_in_doubt() || attempt.end_is_out_of_step;
        let in_doubt = in_doubt && attempt.outcomes.iter().any(Option::is_none);
        let chunking_failed = attempt.by_chunks && broken.as_ref().is_some_and(may_be_chunking);
        let broken = broken.map(Arc::new);
        let open = match broken.as_deref() {
            Some(ClientError::Misuse(ApiMisuse::Content(fault))) => RecipientOutcome::Unsendable(*fault),
            _ => RecipientOutcome::Lost,
        };
        let recipient = |(rcpt, outcome): (&Rcpt<&'r str>, Option<RecipientOutcome>)| {
            let outcome = outcome.unwrap_or_else(|| open.clone());
            let is_lost = matches!(outcome, RecipientOutcome::Lost);
            let broken = if is_lost { broken.clone() } else { None };
            let server = Some(Arc::clone(&self.facts));
            Recipient { path: rcpt.forward_path, outcome, server, broken, in_doubt: in_doubt && is_lost }
        };
        let recipients = recipients.iter().zip(attempt.outcomes).map(recipient).collect();
        let sent = Sent { recipients, broken, in_doubt, chunking_failed };
        if let (Some(error), Some(trace)) = (&sent.broken, self.driver.trace()) {
            trace.note(error);
        }
        if is_begun {
            self.note(&sent, is_binary, lacks_tls);
        }
        sent
    }

    /// Notes how the server did.
    fn note(&mut self, sent: &Sent<&str>, is_binary: bool, lacks_tls: bool) {
        let is_first = !std::mem::replace(&mut self.is_used, true);
        let (Some(Remote { health, tls_is_suspected }), Some(target)) = (&self.remote, &self.facts.target) else {
            return;
        };
        if lacks_tls {
            health.needs_tls(&target.server);
        }
        match sent.broken.as_deref() {
            None if lacks_tls => health.settled(target, true),
            None => {
                let outcomes = sent.recipients.iter().map(|recipient| &recipient.outcome);
                health.settled(target, RecipientOutcome::are_servers_refusals(outcomes));
                if *tls_is_suspected {
                    // It works without TLS, so TLS was what failed.
                    health.broke_tls(&target.server, self.tls_failure.clone().unwrap_or_default());
                }
            }
            // This side failed.
            Some(ClientError::Misuse(_) | ClientError::Content(_)) => {}
            Some(_) if sent.chunking_failed && !is_binary => health.broke_chunking(&target.server),
            // A server may close a connection that it has served.
            Some(_) if !is_first && sent.says_nothing() => {}
            Some(_) => health.failed(&target.server, &target.host, Stage::Transaction),
        }
    }
}

/// Returns `true` if BDAT may be why a conversation broke off while content went by BDAT.
pub(crate) fn may_be_chunking(broken: &ClientError) -> bool {
    match broken {
        ClientError::EarlyReply(reply) | ClientError::Unasked(reply) => is_unknown_command(reply),
        // A 421, or a fault on this side.
        ClientError::Closed | ClientError::Misuse(_) | ClientError::Content(_) => false,
        _ => true,
    }
}

pub(crate) struct Attempt {
    pub(crate) outcomes: Vec<Option<RecipientOutcome>>,
    /// The index of the recipient that each RCPT of the transaction names.
    pub(crate) named: Vec<usize>,
    /// Content went by BDAT, and its reply is still to come.
    pub(crate) by_chunks: bool,
    /// A reply was odd while others were on their way: a reply may be missing, or be one too many.
    pub(crate) is_out_of_step: bool,
    /// The same for replies to the end of the content.
    end_is_out_of_step: bool,
    /// Outcomes of the replies after the odd one. They count once 354, or the reply to RSET, has
    /// come in its place.
    held: Vec<(u32, RecipientOutcome)>,
}

impl Attempt {
    pub(crate) fn new(recipients: usize) -> Self {
        Self {
            outcomes: vec![None; recipients],
            named: Vec::new(),
            by_chunks: false,
            is_out_of_step: false,
            end_is_out_of_step: false,
            held: Vec::new(),
        }
    }

    /// The recipients to name to the server, in the form that it can take. The others get their
    /// outcome here.
    pub(crate) fn choose<'a, S: AsyncRead + AsyncWrite + Unpin>(
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
        content: impl Content,
    ) -> Result<(), ClientError> {
        client.driver.send(&Command::Mail(mail))?;
        let mut mail_answered = !client.driver.session().may_pipeline();
        if mail_answered {
            let reply = client.reply().await?;
            if !reply.code().is_positive() {
                self.settle(&reply, RefusedAt::Mail);
                return Ok(());
            }
        }
        let mut rest = recipients;
        loop {
            // An odd reply ends it.
            let pipelining = client.driver.session().may_pipeline();
            let most = if pipelining { GROUP } else { 1 };
            let (group, later) = rest.split_at_checked(most).unwrap_or((rest, &[]));
            rest = later;
            for rcpt in group {
                client.driver.send(&Command::Rcpt(*rcpt))?;
            }
            // DATA leaves with the last group. All else waits for the group's replies.
            if pipelining && client.driver.session().body_kind() == BodyKind::Data && rest.is_empty() {
                break;
            }
            let expected = group.len() + usize::from(!mail_answered);
            mail_answered = true;
            for _ in 0..expected {
                self.answer(client).await?;
            }
            // After a refused MAIL there is no transaction.
            match client.driver.session().phase() {
                Phase::Mail | Phase::Rcpt => {}
                Phase::Closed => return Err(ClientError::Closed),
                _ => return Ok(()),
            }
            if rest.is_empty() {
                if client.driver.session().accepted_recipients() == 0 {
                    return self.reset(client).await;
                }
                break;
            }
        }
        let sent = match client.driver.session().body_kind() {
            BodyKind::Data => match self.ask(client).await? {
                true => client.driver.send_content(content).await.map(ChunksSent::Whole),
                false => return Ok(()),
            },
            // Before BDAT no reply would show that one is missing.
            BodyKind::Chunks if self.is_out_of_step => return Err(ClientError::Closed),
            BodyKind::Chunks => {
                self.by_chunks = true;
                client.driver.send_chunks(content).await
            }
        };
        match sent {
            Ok(ChunksSent::Whole(end)) => self.end(client, end).await,
            Ok(ChunksSent::Refused(reply)) => {
                self.content_refused(&reply)?;
                self.reset(client).await
            }
            Err(ClientError::EarlyReply(reply)) => {
                self.content_refused(&reply)?;
                Err(ClientError::EarlyReply(reply))
            }
            Err(error) => Err(error),
        }
    }

    /// Sends DATA. Returns `true` if the content is to be sent.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&mut self, client: &mut Client<S>) -> Result<bool, ClientError> {
        let data = client.driver.send(&Command::Data)?;
        loop {
            match client.driver.next().await? {
                ClientEvent::SendBody { .. } => break,
                ClientEvent::Reply { to, reply, .. } if to == data => {
                    if !self.is_out_of_step {
                        self.settle(&reply, RefusedAt::Data);
                    }
                    self.reset(client).await?;
                    self.settle(&reply, RefusedAt::Data);
                    return Ok(false);
                }
                event => self.take(client, event)?,
            }
        }
        self.is_in_step();
        if self.outcomes.iter().any(Option::is_none) {
            return Ok(true);
        }
        // 354 although every recipient was refused: a lone dot, whose reply concerns no recipient
        // (RFC 2920 section 3.1).
        client.driver.send_content(Bytes::new()).await?;
        client.reply().await?;
        Ok(false)
    }

    /// Waits for the reply to the end of the content; in LMTP for one per recipient.
    async fn end<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &mut Client<S>,
        end: Ticket,
    ) -> Result<(), ClientError> {
        while client.driver.session().is_unanswered(end) {
            match client.driver.next().await? {
                ClientEvent::Reply { to, reply, .. } if to == end && self.by_chunks && is_unknown_command(&reply) => {
                    return self.content_refused(&reply);
                }
                ClientEvent::Reply { to, recipient: Some(index), reply } if to == end => {
                    let outcome = RecipientOutcome::of(reply, RefusedAt::Content);
                    self.set(index, outcome);
                    self.look_for_oddities(client);
                    self.end_is_out_of_step = self.is_out_of_step;
                }
                ClientEvent::Reply { to, reply, .. } if to == end => self.settle(&reply, RefusedAt::Content),
                event => self.take(client, event)?,
            }
        }
        self.by_chunks = false;
        if self.is_out_of_step { self.reset(client).await } else { Ok(()) }
    }

    /// The content was refused. An error if the server does not know BDAT: it may take the octets
    /// of the content for commands.
    pub(crate) fn content_refused(&mut self, reply: &Reply) -> Result<(), ClientError> {
        if self.by_chunks && is_unknown_command(reply) {
            self.settle(reply, RefusedAt::Bdat);
            return Err(ClientError::Chunking(reply.clone()));
        }
        self.by_chunks = false;
        self.settle(reply, RefusedAt::Content);
        Ok(())
    }

    /// Waits for the next reply to MAIL or RCPT.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&mut self, client: &mut Client<S>) -> Result<(), ClientError> {
        let event = client.driver.next().await?;
        self.take(client, event)
    }

    /// Takes the reply to MAIL or RCPT.
    fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        client: &Client<S>,
        event: ClientEvent,
    ) -> Result<(), ClientError> {
        match event {
            ClientEvent::Reply { reply, .. } if reply.code().is_positive() => {}
            ClientEvent::Reply { recipient: Some(index), reply, .. } => {
                let is_first = client.driver.session().accepted_recipients() == 0;
                let at = if is_first { RefusedAt::Rcpt } else { RefusedAt::LaterRcpt };
                self.set(index, RecipientOutcome::Refused(reply, at));
            }
            // MAIL was refused, and with it every recipient.
            ClientEvent::Reply { reply, .. } => self.settle(&reply, RefusedAt::Mail),
            _ => return Err(ClientError::Closed),
        }
        self.look_for_oddities(client);
        Ok(())
    }

    /// After an odd reply, the replies on their way may belong to other commands than they seem to.
    fn look_for_oddities<S: AsyncRead + AsyncWrite + Unpin>(&mut self, client: &Client<S>) {
        let session = client.driver.session();
        self.is_out_of_step |= session.oddity().is_some() && session.unanswered() > 0;
    }

    /// A reply came that only one command can have, in its place. So the replies before it came in
    /// theirs.
    pub(crate) fn is_in_step(&mut self) {
        self.is_out_of_step = false;
        self.end_is_out_of_step = false;
        for (index, outcome) in std::mem::take(&mut self.held) {
            self.set(index, outcome);
        }
    }

    /// Outcomes that wait for a reply in its place never count.
    pub(crate) fn forget(&mut self) {
        self.held.clear();
    }

    /// Ends the transaction by RSET, unless the server has ended the conversation.
    async fn reset<S: AsyncRead + AsyncWrite + Unpin>(&mut self, client: &mut Client<S>) -> Result<(), ClientError> {
        if client.driver.session().phase() == Phase::Closed {
            return Err(ClientError::Closed);
        }
        let reset = client.command(&Command::Rset).await.map(drop);
        if !matches!(reset, Err(ClientError::Peer(_))) {
            self.is_in_step();
        }
        reset
    }

    /// Sets the outcome of the recipient that this RCPT names, unless it has one.
    pub(crate) fn set(&mut self, index: u32, outcome: RecipientOutcome) {
        if self.is_out_of_step {
            self.held.push((index, outcome));
            return;
        }
        let recipient = usize::try_from(index).ok().and_then(|index| self.named.get(index));
        if let Some(slot @ None) = recipient.and_then(|recipient| self.outcomes.get_mut(*recipient)) {
            *slot = Some(outcome);
        }
    }

    /// Gives this reply to every recipient without an outcome.
    pub(crate) fn settle(&mut self, reply: &Reply, at: RefusedAt) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
            *outcome = Some(RecipientOutcome::of(reply.clone(), at));
        }
    }
}
