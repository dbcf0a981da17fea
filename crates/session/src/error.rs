//! Errors by whose fault they are.

use posthaste_wire::{EncodeError, ReplyCode, frame::ContentFault, reply::ReplyError};
use thiserror::Error;

/// The caller misused a session. The session is unchanged, except after [`Self::Content`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// The session is closed; drop the connection.
    #[error("the session is closed; begin another one")]
    Closed,
    /// A question is open. Answer it before more input is handled.
    #[error("a question was left unanswered")]
    Unanswered,
    /// The verdict does not fit its question: a challenge outside AUTH, or a list of verdicts
    /// outside LMTP or of another length than that of the recipients.
    #[error("the verdict does not fit its question")]
    Verdict,
    /// No TLS handshake is due, or one is due and the call has to wait for its end.
    #[error("a TLS handshake is under way, or none is due")]
    Handshake,
    /// The command or the answer is out of order here.
    #[error("the command or the answer is out of order; if a call was dropped before its end, begin another session")]
    OutOfOrder,
    /// The command has to wait for outstanding replies (RFC 2920 section 3.1).
    #[error("the command has to wait for outstanding replies")]
    NotYet,
    /// The server does not offer the extension that this needs.
    #[error("the server does not offer the extension that this needs")]
    NotOffered,
    /// The server takes no more MAIL on this connection, or no more RCPT in this transaction (RFC
    /// 9422).
    #[error("the server takes no more MAIL or RCPT: its limit is reached")]
    Limit,
    /// Replies of the server were not well formed, so no other message goes over this connection.
    /// Connect again.
    #[error("replies of the server were not well formed: connect again")]
    OddReplies,
    /// Octets of the chunk are still to be given.
    #[error("octets of the chunk are still to be given")]
    Unfinished,
    /// The list of segments is full. Write it out and begin another.
    #[error("the list of segments is full: write it out and begin another")]
    NoRoom,
    /// The content must not be sent. The session is closed, so that half of it cannot look whole;
    /// close the connection.
    #[error("the content must not be sent: {0}")]
    Content(#[from] ContentFault),
    /// The command must not be sent.
    #[error("the command must not be sent: {0}")]
    Encode(#[from] EncodeError),
}

/// The server broke the protocol. Trust nothing that it says from here on. Close the connection and
/// treat unanswered commands as temporary failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// The reply is malformed: see [`ClientSession::oddity`](crate::ClientSession::oddity).
    #[error("the server's reply is malformed: {0}")]
    Reply(#[from] ReplyError),
    /// A reply came without a command, or began before its command was sent.
    #[error("the server sent a reply without a command")]
    UnsolicitedReply,
    /// Octets in clear followed the reply to STARTTLS (RFC 3207). An attacker may have inserted
    /// them.
    #[error("the server sent octets in clear after its reply to STARTTLS")]
    ResidueBeforeTls,
    /// The reply does not fit its command. A code counts by its first digit, with these exceptions:
    ///
    /// - Some codes answer few commands. 220 answers the connection, STARTTLS and XCLIENT; 221
    ///   answers QUIT; 235 and 334 answer AUTH; 354 answers DATA. As a reply to the end of the
    ///   content, 220, 221 and 235 mean that the server has the message, and are an
    ///   [oddity](crate::ClientSession::oddity).
    /// - Of 2yz and 3yz, STARTTLS accepts only 220, AUTH only 235 and 334, DATA only 354.
    /// - RSET is refused only by a 421: after any other refusal the transaction would still be
    ///   open.
    /// - A challenge has one line, and an exchange that was cancelled with `*` is refused.
    #[error("the server's reply {0} does not fit the command")]
    UnfittingReply(ReplyCode),
    /// The server sent more SASL challenges than any mechanism has.
    #[error("the server sent more challenges than any mechanism has")]
    TooManyChallenges,
}
