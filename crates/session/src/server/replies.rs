//! The session's own replies, each with the enhanced code that RFC 3463 and RFC 5248 register for
//! it.

use posthaste_wire::{Refusal, Reply, refusal};

pub(super) static OK: Reply = Reply::from_static("250 2.0.0 Ok\r\n");
pub(super) static BYE: Reply = Reply::from_static("221 2.0.0 Bye\r\n");
pub(super) static HELP: Reply = Reply::from_static("214 2.0.0 See RFC 5321\r\n");
pub(super) static SENDER_OK: Reply = Reply::from_static("250 2.1.0 Sender ok\r\n");
pub(super) static RECIPIENT_OK: Reply = Reply::from_static("250 2.1.5 Recipient ok\r\n");
pub(super) static CANNOT_VERIFY: Reply = Reply::from_static("252 2.5.0 Cannot verify, send mail to try\r\n");
pub(super) static START_INPUT: Reply = Reply::from_static("354 End data with <CR><LF>.<CR><LF>\r\n");
pub(super) static CHUNK_TAKEN: Reply = Reply::from_static("250 2.0.0 Chunk taken\r\n");
pub(super) static QUEUED: Reply = Reply::from_static("250 2.0.0 Accepted\r\n");
pub(super) static START_TLS: Reply = Reply::from_static("220 2.0.0 Start the TLS handshake\r\n");
pub(super) static AUTHENTICATED: Reply = Reply::from_static("235 2.7.0 Authenticated\r\n");

pub(super) static SHUTTING_DOWN: Reply = Reply::from_static("421 4.3.2 Shutting down, come back later\r\n");
pub(super) static DISPLACED: Reply = Reply::from_static("421 4.3.2 Idle while others wait for a connection\r\n");
pub(super) static TIMEOUT: Reply = Reply::from_static("421 4.4.2 Silent for too long\r\n");
pub(super) static SESSION_TOO_LONG: Reply = Reply::from_static("421 4.4.2 The session has lasted too long\r\n");
pub(super) static NO_MESSAGE: Reply = Reply::from_static("421 4.4.2 No message for too long\r\n");
pub(super) static NO_VERDICT: Reply = Reply::from_static("421 4.3.0 No decision in time, try again later\r\n");
pub(super) static TOO_MANY_ERRORS: Reply = Reply::from_static("421 4.7.0 Too many errors\r\n");
pub(super) static TOO_MANY_IDLE_COMMANDS: Reply = Reply::from_static("421 4.7.0 Too many commands without mail\r\n");
pub(super) static TOO_MANY_AUTH_FAILURES: Reply = Reply::from_static("421 4.7.0 Too many failed logins\r\n");
pub(super) static FOREIGN_PROTOCOL: Reply = Reply::from_static("421 4.7.0 This is an SMTP server\r\n");
pub(super) static TOO_MANY_RECIPIENTS: Reply =
    Reply::from_static("452 4.5.3 Too many recipients, send the rest in another transaction\r\n");

pub(super) static UNKNOWN_COMMAND: Reply = Reply::from_static("500 5.5.1 Command not recognized\r\n");
pub(super) static BARE_LF: Reply = Reply::from_static("500 5.5.2 A line has to end in CRLF\r\n");
pub(super) static LONG_LINE: Reply = Reply::from_static("500 5.5.2 Line too long\r\n");
pub(super) static ENDLESS_LINE: Reply = Reply::from_static("421 4.7.0 Line without an end\r\n");
pub(super) static NOT_IMPLEMENTED: Reply = Reply::from_static("502 5.5.1 Command not implemented\r\n");
pub(super) static OUT_OF_ORDER: Reply = Reply::from_static("503 5.5.1 Out of order\r\n");
pub(super) static HELLO_FIRST: Reply = Reply::from_static("503 5.5.1 Send EHLO first\r\n");
pub(super) static MAIL_FIRST: Reply = Reply::from_static("503 5.5.1 Send MAIL first\r\n");
pub(super) static RCPT_FIRST: Reply = Reply::from_static("503 5.5.1 No recipient was accepted\r\n");
pub(super) static RSET_FIRST: Reply = Reply::from_static("503 5.5.1 Send RSET first\r\n");
pub(super) static BINARY_NEEDS_BDAT: Reply = Reply::from_static("503 5.5.1 Binary content needs BDAT\r\n");
pub(super) static UNKNOWN_MECHANISM: Reply = Reply::from_static("504 5.5.4 Mechanism not offered\r\n");
pub(super) static BAD_ATTRIBUTE: Reply = Reply::from_static("501 5.5.4 Attribute malformed or not offered\r\n");
pub(super) static AUTH_CANCELLED: Reply = Reply::from_static("501 5.7.0 Authentication cancelled\r\n");
pub(super) static AUTH_REQUIRED: Reply = Reply::from_static("530 5.7.0 Authentication required\r\n");
pub(super) static TLS_REQUIRED: Reply = Reply::from_static("530 5.7.0 Send STARTTLS first\r\n");
pub(super) static AUTH_NEEDS_TLS: Reply = Reply::from_static("538 5.7.11 Send STARTTLS first\r\n");
pub(super) static NOT_AUTHORIZED: Reply = Reply::from_static("550 5.7.0 Not for this client\r\n");
pub(super) static MESSAGE_TOO_LARGE: Refusal = refusal!("552 5.3.4 Message too large");
pub(super) static UNAUTHORIZED_PIPELINING: Reply =
    Reply::from_static("554 5.5.0 Wait for the reply before sending more\r\n");
pub(super) static EARLY_TALKER: Reply = Reply::from_static("554 5.5.0 Wait for the greeting\r\n");
pub(super) static UNKNOWN_PARAMETER: Reply = Reply::from_static("555 5.5.4 Parameter not offered\r\n");

pub(super) static BY_TOO_SOON: Reply = Reply::from_static("554 5.5.4 BY has less time than is needed\r\n");
pub(super) static HELD_TOO_LONG: Reply = Reply::from_static("501 5.5.4 HOLDFOR or HOLDUNTIL goes beyond the limit\r\n");

pub(super) static CONTENT_BARE_CR: Refusal = refusal!("550 5.5.2 The content has a bare CR");
pub(super) static CONTENT_BARE_LF: Refusal = refusal!("550 5.5.2 The content has a bare LF");
pub(super) static CONTENT_NUL: Refusal = refusal!("550 5.5.2 The content has a NUL");
pub(super) static CONTENT_LONG_LINE: Refusal = refusal!("550 5.5.2 The content has too long a line");
