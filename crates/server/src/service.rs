//! What an application implements.

use std::{future::Future, sync::Arc};

use posthaste_tokio::{
    session::{
        ServerSettings,
        sasl::{BearerToken, Credentials, External, SaslError, ScramKey, ScramUser, UnknownUsers},
    },
    wire::{Command, EhloName, Mail, Rcpt, Reply},
};

use crate::{Body, Envelope, Peer, password};

/// An SMTP service: decides about connections and makes a [`Handler`] for each.
pub trait Service: Send + Sync + 'static {
    /// What handles one connection.
    type Handler: Handler;

    /// What a client is offered, and how much is taken from it: the listener's settings, unless they depend on the client or on
    /// the time. STARTTLS stays as the listener has it, which knows whether there is a certificate.
    fn settings(&self, peer: &Peer, settings: &Arc<ServerSettings>) -> Arc<ServerSettings> {
        let _ = peer;
        Arc::clone(settings)
    }

    /// A client has connected.
    ///
    /// # Errors
    /// The reply that it gets instead of a greeting; the connection then closes.
    fn connect(&self, peer: &Peer) -> impl Future<Output = Result<Self::Handler, Reply>> + Send;
}

/// Handles one connection: one method for each question that the conversation asks. Only [`message`](Self::message) has
/// no default; the others accept, except for those that authenticate.
///
/// A refusal is a reply of 4yz (not now) or 5yz (never); anything else is an error of the handler's, and the client
/// gets a 451 instead.
pub trait Handler: Send {
    /// The client says who it is.
    ///
    /// # Errors
    /// The reply to refuse with.
    fn hello(&mut self, peer: &Peer, name: &EhloName) -> impl Future<Output = Result<(), Reply>> + Send {
        let _ = (peer, name);
        async { Ok(()) }
    }

    /// The client logs in with a password: PLAIN, LOGIN. Without this method the password is checked against the
    /// [`scram_key`](Self::scram_key) of its user, on a thread that may block, as many at once as there are processors; a user
    /// who does not exist takes as long as one who does. Whoever has a method of its own should take the same care.
    fn authenticate(&mut self, peer: &Peer, credentials: Credentials) -> impl Future<Output = Authentication> + Send {
        password::check(self, peer, credentials)
    }

    /// The client asks to be known by its certificate: EXTERNAL. The identity is the certificate's
    /// [fingerprint](crate::Certificate::fingerprint); the certificate itself is in [`Peer::certificate`]. Whether it was
    /// signed by somebody in particular depends on the verifier in the TLS configuration.
    fn authenticate_external(
        &mut self,
        peer: &Peer,
        external: External,
    ) -> impl Future<Output = Authentication> + Send {
        let _ = (peer, external);
        async { Authentication::Denied }
    }

    /// The client logs in with an OAuth token: OAUTHBEARER, XOAUTH2. Check its host and port too, where it has them.
    fn authenticate_token(&mut self, peer: &Peer, token: BearerToken) -> impl Future<Output = Authentication> + Send {
        let _ = (peer, token);
        async { Authentication::Denied }
    }

    /// The client does not say who it is: ANONYMOUS. The trace is one line for the log, and nothing is known of its truth.
    fn authenticate_anonymous(&mut self, peer: &Peer, trace: &str) -> impl Future<Output = Authentication> + Send {
        let _ = (peer, trace);
        async { Authentication::Denied }
    }

    /// The client logs in without showing its password: SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, which holds on this TLS connection
    /// alone and is offered under TLS 1.3 only. The key of this user, or nothing when there is no
    /// such user or it may not act as whom it asks to; it is refused at the end then, so that nobody sees who exists. With a
    /// key and the right password the client is known as whom it asked to act as, and otherwise by its name.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use posthaste_server::{Body, Envelope, Handler, Peer, SaslError, ScramKey, ScramUser, UnknownUsers, wire::{Reply, Secret}};
    /// struct Submission {
    ///     /// As [`ScramKey::to_text`] has written them.
    ///     keys: HashMap<String, String>,
    ///     secret: [u8; 32],
    /// }
    ///
    /// impl Handler for Submission {
    ///     async fn scram_key(&mut self, _: &Peer, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
    ///         // Nobody may act as somebody else here.
    ///         let Some(text) = self.keys.get(&user.authentication_identity) else { return Ok(None) };
    ///         let key = text.parse().map_err(|_| SaslError::Unavailable)?;
    ///         Ok(user.authorization_identity.is_none().then_some(key))
    ///     }
    ///
    ///     fn unknown_users(&self) -> Option<UnknownUsers> {
    ///         Some(UnknownUsers::new(Secret::new(self.secret), 4_096))
    ///     }
    /// #    async fn message(&mut self, _: &Peer, _: Envelope, _: &mut Body<'_>) -> Result<Reply, Reply> {
    /// #        Err(Reply::from_static("554 5.3.2 Only for logging in\r\n"))
    /// #    }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`SaslError::Unavailable`] when it cannot be looked up now; others with their replies.
    fn scram_key(
        &mut self,
        peer: &Peer,
        user: &ScramUser,
    ) -> impl Future<Output = Result<Option<ScramKey>, SaslError>> + Send {
        let _ = (peer, user);
        async { Ok(None) }
    }

    /// How SCRAM answers for users who do not exist. Give it wherever [`scram_key`](Self::scram_key) has keys, with their
    /// iterations and a secret that outlives a restart. Default: 4,096 iterations and a secret of this process.
    fn unknown_users(&self) -> Option<UnknownUsers> {
        None
    }

    /// A transaction begins. Its parameters are among those offered.
    ///
    /// # Errors
    /// The reply to refuse with.
    fn mail(&mut self, peer: &Peer, mail: &Mail) -> impl Future<Output = Result<(), Reply>> + Send {
        let _ = (peer, mail);
        async { Ok(()) }
    }

    /// A recipient is named; the envelope has those accepted before.
    ///
    /// # Errors
    /// The reply to refuse with; other recipients are not affected.
    fn rcpt(
        &mut self,
        peer: &Peer,
        envelope: &Envelope,
        rcpt: &Rcpt,
    ) -> impl Future<Output = Result<(), Reply>> + Send {
        let _ = (peer, envelope, rcpt);
        async { Ok(()) }
    }

    /// The content is about to come: the last moment to refuse without it.
    ///
    /// # Errors
    /// The reply to refuse with.
    fn data(&mut self, peer: &Peer, envelope: &Envelope) -> impl Future<Output = Result<(), Reply>> + Send {
        let _ = (peer, envelope);
        async { Ok(()) }
    }

    /// The message. Read the body to its end; the promise of a positive reply is that the message is safe.
    ///
    /// An `Ok` before the body's end is answered with 451, since what had not arrived cannot be safe. An error may come at
    /// any time; the rest of the content is then read and thrown away.
    ///
    /// # Errors
    /// The reply to refuse with.
    fn message(
        &mut self,
        peer: &Peer,
        envelope: Envelope,
        body: &mut Body<'_>,
    ) -> impl Future<Output = Result<Reply, Reply>> + Send;

    /// The message under LMTP: one reply for each of the envelope's recipients, in their order, of which each is good or
    /// bad by itself (RFC 2033 section 4.2). What is said of [`message`](Self::message) counts here too; without this
    /// method, its reply counts for everyone.
    ///
    /// # Errors
    /// The reply to refuse everyone with.
    fn deliver(
        &mut self,
        peer: &Peer,
        envelope: Envelope,
        body: &mut Body<'_>,
    ) -> impl Future<Output = Result<Vec<Reply>, Reply>> + Send {
        async {
            let recipients = envelope.recipients.len();
            self.message(peer, envelope, body).await.map(|reply| vec![reply; recipients])
        }
    }

    /// VRFY, EXPN, HELP, ETRN or a verb that nobody knows, where the settings'
    /// [`other_commands`](posthaste_tokio::session::server::Offers::other_commands) has such commands asked about.
    ///
    /// # Errors
    /// The reply to refuse with; without this method, 502.
    fn other(&mut self, peer: &Peer, command: &Command<'_>) -> impl Future<Output = Result<Reply, Reply>> + Send {
        let _ = (peer, command);
        async { Err(Reply::from_static("502 5.5.1 Command not implemented\r\n")) }
    }
}

/// What came of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// It is who it says to be; this is the name to remember it by.
    Granted(String),
    /// The credentials are wrong: 535.
    Denied,
    /// It cannot be checked now: 454.
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
