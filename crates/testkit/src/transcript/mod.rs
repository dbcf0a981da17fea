//! Dialogues as text files.
//!
//! ```text
//! # A comment. Octets of C: and S: lines may be written \r \n \0 \t \\ \xHH; CRLF is added at the end.
//! C: EHLO client.test          the client says this; C- adds no CRLF
//! S: 250-mx.test               the server says exactly this
//! S~ 250                       the server says some reply with that code; dots match any digit
//! S* 250 2.1.0 Fine            the server says some reply with that code, and that enhanced code if there is one; the
//!                              client hears exactly this. S* 250-one and S* 250 two are one reply
//! ! both                       the dialogue holds from the client's side too
//! ! client-only                it holds from the client's side only: our servers do not say this
//! ```
//!
//! Before the first line: `! offer WORD...`, `! limit NAME NUMBER`, `! tolerate SWITCH...`,
//! `! tls-on-connect`, `! both`, `! client-only`. The words are `starttls`, `auth`, `scram`,
//! `oauth`, `clear`, `smtputf8`, `dsn`, `chunking`, `binarymime`, `requiretls`, `deliverby`,
//! `futurerelease`, `mt-priority`, `rrvs`, `no-soliciting`, `limits`, `xclient`, `xforward`,
//! `other-commands`, and, for demands, `require-tls`, `require-auth`, `lmtp`. In between:
//!
//! | directive | effect |
//! |---|---|
//! | `! accept QUESTION [REPLY]`, `! refuse QUESTION REPLY`, `! challenge QUESTION TEXT`, `! each QUESTION REPLY / REPLY...` | scripts the next verdict |
//! | `! hold N` | leaves the next N questions open |
//! | `! answer accept [REPLY]`, `! answer refuse REPLY` | answers the open question |
//! | `! refuse-content REPLY`, `! shutdown`, `! eof` | calls that method |
//! | `! tls` | a handshake is due, and is done |
//! | `! wait SECONDS` | lets time pass |
//! | `! received OCTETS` | the message that was accepted last has this content |
//! | `! messages N` | N messages were accepted |
//! | `! closed REASON`, `! open` | the session has ended for this reason, or is open |
//!
//! For the client alone:
//!
//! | directive | effect |
//! |---|---|
//! | `! client offers KEYWORD`, `! client lacks KEYWORD` | what the client knows of the server |
//! | `! client accepted N` | N recipients of the transaction were accepted |
//! | `! client may-not LINE` | that command is out of order, or must wait |
//! | `! client closed` | the conversation is over |
//! | `! client eof N`, `! client doubt N` | the server closes its side with N commands unanswered; with a message in doubt |
//!
//! Consecutive lines of the client arrive together, and the octets of a chunk directly after its
//! BDAT. Every transcript runs with its input whole, one octet at a time, and cut at every octet,
//! always with the same result.

mod client;
mod server;

use std::{fmt::Debug, fs, path::Path};

pub use client::replay as replay_client;
pub use server::{replay as replay_server, settings, verdict};

pub use crate::unescape::unescape;

/// A dialogue.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// Directives before the first line.
    pub setup: Vec<String>,
    /// The steps, each with the number of its line in the file.
    pub steps: Vec<(usize, Step)>,
}

/// A step of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The client says this.
    Client(Vec<u8>),
    /// The server says exactly this.
    Server(Vec<u8>),
    /// The server says a reply with a code like this.
    ServerCode(String),
    /// A line of the server as the client reads it.
    ServerLike(Vec<u8>),
    /// A directive, without its `! `.
    Directive(String),
}

impl Transcript {
    /// Parses a file.
    ///
    /// # Panics
    /// At a line that is none of the above.
    pub fn parse(text: &str) -> Self {
        let mut transcript = Self { setup: Vec::new(), steps: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (mark, rest) = line.split_at_checked(2).unwrap_or((line, ""));
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            let step = match mark {
                "C:" => Step::Client([unescape(rest), b"\r\n".to_vec()].concat()),
                "C-" => Step::Client(unescape(rest)),
                "S:" => Step::Server([unescape(rest), b"\r\n".to_vec()].concat()),
                "S~" => Step::ServerCode(rest.to_owned()),
                "S*" => Step::ServerLike([unescape(rest), b"\r\n".to_vec()].concat()),
                "! " => {
                    let word = rest.split(' ').next().unwrap_or_default();
                    if ["offer", "limit", "tolerate", "both", "client-only", "tls-on-connect"].contains(&word) {
                        assert!(transcript.steps.is_empty(), "line {number}: set up first");
                        transcript.setup.push(rest.to_owned());
                        continue;
                    }
                    Step::Directive(rest.to_owned())
                }
                _ => panic!("line {number}: {line:?} is no line of a transcript"),
            };
            match (transcript.steps.last_mut(), step) {
                (Some((_, Step::Client(burst))), Step::Client(more)) => burst.extend(more),
                (_, step) => transcript.steps.push((number, step)),
            }
        }
        transcript
    }

    /// Returns `true` if it holds from the client's side too.
    pub fn is_for_client(&self) -> bool {
        self.setup.iter().any(|line| line == "both" || line == "client-only")
    }

    /// Returns `true` if it holds from the server's side.
    pub fn is_for_server(&self) -> bool {
        !self.setup.iter().any(|line| line == "client-only")
    }

    /// Octets that the client says.
    pub fn client_octets(&self) -> usize {
        let octets = |(_, step): &(usize, Step)| if let Step::Client(octets) = step { octets.len() } else { 0 };
        self.steps.iter().map(octets).sum()
    }
}

/// Replays every `*.txt` of a folder, and returns how many there are.
///
/// # Panics
/// A session says something else than a transcript: names the file and the line.
pub fn replay_folder(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let transcript = Transcript::parse(&text);
        if transcript.is_for_server() {
            replay_server(&name, &transcript);
        }
        if transcript.is_for_client() {
            replay_client(&name, &transcript);
        }
    }
    paths.len()
}

fn shown(octets: &[u8]) -> impl Debug {
    octets.escape_ascii().to_string()
}
