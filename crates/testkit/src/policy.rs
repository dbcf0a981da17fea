//! What an application would say: scripted verdicts, and sensible ones where nothing is scripted.

use std::{
    collections::{HashMap, VecDeque},
    sync::LazyLock,
};

use posthaste_session::{
    Ask, Verdict,
    sasl::{
        MIN_ITERATIONS, Nonce, SALT_LENGTH, SaslError, ScramKey, ServerContext, ServerMechanism, ServerStep,
        UnknownUsers,
    },
};
use posthaste_wire::{Mailbox, Reply, Secret};

use crate::pair::Letter;

/// The user that the policy knows.
pub const USER: &str = "tester";
/// The password of [`USER`].
pub const PASSWORD: &str = "s3cret";

/// Of [`PASSWORD`]. It takes its time to make.
static KEY: LazyLock<ScramKey> =
    LazyLock::new(|| ScramKey::derive(PASSWORD, &[7; SALT_LENGTH], MIN_ITERATIONS).expect("they are in bounds"));

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
/// [`PASSWORD`] in every mechanism that has a password, everything else is accepted.
#[derive(Debug, Default)]
pub struct Policy {
    scripted: HashMap<Topic, VecDeque<Verdict>>,
    mechanism: Option<ServerMechanism>,
    hold: usize,
    /// Letters that carry their verdicts; see [`Letter`].
    pub letters: Vec<Letter>,
    /// Which of them is on its way.
    letter: usize,
    /// The verdicts on the questions that are open, when none is answered at once.
    later: Option<Vec<Verdict>>,
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

    /// Decides every question that is not scripted, and leaves it open: [`Self::decided`] has the verdict.
    pub fn decide_later(&mut self) {
        self.later = Some(Vec::new());
    }

    /// Takes the verdict on an open question away, by its place among them.
    ///
    /// # Panics
    /// Without [`Self::decide_later`].
    pub fn decided(&mut self, place: usize) -> Verdict {
        self.later.as_mut().expect("questions are left open").remove(place)
    }

    /// Why content is not taken any more when so many octets of it are there.
    pub fn refuses_content(&self, octets: usize) -> Option<Reply> {
        let at = self.letters.get(self.letter)?.refused_at?;
        (octets >= at).then(|| reply("452 4.3.1 No room"))
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
        let verdict = self.planned(ask).unwrap_or_else(|| self.own(ask));
        match &mut self.later {
            Some(later) => {
                later.push(verdict);
                None
            }
            None => Some(verdict),
        }
    }

    /// What the letter says that is on its way.
    fn planned(&mut self, ask: &Ask<'_>) -> Option<Verdict> {
        if let Ask::Mail(mail) = ask {
            self.letter = number(mail.reverse_path.mailbox())?;
        }
        let letter = self.letters.get(self.letter)?;
        let code = match ask {
            Ask::Mail(_) => letter.mail,
            Ask::Rcpt(rcpt) => *letter.recipients.get(number(rcpt.forward_path.mailbox())?)?,
            Ask::Data => letter.data,
            Ask::Message { .. } if letter.end.len() > 1 => {
                let accepted = letter.recipients.iter().enumerate().filter(|(_, code)| **code < 400);
                let end = |(place, _)| reply(&format!("{} said to recipient {place}", letter.end_for(place)));
                return Some(Verdict::Each(accepted.map(end).collect()));
            }
            Ask::Message { .. } => letter.end_for(0),
            _ => return None,
        };
        Some(if code < 400 { Verdict::Accept(None) } else { refusal(&format!("{code} no")) })
    }

    fn own(&mut self, ask: &Ask<'_>) -> Verdict {
        match ask {
            Ask::Auth(auth) => match ServerMechanism::new(auth.mechanism, context()) {
                Ok(mechanism) => {
                    let initial = auth.initial_response.map(Secret::into_inner);
                    self.mechanism.insert(mechanism).start(initial).map_or_else(refused, |step| self.sasl(step))
                }
                Err(error) => refused(error),
            },
            Ask::AuthResponse(response) => match &mut self.mechanism {
                Some(mechanism) => mechanism.respond(response.expose()).map_or_else(refused, |step| self.sasl(step)),
                None => refused(SaslError::Unavailable),
            },
            _ => Verdict::Accept(None),
        }
    }

    fn sasl(&mut self, step: ServerStep) -> Verdict {
        let Some(mechanism) = &mut self.mechanism else { return refused(SaslError::Unavailable) };
        let next = match step {
            ServerStep::Challenge(challenge) => return Verdict::Challenge(challenge),
            ServerStep::Done(_) => return Verdict::Accept(None),
            ServerStep::Password(who) if who.authentication_identity == USER && who.password.expose() == PASSWORD => {
                mechanism.decide(Ok(who.authentication_identity))
            }
            ServerStep::ScramKey(who) => {
                mechanism.found(Ok((who.authentication_identity == USER).then(|| KEY.clone())))
            }
            _ => mechanism.decide(Err(SaslError::Credentials)),
        };
        next.map_or_else(refused, |step| self.sasl(step))
    }
}

/// The number at the end of a local part.
fn number(mailbox: Option<&Mailbox<&str>>) -> Option<usize> {
    mailbox?.local_part().trim_start_matches(|character: char| !character.is_ascii_digit()).parse().ok()
}

/// A nonce and a secret that are always the same, so that a run can be repeated.
fn context() -> ServerContext {
    ServerContext::new(Nonce::from_random([1; 18]), UnknownUsers::new(Secret::new([2; 32]), MIN_ITERATIONS))
}

fn refused(error: SaslError) -> Verdict {
    Verdict::Refuse(error.reply())
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
