//! Errors by whose fault they are.

use posthaste_wire::{EncodeError, frame::ContentFault, reply::ReplyError};
use thiserror::Error;

/// The caller used a session in a way that makes no sense. The session is as it was, but for [`Self::Content`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// The session is closed; drop the connection.
    #[error("the session is closed")]
    Closed,
    /// A question was left unanswered.
    #[error("a question was left unanswered")]
    Unanswered,
    /// The verdict does not fit its question: a challenge outside AUTH, or a list of verdicts outside
    /// LMTP or of another length than that of the recipients.
    #[error("the verdict does not fit its question")]
    Verdict,
    /// The session stands in a TLS handshake, or not in one when it should.
    #[error("the session is not where a TLS handshake belongs")]
    Handshake,
    /// The command or the answer has no place in the conversation here.
    #[error("the command or the answer is out of order")]
    OutOfOrder,
    /// The command has to wait for the replies that are still to come (RFC 2920 section 3.1).
    #[error("replies have to arrive first")]
    NotYet,
    /// The server does not offer the extension that this needs.
    #[error("the server does not offer what this needs")]
    NotOffered,
    /// The server has said that it takes no more of them (RFC 9422): MAIL on this connection, or RCPT in this transaction.
    #[error("the server takes no more of these")]
    Limit,
    /// Replies of the server were not well formed: it gets no other message on this connection. Connect again.
    #[error("the server's replies are not well formed")]
    OddReplies,
    /// The chunk has octets that are still to come.
    #[error("the chunk has octets that are still to come")]
    Unfinished,
    /// The list of segments is full: write it out and begin another.
    #[error("the list of segments is full")]
    NoRoom,
    /// The content must not leave, and half of it must not look whole: the session is closed, close the connection.
    #[error("the content must not leave: {0}")]
    Content(#[from] ContentFault),
    /// The command must not leave.
    #[error("the command must not leave: {0}")]
    Encode(#[from] EncodeError),
}

/// The server broke the protocol. Nothing that it says from here on can be trusted; close the connection and treat
/// what is unanswered as a temporary failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// What came is no reply, or not quite one: see [`ClientSession::oddity`](crate::ClientSession::oddity).
    #[error("the server's reply is malformed: {0}")]
    Reply(#[from] ReplyError),
    /// A reply came that nothing had asked for, or that began before its command was sent.
    #[error("the server sent a reply that nothing had asked for")]
    UnsolicitedReply,
    /// Octets came in clear behind the reply to STARTTLS (RFC 3207): somebody may have put them there.
    #[error("the server sent octets in clear behind its reply to STARTTLS")]
    ResidueBeforeTls,
    /// The reply does not fit its command. A code counts by its first digit, but:
    ///
    /// - 220 answers the connection, STARTTLS and XCLIENT alone, 221 QUIT, 235 and 334 AUTH, 354 DATA; to the end of the content
    ///   any 2yz says that the server has it, and is an [oddity](crate::ClientSession::oddity);
    /// - of 2yz and 3yz, STARTTLS takes nothing but 220, AUTH nothing but 235 and 334, DATA nothing but 354;
    /// - RSET is not refused, but for a 421: the transaction would still be open;
    /// - a challenge has one line, and what was given up with `*` is refused.
    #[error("the server's reply does not fit the command")]
    UnfittingReply,
    /// More SASL challenges than any mechanism has.
    #[error("the server keeps sending challenges")]
    TooManyChallenges,
}
