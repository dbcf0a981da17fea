//! What a session asks of its driver, and how it ends.

use alloc::string::String;
use core::ops::Range;

use posthaste_wire::Refusal;

use super::Ask;

/// What a driver has to do. `ServerNext<&str>` borrows from the input, `ServerNext` owns its text.
#[derive(Debug)]
pub enum ServerNext<S: AsRef<str> = String> {
    /// Read more input. Everything written so far has been flushed.
    NeedInput,
    /// Write the output buffer out, whole.
    Flush,
    /// Answer this question with [`ServerSession::answer`](super::ServerSession::answer), before
    /// anything else is read.
    Ask(Ask<S>),
    /// A piece of content: this range of the input.
    Content(Range<usize>),
    /// The content is not taken, for a reason that was found in it: what was handed out of it must be thrown away.
    /// The rest is swallowed, and the reply follows the true end.
    ContentRefused(Refusal),
    /// Content that was refused before has come to its end, or to that of a chunk of it; its reply is in the output.
    ContentSwallowed,
    /// The client has given up a message between two chunks: what was handed out of it must be thrown away.
    ContentAborted,
    /// Write the output out, do a TLS handshake on a fresh input buffer, and call
    /// [`ServerSession::tls_established`](super::ServerSession::tls_established). It has until
    /// [`ServerSession::poll_timeout`](super::ServerSession::poll_timeout); when it fails, drop the connection.
    StartTls,
    /// Write the output out and close the connection.
    Close(CloseReason),
}

impl ServerNext<&str> {
    /// The owned form, for drivers that change the input before they answer.
    pub fn into_owned(self) -> ServerNext {
        match self {
            Self::NeedInput => ServerNext::NeedInput,
            Self::Flush => ServerNext::Flush,
            Self::Ask(ask) => ServerNext::Ask(ask.into_owned()),
            Self::Content(range) => ServerNext::Content(range),
            Self::ContentRefused(refusal) => ServerNext::ContentRefused(refusal),
            Self::ContentSwallowed => ServerNext::ContentSwallowed,
            Self::ContentAborted => ServerNext::ContentAborted,
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
    /// Too many errors.
    TooManyErrors,
    /// Too many commands that do no work.
    TooManyIdleCommands,
    /// Too many failed AUTH attempts.
    TooManyAuthFailures,
    /// A line without an end.
    EndlessLine,
    /// Something followed a command that has to be the last of its group (RFC 2920 section 3.1).
    UnauthorizedPipelining,
    /// Something came before the greeting (RFC 5321 section 4.3.1).
    EarlyTalker,
    /// Octets in clear followed STARTTLS (RFC 3207).
    ResidueBeforeTls,
    /// The client speaks another protocol.
    ForeignProtocol,
    /// Nothing behind a line can be framed: it has a bare LF, or is a BDAT whose size cannot be read.
    Unframeable,
    /// Content that is not taken goes on beyond the [limit](super::ServerLimits::discarded_content).
    EndlessContent,
}

/// How a connection stood when the client closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEof {
    /// A transaction was under way; it is void.
    pub in_transaction: bool,
}
