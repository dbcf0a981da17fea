//! The options of a relay.

use std::{sync::Arc, time::Duration};

use posthaste_client::{Published, rustls::ClientConfig, session::client::ClientTimeouts};
use posthaste_server::wire::{Domain, Mailbox};

use crate::{
    AccountTable, OverloadOptions, PolicyTable, RecipientTable, ReportWords, RetrySchedule, RouteTable, SiteLimitTable,
    SubmissionOptions,
};

/// The settings of a relay. Make them with [`RelayOptions::new`], then assign fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayOptions {
    /// Our name, in the greeting, in EHLO, in Received fields and in reports. All of them have it
    /// in A-labels (RFC 6531 section 3.7.1): [`RelayOptions::new`] converts it if the DNS can have
    /// it.
    ///
    /// Mail for this name is accepted from every client if a route names the hosts that have its
    /// mailboxes. Otherwise it is refused: the relay has no mailboxes, and DNS leads back to it.
    pub host_name: Domain,
    /// The clients that may send, and the recipients that they may send to.
    pub policy: PolicyTable,
    /// The users that may log in. Default `None`: AUTH refuses every user.
    pub accounts: Option<AccountTable>,
    /// The mailboxes that exist. Default `None`: every mailbox is accepted, and the next hop
    /// decides.
    pub recipients: Option<RecipientTable>,
    /// The next hops, by domain. Default: all domains by MX, without TLS.
    pub routes: RouteTable,
    /// The retries, limits and timeouts of deliveries.
    pub delivery: DeliveryOptions,
    /// When the relay counts as overloaded. Default: watermarks that suit every machine.
    pub overload: OverloadOptions,
    /// The mailbox that gets the mail for `<Postmaster>`, and for postmaster at our name (RFC 5321
    /// section 4.5.1). It is in ASCII, at another domain. Default `None`: that mail is treated like
    /// all mail for our name.
    pub postmaster: Option<Mailbox>,
    /// The rules for submitted mail. Default: none.
    pub submission: SubmissionOptions,
    /// The words of reports to senders. Default: English.
    pub report_words: ReportWords,
    /// The messages that get the fields that they lack. Default: those of clients that have logged
    /// in.
    pub add_fields: AddFields,
    /// The DKIM signatures of submitted mail. Default `None`: nothing is signed.
    #[cfg(feature = "dkim")]
    pub dkim: Option<crate::DkimOptions>,
    /// The number of Received fields at which a message counts as a loop: 554 5.4.6. Default 100
    /// (RFC 5321 section 6.3). A message with four Received fields by
    /// [`host_name`](Self::host_name) is a loop too, and so is one with four Delivered-To fields
    /// that name the same address.
    pub max_hops: usize,
}

/// The messages that get a `Date` and a `Message-ID` if they lack them (RFC 6409 section 8). Large
/// providers refuse mail without these. Nothing else of a message is changed.
///
/// To see what is missing, the relay holds back up to 64 KiB of a header in memory. A longer header
/// gets no field. Content that begins with a line that is no header field gets an empty line too:
/// all of it becomes the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddFields {
    /// No message.
    Never,
    /// Those of clients that have logged in.
    #[default]
    Submitted,
    /// Those of all clients that the policy trusts. With [`PolicyTable`]: clients that have logged
    /// in, and clients in the networks that may relay.
    Trusted,
}

/// The retries, limits and timeouts of deliveries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliveryOptions {
    /// The waits between the attempts of a deferred delivery, and the age at which it is given up.
    pub retry: RetrySchedule,
    /// Connections on which octets move, over all next hops. Default 200. Half of them are kept for
    /// next hops that took mail within the last 5 minutes, so that the other next hops cannot hold
    /// up their mail. No next hop gets the last quarter of those that are open to it. If there are
    /// *n* next hops with mail, that quarter is for those that have fewer than the *n*-th part of
    /// half of them.
    ///
    /// Beyond these, three times as many connections may be silent, and as many as this may be kept
    /// unused. Each delivery holds a lease: the queue should allow four times as many leases as
    /// this, and 128 more for next hops that cannot be reached.
    pub concurrency: usize,
    /// Deliveries, each with its own connection, at once to one next hop. Default 20, which most
    /// servers accept.
    ///
    /// A next hop begins with 5, and gets one more for each message that it takes while all are in
    /// use. If it says that it has too many, or loses one, half of them are given up; more come
    /// back slowly. [`Relay::sites`](crate::Relay::sites) tells the number.
    ///
    /// If all of them are silent, and the next hop has another host, there is one more: it finds
    /// out whether the silent host still greets. If it does, and no delivery hears from it for 10
    /// s, it counts as failed all the same; a host that DNS names after 60 s. Deliveries to a host
    /// that is silent, and has failed with others meanwhile, no longer count: the other hosts get
    /// the rest of the mail.
    ///
    /// Messages of more than 1 MiB get half of them, and one at least, so that smaller ones do not
    /// wait behind them. They get all of them while no smaller one waits, and none came within a
    /// minute.
    pub concurrency_per_site: usize,
    /// The limits of single next hops, by their hosts. Default: none, so that each takes what it
    /// has taught the relay.
    pub site_limits: SiteLimitTable,
    /// How long an unused connection is kept for the next message to the same next hop. Default 2
    /// seconds.
    pub idle: Duration,
    /// How long to wait for a connection to one address. Default 30 seconds. If there are other
    /// addresses, they are tried long before that ([`Race`](posthaste_client::Race)).
    pub connect_timeout: Duration,
    /// How long to wait for each reply. Default: the times of RFC 5321 section 4.5.3.2. If there
    /// are other addresses, the relay waits at most a minute for every reply before the content
    /// except the greeting. It tries the others long before that, until one is ready for mail.
    pub timeouts: ClientTimeouts,
    /// How long one attempt of a delivery may take, over all hosts and addresses. Default 10
    /// minutes. Each time that the relay begins to send the content, it adds the time that the
    /// content takes at 16 KiB a second.
    ///
    /// Beyond it the remaining recipients are tried again later. It never ends the wait for the
    /// reply to a complete content, since that would make duplicates.
    pub attempt_timeout: Duration,
    /// The port of MX hosts. Default 25.
    pub mx_port: u16,
    /// `true`: MX hosts may have loopback and private addresses. Default `false`: otherwise the
    /// owner of any domain could point this relay at its own network.
    pub allow_private: bool,
    /// TLS that verifies certificates, for mail that requires it (REQUIRETLS, RFC 8689) over a
    /// route whose own TLS does not. Such mail goes only to hosts that a route names, and never to
    /// hosts that DNS alone names. Default `None`: over such a route it fails with 5.7.10.
    pub verified_tls: Option<Arc<ClientConfig>>,
    /// The largest message, in octets, that a report of its failure returns whole, if the sender
    /// asks for that (RFC 3461 section 4.3). Default 1 MiB; a value above 4 MiB counts as 4 MiB.
    /// Beyond it the report returns the header alone.
    pub return_at_most: u64,
    /// The most reports an hour to one sender about messages from clients that are not trusted. The
    /// sender of such a message may be forged, and then each report is unwanted mail to its owner.
    /// Default 100. Beyond it no report is sent, and
    /// [`Event::NotReported`](crate::Event::NotReported) says so.
    ///
    /// At any value the sender gets at most one report for each such message, never with the
    /// content. The report has no more octets than the message, or than 2,048 if the message has
    /// less. All these reports to one sender together have no more octets than the messages in its
    /// name, plus 16 KiB an hour.
    pub stranger_reports: u32,
    /// The most reports an hour to one sender about messages from clients that are trusted, such as
    /// a user whose password was stolen. Default `None`: any number. Beyond it no report is sent,
    /// and [`Event::NotReported`](crate::Event::NotReported) says so.
    pub trusted_reports: Option<u32>,
    /// The published policies about TLS that mail by MX follows: DANE and MTA-STS. Default: none.
    pub published: Published,
    /// How long a delivery is leased from the queue. The lease is extended while the delivery runs.
    /// Default 5 minutes.
    pub lease: Duration,
    /// How long a drain waits for the deliveries that run. Default 30 seconds. Beyond it they are
    /// dropped, and tried again after the next start. A delivery whose content had left completely
    /// may then arrive twice.
    pub drain: Duration,
    /// The most recipients of one transaction. Default 100, which every server must accept (RFC
    /// 5321 section 4.5.3.1.8).
    pub recipients_per_transaction: usize,
}

impl RelayOptions {
    /// Makes the options of a relay that asks DNS for next hops. A name in U-labels becomes
    /// A-labels.
    ///
    /// The relay takes no mail until [`policy`](Self::policy) lets clients relay, or
    /// [`routes`](Self::routes) names the hosts that have the mailboxes of its own name.
    pub fn new(host_name: Domain) -> Self {
        let in_a_labels = if host_name.as_str().is_ascii() { None } else { host_name.to_a_labels().ok() };
        let host_name = in_a_labels.unwrap_or(host_name);
        Self {
            host_name,
            policy: PolicyTable::default(),
            accounts: None,
            recipients: None,
            routes: RouteTable::default(),
            delivery: DeliveryOptions::default(),
            overload: OverloadOptions::default(),
            postmaster: None,
            submission: SubmissionOptions::default(),
            report_words: ReportWords::default(),
            add_fields: AddFields::default(),
            #[cfg(feature = "dkim")]
            dkim: None,
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
            site_limits: SiteLimitTable::default(),
            idle: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(30),
            timeouts: ClientTimeouts::default(),
            attempt_timeout: Duration::from_secs(600),
            mx_port: 25,
            allow_private: false,
            verified_tls: None,
            return_at_most: 1 << 20,
            stranger_reports: 100,
            trusted_reports: None,
            published: Published::default(),
            lease: Duration::from_secs(300),
            drain: Duration::from_secs(30),
            recipients_per_transaction: 100,
        }
    }
}
