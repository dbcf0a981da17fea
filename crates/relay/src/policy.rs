//! The senders and recipients that mail is taken for.

use std::future::Future;

use posthaste_server::{
    Context, Refusal,
    wire::{Domain, Mailbox},
};

use crate::{DomainSet, NetworkSet, domains::canonical};

/// Decides who may send to whom. [`PolicyTable`] is one; an application's own may ask a database.
///
/// A decision is part of the server's [verdict](posthaste_server::Handler) on MAIL or RCPT, and its
/// time counts there.
pub trait Policy: Send + Sync + 'static {
    /// Returns `true` if a client may relay: it may send to any domain, and its sender addresses
    /// are believed. Asked at MAIL, once a transaction. [`Context::peer`] has its address and
    /// identity.
    ///
    /// # Errors
    /// The refusal of MAIL.
    fn trusts(&self, cx: &Context) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// Returns `true` if anyone may send to a domain. Asked at RCPT for clients that are not
    /// trusted, about every domain but the relay's own name, which anyone may send to.
    ///
    /// # Errors
    /// The refusal of RCPT.
    fn serves(&self, cx: &Context, domain: &Domain<&str>) -> impl Future<Output = Result<bool, Refusal>> + Send;
}

/// Knows the mailboxes of the domains that the relay [serves](Policy::serves): it can refuse
/// unknown ones while the client still has the message. Without it, the next hop refuses them, and
/// the relay has to report to a sender that may be forged.
pub trait Recipients: Send + Sync + 'static {
    /// Takes or refuses a mailbox. Asked at RCPT, after the policy, for trusted clients too, and
    /// also about domains that are not served.
    ///
    /// # Errors
    /// The refusal of RCPT.
    fn check(&self, cx: &Context, mailbox: &Mailbox) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// The clients that may relay and the domains that anyone may send to, fixed at start. The default
/// is empty: no client may relay, and mail is taken for the relay's own name alone, if a route has
/// it.
///
/// A client that has logged in may relay too.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PolicyTable {
    /// Networks whose clients may send to any domain without logging in. A local socket counts as
    /// `127.0.0.1`.
    pub relay_from: NetworkSet,
    /// Domains that anyone may send to.
    pub relay_domains: DomainSet,
}

impl Policy for PolicyTable {
    async fn trusts(&self, cx: &Context) -> Result<bool, Refusal> {
        Ok(cx.peer.identity.is_some() || self.relay_from.contains(cx.peer.address.ip_or_loopback()))
    }

    async fn serves(&self, _: &Context, domain: &Domain<&str>) -> Result<bool, Refusal> {
        Ok(canonical(domain).is_some_and(|name| self.relay_domains.has(&name)))
    }
}
