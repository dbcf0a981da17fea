//! AUTH: a SASL exchange between the client and the handler, and what comes of its failure.

use posthaste_tokio::{
    session::{
        Verdict,
        sasl::{Nonce, SaslError, ServerContext, ServerMechanism, ServerStep},
    },
    wire::{Mechanism, Refusal, Secret, refusal},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    Handler,
    conversation::Conversation,
    guessing::Attempt,
    password::{random, unknown_users},
};

/// A login that is under way.
#[derive(Debug)]
pub(crate) struct LoginUnderWay {
    mechanism: &'static str,
    /// The beginning of the name, for the log.
    name: String,
    attempt: Option<Attempt>,
}

/// The most characters of a name or a mechanism that a log line has. The name is a stranger's, and
/// may be 12 KiB.
const SHOWN: usize = 64;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, H: Handler> Conversation<'_, '_, S, H> {
    pub(crate) async fn auth(&mut self, mechanism: Mechanism, initial: Option<Secret<String>>) -> Verdict {
        let login = LoginUnderWay { mechanism: mechanism.as_str(), name: String::new(), attempt: None };
        self.login = Some(Box::new(login));
        let exchange = self.sasl_context().and_then(|context| ServerMechanism::new(mechanism, context));
        let initial = initial.as_ref().map(|text| text.expose().as_str());
        let step = exchange.and_then(|exchange| self.mechanism.insert(Box::new(exchange)).start(initial));
        self.auth_step(step).await
    }

    pub(crate) async fn auth_response(&mut self, response: Secret<String>) -> Verdict {
        let step = match &mut self.mechanism {
            Some(exchange) => exchange.respond(response.expose().as_bytes()),
            None => Err(SaslError::Unavailable),
        };
        self.auth_step(step).await
    }

    /// Goes on to where the client has to say something, or to the end.
    async fn auth_step(&mut self, mut step: Result<ServerStep, SaslError>) -> Verdict {
        let verdict = loop {
            step = match step {
                Ok(ServerStep::Challenge(challenge)) => return Verdict::Challenge(challenge),
                Ok(ServerStep::Done(identity)) => {
                    self.settle(true);
                    self.cx.peer.identity = Some(identity);
                    self.seat.prove();
                    break Verdict::Accept(None);
                }
                Ok(question) => {
                    // A guess holds no seat, neither while it waits for its turn nor while it is
                    // checked. Otherwise guessers could take all of them.
                    self.seat.wait();
                    match self.take_turn(&question).await {
                        Ok(()) => {
                            let step = self.sasl_question(question).await;
                            self.seat.work().await;
                            step
                        }
                        Err(refusal) => break Verdict::Refuse(refusal),
                    }
                }
                Err(error) => {
                    self.failed(error);
                    break Verdict::Refuse(error.refusal());
                }
            };
        };
        self.mechanism = None;
        self.login = None;
        verdict
    }

    /// Waits until an attempt of this network and under this name may be looked at.
    async fn take_turn(&mut self, question: &ServerStep) -> Result<(), Refusal> {
        let name = match question {
            ServerStep::Password(credentials) => Some(credentials.authentication_identity.as_str()),
            ServerStep::Token(token) => token.authorization_identity.as_deref(),
            ServerStep::External(external) => Some(external.identity.as_str()),
            ServerStep::ScramKey(user) => Some(user.authentication_identity.as_str()),
            _ => None,
        };
        let Some(login) = &mut self.login else { return Ok(()) };
        login.name = shown(name.unwrap_or_default());
        let Some(attempt) = self.common.guessing.begin(self.cx.peer.network, name) else {
            let (name, mechanism) = (&login.name, &login.mechanism);
            debug!(?name, mechanism, "login refused unseen, too many have failed");
            return Err(refusal!("421 4.7.0 Too many failed logins, try again later"));
        };
        let wait = attempt.wait;
        login.attempt = Some(attempt);
        if !wait.is_zero() && self.ends.drain.run_until_cancelled(sleep(wait)).await.is_none() {
            self.settle(false);
            return Err(refusal!("421 4.3.2 Shutting down, come back later"));
        }
        Ok(())
    }

    /// One line for each login that fails, and the charge stays.
    fn failed(&mut self, error: SaslError) {
        if error == SaslError::Unavailable {
            self.settle(false);
        }
        let Some(LoginUnderWay { mechanism, name, .. }) = self.login.as_deref() else { return };
        let tls = self.cx.peer.tls.is_some();
        info!(hello = ?self.cx.peer.hello_text(), tls, ?name, ?mechanism, %error, "login failed");
    }

    /// Gives the charge back.
    fn settle(&mut self, has_logged_in: bool) {
        if let Some(attempt) = self.login.as_mut().and_then(|login| login.attempt.take()) {
            self.common.guessing.forgive(&attempt, has_logged_in);
        }
    }

    /// Asks the handler, and gives the exchange the answer.
    async fn sasl_question(&mut self, question: ServerStep) -> Result<ServerStep, SaslError> {
        let Self { handler, cx, mechanism, terms, .. } = self;
        let verdict = terms.verdict;
        let exchange = mechanism.as_mut().ok_or(SaslError::Unavailable)?;
        let late = |_| SaslError::Unavailable;
        match question {
            ServerStep::Password(credentials) => {
                let decision = timeout(verdict, handler.authenticate(cx, credentials)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::Token(token) => {
                let decision = timeout(verdict, handler.authenticate_token(cx, token)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::Anonymous(trace) => {
                let decision = timeout(verdict, handler.authenticate_anonymous(cx, &trace)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::External(external) => {
                let decision = timeout(verdict, handler.authenticate_external(cx, external)).await;
                exchange.decide(decision.map_err(late).and_then(Result::from))
            }
            ServerStep::ScramKey(user) => {
                let key = timeout(verdict, handler.scram_key(cx, &user)).await;
                exchange.found(key.map_err(late).and_then(std::convert::identity))
            }
            _ => exchange.decide(Err(SaslError::Credentials)),
        }
    }

    fn sasl_context(&self) -> Result<ServerContext, SaslError> {
        let nonce = Nonce::from_random(random()?);
        Ok(self.driver.driver.sasl_context(nonce, unknown_users(&self.handler)?))
    }
}
