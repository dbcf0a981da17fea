//! One attempt: find the hosts, connect, send, and say what came of each recipient.

use std::net::IpAddr;

use bytes::Bytes;
use posthaste_client::{
    Client, ClientError, ClientOptions, ConnectError, Content, RecipientOutcome, Resolver, Tls, TlsPolicy, connect,
    mx::{self, MxError},
    session::{ApiMisuse, ClientSettings},
};
use posthaste_queue::Queue;
use posthaste_server::wire::{Domain, EhloName, EnhancedCode, Rcpt, ReplyCode};
use tokio::net::TcpStream;
use tracing::{debug, info};

use super::{
    job::{Job, Verdict},
    site::{Site, Unreachable},
};
use crate::{Diagnostic, NextHop, Route, shared::Shared};

/// A connection to a site, kept for its next message.
#[derive(Debug)]
pub(super) struct Connected {
    client: Client<TcpStream>,
    /// The host's name, for reports and logs.
    host: String,
}

/// Says good-bye.
pub(super) async fn close(connection: Connected) {
    connection.client.quit().await;
}

/// Tries to deliver to every recipient of the job; one verdict for each, in their order.
pub(super) async fn run<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    job: &Job,
    connection: &mut Option<Connected>,
) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(job.recipients().len());
    let most = shared.options.delivery.recipients_per_transaction.max(1);
    while let Some(rest) = job.recipients().get(verdicts.len()..).filter(|rest| !rest.is_empty()) {
        let recipients: Vec<_> = rest.iter().take(most).map(|recipient| recipient.rcpt.borrowed()).collect();
        // A kept connection may have been closed by the other side in the meantime: one more try with a new one.
        let reused = connection.is_some();
        let mut attempt = transact(shared, site, job, &recipients, connection).await;
        if reused && attempt.as_ref().is_some_and(|attempt| attempt.found_a_dead_connection) {
            attempt = transact(shared, site, job, &recipients, connection).await;
        }
        verdicts.extend(attempt.map_or_else(|| unreachable(site, recipients.len()), |attempt| attempt.verdicts));
    }
    verdicts
}

struct Attempted {
    /// Of the recipients from the front that the server takes in one transaction: one at least.
    verdicts: Vec<Verdict>,
    /// The conversation broke off, or ended with a 421, before anything of the message can have been taken.
    found_a_dead_connection: bool,
}

/// Nothing when nobody could be reached; the site knows why then.
async fn transact<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    job: &Job,
    recipients: &[Rcpt<&str>],
    connection: &mut Option<Connected>,
) -> Option<Attempted> {
    let mut connected = match connection.take() {
        Some(connected) => connected,
        // Not marked down anew: a site that always has something due would never be tried again.
        None if site.down().is_some() => return None,
        None => match open(shared, site, job.domain()).await {
            Ok(connected) => connected,
            Err(why) => {
                debug!(site = site.name(), diagnostic = %why.diagnostic, "nobody can be reached");
                site.mark_down(why, shared.options.delivery.retry.down_for());
                return None;
            }
        },
    };
    site.mark_up();
    let recipients = recipients.get(..connected.client.recipients_at_once(recipients)).unwrap_or(recipients);
    let body = match shared.queue.body(job.lease()).await {
        Ok(body) => body,
        Err(error) => {
            *connection = Some(connected);
            let diagnostic = Diagnostic::own(EnhancedCode::new(4, 3, 0), error);
            let verdicts = recipients.iter().map(|_| Verdict::NotNow(diagnostic.clone())).collect();
            return Some(Attempted { verdicts, found_a_dead_connection: false });
        }
    };
    let sent = connected.client.transact(job.mail(), recipients, QueuedContent(body)).await;
    let host = connected.host.clone();
    let found_a_dead_connection =
        sent.broken.is_some() && !sent.in_doubt && sent.recipients.iter().all(says_nothing_of_the_message);
    let verdicts = sent.recipients.into_iter().map(|outcome| verdict(&host, outcome, sent.broken.as_ref())).collect();
    if sent.in_doubt {
        info!(message = %job.lease().message(), %host, "no answer to the end of the content: a duplicate is possible");
    }
    if sent.broken.is_none() {
        match connected.client.transactions_left() {
            Some(0) => close(connected).await,
            _ => *connection = Some(connected),
        }
    }
    Some(Attempted { verdicts, found_a_dead_connection })
}

/// Whether it is the connection that came to its end, and the message had no part in it.
fn says_nothing_of_the_message(outcome: &RecipientOutcome) -> bool {
    match outcome {
        RecipientOutcome::Lost => true,
        RecipientOutcome::Refused(reply, _) => reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE,
        _ => false,
    }
}

fn verdict(host: &str, outcome: RecipientOutcome, broken: Option<&ClientError>) -> Verdict {
    let for_good = outcome.is_for_good();
    match outcome {
        RecipientOutcome::Accepted(reply) => Verdict::Delivered { remote: host.to_owned(), reply },
        RecipientOutcome::Refused(reply, _) if for_good => Verdict::Never(Diagnostic::reply(host, &reply)),
        RecipientOutcome::Refused(reply, _) => Verdict::NotNow(Diagnostic::reply(host, &reply)),
        RecipientOutcome::Undeliverable(why) => {
            let found = Diagnostic::own(why.enhanced(), why);
            Verdict::Never(Diagnostic { remote: Some(host.to_owned()), ..found })
        }
        RecipientOutcome::Lost | RecipientOutcome::Postponed => match broken {
            // What must not leave will not be fit to leave later either.
            Some(error @ ClientError::Misuse(ApiMisuse::Content(_))) => {
                Verdict::Never(Diagnostic::own(EnhancedCode::new(5, 6, 0), error))
            }
            Some(error) => Verdict::NotNow(Diagnostic::lost(host, error)),
            None => Verdict::NotNow(Diagnostic::lost(host, &"no answer")),
        },
    }
}

/// Every recipient gets what the site knows.
fn unreachable(site: &Site, count: usize) -> Vec<Verdict> {
    let verdict = || match site.down() {
        Some(Unreachable { diagnostic, for_good: true }) => Verdict::Never(diagnostic),
        Some(Unreachable { diagnostic, .. }) => Verdict::NotNow(diagnostic),
        None => Verdict::NotNow(Diagnostic::own(EnhancedCode::new(4, 4, 1), "no next hop can be reached")),
    };
    (0..count).map(|_| verdict()).collect()
}

/// Opens a connection to the first host of the site that takes one.
async fn open<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    domain: &str,
) -> Result<Connected, Unreachable> {
    let Some(route) = site.route(shared) else {
        let diagnostic = Diagnostic::own(EnhancedCode::new(5, 4, 4), format_args!("there is no route for {domain}"));
        return Err(Unreachable { diagnostic, for_good: true });
    };
    let found = hosts(shared, route, domain).await;
    let hosts = found.map_err(|error| unresolved(&error))?;
    let any = shared.options.delivery.allow_private || route.to != NextHop::Mx;
    // For good only when every host is.
    let mut last = unresolved(&MxError::NoHost);
    for (host, port) in hosts {
        let why = match mx::addresses(&shared.resolver, &host, any).await {
            Ok(addresses) => match start(shared, &route.tls, &host, &addresses, port).await {
                Ok(client) => return Ok(Connected { client, host }),
                // A host that does not want to talk to us may want to later, and another may now.
                Err(error) => Unreachable { diagnostic: Diagnostic::connect(&host, &error), for_good: false },
            },
            Err(error) => {
                let found = unresolved(&error);
                Unreachable { diagnostic: Diagnostic { remote: Some(host), ..found.diagnostic }, ..found }
            }
        };
        // A name in the configuration may be put right.
        let why = Unreachable { for_good: why.for_good && route.to == NextHop::Mx, ..why };
        if last.for_good || !why.for_good {
            last = why;
        }
    }
    Err(last)
}

fn unresolved(error: &MxError) -> Unreachable {
    Unreachable { diagnostic: Diagnostic::mx(error), for_good: !error.is_transient() }
}

async fn hosts<Q, R: Resolver>(
    shared: &Shared<Q, R>,
    route: &Route,
    domain: &str,
) -> Result<Vec<(String, u16)>, MxError> {
    match &route.to {
        NextHop::Hosts(hosts) => Ok(hosts.clone()),
        NextHop::Mx => {
            let domain = Domain::parse(domain).map_err(|_| MxError::NoHost)?;
            // Whatever DNS says of our own name, it leads back here.
            if domain == shared.options.host_name {
                return Err(MxError::Loop);
            }
            let hosts = mx::hosts(&shared.resolver, &domain, shared.options.host_name.as_str()).await?;
            Ok(hosts.into_iter().map(|host| (host, shared.options.delivery.mx_port)).collect())
        }
    }
}

async fn start<Q, R>(
    shared: &Shared<Q, R>,
    tls: &Tls,
    host: &str,
    addresses: &[IpAddr],
    port: u16,
) -> Result<Client<TcpStream>, ConnectError> {
    let delivery = &shared.options.delivery;
    let hello: EhloName = match shared.options.host_name.as_str().parse() {
        Ok(name) => name,
        // A domain is a name; this cannot be.
        Err(_) => return Err(ConnectError::NoAddress),
    };
    let session = ClientSettings { timeouts: delivery.timeouts.clone(), ..ClientSettings::default() };
    let mut options = ClientOptions { session, tls: tls.clone(), ..ClientOptions::new(hello) };
    let stream = connect(addresses, port, delivery.connect_timeout).await?;
    match Client::start(stream, host, &options).await {
        Err(ConnectError::Tls(error)) if tls.policy == TlsPolicy::Opportunistic => {
            debug!(host, %error, "no TLS; once more without");
            options.tls = Tls::default();
            let stream = connect(addresses, port, delivery.connect_timeout).await?;
            Client::start(stream, host, &options).await
        }
        started => started,
    }
}

/// Reads a queued body as content to send.
struct QueuedContent<B>(B);

impl<B: posthaste_queue::Body> Content for QueuedContent<B> {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        self.0.next().await.map_err(std::io::Error::other)
    }

    fn length(&self) -> Option<u64> {
        Some(self.0.len())
    }
}
