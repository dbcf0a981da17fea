//! What the server has said to something.

use std::{fmt, ops::Index};

use super::transcript::Transcript;

/// What a [`Client`](super::Client) got for something that it said: a reply, or the end of the
/// connection.
///
/// It shows itself, in `Display` and `==`, as its lines joined by `\n`, and the end of the
/// connection as `<closed>`.
#[derive(Clone)]
pub struct Reply {
    /// What it answers, for messages.
    to: String,
    text: String,
    transcript: Transcript,
}

/// How the end of the connection is shown.
pub(super) const CLOSED: &str = "<closed>";

impl Reply {
    pub(super) const fn new(to: String, text: String, transcript: Transcript) -> Self {
        Self { to, text, transcript }
    }

    /// Checks that the reply begins with a code, and with what follows it here: `"250"`,
    /// `"550 5.7.1"`, `"550 5.7.1 No relaying"`. `"<closed>"` is the end of the connection. Of a
    /// reply with several lines, the first one counts.
    ///
    /// # Panics
    /// It does not; shows the whole conversation.
    #[track_caller]
    pub fn expect(&self, start: &str) -> &Self {
        if start != CLOSED && !has_code(start) {
            panic!(
                "`expect` takes the start of a reply, such as \"250\", \"550 5.7.1\" or \"{CLOSED}\", and not {start:?}"
            );
        }
        if !self.begins(start) {
            self.transcript.fail(&format!("The reply to {} is {:?}, and not {start:?}.", self.to, self.text));
        }
        self
    }

    /// The code.
    ///
    /// # Panics
    /// The server has closed the connection without a reply.
    #[track_caller]
    pub fn code(&self) -> u16 {
        let code = self.text.get(..3).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| self.transcript.fail(&format!("In place of a reply to {} the server closed.", self.to)))
    }

    /// The text of each line, without its code. Empty for the end of the connection.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let text = if self.is_closed() { "" } else { &self.text };
        text.lines().map(|line| line.get(4..).unwrap_or_default())
    }

    /// Returns `true` if the server has closed the connection in place of a reply.
    pub fn is_closed(&self) -> bool {
        self.text == CLOSED
    }

    /// The whole reply.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn begins(&self, start: &str) -> bool {
        let line = self.text.lines().next().unwrap_or_default();
        // A line that is not the last one has a hyphen after its code.
        let same = |(octet, expected): (u8, u8)| octet == expected || (octet == b'-' && expected == b' ');
        line.len() >= start.len()
            && line.bytes().zip(start.bytes()).take(4).all(same)
            && line.bytes().zip(start.bytes()).skip(4).all(|(octet, expected)| octet == expected)
            && !line.as_bytes().get(start.len()).is_some_and(|next| next.is_ascii_digit() || *next == b'.')
    }
}

fn has_code(start: &str) -> bool {
    let octets = start.as_bytes();
    octets.len() >= 3
        && octets.iter().take(3).all(u8::is_ascii_digit)
        && octets.get(3).is_none_or(|separator| *separator == b' ')
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text, so that a failed `assert_eq!` can be read.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq<str> for Reply {
    fn eq(&self, text: &str) -> bool {
        self.text == text
    }
}

impl PartialEq<&str> for Reply {
    fn eq(&self, text: &&str) -> bool {
        self.text == *text
    }
}

/// What became of a message: for each recipient, in order, the reply that decided.
///
/// That is the refusal of MAIL, of the recipient or of DATA, or the reply to the end of the
/// content. Under LMTP each accepted recipient has its own.
#[derive(Debug, Clone)]
#[must_use = "check it with `expect` or `expect_each`"]
pub struct Sent(pub(super) Vec<Reply>);

impl Sent {
    /// Checks that the reply for every recipient [begins](Reply::expect) so.
    ///
    /// # Panics
    /// One does not; shows the whole conversation.
    #[track_caller]
    pub fn expect(&self, start: &str) -> &Self {
        for reply in &self.0 {
            reply.expect(start);
        }
        self
    }

    /// Checks how the reply for each recipient [begins](Reply::expect).
    ///
    /// # Panics
    /// One does not begin so, or there are more or fewer.
    #[track_caller]
    pub fn expect_each<'s>(&self, starts: impl IntoIterator<Item = &'s str>) -> &Self {
        let starts: Vec<_> = starts.into_iter().collect();
        assert_eq!(starts.len(), self.0.len(), "`expect_each` takes one start of a reply for each recipient");
        for (reply, start) in self.0.iter().zip(starts) {
            reply.expect(start);
        }
        self
    }

    /// The replies, one for each recipient.
    pub fn iter(&self) -> impl Iterator<Item = &Reply> {
        self.0.iter()
    }
}

/// The reply for that recipient, counted from 0.
impl Index<usize> for Sent {
    type Output = Reply;

    fn index(&self, recipient: usize) -> &Reply {
        &self.0[recipient]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        Reply::new("NOOP".to_owned(), text.to_owned(), Transcript::default())
    }

    #[test]
    fn the_start_of_a_reply_ends_where_a_code_ends() {
        for (text, start, begins) in [
            ("250 2.0.0 Ok", "250", true),
            ("250 2.0.0 Ok", "250 2.0.0", true),
            ("250 2.0.0 Ok", "250 2.0.0 O", true),
            ("250 2.0.0 Ok", "250 2.0.0 Ok", true),
            ("250 2.0.0 Ok", "250 2.0.0 Ok more", false),
            ("250-mx.test\n250 HELP", "250", true),
            ("250-mx.test\n250 HELP", "250 mx.test", true),
            ("250-a-b", "250 a b", false),
            ("550 5.7.10 No", "550 5.7.1", false),
            ("550 5.7.1 No", "550 5.7", false),
            ("<closed>", "<closed>", true),
            ("<closed>", "250", false),
            ("250 Ok", "<closed>", false),
        ] {
            assert_eq!(reply(text).begins(start), begins, "{text:?} {start:?}");
        }
    }

    #[test]
    fn what_is_no_start_of_a_reply_is_a_mistake_that_is_named() {
        for wrong in ["", "25", "OK", "2500", "250-"] {
            let caught = std::panic::catch_unwind(|| reply("250 2.0.0 Ok").expect(wrong).code());
            let text = *caught.unwrap_err().downcast::<String>().unwrap();
            assert!(text.contains("`expect` takes the start of a reply"), "{text}");
        }
    }

    #[test]
    fn lines_are_the_texts_without_their_codes() {
        assert_eq!(reply("250-one\n250-\n250 two").lines().collect::<Vec<_>>(), ["one", "", "two"]);
        assert_eq!(reply("<closed>").lines().count(), 0);
        assert_eq!(reply("354 Go on").code(), 354);
    }
}
