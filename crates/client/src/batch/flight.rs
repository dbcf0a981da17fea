//! One message of a batch on its way over a connection.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use posthaste_tokio::{
    ClientError, Content,
    session::{
        Ticket,
        client::downgrade::{self, NextHop},
    },
    wire::{
        Command, Mail, Rcpt, Reply,
        frame::{ContentCheck, ContentFault},
    },
};

use crate::{RecipientOutcome, RefusedAt, delivery::Transacted, send::Addresses, transaction::Attempt};

/// A message that a pipeline is given, and gives back with its result.
pub(crate) trait Parcel: Send {
    type Content: Content;

    fn mail(&self) -> &Mail;

    fn recipients(&self) -> &[Rcpt];

    /// Begins the content.
    fn open(&mut self) -> impl Future<Output = io::Result<Self::Content>> + Send;
}

/// A message with its result.
pub(crate) struct Done<P> {
    pub(crate) parcel: P,
    pub(crate) result: Transacted,
    /// The content, if it was read before the message was sent and may be needed again.
    pub(crate) pieces: Option<Vec<Bytes>>,
    /// The server cannot have the message, and said nothing of it: it can be begun again.
    pub(crate) is_untouched: bool,
    /// The conversation broke off at this message.
    pub(crate) is_at_break: bool,
}

/// The state of a message, by the replies to its commands so far.
pub(super) struct Flight<P: Parcel> {
    pub(super) parcel: P,
    addresses: Addresses,
    pub(super) attempt: Attempt,
    pub(super) body: Body<P::Content>,
    /// The octets of the content.
    pub(super) length: Option<u64>,
    /// It has to go alone, by [`Client::transact`](crate::Client::transact).
    pub(super) is_alone: bool,
    /// MAIL left before the outcome of the message in front of it was known.
    pub(super) is_early: bool,
    /// Its content left before the replies to its commands.
    pub(super) is_blind: bool,
    /// RSET left in front of MAIL and is not answered.
    pub(super) awaits_reset: bool,
    pub(super) mail_is_answered: bool,
    /// RCPT commands without a reply.
    pub(super) open_rcpts: usize,
    /// Refusals that count once it is certain that replies and commands are in step.
    pub(super) mail_refused: Option<Reply>,
    pub(super) data_refused: Option<Reply>,
    /// 354 has come.
    pub(super) is_asked: bool,
    pub(super) end: Option<End>,
    /// Some of the content was read.
    pub(super) has_begun: bool,
    /// The server has taken something that cannot be this message.
    pub(super) is_dubious: bool,
}

/// The content.
pub(super) enum Body<C> {
    Streamed(Pin<Box<C>>),
    /// It was read before.
    Whole(Vec<Bytes>),
    Gone,
}

/// What ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) ticket: Ticket,
    pub(super) what: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// The end of the content.
    Content,
    /// The end of no content, for a server that said 354 and had refused every recipient.
    Nothing,
    /// RSET.
    Reset,
}

impl<P: Parcel> Flight<P> {
    pub(super) fn new(parcel: P, addresses: Addresses, content: P::Content, attempt: Attempt) -> Self {
        let length = content.length();
        let open_rcpts = attempt.named.len();
        Self {
            parcel,
            addresses,
            attempt,
            body: Body::Streamed(Box::pin(content)),
            length,
            is_alone: false,
            is_early: false,
            is_blind: false,
            awaits_reset: false,
            mail_is_answered: false,
            open_rcpts,
            mail_refused: None,
            data_refused: None,
            is_asked: false,
            end: None,
            has_begun: false,
            is_dubious: false,
        }
    }

    /// MAIL and RCPT in the form that this server takes, with the size of the content.
    pub(super) fn envelope(&self) -> (Mail<&str>, Vec<Rcpt<&str>>) {
        let (mut mail, recipients) = self.addresses.borrowed(self.parcel.mail(), self.parcel.recipients().iter());
        mail.size = mail.size.or(self.length);
        (mail, recipients)
    }

    /// MAIL as this server can take it.
    pub(super) fn mail<'a>(&'a self, hop: NextHop<'_>) -> Result<Mail<&'a str>, downgrade::Undeliverable> {
        downgrade::mail(self.envelope().0, hop)
    }

    /// The commands before the content.
    pub(super) fn commands<'a>(&'a self, hop: NextHop<'_>, resets: bool, data: bool) -> Vec<Command<'a>> {
        let (mail, recipients) = self.envelope();
        let mut commands = Vec::with_capacity(self.attempt.named.len().saturating_add(3));
        commands.extend(resets.then_some(Command::Rset));
        // What the server cannot take has its outcome already.
        commands.extend(downgrade::mail(mail, hop).ok().map(Command::Mail));
        let named = self.attempt.named.iter().filter_map(|index| recipients.get(*index));
        commands.extend(named.filter_map(|rcpt| downgrade::rcpt(*rcpt, hop).ok()).map(Command::Rcpt));
        commands.extend(data.then_some(Command::Data));
        commands
    }

    /// Returns `true` if each of its lines may be sent.
    pub(super) fn has_good_lines(&self, hop: NextHop<'_>) -> bool {
        let mut line = BytesMut::new();
        self.commands(hop, false, false).iter().all(|command| {
            line.clear();
            command.encode(&mut line).is_ok()
        })
    }

    /// Reads the whole content. An error: it cannot be sent, and the connection knows nothing of
    /// it.
    pub(super) async fn read_whole(&mut self) -> Result<(), Unreadable> {
        let Body::Streamed(content) = &mut self.body else { return Ok(()) };
        self.has_begun = true;
        let (mut pieces, mut octets, mut check) = (Vec::new(), 0_u64, ContentCheck::new(usize::MAX));
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "its length is not the one that it gave");
        while let Some(piece) = poll_fn(|context| content.as_mut().poll_next(context)).await {
            let piece = piece.map_err(Unreadable::Read)?;
            octets = octets.saturating_add(piece.len() as u64);
            if self.length.is_some_and(|length| length < octets) {
                return Err(Unreadable::Read(wrong()));
            }
            check.check(&piece).map_err(Unreadable::Fault)?;
            if piece.is_empty() {
                // A source with nothing but these must not keep the thread.
                tokio::task::yield_now().await;
            } else {
                pieces.push(piece);
            }
        }
        check.finish().map_err(Unreadable::Fault)?;
        if self.length.is_some_and(|length| length != octets) {
            return Err(Unreadable::Read(wrong()));
        }
        self.body = Body::Whole(pieces);
        Ok(())
    }

    /// Returns `true` if every reply before the content has come.
    pub(super) const fn is_ready(&self) -> bool {
        self.is_asked || self.data_refused.is_some()
    }

    /// Returns `true` if MAIL and each RCPT have their reply.
    pub(super) const fn is_answered(&self) -> bool {
        self.mail_is_answered && self.open_rcpts == 0
    }

    /// Replies and commands are in step: what was refused counts.
    pub(super) fn is_in_step(&mut self) {
        self.attempt.is_in_step();
        for (refusal, at) in [(self.mail_refused.take(), RefusedAt::Mail), (self.data_refused.take(), RefusedAt::Data)]
        {
            if let Some(reply) = refusal {
                self.attempt.settle(&reply, at);
            }
        }
    }

    /// Returns `true` if a recipient has no outcome.
    pub(super) fn is_open(&self) -> bool {
        self.attempt.outcomes.iter().any(Option::is_none)
    }

    /// The message with the outcomes so far; others are lost.
    pub(super) fn done(self, broken: Option<Arc<ClientError>>, in_doubt: bool) -> Done<P> {
        let is_whole = self.attempt.outcomes.iter().all(Option::is_some);
        let outcomes: Vec<_> =
            self.attempt.outcomes.into_iter().map(|outcome| outcome.unwrap_or(RecipientOutcome::Lost)).collect();
        let in_doubt = in_doubt && !is_whole;
        // What was refused before the content may be asked again.
        let is_unsent = self.end.is_none() && !self.has_begun;
        let is_untouched =
            broken.is_some() && !in_doubt && (is_unsent || outcomes.iter().all(RecipientOutcome::says_nothing));
        let pieces = match self.body {
            Body::Whole(pieces) => Some(pieces),
            Body::Streamed(_) | Body::Gone => None,
        };
        let result = Transacted { outcomes, broken, in_doubt, chunking_failed: false, has_begun: self.has_begun };
        Done { parcel: self.parcel, result, pieces, is_untouched, is_at_break: false }
    }
}

/// Why content cannot be sent.
pub(super) enum Unreadable {
    Read(io::Error),
    Fault(ContentFault),
}

/// Content that was read before.
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    length: u64,
}

impl Pieces {
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { left: pieces.into(), length }
    }
}

impl Content for Pieces {
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        Poll::Ready(self.left.pop_front().map(Ok))
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}

/// Content that was read before, or was not begun.
pub(crate) enum Opened<C> {
    Read(Pieces),
    Fresh(Pin<Box<C>>),
}

impl<C: Content> Content for Opened<C> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match &mut *self {
            Self::Read(pieces) => Pin::new(pieces).poll_next(context),
            Self::Fresh(content) => content.as_mut().poll_next(context),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Read(pieces) => pieces.length(),
            Self::Fresh(content) => content.length(),
        }
    }
}
