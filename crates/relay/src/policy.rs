//! The clients that may relay, and the domains and mailboxes that take mail.

use std::{collections::HashMap, future::Future};

use posthaste_server::{
    Context, Refusal,
    wire::{Domain, Mailbox},
};

use crate::{DomainSet, NetworkSet, domains::canonical};

/// Decides which client may send to which domain. [`PolicyTable`] decides by lists; an
/// application's own implementation may ask a database.
///
/// A decision is part of the server's [verdict](posthaste_server::Handler) on MAIL or RCPT, and its
/// time counts toward the verdict's timeout. A panic is logged, and refuses the command with 451.
pub trait Policy: Send + Sync + 'static {
    /// Returns `true` if a client may relay: it may send to any domain, and the relay trusts its
    /// sender addresses. Asked at MAIL, once for each transaction. [`Context::peer`] has the
    /// client's address and its identity, if it has logged in. A login alone gives no right: return
    /// `true` where `cx.peer.identity.is_some()`, or users cannot send.
    ///
    /// # Errors
    /// The refusal of MAIL.
    fn trusts(&self, cx: &Context) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// Returns `true` if every client may send to a domain. Asked at RCPT for clients that are not
    /// trusted. Not asked for the relay's own name, to which every client may send.
    ///
    /// # Errors
    /// The refusal of RCPT.
    fn serves(&self, cx: &Context, domain: &Domain<&str>) -> impl Future<Output = Result<bool, Refusal>> + Send;

    /// The largest message of a client, in octets. Asked at MAIL, once for each transaction. A
    /// larger message is refused with 552 5.3.4: at MAIL if its SIZE says so, or while its content
    /// comes. `None`, the default: the limit that the listener offers as SIZE counts alone. It
    /// counts in any case.
    ///
    /// # Errors
    /// The refusal of MAIL.
    fn message_size(&self, cx: &Context, trusted: bool) -> impl Future<Output = Result<Option<u64>, Refusal>> + Send {
        let _ = (cx, trusted);
        async { Ok(None) }
    }
}

/// Checks the mailboxes of the domains that the relay [serves](Policy::serves). The relay then
/// refuses unknown ones while the client still has the message. Without this check the next hop
/// refuses them, and the relay has to report to a sender that may be forged.
/// [`RecipientTable`](crate::RecipientTable) does so by lists in memory.
///
/// Timeout and panic are as for a [`Policy`].
pub trait Recipients: Send + Sync + 'static {
    /// Takes or refuses a mailbox. Asked at RCPT, after the policy: for trusted clients too, and
    /// for domains that are not served. Not asked for the postmaster of this host.
    ///
    /// # Errors
    /// The refusal of RCPT.
    fn check(&self, cx: &Context, mailbox: &Mailbox) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// The clients that may relay and the domains that take mail from every client, fixed at start. By
/// default both are empty. Then a client without a login can send to the relay's own name alone,
/// and only if a route names the hosts that have its mailboxes.
///
/// A client that has logged in may always relay.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PolicyTable {
    /// Networks whose clients may send to any domain without a login. A client on a local socket
    /// counts as `127.0.0.1`.
    pub relay_from: NetworkSet,
    /// Domains that take mail from every client.
    pub relay_domains: DomainSet,
    /// The largest message of some users, in octets, by identity. Default: none has a limit of its
    /// own. The limit of the listener counts too.
    pub user_sizes: HashMap<String, u64>,
    /// The largest message of clients that may not relay, in octets. Default `None`: the limit of
    /// the listener.
    pub stranger_size: Option<u64>,
}

impl Policy for PolicyTable {
    async fn trusts(&self, cx: &Context) -> Result<bool, Refusal> {
        Ok(cx.peer.identity.is_some() || self.relay_from.contains(cx.peer.address.ip_or_loopback()))
    }

    async fn serves(&self, _: &Context, domain: &Domain<&str>) -> Result<bool, Refusal> {
        Ok(canonical(domain).is_some_and(|name| self.relay_domains.has(&name)))
    }

    async fn message_size(&self, cx: &Context, trusted: bool) -> Result<Option<u64>, Refusal> {
        Ok(match &cx.peer.identity {
            Some(identity) => self.user_sizes.get(identity).copied(),
            None => self.stranger_size.filter(|_| !trusted),
        })
    }
}
