//! Questions to the application and its verdicts.

use alloc::{string::String, sync::Arc, vec, vec::Vec};

use posthaste_wire::{Accepted, Command, EhloName, Mail, Mechanism, Rcpt, Refusal, Reply, Secret, command::Node};

use super::ClientFacts;
use crate::{Tick, table::Exchange};

/// A question to the application. `Ask<&str>` borrows from the input, `Ask` owns its text.
///
/// A new question is a new major version: an application that has to decide must not miss it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask<S: AsRef<str> = String> {
    /// May the client connect? An acceptance without a reply greets it with the host name; a
    /// refusal closes the connection.
    Connect,
    /// EHLO, HELO or LHLO. To an acceptance without a reply the session adds its own, with the
    /// extensions that it offers.
    ///
    /// The name may be any visible text. RFC 5321 section 4.1.4 lets a server check it, and forbids
    /// it to refuse mail because of the result. Under [`Tolerance::hello`](super::Tolerance::hello)
    /// the name may be what [`EhloName::lossy`] makes of the argument.
    Hello(EhloName<S>),
    /// AUTH with a mechanism that is offered. Answer with a challenge, an acceptance or a refusal.
    Auth {
        /// The mechanism.
        mechanism: Mechanism,
        /// The initial response in base64, or `=` for an empty one.
        initial_response: Option<Secret<S>>,
    },
    /// The response to a challenge, in base64.
    AuthResponse(Secret<S>),
    /// MAIL. Its parameters are among those offered, and its SIZE is within the limit. Under
    /// [`Tolerance::bare_names`](super::Tolerance::bare_names) its domain may be the host's own,
    /// which the client left out; so may that of RCPT.
    Mail(Mail<S>),
    /// RCPT. Its parameters are among those offered.
    Rcpt(Rcpt<S>),
    /// DATA before its 354, or the first BDAT of a message: the last moment to refuse without the
    /// content. The octets of a chunk come in any case, so its refusal is said after them.
    Data,
    /// The content is complete and well formed. An acceptance promises that the message is on
    /// stable storage.
    Message {
        /// How many recipients were accepted.
        recipients: usize,
    },
    /// XCLIENT, where [`Offers::xclient`](super::Offers::xclient) is on: may this client connect?
    /// It is as [`Connect`](Self::Connect), and the facts of all XCLIENTs so far count. Of
    /// [`hello`](ClientFacts::hello), [`protocol`](ClientFacts::protocol) and
    /// [`login`](ClientFacts::login) those of the last one count. The login counts as
    /// authentication; without one the client has to authenticate again. TLS stays as it is.
    XClient(Arc<ClientFacts>),
    /// A command that is left to the application, where
    /// [`Offers::other_commands`](super::Offers::other_commands) is on.
    Other(OtherCommand<S>),
}

/// A command that changes nothing in the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherCommand<S: AsRef<str> = String> {
    /// VRFY with its argument.
    Vrfy(S),
    /// EXPN with its argument.
    Expn(S),
    /// HELP with its argument, which may be empty.
    Help(S),
    /// ETRN.
    Etrn(Node<S>),
    /// A verb that this crate does not know.
    Unknown {
        /// The verb as it came.
        verb: S,
        /// The text after the verb and a space.
        argument: S,
    },
}

/// The application's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes. `None`: the session's own reply.
    ///
    /// After [`Ask::Data`] the session always sends its own reply.
    Accept(Option<Accepted>),
    /// No. A 421 closes the connection.
    Refuse(Refusal),
    /// One decision for each accepted recipient, in the order of their RCPTs. Only for
    /// [`Ask::Message`] under LMTP, where the other verdicts count for every recipient.
    Each(Vec<Result<Accepted, Refusal>>),
    /// A SASL challenge, not yet in base64. Only for [`Ask::Auth`] and [`Ask::AuthResponse`].
    Challenge(Vec<u8>),
}

impl Verdict {
    /// The same with replies in ASCII.
    pub(super) fn into_ascii(self) -> Self {
        match self {
            Self::Accept(accepted) => Self::Accept(accepted.map(Accepted::into_ascii)),
            Self::Refuse(refusal) => Self::Refuse(refusal.into_ascii()),
            Self::Each(decisions) => {
                let in_ascii =
                    |each: Result<Accepted, Refusal>| each.map(Accepted::into_ascii).map_err(Refusal::into_ascii);
                Self::Each(decisions.into_iter().map(in_ascii).collect())
            }
            Self::Challenge(_) => self,
        }
    }
}

/// The question that is open, without what it borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) about: Exchange,
    /// Of a greeting: it is EHLO or LHLO and not HELO.
    pub(super) extended: bool,
    /// Until when the application has to answer.
    pub(super) deadline: Tick,
}

/// The replies to the end of a message that are still to be said.
#[derive(Debug, Clone)]
pub(super) enum Replies {
    /// One reply, this many times.
    Same(Reply, usize),
    Each(vec::IntoIter<Result<Accepted, Refusal>>),
}

impl<S: AsRef<str>> Ask<S> {
    /// The exchange of the [table](crate::table) that the verdict decides.
    pub const fn exchange(&self) -> Exchange {
        match self {
            Self::Connect => Exchange::Greeting,
            Self::Hello(_) => Exchange::Hello,
            Self::Auth { .. } => Exchange::Auth,
            Self::AuthResponse(_) => Exchange::AuthResponse,
            Self::Mail(_) => Exchange::Mail,
            Self::Rcpt(_) => Exchange::Rcpt,
            Self::Data => Exchange::Data,
            Self::Message { .. } => Exchange::EndOfData,
            Self::XClient(_) => Exchange::XClient,
            Self::Other(_) => Exchange::Other,
        }
    }
}

impl Ask<&str> {
    /// The owned form.
    pub fn into_owned(self) -> Ask {
        match self {
            Self::Connect => Ask::Connect,
            Self::Hello(name) => Ask::Hello(name.into_owned()),
            Self::Auth { mechanism, initial_response } => {
                Ask::Auth { mechanism, initial_response: initial_response.map(owned) }
            }
            Self::AuthResponse(response) => Ask::AuthResponse(owned(response)),
            Self::Mail(mail) => Ask::Mail(mail.into_owned()),
            Self::Rcpt(rcpt) => Ask::Rcpt(rcpt.into_owned()),
            Self::Data => Ask::Data,
            Self::Message { recipients } => Ask::Message { recipients },
            Self::XClient(facts) => Ask::XClient(facts),
            Self::Other(command) => Ask::Other(command.into_owned()),
        }
    }
}

fn owned(text: Secret<&str>) -> Secret<String> {
    Secret::new(text.into_inner().into())
}

impl<'i> OtherCommand<&'i str> {
    /// `None`: the session answers this command by itself.
    pub(super) const fn of(command: &Command<'i>) -> Option<Self> {
        Some(match *command {
            Command::Vrfy(argument) => Self::Vrfy(argument),
            Command::Expn(argument) => Self::Expn(argument),
            Command::Help(argument) => Self::Help(argument),
            Command::Etrn(node) => Self::Etrn(node),
            Command::Other { verb, argument } => Self::Unknown { verb, argument },
            Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Lhlo(_)
            | Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Data
            | Command::Bdat { .. }
            | Command::Rset
            | Command::Noop(_)
            | Command::Quit
            | Command::StartTls
            | Command::Auth(_)
            | Command::Burl { .. }
            | Command::XClient(_)
            | Command::XForward(_) => return None,
        })
    }

    /// The owned form.
    pub fn into_owned(self) -> OtherCommand {
        match self {
            Self::Vrfy(argument) => OtherCommand::Vrfy(argument.into()),
            Self::Expn(argument) => OtherCommand::Expn(argument.into()),
            Self::Help(argument) => OtherCommand::Help(argument.into()),
            Self::Etrn(node) => OtherCommand::Etrn(node.into_owned()),
            Self::Unknown { verb, argument } => OtherCommand::Unknown { verb: verb.into(), argument: argument.into() },
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
            Self::Each(decisions) => decisions.next().map(|decision| decision.map_or_else(Reply::from, Reply::from)),
        }
    }
}
