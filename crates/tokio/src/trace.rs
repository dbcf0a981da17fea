//! Conversations line by line, without what they keep secret.

use std::{
    fmt::{self, Display},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use posthaste_session::wire::{Command, Secret};

/// Shows the conversations of clients to a function, line by line. Clones share it.
///
/// The lines are the commands and the replies. What is secret is not in them:
///
/// - Initial responses, responses and challenges of AUTH are `<redacted>`. So are the credentials
///   and responses of an exchange where the server's replies in it repeat them.
/// - Content is `<28 octets of content>`.
/// - The arguments of BURL, and of commands that the parser does not know, are `<redacted>`.
///
/// Addresses of mail are shown. Replies are shown as the server wrote them, with control characters
/// and the like escaped. Lines between, such as that of a TLS handshake, are from neither side.
///
/// The function is called on the task of the connection, for one line at a time of each: it must
/// not block. If it panics, the task does.
///
/// ```
/// use posthaste_tokio::Trace;
///
/// let trace = Trace::new(|line| println!("{line}")); // 1 C: EHLO client.example.org
/// ```
#[derive(Clone)]
pub struct Trace(Arc<Shared<Show>>);

type Show = dyn Fn(TraceLine<'_>) + Send + Sync;

struct Shared<F: ?Sized> {
    /// The number of the last connection.
    last: AtomicU64,
    show: F,
}

/// A line of a conversation. As text it is the number of the connection, a letter for the side, and
/// the line: `1 C: EHLO client.example.org`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceLine<'a> {
    /// The number of the connection, from 1 for each [`Trace`].
    pub connection: u64,
    /// Which side said it.
    pub side: TraceSide,
    /// The line, without its end and without control characters.
    pub text: &'a str,
}

/// Which side said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceSide {
    /// The client: `C`.
    Client,
    /// The server: `S`.
    Server,
    /// Neither: `*`. The line tells what happened to the connection.
    Neither,
}

/// The lines of one connection.
#[derive(Debug)]
pub struct ConnectionTrace {
    trace: Trace,
    number: u64,
    /// Octets of the content that is being sent.
    octets: u64,
    /// A SASL exchange is open.
    in_exchange: bool,
    /// What the server must not repeat in it, the longest first.
    hidden: Vec<Secret<String>>,
}

const REDACTED: &str = "<redacted>";

/// The most texts that are hidden in an exchange. Its challenges have a bound below that.
const HIDDEN: usize = 64;

impl Trace {
    /// Shows lines to this function.
    pub fn new(show: impl Fn(TraceLine<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { last: AtomicU64::new(0), show }))
    }

    /// Begins the lines of another connection.
    pub fn connection(&self) -> ConnectionTrace {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        ConnectionTrace { trace: self.clone(), number, octets: 0, in_exchange: false, hidden: Vec::new() }
    }
}

impl ConnectionTrace {
    /// Shows what happened to the connection.
    pub fn note(&self, what: impl Display) {
        self.show(TraceSide::Neither, &self.clean(&what.to_string()));
    }

    /// Hides a text of credentials, if the server repeats it before the end of the next SASL
    /// exchange.
    pub fn hide(&mut self, text: Secret<&str>) {
        if text.expose().is_empty() || self.hidden.len() >= HIDDEN {
            return;
        }
        let before = |hidden: &Secret<String>| hidden.expose().len() >= text.expose().len();
        self.hidden.insert(self.hidden.partition_point(before), Secret::new((*text.expose()).to_owned()));
    }

    /// The client has sent a command, as this line.
    pub(crate) fn command(&mut self, command: &Command<'_>, line: &[u8]) {
        match command {
            Command::Auth(auth) => {
                self.in_exchange = true;
                let Some(response) = auth.initial_response else {
                    return self.show(TraceSide::Client, &format!("AUTH {}", auth.mechanism));
                };
                self.show(TraceSide::Client, &format!("AUTH {} {REDACTED}", auth.mechanism));
                self.hide(response);
            }
            Command::Burl { last, .. } => {
                let last = if *last { " LAST" } else { "" };
                self.show(TraceSide::Client, &format!("BURL {REDACTED}{last}"));
            }
            Command::Other { verb, argument: "" } => self.show(TraceSide::Client, verb),
            Command::Other { verb, .. } => self.show(TraceSide::Client, &format!("{verb} {REDACTED}")),
            _ => self.line(line),
        }
    }

    /// The client has sent a line that keeps nothing secret.
    pub(crate) fn line(&self, line: &[u8]) {
        self.show(TraceSide::Client, &self.clean(String::from_utf8_lossy(line).trim_end()));
    }

    /// The client has answered a challenge.
    pub(crate) fn response(&mut self, response: Option<Secret<&str>>) {
        self.show(TraceSide::Client, if response.is_some() { REDACTED } else { "*" });
        if let Some(response) = response {
            self.hide(response);
        }
    }

    pub(crate) fn challenge(&self) {
        self.show(TraceSide::Server, &format!("334 {REDACTED}"));
    }

    /// The server has sent a reply. It ends a SASL exchange.
    pub(crate) fn reply(&mut self, octets: &[u8]) {
        self.unasked(octets);
        if std::mem::take(&mut self.in_exchange) {
            self.hidden.clear();
        }
    }

    /// The server has sent a reply to no command.
    pub(crate) fn unasked(&self, octets: &[u8]) {
        let text = String::from_utf8_lossy(octets);
        for line in text.lines().filter(|line| !line.is_empty()) {
            self.show(TraceSide::Server, &self.clean(line));
        }
    }

    /// The client has sent octets of content.
    pub(crate) const fn content(&mut self, octets: usize) {
        self.octets = self.octets.saturating_add(octets as u64);
    }

    /// The content, or a chunk of it, has ended, or breaks off.
    pub(crate) fn content_ends(&mut self, is_whole: bool) {
        let (octets, end) = (std::mem::take(&mut self.octets), if is_whole { "" } else { ", not all of it" });
        self.show(TraceSide::Client, &format!("<{octets} octets of content{end}>"));
    }

    /// The text without what is hidden, in characters that are printed as themselves.
    fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for hidden in &self.hidden {
            if text.contains(hidden.expose()) {
                text = text.replace(hidden.expose(), REDACTED);
            }
        }
        if text.chars().all(is_plain) {
            return text;
        }
        let escaped = |c: char| c.escape_default().collect::<String>();
        text.chars().map(|c| if is_plain(c) { c.to_string() } else { escaped(c) }).collect()
    }

    fn show(&self, side: TraceSide, text: &str) {
        (self.trace.0.show)(TraceLine { connection: self.number, side, text });
    }
}

/// Returns `true` for what is printed as itself: no control character, no end of a line, and
/// nothing that changes the direction of text.
fn is_plain(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

impl Display for TraceLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            TraceSide::Client => 'C',
            TraceSide::Server => 'S',
            TraceSide::Neither => '*',
        };
        write!(f, "{} {side}: {}", self.connection, self.text)
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// The lines that a connection shows.
    fn lines(act: impl FnOnce(&mut ConnectionTrace)) -> Vec<String> {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&shown);
        let trace = Trace::new(move |line| sink.lock().unwrap().push(line.to_string()));
        act(&mut trace.connection());
        std::mem::take(&mut *shown.lock().unwrap())
    }

    #[test]
    fn arguments_that_may_be_secret_are_redacted() {
        let shown = lines(|trace| {
            for line in
                ["BURL imap://me;URLAUTH=secret LAST", "BURL imap://secret", "XSECRET hunter2", "XNONE", "AUTH LOGIN"]
            {
                trace.command(&Command::parse(line.as_bytes()).unwrap(), line.as_bytes());
            }
        });
        assert_eq!(
            shown,
            [
                "1 C: BURL <redacted> LAST",
                "1 C: BURL <redacted>",
                "1 C: XSECRET <redacted>",
                "1 C: XNONE",
                "1 C: AUTH LOGIN"
            ]
        );
    }

    #[test]
    fn a_reply_that_repeats_credentials_hides_them_until_the_exchange_ends() {
        let shown = lines(|trace| {
            trace.hide(Secret::new("hunter2"));
            trace.hide(Secret::new(""));
            trace.command(&Command::parse(b"AUTH PLAIN AGh1bnRlcjI=").unwrap(), b"");
            trace.response(Some(Secret::new("AGh1bnRlcjI=hunter2")));
            trace.note("the server has ended the conversation: 421 hunter2");
            trace.reply(b"500-5.5.1 unknown AGh1bnRlcjI=hunter2\r\n500 \x1bhunter2AGh1bnRlcjI=\r\n");
            trace.reply("250 \"d\u{f6}ner\" \\ \u{202e}hunter2\u{2028}\r\r\n".as_bytes());
        });
        assert_eq!(
            shown,
            [
                "1 C: AUTH PLAIN <redacted>",
                "1 C: <redacted>",
                "1 *: the server has ended the conversation: 421 <redacted>",
                "1 S: 500-5.5.1 unknown <redacted>",
                "1 S: 500 \\u{1b}<redacted><redacted>",
                "1 S: 250 \"d\u{f6}ner\" \\ \\u{202e}hunter2\\u{2028}\\r"
            ]
        );
    }

    #[test]
    fn connections_are_numbered_and_content_is_counted() {
        let trace = Trace::new(|_| {});
        assert_eq!((trace.connection().number, trace.clone().connection().number), (1, 2));
        let shown = lines(|trace| {
            trace.content(3);
            trace.content(4);
            trace.content_ends(true);
            trace.content_ends(false);
        });
        assert_eq!(shown, ["1 C: <7 octets of content>", "1 C: <0 octets of content, not all of it>"]);
        assert_eq!(format!("{trace:?}"), "Trace { .. }");
    }
}
