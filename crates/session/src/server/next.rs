//! What a session asks of its driver, and how it ends.

use alloc::{boxed::Box, string::String};
use core::ops::Range;

use posthaste_wire::Refusal;

use super::Ask;

/// The driver's next action. `ServerNext<&str>` borrows from the input, `ServerNext` owns its text.
#[derive(Debug)]
pub enum ServerNext<S: AsRef<str> = String> {
    /// Read more input. The output is empty.
    NeedInput,
    /// Write out the whole output.
    Flush,
    /// Answer this question with [`ServerSession::answer`](super::ServerSession::answer), before
    /// anything else is read.
    Ask(Ask<S>),
    /// As [`Ask`](Self::Ask), about a line that the [`Tolerance`](super::Tolerance) mended. Its
    /// text is not in the input, so the question owns it.
    AskMended(Box<Ask>),
    /// A piece of content: this range of the input.
    Content(Range<usize>),
    /// The content is refused because of its octets or its size. Throw away the pieces of it. The
    /// session discards the rest and replies after the true end.
    ContentRefused(Refusal),
    /// Content that was refused has ended, or a chunk of it has. Its reply is in the output.
    ContentSwallowed,
    /// The client has given up a message between two chunks. Throw away the pieces of it.
    ContentAborted,
    /// The session has refused a command without a question. Its reply is in the output, and is
    /// [`ServerSession::last_refusal`](super::ServerSession::last_refusal). It is for logs.
    Refused,
    /// Write the output, do a TLS handshake on an empty input buffer, and call
    /// [`ServerSession::tls_established`](super::ServerSession::tls_established). The handshake has
    /// until [`ServerSession::poll_timeout`](super::ServerSession::poll_timeout). If it fails, drop
    /// the connection.
    StartTls,
    /// Write the output and close the connection.
    Close(CloseReason),
}

impl ServerNext<&str> {
    /// The owned form, for drivers that change the input before they answer. All questions are
    /// [`Ask`](ServerNext::Ask).
    pub fn into_owned(self) -> ServerNext {
        match self {
            Self::NeedInput => ServerNext::NeedInput,
            Self::Flush => ServerNext::Flush,
            Self::Ask(ask) => ServerNext::Ask(ask.into_owned()),
            Self::AskMended(ask) => ServerNext::Ask(*ask),
            Self::Content(range) => ServerNext::Content(range),
            Self::ContentRefused(refusal) => ServerNext::ContentRefused(refusal),
            Self::ContentSwallowed => ServerNext::ContentSwallowed,
            Self::ContentAborted => ServerNext::ContentAborted,
            Self::Refused => ServerNext::Refused,
            Self::StartTls => ServerNext::StartTls,
            Self::Close(reason) => ServerNext::Close(reason),
        }
    }

    /// The same, borrowing from no line.
    pub(super) fn detached<'i>(self) -> ServerNext<&'i str> {
        match self {
            Self::NeedInput => ServerNext::NeedInput,
            Self::Flush => ServerNext::Flush,
            Self::Ask(ask) => ServerNext::AskMended(Box::new(ask.into_owned())),
            Self::AskMended(ask) => ServerNext::AskMended(ask),
            Self::Content(range) => ServerNext::Content(range),
            Self::ContentRefused(refusal) => ServerNext::ContentRefused(refusal),
            Self::ContentSwallowed => ServerNext::ContentSwallowed,
            Self::ContentAborted => ServerNext::ContentAborted,
            Self::Refused => ServerNext::Refused,
            Self::StartTls => ServerNext::StartTls,
            Self::Close(reason) => ServerNext::Close(reason),
        }
    }
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client said QUIT.
    Quit,
    /// The client closed the connection.
    Eof,
    /// The application refused the connection or closed it with a 421.
    Application,
    /// [`ServerSession::shutdown`](super::ServerSession::shutdown) was called.
    Shutdown,
    /// [`ServerSession::displace`](super::ServerSession::displace) was called.
    Displaced,
    /// The client was silent for too long.
    Timeout,
    /// The session has lasted for too long.
    SessionTooLong,
    /// The client has sent no message for too long.
    NoMessage,
    /// The client sent content more slowly than the minimum rate.
    TooSlow,
    /// The application did not answer in time.
    NoVerdict,
    /// The client had more commands refused than
    /// [`ServerLimits::errors`](super::ServerLimits::errors).
    TooManyErrors,
    /// The client sent more commands that do no work than
    /// [`ServerLimits::idle_commands`](super::ServerLimits::idle_commands).
    TooManyIdleCommands,
    /// More AUTH attempts failed than
    /// [`ServerLimits::auth_failures`](super::ServerLimits::auth_failures).
    TooManyAuthFailures,
    /// A line was longer than
    /// [`ServerLimits::discarded_line`](super::ServerLimits::discarded_line).
    EndlessLine,
    /// Octets followed a command that must end its group (RFC 2920 section 3.1).
    UnauthorizedPipelining,
    /// Octets came before the greeting (RFC 5321 section 4.3.1).
    EarlyTalker,
    /// Octets in clear followed STARTTLS (RFC 3207).
    ResidueBeforeTls,
    /// The client speaks another protocol.
    ForeignProtocol,
    /// Nothing after a line can be framed: the line has a bare LF, or is a BDAT with an unreadable
    /// size.
    Unframeable,
    /// Refused content continued beyond
    /// [`ServerLimits::discarded_content`](super::ServerLimits::discarded_content).
    EndlessContent,
}

impl CloseReason {
    /// Returns `true` if the server has ended the session for what the client has sent. That is too
    /// many refused or idle commands, octets beyond a limit or before their time, another protocol,
    /// or content that trickles.
    ///
    /// `false` for a client that has left or was silent, and for what the server or the application
    /// has decided by itself.
    pub const fn is_clients_fault(self) -> bool {
        match self {
            Self::Quit
            | Self::Eof
            | Self::Application
            | Self::Shutdown
            | Self::Displaced
            | Self::Timeout
            | Self::SessionTooLong
            | Self::NoMessage
            | Self::NoVerdict => false,
            Self::TooSlow
            | Self::TooManyErrors
            | Self::TooManyIdleCommands
            | Self::TooManyAuthFailures
            | Self::EndlessLine
            | Self::UnauthorizedPipelining
            | Self::EarlyTalker
            | Self::ResidueBeforeTls
            | Self::ForeignProtocol
            | Self::Unframeable
            | Self::EndlessContent => true,
        }
    }
}

/// The state of a session when the client closed the connection or a deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEof {
    /// A transaction was open. It is void.
    pub in_transaction: bool,
}
