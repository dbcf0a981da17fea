//! What an application decides.

use std::future::Future;

use posthaste_tokio::{
    session::{
        sasl::{BearerToken, Credentials, External, SaslError, ScramKey, ScramUser, UnknownUsers},
        server::OtherCommand,
    },
    wire::{Accepted, EhloName, Mail, Rcpt, Refusal, refusal},
};

use crate::{Body, Context, Envelope, password};

/// Handles one connection: one method for each decision. Only [`message`](Self::message) has no
/// default. The other methods accept by default, except those that log a client in, which deny.
///
/// A decision is `Ok` or a [`Refusal`], which is always a 4yz (not now) or 5yz (never) reply. A
/// refusal of 421 ends the session.
///
/// - **Time**: a decision that takes longer than
///   [`timeouts.verdict`](posthaste_tokio::session::server::ServerTimeouts::verdict) (default 5
///   minutes) is dropped at its next `.await`, and the client gets a 451, or a 454 to a login.
///   While a handler reads the body, only the time that the handler itself takes counts.
/// - **Abort**: when the server aborts, the method's future is dropped. [`message`](Self::message)
///   therefore commits in one step, as a database does. When a full server makes room,
///   the methods that log a client in are dropped too. So is `message`, if its body has not ended
///   and has taken more than a minute, or has been waited for more than 2 seconds. When the client
///   leaves within a message, the body ends with a [`BodyError`](crate::BodyError).
/// - **Panic**: ends this connection alone, without a reply. The client tries again later.
///
/// One handler serves all transactions of its connection, one method at a time. Each transaction
/// begins with [`mail`](Self::mail): clear there what the handler remembers of an earlier one.
///
/// A method may use `?` on an [`io::Error`](std::io::Error), which becomes a 451 with the error as
/// its cause in the log, and on a [`BodyError`](crate::BodyError). For an error of its own, the
/// application says which refusal it is:
///
/// ```
/// # use posthaste_server::{Refusal, refusal};
/// # use std::fmt;
/// # #[derive(Debug)] struct DatabaseError;
/// # impl fmt::Display for DatabaseError { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("away") } }
/// impl From<DatabaseError> for Refusal {
///     fn from(error: DatabaseError) -> Self {
///         refusal!("451 4.3.0 Local error, try again later").with_cause(error)
///     }
/// }
/// ```
///
/// For any other error `.map_err(std::io::Error::other)?` does the same.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no SMTP handler",
    note = "implement `Handler` with at least `async fn message(&mut self, cx: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal>`"
)]
pub trait Handler: Send {
    /// EHLO, HELO or LHLO.
    ///
    /// # Errors
    /// The refusal.
    fn hello(&mut self, cx: &Context, name: &EhloName) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, name);
        async { Ok(()) }
    }

    /// PLAIN or LOGIN: the client logs in with a password.
    ///
    /// Default: the password is checked against the [`scram_key`](Self::scram_key) of its user, on
    /// tokio's blocking threads. As many checks run at a time, in the whole process, as there are
    /// processors. A check of an unknown user takes as long as one of a known user: a method of
    /// your own should do the same.
    fn authenticate(&mut self, cx: &Context, credentials: Credentials) -> impl Future<Output = Authentication> + Send {
        password::check(self, cx, credentials)
    }

    /// EXTERNAL: the client logs in with its certificate. Default: denied. The identity is the
    /// certificate's [fingerprint](crate::Certificate::fingerprint); the certificate itself is in
    /// the context. The verifier in the TLS configuration decides whose signature is enough.
    fn authenticate_external(
        &mut self,
        cx: &Context,
        external: External,
    ) -> impl Future<Output = Authentication> + Send {
        let _ = (cx, external);
        async { Authentication::Denied }
    }

    /// OAUTHBEARER or XOAUTH2: the client logs in with a token. Check the token's host and port
    /// too, where it has them. Default: denied.
    fn authenticate_token(&mut self, cx: &Context, token: BearerToken) -> impl Future<Output = Authentication> + Send {
        let _ = (cx, token);
        async { Authentication::Denied }
    }

    /// ANONYMOUS: the client does not say who it is. The trace is one line for the log, and need
    /// not be true. Default: denied.
    fn authenticate_anonymous(&mut self, cx: &Context, trace: &str) -> impl Future<Output = Authentication> + Send {
        let _ = (cx, trace);
        async { Authentication::Denied }
    }

    /// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: the key of a user. The client logs in without showing
    /// its password. SCRAM-SHA-256-PLUS binds the login to this TLS connection, and is offered
    /// under TLS 1.3 only.
    ///
    /// `None`: there is no such user, or it may not act as the identity that it asks for. The
    /// exchange then goes on and fails at its end, so that the client cannot find out who exists.
    /// With a key and the right password the client is known as the identity that it asked for, or
    /// else by its name.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Refusal, SaslError, ScramKey, ScramUser, UnknownUsers, refusal, wire::Secret};
    /// struct Submission {
    ///     /// As [`ScramKey::to_text`] has written them.
    ///     keys: HashMap<String, String>,
    ///     secret: [u8; 32],
    /// }
    ///
    /// impl Handler for Submission {
    ///     async fn scram_key(&mut self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
    ///         // No user may act as another one here.
    ///         let Some(text) = self.keys.get(&user.authentication_identity) else { return Ok(None) };
    ///         let key = text.parse().map_err(|_| SaslError::Unavailable)?;
    ///         Ok(user.authorization_identity.is_none().then_some(key))
    ///     }
    ///
    ///     fn unknown_users(&self) -> Option<UnknownUsers> {
    ///         Some(UnknownUsers::new(Secret::new(self.secret), 4_096))
    ///     }
    /// #    async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
    /// #        Err(refusal!("554 5.3.2 Only for logging in"))
    /// #    }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SaslError::Unavailable`] when the key cannot be looked up now; others with their replies.
    fn scram_key(
        &mut self,
        cx: &Context,
        user: &ScramUser,
    ) -> impl Future<Output = Result<Option<ScramKey>, SaslError>> + Send {
        let _ = (cx, user);
        async { Ok(None) }
    }

    /// How SCRAM answers for users who do not exist. A handler with a
    /// [`scram_key`](Self::scram_key) of its own returns `Some`: the iterations of its keys, and a
    /// secret that stays the same after a restart. `None`, the default: 4,096 iterations and a
    /// secret of this process.
    fn unknown_users(&self) -> Option<UnknownUsers> {
        None
    }

    /// MAIL: a transaction begins. Its parameters are among those offered.
    ///
    /// # Errors
    /// The refusal.
    fn mail(&mut self, cx: &Context, mail: &Mail) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, mail);
        async { Ok(()) }
    }

    /// RCPT: one recipient. [`Context::envelope`] has MAIL and the recipients accepted before.
    ///
    /// # Errors
    /// The refusal, of this recipient alone.
    fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, rcpt);
        async { Ok(()) }
    }

    /// DATA, or the first BDAT: the last moment to refuse before the content comes.
    /// [`Context::envelope`] is complete.
    ///
    /// # Errors
    /// The refusal.
    fn data(&mut self, cx: &Context) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// The message. Read the body to its end. `Ok` promises that the message is on stable storage.
    ///
    /// `Ok` before the end of the body becomes a 451, since octets that have not arrived cannot be
    /// stored. A refusal may come at any time; the framework then reads the rest and discards it.
    ///
    /// # Errors
    /// The refusal.
    fn message(
        &mut self,
        cx: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send;

    /// The message under LMTP: one decision for each of the envelope's recipients, in their order
    /// (RFC 2033 section 4.2). Default: the decision of [`message`](Self::message), for all of
    /// them.
    ///
    /// If the number of decisions is not that of the recipients, all recipients get a 451.
    ///
    /// # Errors
    /// The refusal, for all recipients.
    fn deliver(
        &mut self,
        cx: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Vec<Result<Accepted, Refusal>>, Refusal>> + Send {
        async {
            let recipients = envelope.recipients.len();
            let accepted = self.message(cx, envelope, body).await?;
            Ok(vec![Ok(accepted); recipients])
        }
    }

    /// VRFY, EXPN, HELP, ETRN or an unknown verb, if the settings'
    /// [`other_commands`](posthaste_tokio::session::server::Offers::other_commands) is on.
    /// Default: 502.
    ///
    /// # Errors
    /// The refusal.
    fn other(
        &mut self,
        cx: &Context,
        command: &OtherCommand,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send {
        let _ = (cx, command);
        async { Err(refusal!("502 5.5.1 Command not implemented")) }
    }
}

/// The result of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// The client is authenticated, as this identity.
    Granted(String),
    /// The credentials are wrong: 535.
    Denied,
    /// The credentials cannot be checked now: 454.
    Unavailable,
}

impl From<SaslError> for Authentication {
    fn from(error: SaslError) -> Self {
        if error == SaslError::Unavailable { Self::Unavailable } else { Self::Denied }
    }
}

impl From<Authentication> for Result<String, SaslError> {
    fn from(authentication: Authentication) -> Self {
        match authentication {
            Authentication::Granted(identity) => Ok(identity),
            Authentication::Denied => Err(SaslError::Credentials),
            Authentication::Unavailable => Err(SaslError::Unavailable),
        }
    }
}
