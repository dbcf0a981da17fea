//! Questions to the application and its verdicts.

use alloc::{
    borrow::Cow,
    vec::{self, Vec},
};

use posthaste_wire::{Auth, Command, EhloName, Mail, Rcpt, Reply, Secret};

use crate::Tick;

/// Names a question until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuestionId(pub(super) u64);

/// A question to the application. What it borrows lives in the input.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Ask<'i> {
    /// May the client talk to us at all? Accepted without a reply, it is greeted with the host name; refused, it gets
    /// the reply and the connection closes.
    Connect,
    /// EHLO, HELO or LHLO. Accepted without a reply, the session answers with the capabilities. The name may be anything
    /// visible: RFC 5321 section 4.1.4 lets a server check it, and forbids it to refuse mail for what it finds. Under
    /// [`Tolerance::hello`](super::Tolerance::hello) it may be what [`EhloName::lossy`] makes of what the client said.
    Hello(EhloName<Cow<'i, str>>),
    /// AUTH. Answer with a challenge, an acceptance or a refusal.
    Auth(Auth<'i>),
    /// The response to a challenge, in base64, as it came.
    AuthResponse(Secret<&'i [u8]>),
    /// MAIL: its parameters are among those offered, and its SIZE is within the limit.
    Mail(Mail<&'i str>),
    /// RCPT.
    Rcpt(Rcpt<&'i str>),
    /// DATA before its 354, or the first BDAT of a message: the last moment to refuse without the content. The octets of a
    /// chunk come in any case, so a refusal is said behind them.
    Data,
    /// The content is complete, and nothing is wrong with it. Accepted means that the message is on stable storage.
    Message {
        /// How many recipients were accepted.
        recipients: usize,
    },
    /// VRFY, EXPN, HELP, ETRN or a verb that this crate does not know, when
    /// [`Offers::other_commands`](super::Offers::other_commands) is on.
    Other(Command<'i>),
}

/// The application's answer.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Yes; with a 2yz reply of the application's own, or the session's. To [`Ask::Data`] the session's 354, or nothing yet,
    /// is said in any case.
    Accept(Option<Reply>),
    /// No, with a 4yz or 5yz reply. A 421 closes the connection.
    Refuse(Reply),
    /// One reply for each recipient that was accepted, in the order of their RCPTs, each 2yz, 4yz or 5yz; only for
    /// [`Ask::Message`] under LMTP. Under LMTP the other verdicts count for every recipient.
    Each(Vec<Reply>),
    /// A SASL challenge, not yet in base64; only for [`Ask::Auth`] and [`Ask::AuthResponse`].
    Challenge(Vec<u8>),
}

/// A question that was asked, or a reply that waits for the ones before it.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) id: QuestionId,
    pub(super) topic: Topic,
    /// Once they are known.
    pub(super) replies: Option<Replies>,
    /// Until when the application has to answer.
    pub(super) deadline: Tick,
}

/// What is said to a command.
#[derive(Debug, Clone)]
pub(super) enum Replies {
    /// One reply so many times.
    Same(Reply, usize),
    Each(vec::IntoIter<Reply>),
}

impl Replies {
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Same(_, times) => *times == 0,
            Self::Each(replies) => replies.len() == 0,
        }
    }
}

impl Iterator for Replies {
    type Item = Reply;

    fn next(&mut self) -> Option<Reply> {
        match self {
            Self::Same(reply, times) => {
                *times = times.checked_sub(1)?;
                Some(reply.clone())
            }
            Self::Each(replies) => replies.next(),
        }
    }
}

/// What a question is about, without what it borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Connect,
    Hello {
        extended: bool,
    },
    Auth,
    AuthResponse,
    Mail {
        smtputf8: bool,
        binary: bool,
    },
    Rcpt,
    Data,
    /// As DATA, at the first chunk.
    Chunk,
    Message,
    Other,
}
