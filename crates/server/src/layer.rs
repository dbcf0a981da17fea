//! Decisions that come before a handler's.

use std::{future::Future, sync::Arc};

use posthaste_tokio::{
    session::{
        ServerSettings,
        sasl::{BearerToken, Credentials, External, SaslError, ScramKey, ScramUser, UnknownUsers},
        server::OtherCommand,
    },
    wire::{Accepted, EhloName, Mail, Rcpt, Refusal},
};

use crate::{Authentication, Body, Context, Envelope, Handler, Service};

/// A check in front of a [`Handler`]: each method can refuse, and `Ok` asks the wrapped handler.
///
/// A decision of a layer can therefore never accept more than what it wraps, and a method that it
/// does not implement changes nothing. Only [`settings`](Self::settings) may offer more.
///
/// [`Service::layer`] puts it around a service, which clones it for each connection. Its fields are
/// the state of one connection, and an `Arc` among them is shared by all. [`layers`](crate::layers)
/// has those that a public server needs.
///
/// Greylisting: the first attempt of a network for a recipient is put off.
///
/// ```
/// use std::{collections::HashMap, net::IpAddr, sync::{Arc, Mutex}, time::{Duration, Instant}};
/// use posthaste_server::{Context, Layer, Refusal, refusal, wire::Rcpt};
///
/// #[derive(Clone, Default)]
/// struct Greylist(Arc<Mutex<HashMap<(IpAddr, String), Instant>>>);
///
/// impl Layer for Greylist {
///     async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
///         let key = (cx.peer.network, rcpt.forward_path.to_string());
///         let mut firsts = self.0.lock().expect("no panic under the lock");
///         if firsts.len() >= 100_000 {
///             firsts.clear();
///         }
///         if firsts.entry(key).or_insert_with(Instant::now).elapsed() < Duration::from_secs(300) {
///             return Err(refusal!("451 4.7.1 Greylisted, try again in five minutes"));
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// Timeout, panic and abort are as for a [`Handler`]. The layers and the handler share one time
/// limit.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no layer",
    label = "this decides about nothing",
    note = "write `impl Layer for {Self}` with the methods that refuse; those that it does not name pass through"
)]
pub trait Layer: Clone + Send + Sync + 'static {
    /// The offers to a client and its limits. Default: `settings`, which are those of the wrapped
    /// service. The listener alone decides about STARTTLS.
    fn settings(&self, cx: &Context, settings: Arc<ServerSettings>) -> Arc<ServerSettings> {
        let _ = cx;
        settings
    }

    /// A client has connected.
    ///
    /// # Errors
    /// The refusal that the client gets in place of a greeting; the connection then closes.
    fn connect(&mut self, cx: &Context) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// EHLO, HELO or LHLO.
    ///
    /// # Errors
    /// The refusal.
    fn hello(&mut self, cx: &Context, name: &EhloName) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, name);
        async { Ok(()) }
    }

    /// The client logs in. The wrapped handler has not seen the credentials yet.
    ///
    /// # Errors
    /// [`SaslError::Credentials`] denies (535), [`SaslError::Unavailable`] puts off (454).
    fn login(&mut self, cx: &Context, login: Login<'_>) -> impl Future<Output = Result<(), SaslError>> + Send {
        let _ = (cx, login);
        async { Ok(()) }
    }

    /// MAIL.
    ///
    /// # Errors
    /// The refusal.
    fn mail(&mut self, cx: &Context, mail: &Mail) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, mail);
        async { Ok(()) }
    }

    /// RCPT.
    ///
    /// # Errors
    /// The refusal, of this recipient alone.
    fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, rcpt);
        async { Ok(()) }
    }

    /// DATA, or the first BDAT.
    ///
    /// # Errors
    /// The refusal.
    fn data(&mut self, cx: &Context) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// The message. Returns the body that the wrapped handler reads: the same one, a stream around
    /// it, or a new one. Read the old one to its end before a new one is returned: otherwise the
    /// acceptance of the wrapped handler becomes a 451, and the client sends the message again.
    ///
    /// The envelope may be changed, but under LMTP not the number of its recipients.
    ///
    /// # Errors
    /// The refusal.
    fn message<'b>(
        &mut self,
        cx: &Context,
        envelope: &mut Envelope,
        body: Body<'b>,
    ) -> impl Future<Output = Result<Body<'b>, Refusal>> + Send {
        let _ = (cx, envelope);
        async { Ok(body) }
    }

    /// VRFY, EXPN, HELP, ETRN or an unknown verb.
    ///
    /// # Errors
    /// The refusal.
    fn other(&mut self, cx: &Context, command: &OtherCommand) -> impl Future<Output = Result<(), Refusal>> + Send {
        let _ = (cx, command);
        async { Ok(()) }
    }

    /// The common decision of the layer and what it wraps, for logs, metrics and counters. Without
    /// a `refusal` it was accepted. Called after each decision that [`Asked`] lists, so not for
    /// connections and logins. A decision that was late or aborted is not reported. After a message
    /// under LMTP it is called once for each recipient.
    fn decided(&mut self, cx: &Context, asked: Asked, refusal: Option<&Refusal>) {
        let _ = (cx, asked, refusal);
    }
}

/// What a client logs in with.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Login<'l> {
    /// PLAIN or LOGIN.
    Password(&'l Credentials),
    /// SCRAM-SHA-256 or SCRAM-SHA-256-PLUS.
    Scram(&'l ScramUser),
    /// OAUTHBEARER or XOAUTH2.
    Token(&'l BearerToken),
    /// EXTERNAL.
    External(&'l External),
    /// ANONYMOUS.
    Anonymous(&'l str),
}

/// The subject of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Asked {
    /// EHLO, HELO or LHLO.
    Hello,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, or the first BDAT.
    Data,
    /// The message.
    Message,
    /// Another command.
    Other,
}

/// A service or handler with a layer around it; see [`Service::layer`].
#[derive(Debug, Clone)]
pub struct Layered<I, L> {
    pub(crate) inner: I,
    pub(crate) layer: L,
}

impl<V: Service, L: Layer> Service for Layered<V, L> {
    type Handler = Layered<V::Handler, L>;

    fn settings(&self, cx: &Context) -> Arc<ServerSettings> {
        self.layer.settings(cx, self.inner.settings(cx))
    }

    async fn connect(&self, cx: &Context) -> Result<Self::Handler, Refusal> {
        let mut layer = self.layer.clone();
        layer.connect(cx).await?;
        Ok(Layered { inner: self.inner.connect(cx).await?, layer })
    }
}

impl<H: Handler, L: Layer> Layered<H, L> {
    /// Tells the layer of a decision.
    fn tell<T>(&mut self, cx: &Context, asked: Asked, decision: Result<T, Refusal>) -> Result<T, Refusal> {
        self.layer.decided(cx, asked, decision.as_ref().err());
        decision
    }
}

impl<H: Handler, L: Layer> Handler for Layered<H, L> {
    async fn hello(&mut self, cx: &Context, name: &EhloName) -> Result<(), Refusal> {
        if let Err(refusal) = self.layer.hello(cx, name).await {
            return self.tell(cx, Asked::Hello, Err(refusal));
        }
        let decision = self.inner.hello(cx, name).await;
        self.tell(cx, Asked::Hello, decision)
    }

    async fn authenticate(&mut self, cx: &Context, credentials: Credentials) -> Authentication {
        match self.layer.login(cx, Login::Password(&credentials)).await {
            Ok(()) => self.inner.authenticate(cx, credentials).await,
            Err(error) => error.into(),
        }
    }

    async fn authenticate_external(&mut self, cx: &Context, external: External) -> Authentication {
        match self.layer.login(cx, Login::External(&external)).await {
            Ok(()) => self.inner.authenticate_external(cx, external).await,
            Err(error) => error.into(),
        }
    }

    async fn authenticate_token(&mut self, cx: &Context, token: BearerToken) -> Authentication {
        match self.layer.login(cx, Login::Token(&token)).await {
            Ok(()) => self.inner.authenticate_token(cx, token).await,
            Err(error) => error.into(),
        }
    }

    async fn authenticate_anonymous(&mut self, cx: &Context, trace: &str) -> Authentication {
        match self.layer.login(cx, Login::Anonymous(trace)).await {
            Ok(()) => self.inner.authenticate_anonymous(cx, trace).await,
            Err(error) => error.into(),
        }
    }

    async fn scram_key(&mut self, cx: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        self.layer.login(cx, Login::Scram(user)).await?;
        self.inner.scram_key(cx, user).await
    }

    fn unknown_users(&self) -> Option<UnknownUsers> {
        self.inner.unknown_users()
    }

    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        if let Err(refusal) = self.layer.mail(cx, mail).await {
            return self.tell(cx, Asked::Mail, Err(refusal));
        }
        let decision = self.inner.mail(cx, mail).await;
        self.tell(cx, Asked::Mail, decision)
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        if let Err(refusal) = self.layer.rcpt(cx, rcpt).await {
            return self.tell(cx, Asked::Rcpt, Err(refusal));
        }
        let decision = self.inner.rcpt(cx, rcpt).await;
        self.tell(cx, Asked::Rcpt, decision)
    }

    async fn data(&mut self, cx: &Context) -> Result<(), Refusal> {
        if let Err(refusal) = self.layer.data(cx).await {
            return self.tell(cx, Asked::Data, Err(refusal));
        }
        let decision = self.inner.data(cx).await;
        self.tell(cx, Asked::Data, decision)
    }

    /// On the heap, for the time of the message: in the future of a connection each layer would
    /// hold an envelope all the time.
    fn message(
        &mut self,
        cx: &Context,
        mut envelope: Envelope,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send {
        Box::pin(async move {
            let decision = match self.layer.message(cx, &mut envelope, body).await {
                Ok(body) => self.inner.message(cx, envelope, body).await,
                Err(refusal) => Err(refusal),
            };
            self.tell(cx, Asked::Message, decision)
        })
    }

    fn deliver(
        &mut self,
        cx: &Context,
        mut envelope: Envelope,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Vec<Result<Accepted, Refusal>>, Refusal>> + Send {
        Box::pin(async move {
            let recipients = envelope.recipients.len();
            let decisions = match self.layer.message(cx, &mut envelope, body).await {
                Ok(body) => self.inner.deliver(cx, envelope, body).await,
                Err(refusal) => Err(refusal),
            };
            match &decisions {
                Ok(decisions) => {
                    for decision in decisions {
                        self.layer.decided(cx, Asked::Message, decision.as_ref().err());
                    }
                }
                Err(refusal) => {
                    for _ in 0..recipients {
                        self.layer.decided(cx, Asked::Message, Some(refusal));
                    }
                }
            }
            decisions
        })
    }

    async fn other(&mut self, cx: &Context, command: &OtherCommand) -> Result<Accepted, Refusal> {
        if let Err(refusal) = self.layer.other(cx, command).await {
            return self.tell(cx, Asked::Other, Err(refusal));
        }
        let decision = self.inner.other(cx, command).await;
        self.tell(cx, Asked::Other, decision)
    }
}
