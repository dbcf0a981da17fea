//! The state that receiving and delivering share.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use arc_swap::ArcSwap;
use posthaste_client::{Health, Server};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    Event, RelayOptions, ReloadError,
    announcing::Announcing,
    deliver::{CapsTable, Egress, Hints, KnownSites},
    event::Counting,
    hooks::Hooks,
    overload::Overload,
    relabel::Sweeps,
    reload,
    report::Budget,
    sign::Signatures,
};

/// The parts of a relay.
#[derive(Debug)]
pub(crate) struct Shared<Q, R> {
    pub(crate) queue: Q,
    pub(crate) resolver: R,
    options: Arc<ArcSwap<RelayOptions>>,
    /// Held while the options change.
    reloading: Mutex<()>,
    /// Notified when they have changed.
    pub(crate) reloaded: Notify,
    /// The sweeps for the labels of queued mail.
    pub(crate) sweeps: Sweeps,
    /// Cancelled when the application drains the relay, and when it stops it.
    pub(crate) drain: CancellationToken,
    pub(crate) stop: CancellationToken,
    pub(crate) hooks: Hooks,
    pub(crate) events: Arc<Counting>,
    pub(crate) overload: Overload,
    /// The signatures of what is taken, and of reports.
    pub(crate) signatures: Signatures,
    /// The reports that senders of clients without trust may still get.
    pub(crate) reports: Budget,
    /// The same for clients that are trusted, if the options bound them.
    pub(crate) trusted_reports: Budget,
    /// Permits to write a report: each holds in memory what it returns.
    pub(crate) reporting: Semaphore,
    pub(crate) listeners: Listeners,
    /// What has become due, for the delivery loop.
    pub(crate) hints: Hints,
    /// The sites of deliveries.
    pub(crate) sites: KnownSites,
    /// What is known of sources.
    /// Messages that are in the queue, and whose acceptance is still to be observed.
    pub(crate) announcing: Announcing,
    pub(crate) egress: Arc<Egress>,
    /// What sites with limits have had.
    pub(crate) caps: Arc<CapsTable>,
    /// What deliveries have found out about servers.
    pub(crate) health: Health,
    /// The same for mail that only servers with a proved identity may have.
    pub(crate) guarded_health: Health,
}

/// Reports that are written at once. With the largest returned messages they take about 100 MiB.
const REPORTS_AT_ONCE: usize = 8;

impl<Q, R> Shared<Q, R> {
    pub(crate) fn new(queue: Q, resolver: R, options: RelayOptions, hooks: Hooks, events: Counting) -> Self {
        let events = Arc::new(events);
        let (reports, trusted_reports) = (Budget::new(), Budget::new());
        let (reporting, listeners) = (Semaphore::new(REPORTS_AT_ONCE), Listeners::default());
        let options = Arc::new(ArcSwap::from_pointee(options));
        let overload = Overload::new(Arc::clone(&options), Arc::clone(&events));
        Self {
            queue,
            resolver,
            options,
            reloading: Mutex::default(),
            reloaded: Notify::new(),
            sweeps: Sweeps::default(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
            hooks,
            events,
            overload,
            signatures: Signatures::default(),
            reports,
            trusted_reports,
            reporting,
            listeners,
            hints: Hints::default(),
            sites: KnownSites::default(),
            announcing: Announcing::default(),
            egress: Arc::default(),
            caps: Arc::default(),
            health: Health::default(),
            guarded_health: Health::default(),
        }
    }

    /// The options as they are now. A message, a claim, and a look at what is due take them once,
    /// so that each sees one state of them.
    pub(crate) fn options(&self) -> Arc<RelayOptions> {
        self.options.load_full()
    }

    /// Returns `true` if these are the options as they are now.
    pub(crate) fn is_current(&self, options: &Arc<RelayOptions>) -> bool {
        Arc::ptr_eq(&self.options.load(), options)
    }

    /// Exchanges the options, all of them or none. When it returns, no delivery begins by the old
    /// ones.
    pub(crate) fn reload(&self, options: RelayOptions) -> Result<(), ReloadError> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        reload::check(&self.options(), &options)?;
        let options = Arc::new(options);
        self.options.store(Arc::clone(&options));
        #[allow(clippy::mutable_key_type, reason = "the hash leaves TLS out, and equality compares pointers")]
        let routes = options.routes.distinct();
        // Which of its routes an application would still find is not known.
        let is_own = self.hooks.routes.is_some();
        self.egress.look_again();
        self.sites.renew(&options.delivery, |route| is_own || routes.contains(route));
        self.reloaded.notify_one();
        self.sweeps.want();
        Ok(())
    }

    /// Notes that a message was queued by these options. If they have changed meanwhile, a sweep
    /// may have passed it.
    pub(crate) fn took_by(&self, options: &Arc<RelayOptions>) {
        if !self.is_current(options) {
            self.sweeps.want();
        }
    }

    pub(crate) fn observe(&self, event: &Event<'_>) {
        self.events.observe(event);
    }
}

/// The addresses on which the relay itself takes mail, which clones share. Mail that is delivered
/// to one comes back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listeners(Arc<RwLock<Vec<SocketAddr>>>);

impl Listeners {
    pub(crate) fn set(&self, listeners: Vec<SocketAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Returns `true` if an address leads to one of our listeners. A listener on all addresses is
    /// reached at loopback, and at `local`, the address from which the connection comes, once it is
    /// known. What is no address leads to none.
    pub(crate) fn are_reached_at(&self, server: &Server, local: Option<IpAddr>) -> bool {
        let Some(server) = server.address() else { return false };
        let (address, local) = (server.ip().to_canonical(), local.map(|local| local.to_canonical()));
        let listeners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter(|listener| listener.port() == server.port()).any(|listener| {
            let on = listener.ip();
            let family = on.is_ipv6() || address.is_ipv4();
            on.to_canonical() == address
                || (on.is_unspecified()
                    && family
                    && (address.is_loopback() || address.is_unspecified() || local == Some(address)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_only_where_it_listens() {
        for (listener, server, local, is_reached) in [
            ("192.0.2.1:25", "192.0.2.1:25", None, true),
            ("192.0.2.1:25", "[::ffff:192.0.2.1]:25", None, true),
            ("192.0.2.1:25", "192.0.2.1:26", None, false),
            ("192.0.2.1:25", "192.0.2.2:25", Some("192.0.2.2"), false),
            ("127.0.0.1:25", "127.0.0.2:25", Some("127.0.0.1"), false),
            ("0.0.0.0:25", "127.0.0.2:25", None, true),
            ("0.0.0.0:25", "192.0.2.1:25", None, false),
            ("0.0.0.0:25", "192.0.2.1:25", Some("192.0.2.1"), true),
            ("0.0.0.0:25", "192.0.2.1:25", Some("192.0.2.9"), false),
            ("0.0.0.0:25", "[::1]:25", None, false),
            ("[::]:25", "[::1]:25", None, true),
            ("[::]:25", "127.0.0.1:25", None, true),
            ("[::]:25", "[2001:db8::1]:25", Some("2001:db8::1"), true),
            ("[::]:25", "[2001:db8::1]:587", Some("2001:db8::1"), false),
        ] {
            let listeners = Listeners::default();
            listeners.set(vec![listener.parse().unwrap()]);
            let local = local.map(|local: &str| local.parse().unwrap());
            assert_eq!(
                listeners.are_reached_at(&Server::Address(server.parse().unwrap()), local),
                is_reached,
                "{listener} {server}"
            );
        }
    }
}
