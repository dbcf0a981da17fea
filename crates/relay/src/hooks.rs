//! The decisions that an application makes in place of the tables in the options.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
};

use posthaste_server::{
    Context, Refusal, SaslError, ScramKey, ScramUser, UnknownUsers, refusal,
    wire::{Domain, Mailbox},
};
use thiserror::Error;
use tracing::error;

use crate::{Accounts, Policy, Recipients, RelayOptions, Route, RouteError, RouteQuery, Routes, Senders};

/// The application's own decisions. `None`: the table in the options decides, without an
/// allocation.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) policy: Option<Box<dyn ErasedPolicy>>,
    pub(crate) recipients: Option<Box<dyn ErasedRecipients>>,
    pub(crate) accounts: Option<Box<dyn ErasedAccounts>>,
    pub(crate) routes: Option<Box<dyn ErasedRoutes>>,
    pub(crate) senders: Option<Box<dyn ErasedSenders>>,
}

impl Hooks {
    pub(crate) async fn trusts(&self, options: &RelayOptions, cx: &Context) -> Result<bool, Refusal> {
        match &self.policy {
            Some(own) => caught("Policy::trusts", async { own.trusts(cx).await }).await?,
            None => Policy::trusts(&options.policy, cx).await,
        }
    }

    pub(crate) async fn serves(
        &self,
        options: &RelayOptions,
        cx: &Context,
        domain: &Domain<&str>,
    ) -> Result<bool, Refusal> {
        match &self.policy {
            Some(own) => caught("Policy::serves", async { own.serves(cx, domain).await }).await?,
            None => Policy::serves(&options.policy, cx, domain).await,
        }
    }

    /// The largest message of a client, in octets. `None`: the listener's bound alone counts.
    pub(crate) async fn message_size(
        &self,
        options: &RelayOptions,
        cx: &Context,
        trusted: bool,
    ) -> Result<Option<u64>, Refusal> {
        match &self.policy {
            Some(own) => caught("Policy::message_size", async { own.message_size(cx, trusted).await }).await?,
            None => Policy::message_size(&options.policy, cx, trusted).await,
        }
    }

    /// Returns `true` if the client has logged in, and may perhaps not send from every address.
    pub(crate) fn limits_senders(&self, options: &RelayOptions, cx: &Context) -> bool {
        cx.peer
            .identity
            .as_ref()
            .is_some_and(|identity| self.senders.is_some() || !options.submission.senders.is_any(identity))
    }

    /// Returns `true` if the client may send from a mailbox.
    pub(crate) async fn may_use(
        &self,
        options: &RelayOptions,
        cx: &Context,
        sender: &Mailbox,
    ) -> Result<bool, Refusal> {
        let Some(identity) = &cx.peer.identity else { return Ok(true) };
        match &self.senders {
            Some(own) => caught("Senders::may_use", async { own.may_use(cx, identity, sender).await }).await?,
            None => Senders::may_use(&options.submission.senders, cx, identity, sender).await,
        }
    }

    pub(crate) async fn check(&self, options: &RelayOptions, cx: &Context, mailbox: &Mailbox) -> Result<(), Refusal> {
        match (&self.recipients, &options.recipients) {
            (Some(own), _) => caught("Recipients::check", async { own.check(cx, mailbox).await }).await?,
            (None, Some(table)) => Recipients::check(table, cx, mailbox).await,
            (None, None) => Ok(()),
        }
    }

    /// The route of mail for a [canonical](crate::domains::canonical) domain.
    pub(crate) async fn route(
        &self,
        options: &RelayOptions,
        mail: &RouteQuery<'_>,
    ) -> Result<Option<Arc<Route>>, RouteError> {
        match &self.routes {
            Some(own) => {
                let found = caught("Routes::find", async { own.find(mail).await }).await??;
                found.as_ref().map_or(Ok(()), |route| route.check_size())?;
                Ok(found)
            }
            None => Ok(options.routes.route(mail).cloned()),
        }
    }

    /// Returns `true` if a route may have a label.
    pub(crate) fn gives_labels(&self, options: &RelayOptions) -> bool {
        match &self.routes {
            Some(own) => own.gives_labels(),
            None => Routes::gives_labels(&options.routes),
        }
    }

    pub(crate) async fn key(
        &self,
        options: &RelayOptions,
        cx: &Context,
        user: &ScramUser,
    ) -> Result<Option<ScramKey>, SaslError> {
        match (&self.accounts, &options.accounts) {
            (Some(own), _) => {
                let key = caught("Accounts::key", async { own.key(cx, user).await }).await;
                key.map_err(|_| SaslError::Unavailable)?
            }
            (None, Some(table)) => Accounts::key(table, cx, user).await,
            (None, None) => Ok(None),
        }
    }

    pub(crate) fn unknown_users(&self, options: &RelayOptions) -> Option<UnknownUsers> {
        match (&self.accounts, &options.accounts) {
            (Some(own), _) => Some(own.unknown_users()),
            (None, table) => table.as_ref().map(Accounts::unknown_users),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("policy", &self.policy.is_some())
            .field("recipients", &self.recipients.is_some())
            .field("accounts", &self.accounts.is_some())
            .field("routes", &self.routes.is_some())
            .field("senders", &self.senders.is_some())
            .finish()
    }
}

/// The application has panicked in a decision.
#[derive(Debug, Error)]
#[error("{0} of the application panicked")]
struct Panicked(&'static str);

impl From<Panicked> for Refusal {
    fn from(panicked: Panicked) -> Self {
        refusal!("451 4.3.0 Local error, try again later").with_cause(panicked)
    }
}

/// Waits for a decision of the application. A panic ends that decision alone: the client gets a
/// reply, and the application goes on to be asked by other connections in any case.
async fn caught<T>(asked: &'static str, decision: impl Future<Output = T> + Send) -> Result<T, Panicked> {
    let mut decision = pin!(decision);
    let decided = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| decision.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_) => std::task::Poll::Ready(Err(Panicked(asked))),
    });
    decided.await.inspect_err(|panicked| error!("{panicked}"))
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`Policy`] behind a `dyn`.
pub(crate) trait ErasedPolicy: Send + Sync {
    fn trusts<'a>(&'a self, cx: &'a Context) -> Answer<'a, Result<bool, Refusal>>;
    fn serves<'a>(&'a self, cx: &'a Context, domain: &'a Domain<&'a str>) -> Answer<'a, Result<bool, Refusal>>;
    fn message_size<'a>(&'a self, cx: &'a Context, trusted: bool) -> Answer<'a, Result<Option<u64>, Refusal>>;
}

impl<P: Policy> ErasedPolicy for P {
    fn trusts<'a>(&'a self, cx: &'a Context) -> Answer<'a, Result<bool, Refusal>> {
        Box::pin(Policy::trusts(self, cx))
    }

    fn serves<'a>(&'a self, cx: &'a Context, domain: &'a Domain<&'a str>) -> Answer<'a, Result<bool, Refusal>> {
        Box::pin(Policy::serves(self, cx, domain))
    }

    fn message_size<'a>(&'a self, cx: &'a Context, trusted: bool) -> Answer<'a, Result<Option<u64>, Refusal>> {
        Box::pin(Policy::message_size(self, cx, trusted))
    }
}

/// [`Recipients`] behind a `dyn`.
pub(crate) trait ErasedRecipients: Send + Sync {
    fn check<'a>(&'a self, cx: &'a Context, mailbox: &'a Mailbox) -> Answer<'a, Result<(), Refusal>>;
}

impl<R: Recipients> ErasedRecipients for R {
    fn check<'a>(&'a self, cx: &'a Context, mailbox: &'a Mailbox) -> Answer<'a, Result<(), Refusal>> {
        Box::pin(Recipients::check(self, cx, mailbox))
    }
}

/// [`Accounts`] behind a `dyn`.
pub(crate) trait ErasedAccounts: Send + Sync {
    fn key<'a>(&'a self, cx: &'a Context, user: &'a ScramUser) -> Answer<'a, Result<Option<ScramKey>, SaslError>>;
    fn unknown_users(&self) -> UnknownUsers;
}

impl<A: Accounts> ErasedAccounts for A {
    fn key<'a>(&'a self, cx: &'a Context, user: &'a ScramUser) -> Answer<'a, Result<Option<ScramKey>, SaslError>> {
        Box::pin(Accounts::key(self, cx, user))
    }

    fn unknown_users(&self) -> UnknownUsers {
        Accounts::unknown_users(self)
    }
}

/// [`Routes`] behind a `dyn`.
pub(crate) trait ErasedRoutes: Send + Sync {
    fn find<'a>(&'a self, mail: &'a RouteQuery<'a>) -> Answer<'a, Result<Option<Arc<Route>>, RouteError>>;
    fn gives_labels(&self) -> bool;
}

impl<T: Routes> ErasedRoutes for T {
    fn find<'a>(&'a self, mail: &'a RouteQuery<'a>) -> Answer<'a, Result<Option<Arc<Route>>, RouteError>> {
        Box::pin(Routes::find(self, mail))
    }

    fn gives_labels(&self) -> bool {
        Routes::gives_labels(self)
    }
}

/// [`Senders`] behind a `dyn`.
pub(crate) trait ErasedSenders: Send + Sync {
    fn may_use<'a>(
        &'a self,
        cx: &'a Context,
        identity: &'a str,
        sender: &'a Mailbox,
    ) -> Answer<'a, Result<bool, Refusal>>;
}

impl<S: Senders> ErasedSenders for S {
    fn may_use<'a>(
        &'a self,
        cx: &'a Context,
        identity: &'a str,
        sender: &'a Mailbox,
    ) -> Answer<'a, Result<bool, Refusal>> {
        Box::pin(Senders::may_use(self, cx, identity, sender))
    }
}
