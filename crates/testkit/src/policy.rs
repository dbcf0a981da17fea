//! What an application would say: scripted verdicts, and sensible ones where nothing is scripted.

use std::collections::{HashMap, VecDeque};

use posthaste_session::{
    Ask, Verdict,
    sasl::{ServerMechanism, ServerStep},
};
use posthaste_wire::{Reply, Secret};

/// The user that the policy knows.
pub const USER: &str = "tester";
/// The password of [`USER`].
pub const PASSWORD: &str = "s3cret";

/// What a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// The connection.
    Connect,
    /// EHLO or HELO.
    Hello,
    /// AUTH.
    Auth,
    /// A SASL response.
    AuthResponse,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The end of the content.
    Message,
    /// Another command.
    Other,
    /// A question that this kit does not know.
    Unknown,
}

impl Topic {
    /// What a question is about.
    pub const fn of(ask: &Ask<'_>) -> Self {
        match ask {
            Ask::Connect => Self::Connect,
            Ask::Hello(_) => Self::Hello,
            Ask::Auth(_) => Self::Auth,
            Ask::AuthResponse(_) => Self::AuthResponse,
            Ask::Mail(_) => Self::Mail,
            Ask::Rcpt(_) => Self::Rcpt,
            Ask::Data => Self::Data,
            Ask::Message { .. } => Self::Message,
            Ask::Other(_) => Self::Other,
            _ => Self::Unknown,
        }
    }

    /// The topic with that name: `connect`, `hello`, `auth`, `auth-response`, `mail`, `rcpt`, `data`, `message`, `other`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "connect" => Self::Connect,
            "hello" => Self::Hello,
            "auth" => Self::Auth,
            "auth-response" => Self::AuthResponse,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            "message" => Self::Message,
            "other" => Self::Other,
            _ => return None,
        })
    }
}

/// Verdicts in the order in which they are wanted, by topic. Without one: AUTH is checked against [`USER`] and
/// [`PASSWORD`], everything else is accepted.
#[derive(Debug, Default)]
pub struct Policy {
    scripted: HashMap<Topic, VecDeque<Verdict>>,
    mechanism: Option<ServerMechanism>,
    hold: usize,
}

impl Policy {
    /// Scripts the verdict on the next question of that kind that has none yet.
    pub fn script(&mut self, topic: Topic, verdict: Verdict) {
        self.scripted.entry(topic).or_default().push_back(verdict);
    }

    /// Leaves that many questions open.
    pub fn hold(&mut self, questions: usize) {
        self.hold = questions;
    }

    /// The verdict on a question, or nothing when it stays open.
    pub fn verdict(&mut self, ask: &Ask<'_>) -> Option<Verdict> {
        let topic = Topic::of(ask);
        if let Some(verdict) = self.scripted.get_mut(&topic).and_then(VecDeque::pop_front) {
            return Some(verdict);
        }
        if self.hold > 0 {
            self.hold -= 1;
            return None;
        }
        Some(match ask {
            Ask::Auth(auth) => {
                self.mechanism = ServerMechanism::new(auth.mechanism);
                let initial = auth.initial_response.map(Secret::into_inner);
                self.sasl(|mechanism| mechanism.start(initial))
            }
            Ask::AuthResponse(response) => self.sasl(|mechanism| mechanism.respond(response.expose())),
            _ => Verdict::Accept(None),
        })
    }

    fn sasl<E>(&mut self, step: impl FnOnce(&mut ServerMechanism) -> Result<ServerStep, E>) -> Verdict {
        let Some(mechanism) = &mut self.mechanism else {
            return refusal("504 5.5.4 Mechanism not known");
        };
        match step(mechanism) {
            Ok(ServerStep::Challenge(challenge)) => Verdict::Challenge(challenge),
            Ok(ServerStep::Verify(who)) => {
                if who.authentication_identity == USER && who.password.expose() == PASSWORD {
                    Verdict::Accept(None)
                } else {
                    refusal("535 5.7.8 Credentials are wrong")
                }
            }
            Err(_) => refusal("501 5.5.2 Response cannot be read"),
        }
    }
}

/// A refusal with a reply on one line, without its CRLF.
pub fn refusal(line: &str) -> Verdict {
    Verdict::Refuse(reply(line))
}

/// A reply from one line, without its CRLF.
///
/// # Panics
/// When the line is no reply.
pub fn reply(line: &str) -> Reply {
    match posthaste_wire::ReplyRef::parse(format!("{line}\r\n").as_bytes()) {
        Ok(reply) => reply.into_owned(),
        Err(error) => panic!("{line:?}: {error}"),
    }
}
