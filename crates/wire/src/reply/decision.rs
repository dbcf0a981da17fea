//! Replies that can only accept or only refuse, for applications that decide about commands and
//! messages.

use alloc::{string::ToString, sync::Arc};
use core::fmt;

use super::{EnhancedCode, Reply, ReplyCode, Severity};

/// A 2yz reply: the command or message is accepted.
///
/// Build a fixed one with [`accepted!`](crate::accepted), which adds CRLF and checks the text at
/// compile time. The default is `250 2.0.0 OK`.
///
/// ```
/// use posthaste_wire::{Accepted, accepted};
/// let fixed = accepted!("250 2.0.0 Stored");
/// let with_values = accepted!("250 2.0.0 Stored as {}", 4711);
/// assert_eq!(with_values.to_string(), "250 2.0.0 Stored as 4711");
/// # let _: [Accepted; 2] = [fixed, with_values];
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Accepted(Reply);

/// A 4yz or 5yz reply: the command or message is refused, temporarily or permanently. A 421 also
/// ends the session.
///
/// Build a fixed one with [`refusal!`](crate::refusal), which adds CRLF and checks the text at
/// compile time. A [cause](Self::with_cause) is for the log; the client never sees it.
///
/// ```
/// use posthaste_wire::{Refusal, refusal};
/// fn look_up(user: &str) -> Result<(), Refusal> {
///     if user == "root" {
///         return Err(refusal!("550 5.7.1 Not {user}", user = user));
///     }
///     Err(refusal!("451 4.3.0 Try again later").with_cause("the database is away"))
/// }
/// assert!(look_up("root").unwrap_err().is_permanent());
/// assert_eq!(look_up("jo").unwrap_err().cause(), Some("the database is away"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    reply: Reply,
    cause: Option<Arc<str>>,
}

/// The reply does not have the severity that the decision needs. Holds the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrongSeverity {
    /// Not a 2yz reply.
    NotAccepted(Reply),
    /// Neither a 4yz nor a 5yz reply.
    NotRefusal(Reply),
}

impl Accepted {
    /// `250 2.0.0 OK`.
    pub const OK: Self = Self::from_static("250 2.0.0 OK\r\n");

    /// A fixed line with its CRLF; [`accepted!`](crate::accepted) adds that.
    ///
    /// # Panics
    /// When the text is not one well-formed 2yz line. In a `const` that is a compile error.
    #[must_use]
    pub const fn from_static(line: &'static str) -> Self {
        assert!(line.as_bytes()[0] == b'2', "an acceptance begins with 2yz, e.g. `250 2.0.0 Stored`");
        Self(Reply::from_static(line))
    }

    /// The reply.
    pub const fn reply(&self) -> &Reply {
        &self.0
    }

    /// The same with a reply [in ASCII](Reply::into_ascii).
    #[must_use]
    pub fn into_ascii(self) -> Self {
        Self(self.0.into_ascii())
    }
}

impl Refusal {
    /// A fixed line with its CRLF; [`refusal!`](crate::refusal) adds that.
    ///
    /// # Panics
    /// When the text is not one well-formed 4yz or 5yz line. In a `const` that is a compile error.
    #[must_use]
    pub const fn from_static(line: &'static str) -> Self {
        assert!(
            matches!(line.as_bytes()[0], b'4' | b'5'),
            "a refusal begins with 4yz or 5yz, e.g. `550 5.1.1 No such mailbox`"
        );
        Self { reply: Reply::from_static(line), cause: None }
    }

    /// Adds the cause of the refusal. It is for the log and never sent to the client.
    #[must_use]
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string().into());
        self
    }

    /// The cause of the refusal, for the log. `None`: none was added.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Returns `true` for 5yz: the same command will not succeed later either.
    pub const fn is_permanent(&self) -> bool {
        matches!(self.reply.code().severity(), Severity::PermanentNegative)
    }

    /// The reply.
    pub const fn reply(&self) -> &Reply {
        &self.reply
    }

    /// The same with a reply [in ASCII](Reply::into_ascii).
    #[must_use]
    pub fn into_ascii(self) -> Self {
        Self { reply: self.reply.into_ascii(), ..self }
    }
}

impl Default for Accepted {
    fn default() -> Self {
        Self::OK
    }
}

impl TryFrom<Reply> for Accepted {
    type Error = WrongSeverity;

    fn try_from(reply: Reply) -> Result<Self, WrongSeverity> {
        match reply.code().severity() {
            Severity::Positive => Ok(Self(reply)),
            _ => Err(WrongSeverity::NotAccepted(reply)),
        }
    }
}

impl TryFrom<Reply> for Refusal {
    type Error = WrongSeverity;

    fn try_from(reply: Reply) -> Result<Self, WrongSeverity> {
        match reply.code().severity() {
            Severity::TransientNegative | Severity::PermanentNegative => Ok(Self { reply, cause: None }),
            _ => Err(WrongSeverity::NotRefusal(reply)),
        }
    }
}

impl From<Accepted> for Reply {
    fn from(accepted: Accepted) -> Self {
        accepted.0
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        refusal.reply
    }
}

/// With the error as its cause, so that a handler may use `?`: `452 4.3.1` when a disk is full,
/// else `451 4.3.0`. A refusal within the error, as one of its sources, stays as it is.
#[cfg(feature = "std")]
impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        /// Not its source: that is the source of what it has within.
        fn inner(error: &std::io::Error) -> Option<&(dyn core::error::Error + 'static)> {
            error.get_ref().map(|inner| inner as _)
        }
        let mut source = inner(&error);
        while let Some(each) = source {
            if let Some(refusal) = each.downcast_ref::<Self>() {
                return refusal.clone();
            }
            source = each.downcast_ref().map_or_else(|| each.source(), inner);
        }
        let reply = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "452 4.3.1 Out of storage, try again later\r\n"
            }
            _ => "451 4.3.0 Local error, try again later\r\n",
        };
        Self::from_static(reply).with_cause(error)
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reply.fmt(f)
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accepted").field(&format_args!("{}", self.0)).finish()
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut refusal = f.debug_tuple("Refusal");
        refusal.field(&format_args!("{}", self.reply));
        if let Some(cause) = &self.cause {
            refusal.field(cause);
        }
        refusal.finish()
    }
}

impl fmt::Display for WrongSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAccepted(reply) => write!(f, "`{reply}` does not accept: use a reply of 2yz"),
            Self::NotRefusal(reply) => write!(f, "`{reply}` does not refuse: use a reply of 4yz or 5yz"),
        }
    }
}

impl core::error::Error for Refusal {}

impl core::error::Error for WrongSeverity {}

/// Builds a fixed [`Reply`](crate::Reply) from a literal without CRLF, checked at compile time.
///
/// ```
/// let reply = posthaste_wire::reply!("250 2.0.0 OK");
/// assert_eq!(reply.as_bytes(), b"250 2.0.0 OK\r\n");
/// ```
#[macro_export]
macro_rules! reply {
    ($line:literal) => {{
        const REPLY: $crate::Reply = $crate::Reply::from_static($crate::reply::__fixed(concat!($line, "\r\n")));
        REPLY
    }};
}

/// Builds an [`Accepted`](crate::Accepted): from a literal without CRLF, checked at compile time,
/// or from a literal and values as [`format!`](std::format) takes them. The literal begins with its
/// code. What is formatted becomes one well-formed reply, whatever the values contain.
///
/// ```
/// let stored = posthaste_wire::accepted!("250 2.0.0 Stored as {}", "4\r\n711");
/// assert_eq!(stored.reply().as_bytes(), b"250-2.0.0 Stored as 4?\r\n250 2.0.0 711\r\n");
/// ```
///
/// A code other than 2yz is a compile error:
///
/// ```compile_fail,E0080
/// let refused = posthaste_wire::accepted!("550 5.1.1 No such mailbox");
/// ```
#[macro_export]
macro_rules! accepted {
    ($line:literal) => {{
        const ACCEPTED: $crate::Accepted = $crate::Accepted::from_static($crate::reply::__fixed(concat!($line, "\r\n")));
        ACCEPTED
    }};
    ($line:literal, $($values:tt)+) => {{
        const CODE: $crate::ReplyCode = $crate::reply::__code($line, b"2");
        $crate::reply::__accepted(CODE, &$crate::reply::__format!($line, $($values)+))
    }};
    ($text:expr $(, $($rest:tt)*)?) => {
        compile_error!("begin with a literal that has the code, and give the text as a value: `accepted!(\"250 2.0.0 {}\", text)`")
    };
}

/// Builds a [`Refusal`](crate::Refusal): from a literal without CRLF, checked at compile time, or
/// from a literal and values as [`format!`](std::format) takes them. The literal begins with its
/// code. What is formatted becomes one well-formed reply, whatever the values contain.
///
/// ```
/// let full = posthaste_wire::refusal!("452 4.2.2 Mailbox of {} is full", "jo");
/// assert_eq!(full.to_string(), "452 4.2.2 Mailbox of jo is full");
/// ```
///
/// A code other than 4yz and 5yz is a compile error, and so is an enhanced code of another class:
///
/// ```compile_fail,E0080
/// let accepted = posthaste_wire::refusal!("250 2.0.0 OK");
/// ```
///
/// ```compile_fail,E0080
/// let for_ever_or_not = posthaste_wire::refusal!("550 4.1.1 No such mailbox");
/// ```
///
/// So is a `{` without values, which the client would get unchanged:
///
/// ```compile_fail,E0080
/// let user = "jo";
/// let refusal = posthaste_wire::refusal!("550 5.7.1 Not {user}");
/// ```
#[macro_export]
macro_rules! refusal {
    ($line:literal) => {{
        const REFUSAL: $crate::Refusal = $crate::Refusal::from_static($crate::reply::__fixed(concat!($line, "\r\n")));
        REFUSAL
    }};
    ($line:literal, $($values:tt)+) => {{
        const CODE: $crate::ReplyCode = $crate::reply::__code($line, b"45");
        $crate::reply::__refusal(CODE, &$crate::reply::__format!($line, $($values)+))
    }};
    ($text:expr $(, $($rest:tt)*)?) => {
        compile_error!("begin with a literal that has the code, and give the text as a value: `refusal!(\"550 5.7.1 {}\", text)`")
    };
}

#[doc(hidden)]
pub use alloc::format as __format;

/// A line without values. A `{` in it is one whose values were forgotten.
#[doc(hidden)]
#[must_use]
pub const fn __fixed(line: &'static str) -> &'static str {
    let octets = line.as_bytes();
    let mut at = 0;
    while at < octets.len() {
        assert!(
            octets[at] != b'{',
            "a text with `{{` needs its values after it: `refusal!(\"550 5.7.1 Not {{}}\", user)`"
        );
        at += 1;
    }
    check_classes(octets);
    line
}

/// An enhanced code has the class of its reply's code (RFC 2034 section 4).
const fn check_classes(line: &[u8]) {
    if line.len() > 5 && line[4].is_ascii_digit() && line[5] == b'.' {
        assert!(line[0] == line[4], "the enhanced code begins with another digit than the code: RFC 2034 section 4");
    }
}

/// The code at the start of a format string.
#[doc(hidden)]
#[must_use]
pub const fn __code(line: &'static str, first_digits: &[u8]) -> ReplyCode {
    let octets = line.as_bytes();
    assert!(octets.len() >= 4 && octets[3] == b' ', "a reply begins with its code and a blank: `250 2.0.0 OK`");
    let mut fits = false;
    let mut at = 0;
    while at < first_digits.len() {
        fits |= octets[0] == first_digits[at];
        at += 1;
    }
    assert!(fits, "an acceptance begins with 2yz, a refusal with 4yz or 5yz");
    check_classes(octets);
    match ReplyCode::from_digits([octets[0], octets[1], octets[2]]) {
        Some(code) => code,
        None => panic!("a reply begins with a code of three digits, from 200 to 599"),
    }
}

#[doc(hidden)]
#[must_use]
pub fn __accepted(code: ReplyCode, line: &str) -> Accepted {
    Accepted(from_text(code, line))
}

#[doc(hidden)]
#[must_use]
pub fn __refusal(code: ReplyCode, line: &str) -> Refusal {
    Refusal { reply: from_text(code, line), cause: None }
}

/// A reply from a line that begins with a code of three digits and a blank.
fn from_text(code: ReplyCode, line: &str) -> Reply {
    let text = line.get(4..).unwrap_or_default();
    match EnhancedCode::split(text.as_bytes()) {
        Some((enhanced, rest)) if enhanced.class() == code.class() => {
            Reply::new(code, Some(enhanced), text.get(text.len() - rest.len()..).unwrap_or_default())
        }
        _ => Reply::new(code, None, text),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_decision_holds_replies_of_its_own_severity_only() {
        for (line, accepts, refuses) in [
            ("220 mx.test ready", true, false),
            ("250 2.0.0 OK", true, false),
            ("334 dGVzdA==", false, false),
            ("354 Go on", false, false),
            ("421 4.3.2 Later", false, true),
            ("550 5.1.1 No such user", false, true),
        ] {
            let reply = crate::ReplyRef::parse(alloc::format!("{line}\r\n").as_bytes()).unwrap().into_owned();
            assert_eq!(Accepted::try_from(reply.clone()).is_ok(), accepts, "{line}");
            assert_eq!(Refusal::try_from(reply).is_ok(), refuses, "{line}");
        }
    }

    #[test]
    fn values_cannot_add_a_reply_of_another_code() {
        let refusal = crate::refusal!("550 5.1.1 No {}", "x\r\n250 2.0.0 OK\r\n");
        let octets = refusal.reply().as_bytes();
        assert_eq!(octets, b"550-5.1.1 No x?\r\n550-5.1.1 250 2.0.0 OK?\r\n550 5.1.1 \r\n");
    }

    #[test]
    fn a_refusal_within_an_io_error_stays_as_it_is() {
        use std::io::{Error, ErrorKind};
        let refusal = crate::refusal!("554 5.6.0 No Date field");
        let inner = Error::new(ErrorKind::InvalidData, refusal.clone());
        assert_eq!(Refusal::from(Error::other(inner)), refusal);
        for (kind, reply) in [
            (ErrorKind::StorageFull, "452 4.3.1 Out of storage, try again later"),
            (ErrorKind::QuotaExceeded, "452 4.3.1 Out of storage, try again later"),
            (ErrorKind::InvalidData, "451 4.3.0 Local error, try again later"),
        ] {
            assert_eq!(Refusal::from(Error::from(kind)).to_string(), reply);
        }
    }

    #[test]
    fn a_cause_is_not_part_of_the_reply() {
        let refusal = Refusal::from(std::io::Error::other("disk on fire"));
        assert_eq!(refusal.to_string(), "451 4.3.0 Local error, try again later");
        assert_eq!(refusal.cause(), Some("disk on fire"));
        assert!(!refusal.is_permanent());
    }
}
