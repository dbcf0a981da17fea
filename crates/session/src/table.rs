//! The transition table of a conversation, the same for both roles.
//!
//! A conversation is in one [`Phase`]. An [`Exchange`] is a command and its reply, or the greeting,
//! the end of data, or a TLS handshake. The [`ReplyClass`] of its reply moves the conversation to
//! the next phase. An exchange without a row is out of order: a server answers 503, and a client's
//! caller gets an error.

use alloc::string::String;
use core::fmt::{self, Write as _};

use posthaste_wire::{Command, ReplyCode, Severity};

/// The state of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Connected. The greeting is next.
    Start,
    /// Greeted. EHLO is next. After a TLS handshake the conversation is here again, and everything
    /// learned before TLS is forgotten.
    Greeted,
    /// EHLO was accepted, and no transaction is open.
    Ready,
    /// MAIL was accepted.
    Mail,
    /// MAIL and at least one RCPT were accepted.
    Rcpt,
    /// Message content is being sent: 354 answered DATA, or the octets of a chunk follow its BDAT.
    Content,
    /// A chunk that was not the last was accepted. Another BDAT is next.
    Chunks,
    /// A chunk that was not the last was refused. RSET or EHLO is next (RFC 3030 section 2).
    Spoiled,
    /// A SASL exchange is under way.
    Auth,
    /// 220 answered STARTTLS, and a TLS handshake is under way.
    Handshake,
    /// The conversation is over.
    Closed,
}

/// A command and its reply, or another event that a reply ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// The greeting.
    Greeting,
    /// EHLO, HELO or LHLO.
    Hello,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA up to its 354.
    Data,
    /// BDAT without LAST and its octets. The intermediate class means that the octets may come; no
    /// reply says it.
    Chunk,
    /// Message content up to the reply to its end: after DATA, or BDAT with LAST and its octets.
    EndOfData,
    /// RSET.
    Reset,
    /// STARTTLS.
    StartTls,
    /// The TLS handshake.
    Handshake,
    /// AUTH.
    Auth,
    /// A response to a SASL challenge.
    AuthResponse,
    /// QUIT.
    Quit,
    /// XCLIENT, with which a proxy names its client. The reply is the greeting of another
    /// conversation.
    XClient,
    /// XFORWARD.
    XForward,
    /// A command that changes no state: NOOP, HELP, VRFY, EXPN and every unknown verb.
    Other,
}

/// What is waited for, in words: "the reply to RCPT".
impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "the greeting",
            Self::Hello => "the reply to EHLO",
            Self::Mail => "the reply to MAIL",
            Self::Rcpt => "the reply to RCPT",
            Self::Data => "the reply to DATA",
            Self::Chunk => "the reply to BDAT",
            Self::EndOfData => "the reply to the content",
            Self::Reset => "the reply to RSET",
            Self::StartTls => "the reply to STARTTLS",
            Self::Handshake => "the TLS handshake",
            Self::Auth | Self::AuthResponse => "the reply to AUTH",
            Self::Quit => "the reply to QUIT",
            Self::XClient => "the reply to XCLIENT",
            Self::XForward => "the reply to XFORWARD",
            Self::Other => "the reply to a command",
        })
    }
}

/// The class of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyClass {
    /// 2yz.
    Positive,
    /// 3yz.
    Intermediate,
    /// 4yz or 5yz.
    Negative,
}

impl Exchange {
    /// The exchange that a command opens.
    pub const fn of(command: &Command<'_>) -> Self {
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) => Self::Hello,
            Command::Mail(_) => Self::Mail,
            Command::Rcpt(_) => Self::Rcpt,
            Command::Data => Self::Data,
            Command::Bdat { last: false, .. } => Self::Chunk,
            Command::Bdat { last: true, .. } => Self::EndOfData,
            Command::Rset => Self::Reset,
            Command::StartTls => Self::StartTls,
            Command::Auth(_) => Self::Auth,
            Command::Quit => Self::Quit,
            Command::XClient(_) => Self::XClient,
            Command::XForward(_) => Self::XForward,
            Command::Noop(_)
            | Command::Vrfy(_)
            | Command::Expn(_)
            | Command::Help(_)
            | Command::Etrn(_)
            | Command::Burl { .. }
            | Command::Other { .. } => Self::Other,
        }
    }
}

impl From<ReplyCode> for ReplyClass {
    fn from(code: ReplyCode) -> Self {
        match code.severity() {
            Severity::Positive => Self::Positive,
            Severity::Intermediate => Self::Intermediate,
            Severity::TransientNegative | Severity::PermanentNegative => Self::Negative,
        }
    }
}

/// A row of the table. In any of these phases, this exchange with this class leads to a phase.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The phases in which it applies.
    pub from: &'static [Phase],
    /// The exchange.
    pub exchange: Exchange,
    /// The class of its reply.
    pub class: ReplyClass,
    /// The next phase. `None`: the phase stays.
    pub to: Option<Phase>,
}

const fn row(from: &'static [Phase], exchange: Exchange, class: ReplyClass, to: Option<Phase>) -> Row {
    Row { from, exchange, class, to }
}

use Phase::{Auth, Chunks, Closed, Content, Greeted, Handshake, Mail, Rcpt, Ready, Spoiled, Start};
use ReplyClass::{Intermediate, Negative, Positive};

/// The phases in which commands are read.
const COMMAND: &[Phase] = &[Greeted, Ready, Mail, Rcpt, Chunks, Spoiled];
/// The phases after an accepted EHLO.
const OPEN: &[Phase] = &[Ready, Mail, Rcpt, Chunks, Spoiled];
/// The phases in which a chunk may begin, or is being sent.
const CHUNK: &[Phase] = &[Rcpt, Chunks, Content];

/// The table, in the order of a conversation.
pub const TABLE: &[Row] = &[
    row(&[Start], Exchange::Greeting, Positive, Some(Greeted)),
    row(&[Start], Exchange::Greeting, Negative, Some(Closed)),
    // An accepted EHLO ends a transaction as RSET does; a refused one changes nothing (RFC 5321
    // section 4.1.4).
    row(COMMAND, Exchange::Hello, Positive, Some(Ready)),
    row(COMMAND, Exchange::Hello, Negative, None),
    row(OPEN, Exchange::StartTls, Positive, Some(Handshake)),
    row(OPEN, Exchange::StartTls, Negative, None),
    row(&[Handshake], Exchange::Handshake, Positive, Some(Greeted)),
    row(&[Handshake], Exchange::Handshake, Negative, Some(Closed)),
    // Not within a transaction (RFC 4954 section 4).
    row(&[Ready], Exchange::Auth, Positive, None),
    row(&[Ready], Exchange::Auth, Intermediate, Some(Auth)),
    row(&[Ready], Exchange::Auth, Negative, None),
    row(&[Auth], Exchange::AuthResponse, Positive, Some(Ready)),
    row(&[Auth], Exchange::AuthResponse, Intermediate, None),
    row(&[Auth], Exchange::AuthResponse, Negative, Some(Ready)),
    row(&[Ready], Exchange::Mail, Positive, Some(Mail)),
    row(&[Ready], Exchange::Mail, Negative, None),
    row(&[Mail, Rcpt], Exchange::Rcpt, Positive, Some(Rcpt)),
    row(&[Mail, Rcpt], Exchange::Rcpt, Negative, None),
    row(&[Rcpt], Exchange::Data, Intermediate, Some(Content)),
    row(&[Rcpt], Exchange::Data, Negative, None),
    row(&[Rcpt, Chunks], Exchange::Chunk, Intermediate, Some(Content)),
    row(CHUNK, Exchange::Chunk, Positive, Some(Chunks)),
    row(CHUNK, Exchange::Chunk, Negative, Some(Spoiled)),
    // The transaction is over, whatever the reply says.
    row(CHUNK, Exchange::EndOfData, Positive, Some(Ready)),
    row(CHUNK, Exchange::EndOfData, Negative, Some(Ready)),
    row(&[Greeted], Exchange::Reset, Positive, None),
    row(OPEN, Exchange::Reset, Positive, Some(Ready)),
    // At any time but within a transaction (Postfix, XCLIENT_README and XFORWARD_README).
    row(&[Greeted, Ready], Exchange::XClient, Positive, Some(Greeted)),
    row(&[Greeted, Ready], Exchange::XClient, Negative, None),
    row(&[Greeted, Ready], Exchange::XForward, Positive, None),
    row(&[Greeted, Ready], Exchange::XForward, Negative, None),
    row(COMMAND, Exchange::Other, Positive, None),
    row(COMMAND, Exchange::Other, Negative, None),
    row(COMMAND, Exchange::Quit, Positive, Some(Closed)),
];

/// The phase after an exchange. `None`: the exchange is out of order.
pub fn next(phase: Phase, exchange: Exchange, class: ReplyClass) -> Option<Phase> {
    let row = TABLE.iter().find(|row| row.exchange == exchange && row.class == class && row.from.contains(&phase))?;
    Some(row.to.unwrap_or(phase))
}

/// Returns `true` if an exchange is in order in a phase.
pub fn allows(phase: Phase, exchange: Exchange) -> bool {
    TABLE.iter().any(|row| row.exchange == exchange && row.from.contains(&phase))
}

/// The table as a Mermaid diagram, one line for each transition from one phase to another.
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> Start\n");
    for row in TABLE {
        for from in row.from {
            let to = row.to.unwrap_or(*from);
            if to != *from {
                let reply = match row.class {
                    Positive => "2yz",
                    Intermediate => "3yz",
                    Negative => "4yz, 5yz",
                };
                // Writing to a String does not fail.
                let _ = writeln!(text, "    {from:?} --> {to:?}: {:?} {reply}", row.exchange);
            }
        }
    }
    text.push_str("    Closed --> [*]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagram_in_the_documentation_is_the_table() {
        let documented = include_str!("../STATES.md");
        assert!(documented.contains(&diagram()), "STATES.md must contain:\n{}", diagram());
    }

    #[test]
    fn no_two_rows_contradict_each_other() {
        for (index, one) in TABLE.iter().enumerate() {
            for other in &TABLE[index + 1..] {
                let same = one.exchange == other.exchange && one.class == other.class;
                assert!(!same || one.from.iter().all(|phase| !other.from.contains(phase)), "{one:?} {other:?}");
            }
        }
    }
}
