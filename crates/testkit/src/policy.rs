//! Verdicts of an application: scripted ones, and sensible ones otherwise.

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
    table::Exchange,
};
use posthaste_wire::{Accepted, Mailbox, Refusal, Reply, Secret, refusal};

use crate::pair::Letter;

/// The user that the policy knows.
pub const USER: &str = "tester";
/// The password of [`USER`].
pub const PASSWORD: &str = "s3cret";

/// The key of [`PASSWORD`]. It takes time to derive.
static KEY: LazyLock<ScramKey> =
    LazyLock::new(|| ScramKey::derive(PASSWORD, &[7; SALT_LENGTH], MIN_ITERATIONS).expect("they are in bounds"));

/// The exchange that a question decides, by the question's name in scripts: `connect`, `hello`,
/// `auth`, `auth-response`, `mail`, `rcpt`, `data`, `message`, `xclient`, `other`.
pub fn question(name: &str) -> Option<Exchange> {
    Some(match name {
        "connect" => Exchange::Greeting,
        "hello" => Exchange::Hello,
        "auth" => Exchange::Auth,
        "auth-response" => Exchange::AuthResponse,
        "mail" => Exchange::Mail,
        "rcpt" => Exchange::Rcpt,
        "data" => Exchange::Data,
        "message" => Exchange::EndOfData,
        "xclient" => Exchange::XClient,
        "other" => Exchange::Other,
        _ => return None,
    })
}

/// Scripted verdicts, in order, by the exchange that they decide. Where no verdict is scripted,
/// AUTH is checked against [`USER`] and [`PASSWORD`] in every mechanism that has a password, and
/// everything else is accepted.
#[derive(Debug, Default)]
pub struct Policy {
    scripted: HashMap<Exchange, VecDeque<Verdict>>,
    mechanism: Option<ServerMechanism>,
    hold: usize,
    /// Letters that carry their verdicts; see [`Letter`].
    pub letters: Vec<Letter>,
    /// The index of the letter that is being sent.
    letter: usize,
    /// `true`: every question is left open.
    later: bool,
    /// The verdict on the question that was left open.
    decided: Option<Verdict>,
}

impl Policy {
    /// Scripts a verdict for the next question about this exchange that has none yet.
    pub fn script(&mut self, exchange: Exchange, verdict: Verdict) {
        self.scripted.entry(exchange).or_default().push_back(verdict);
    }

    /// Leaves the next `questions` questions open.
    pub fn hold(&mut self, questions: usize) {
        self.hold = questions;
    }

    /// Decides every unscripted question and leaves it open: [`Self::decided`] returns the verdict.
    pub fn decide_later(&mut self) {
        self.later = true;
    }

    /// The verdict on the open question.
    ///
    /// # Panics
    /// [`Self::decide_later`] was not called, or no question is open.
    pub fn decided(&mut self) -> Verdict {
        self.decided.take().expect("a question was left open")
    }

    /// Why content of this many octets is refused.
    pub fn refuses_content(&self, octets: usize) -> Option<Refusal> {
        let at = self.letters.get(self.letter)?.refused_at?;
        (octets >= at).then_some(refusal!("452 4.3.1 No room"))
    }

    /// The verdict on a question. `None`: it stays open.
    pub fn verdict(&mut self, ask: &Ask) -> Option<Verdict> {
        if let Some(verdict) = self.scripted.get_mut(&ask.exchange()).and_then(VecDeque::pop_front) {
            return Some(verdict);
        }
        if self.hold > 0 {
            self.hold -= 1;
            return None;
        }
        let verdict = self.planned(ask).unwrap_or_else(|| self.own(ask));
        if self.later {
            self.decided = Some(verdict);
            return None;
        }
        Some(verdict)
    }

    /// The verdict of the current letter.
    fn planned(&mut self, ask: &Ask) -> Option<Verdict> {
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
                let end = |(place, _)| decision(&format!("{} said to recipient {place}", letter.end_for(place)));
                return Some(Verdict::Each(accepted.map(end).collect()));
            }
            Ask::Message { .. } => letter.end_for(0),
            Ask::Connect
            | Ask::Hello(_)
            | Ask::Auth { .. }
            | Ask::AuthResponse(_)
            | Ask::XClient(_)
            | Ask::Other(_) => return None,
        };
        Some(if code < 400 { Verdict::Accept(None) } else { refuse(&format!("{code} no")) })
    }

    fn own(&mut self, ask: &Ask) -> Verdict {
        match ask {
            Ask::Auth { mechanism, initial_response } => match ServerMechanism::new(*mechanism, context()) {
                Ok(mechanism) => {
                    let initial = initial_response.as_ref().map(|response| response.expose().as_str());
                    self.mechanism.insert(mechanism).start(initial).map_or_else(refused, |step| self.sasl(step))
                }
                Err(error) => refused(error),
            },
            Ask::AuthResponse(response) => match &mut self.mechanism {
                Some(mechanism) => {
                    mechanism.respond(response.expose().as_bytes()).map_or_else(refused, |step| self.sasl(step))
                }
                None => refused(SaslError::Unavailable),
            },
            Ask::Connect
            | Ask::Hello(_)
            | Ask::Mail(_)
            | Ask::Rcpt(_)
            | Ask::Data
            | Ask::Message { .. }
            | Ask::XClient(_)
            | Ask::Other(_) => Verdict::Accept(None),
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
fn number(mailbox: Option<&Mailbox>) -> Option<usize> {
    mailbox?.local_part().trim_start_matches(|character: char| !character.is_ascii_digit()).parse().ok()
}

/// A context with a fixed nonce and secret, so that a run can be repeated.
fn context() -> ServerContext {
    ServerContext::new(Nonce::from_random([1; 18]), UnknownUsers::new(Secret::new([2; 32]), MIN_ITERATIONS))
}

fn refused(error: SaslError) -> Verdict {
    Verdict::Refuse(error.refusal())
}

/// A refusal with a reply on one line, without its CRLF.
///
/// # Panics
/// The line is no refusal.
pub fn refuse(line: &str) -> Verdict {
    Verdict::Refuse(refusal(line))
}

/// An acceptance with a reply on one line, without its CRLF.
///
/// # Panics
/// The line is no acceptance.
pub fn accept(line: &str) -> Verdict {
    Verdict::Accept(Some(Accepted::try_from(reply(line)).expect("an acceptance")))
}

/// A refusal from one line, without its CRLF.
///
/// # Panics
/// The line is no refusal.
pub fn refusal(line: &str) -> Refusal {
    Refusal::try_from(reply(line)).expect("a refusal")
}

/// An acceptance or a refusal from one line, without its CRLF.
///
/// # Panics
/// The line is neither.
pub fn decision(line: &str) -> Result<Accepted, Refusal> {
    Accepted::try_from(reply(line)).map_err(|_| refusal(line))
}

/// A reply from one line, without its CRLF.
///
/// # Panics
/// The line is no reply.
pub fn reply(line: &str) -> Reply {
    match posthaste_wire::ReplyRef::parse(format!("{line}\r\n").as_bytes()) {
        Ok(reply) => reply.into_owned(),
        Err(error) => panic!("{line:?}: {error}"),
    }
}
