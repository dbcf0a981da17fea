//! What a relay is told.

use std::{sync::Arc, time::Duration};

use posthaste_client::{rustls::ClientConfig, session::client::ClientTimeouts};
use posthaste_server::wire::{Domain, Mailbox};

use crate::{AccountTable, PolicyTable, RetrySchedule, RouteTable};

/// The settings of a relay. Make them with [`RelayOptions::new`], then assign fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayOptions {
    /// Our name: in the greeting, in EHLO, in Received and in reports, all of which have it in
    /// A-labels (RFC 6531 section 3.7.1): [`RelayOptions::new`] sees to that. Mail for it is
    /// accepted from anyone if a route names the hosts that it goes to, and refused otherwise: this
    /// relay has no mailboxes, and DNS leads back here.
    pub host_name: Domain,
    /// Who may send to whom.
    pub policy: PolicyTable,
    /// Who may log in. Default: nobody.
    pub accounts: Option<AccountTable>,
    /// Where mail goes to.
    pub routes: RouteTable,
    /// How it gets there.
    pub delivery: DeliveryOptions,
    /// Where mail for `<Postmaster>`, and for postmaster at our name, goes to (RFC 5321 section
    /// 4.5.1): a mailbox in ASCII, at another domain. Default `None`: as all mail for our name.
    pub postmaster: Option<Mailbox>,
    /// Which messages get the fields that they lack. Default: those of clients that have logged in.
    pub add_fields: AddFields,
    /// The most Received fields of a message. Default 100 (RFC 5321 section 6.3). Beyond it: 554
    /// 5.4.6, a loop. So is a message with four Received fields by [`host_name`](Self::host_name).
    pub max_hops: usize,
}

/// Whose messages get a `Date` and a `Message-ID` in front when they lack them (RFC 6409 section
/// 8). Large providers refuse mail without. Nothing else of a message is changed.
///
/// To see what is missing, up to 64 KiB of a header are held back in memory; a longer one gets
/// nothing. Content that begins with a line that is no field of a header gets a blank line too,
/// which makes all of it the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddFields {
    /// No message.
    Never,
    /// Those of clients that have logged in.
    #[default]
    Submitted,
    /// Those of all clients that the policy trusts: the networks that may relay besides.
    Trusted,
}

/// How mail is delivered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliveryOptions {
    /// When a deferred delivery is tried again, and when it is given up.
    pub retry: RetrySchedule,
    /// Connections on which something moves, in all. Default 200. Half of them are for next hops
    /// that answered lately alone, so that the others cannot keep mail from those. Three times as
    /// many connections may be silent besides, and as many as this may be kept unused. Each
    /// delivery has a lease: the queue should allow four times as many leases.
    pub concurrency: usize,
    /// Deliveries, and so connections, at once to one next hop. Default 20, what others take well.
    pub concurrency_per_site: usize,
    /// How long an unused connection is kept for the next message to the same next hop. Default 2
    /// seconds.
    pub idle: Duration,
    /// How long one address may take to connect. Default 30 seconds; 8 seconds at most where there
    /// are other addresses to try.
    pub connect_timeout: Duration,
    /// How long is waited for each reply. Default: the times of RFC 5321 section 4.5.3.2. Where
    /// there are other addresses to try, 8 seconds at most for the greeting, and a minute at most
    /// for every other reply before the content.
    pub timeouts: ClientTimeouts,
    /// How long one attempt of a delivery may take, over all hosts and addresses. Default 10
    /// minutes. Each content that begins to leave adds the time that it takes at 16 KiB a second.
    /// Beyond it: what is still to be delivered is tried again later. It never cuts off the wait
    /// for the reply to a whole content, which would make duplicates.
    pub attempt_timeout: Duration,
    /// The port of MX hosts. Default 25.
    pub mx_port: u16,
    /// Whether MX hosts may have loopback and private addresses. Default no: whoever runs a domain
    /// could point this relay at its own network.
    pub allow_private: bool,
    /// TLS that verifies certificates, for mail that requires it (REQUIRETLS, RFC 8689), whatever
    /// its route says. Such mail goes to hosts that the routes name, and never where DNS alone says
    /// so. Default: none, and such mail fails with 5.7.10.
    pub verified_tls: Option<Arc<ClientConfig>>,
    /// Octets of a message that a report of its failure returns whole, when the sender asks for
    /// that (RFC 3461 section 4.3). Default 1 MiB; above 4 MiB it counts as 4 MiB. Beyond it: the
    /// header alone.
    pub return_at_most: u64,
    /// Reports an hour to one sender that no trusted client has named: it may be forged, and each
    /// report is mail that its owner has not asked for. Default 100. Beyond it: none, which
    /// [`Event::NotReported`](crate::Event::NotReported) says. Whatever this is, such a sender gets
    /// one report a message, never with its content, and no more octets than came in its name and
    /// 16 KiB an hour.
    pub stranger_reports: u32,
    /// How long a delivery is leased from the queue; it is extended while the delivery runs.
    /// Default 5 minutes.
    pub lease: Duration,
    /// How long a drain waits for the deliveries that run. Default 30 seconds. Beyond it they are
    /// dropped, and tried again after the next start: one whose content had left whole may arrive
    /// twice.
    pub drain: Duration,
    /// Recipients of one transaction. Default 100, what every server takes (RFC 5321 section
    /// 4.5.3.1.8).
    pub recipients_per_transaction: usize,
}

impl RelayOptions {
    /// A relay that asks DNS where mail goes. It takes no mail before [`policy`](Self::policy) lets
    /// clients relay, or [`routes`](Self::routes) names the hosts that have the mailboxes of its
    /// own name. A name in U-labels becomes A-labels.
    pub fn new(host_name: Domain) -> Self {
        let in_a_labels = if host_name.as_str().is_ascii() { None } else { host_name.to_a_labels().ok() };
        let host_name = in_a_labels.unwrap_or(host_name);
        Self {
            host_name,
            policy: PolicyTable::default(),
            accounts: None,
            routes: RouteTable::default(),
            delivery: DeliveryOptions::default(),
            postmaster: None,
            add_fields: AddFields::default(),
            max_hops: 100,
        }
    }
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            retry: RetrySchedule::default(),
            concurrency: 200,
            concurrency_per_site: 20,
            idle: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(30),
            timeouts: ClientTimeouts::default(),
            attempt_timeout: Duration::from_secs(600),
            mx_port: 25,
            allow_private: false,
            verified_tls: None,
            return_at_most: 1 << 20,
            stranger_reports: 100,
            lease: Duration::from_secs(300),
            drain: Duration::from_secs(30),
            recipients_per_transaction: 100,
        }
    }
}
