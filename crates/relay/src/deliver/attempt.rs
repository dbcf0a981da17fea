//! One attempt: find the hosts, connect, send, and say what came of each recipient.

use std::{io, net::IpAddr, sync::Arc};

use bytes::Bytes;
use posthaste_client::{
    Client, ClientError, ClientOptions, ConnectError, Content, RecipientOutcome, Resolver, Tls, TlsPolicy, connect,
    mx::{self, MxError},
    session::{ApiMisuse, ClientSettings, client::downgrade::Undeliverable},
};
use posthaste_queue::Queue;
use posthaste_server::wire::{Domain, EhloName, EnhancedCode, ReplyCode, ReversePath, capability::Keyword};
use tokio::net::TcpStream;
use tracing::{debug, info};

use super::{
    fit::Fit,
    job::{Guard, Job, Verdict},
    site::{Site, Unreachable},
};
use crate::{Diagnostic, NextHop, Route, record::Recipient, shared::Shared};

/// A connection to a site, kept for its next message.
#[derive(Debug)]
pub(super) struct Connected {
    client: Client<TcpStream>,
    /// The host's name, for reports and logs.
    host: String,
    /// Whether TLS has proved who the host is.
    verified: bool,
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
        let recipients = rest.get(..most).unwrap_or(rest);
        // A kept connection may have been closed by the other side in the meantime: one more try with a new one.
        let reused = connection.is_some();
        let mut attempt = transact(shared, site, job, recipients, connection).await;
        if reused && attempt.as_ref().is_ok_and(|attempt| attempt.found_a_dead_connection) {
            attempt = transact(shared, site, job, recipients, connection).await;
        }
        match attempt {
            Ok(attempt) => verdicts.extend(attempt.verdicts),
            Err(why) => verdicts.extend(recipients.iter().map(|_| unreachable(&why))),
        }
    }
    verdicts
}

struct Attempted {
    /// Of the recipients from the front that the server takes in one transaction: one at least.
    verdicts: Vec<Verdict>,
    /// The conversation broke off, or ended with a 421, before anything of the message can have been taken.
    found_a_dead_connection: bool,
}

/// One transaction, unless nobody can be reached.
async fn transact<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    job: &Job,
    recipients: &[Recipient],
    connection: &mut Option<Connected>,
) -> Result<Attempted, Unreachable> {
    let mut connected = connect_for(shared, site, job, connection).await?;
    let fit = Fit {
        outside: &job.outside,
        by: job.by(),
        server: connected.client.capabilities(),
        verified: connected.verified,
    };
    let forward: Vec<_> = recipients.iter().map(|it| fit.ascii(it.rcpt.forward_path.mailbox())).collect();
    let fitted = recipients.iter().zip(&forward).map(|(it, ascii)| fit.rcpt(it.rcpt.borrowed(), ascii.as_ref()));
    let mut named: Vec<_> = fitted.collect();
    named.truncate(connected.client.recipients_at_once(&named));
    let owed: Vec<_> = recipients.iter().map(|it| fit.owes_relayed_report(&it.rcpt.borrowed())).collect();
    let reverse_path = &job.outside.mail.reverse_path;
    let ascii_sender = fit.ascii(reverse_path.mailbox());
    let sender = ascii_sender.as_ref().map_or(reverse_path.borrowed(), |ascii| ReversePath::Mailbox(ascii.borrowed()));
    let mail = fit.mail(sender);
    let body = match shared.queue.body(job.lease()).await {
        Ok(body) => body,
        Err(error) => {
            let diagnostic = Diagnostic::own(EnhancedCode::new(4, 3, 0), error);
            let verdicts = named.iter().map(|_| Verdict::NotNow(diagnostic.clone())).collect();
            *connection = Some(connected);
            return Ok(Attempted { verdicts, found_a_dead_connection: false });
        }
    };
    let sent = connected.client.transact(mail, &named, QueuedContent(body)).await;
    let host = connected.host.clone();
    let found_a_dead_connection =
        sent.broken.is_some() && !sent.in_doubt && sent.recipients.iter().all(says_nothing_of_the_message);
    let broken = sent.broken.as_ref();
    let outcomes = sent.recipients.into_iter().zip(owed);
    let verdicts = outcomes.map(|(outcome, owed)| verdict(&host, outcome, owed, broken)).collect();
    if sent.in_doubt {
        info!(message = %job.lease().message(), %host, "no answer to the end of the content: a duplicate is possible");
    }
    if sent.broken.is_none() {
        match connected.client.transactions_left() {
            Some(0) => close(connected).await,
            _ => *connection = Some(connected),
        }
    }
    Ok(Attempted { verdicts, found_a_dead_connection })
}

/// The connection that was kept, if the message may take it, or a new one.
async fn connect_for<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    job: &Job,
    connection: &mut Option<Connected>,
) -> Result<Connected, Unreachable> {
    let guard = job.guard();
    match connection.take() {
        Some(connected) if connected.verified || guard == Guard::Any => {
            site.mark_up();
            return Ok(connected);
        }
        Some(connected) => close(connected).await,
        None => {}
    }
    // Not marked down anew: a site that always has something due would never be tried again.
    if let Some(why) = site.down() {
        return Err(why);
    }
    if guard != Guard::Any {
        let opened = open(shared, site, job.domain(), true).await;
        // Mail that asks for less may still get through, so that says nothing of the site.
        if opened.is_ok() || guard == Guard::Must {
            return opened;
        }
    }
    let opened = open(shared, site, job.domain(), false).await;
    match &opened {
        Ok(_) => site.mark_up(),
        Err(why) => {
            debug!(site = site.name(), diagnostic = %why.diagnostic, "nobody can be reached");
            site.mark_down(why.clone(), shared.options.delivery.retry.down_for());
        }
    }
    opened
}

/// Whether it is the connection that came to its end, and the message had no part in it.
fn says_nothing_of_the_message(outcome: &RecipientOutcome) -> bool {
    match outcome {
        RecipientOutcome::Lost => true,
        RecipientOutcome::Refused(reply, _) => reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE,
        _ => false,
    }
}

fn verdict(host: &str, outcome: RecipientOutcome, owes_report: bool, broken: Option<&ClientError>) -> Verdict {
    let for_good = outcome.is_for_good();
    match outcome {
        RecipientOutcome::Accepted(reply) => Verdict::Delivered { remote: host.to_owned(), reply, owes_report },
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

fn unreachable(why: &Unreachable) -> Verdict {
    let diagnostic = why.diagnostic.clone();
    if why.for_good { Verdict::Never(diagnostic) } else { Verdict::NotNow(diagnostic) }
}

/// Opens a connection to the first host of the site that takes one, and is guarded if it has to be.
async fn open<Q: Queue, R: Resolver>(
    shared: &Shared<Q, R>,
    site: &Site,
    domain: &str,
    guarded: bool,
) -> Result<Connected, Unreachable> {
    let Some(route) = site.route(shared) else {
        let diagnostic = Diagnostic::own(EnhancedCode::new(5, 4, 4), format_args!("there is no route for {domain}"));
        return Err(Unreachable { diagnostic, for_good: true });
    };
    let tls = if guarded { guard(shared, route)? } else { route.tls.clone() };
    let found = hosts(shared, route, domain).await;
    let hosts = found.map_err(|error| unresolved(&error))?;
    let any = shared.options.delivery.allow_private || route.to != NextHop::Mx;
    // For good only when every host is.
    let mut last = unresolved(&MxError::NoHost);
    for (host, port) in hosts {
        let why = match mx::addresses(&shared.resolver, &host, any).await {
            Ok(addresses) => match start(shared, &tls, guarded, &host, &addresses, port).await {
                Ok(client) if guarded && !client.capabilities().offers(Keyword::RequireTls) => {
                    client.quit().await;
                    let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 30), Undeliverable::RequireTls);
                    Unreachable { diagnostic: Diagnostic { remote: Some(host), ..diagnostic }, for_good: true }
                }
                Ok(client) => return Ok(Connected { client, host, verified: guarded }),
                Err(error) if guarded && is_unguarded(&error) => {
                    let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 10), error);
                    Unreachable { diagnostic: Diagnostic { remote: Some(host), ..diagnostic }, for_good: true }
                }
                // A host that does not want to talk to us may want to later, and another may now.
                Err(error) => Unreachable { diagnostic: Diagnostic::connect(&host, &error), for_good: false },
            },
            Err(error) => {
                let found = unresolved(&error);
                // A name in the configuration may be put right.
                let for_good = found.for_good && route.to == NextHop::Mx;
                Unreachable { diagnostic: Diagnostic { remote: Some(host), ..found.diagnostic }, for_good }
            }
        };
        if last.for_good || !why.for_good {
            last = why;
        }
    }
    Err(last)
}

/// TLS that proves who the next hop is: for hosts that the configuration names. Those that DNS names could be anybody's
/// without DNSSEC or MTA-STS (RFC 8689 section 4.2.1), which the relay does not ask for.
fn guard<Q, R>(shared: &Shared<Q, R>, route: &Route) -> Result<Tls, Unreachable> {
    match (&route.to, &shared.options.delivery.verified_tls) {
        (NextHop::Hosts(_), Some(config)) => {
            let implicit = route.tls.policy == TlsPolicy::Implicit;
            let policy = if implicit { TlsPolicy::Implicit } else { TlsPolicy::Verified };
            Ok(Tls { policy, config: Some(Arc::clone(config)) })
        }
        _ => {
            let diagnostic = Diagnostic::own(EnhancedCode::new(5, 7, 10), Undeliverable::Unverified);
            Err(Unreachable { diagnostic, for_good: true })
        }
    }
}

/// Whether it is TLS that is missing or proves nothing, and not the network.
fn is_unguarded(error: &ConnectError) -> bool {
    match error {
        ConnectError::TlsUnavailable | ConnectError::TlsNotStarted(_) => true,
        // As rustls tells whatever it does not like.
        ConnectError::Tls(ClientError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
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
        NextHop::Hosts(hosts) => Ok(hosts.iter().map(|(host, port)| (mx::ascii_name(host), *port)).collect()),
        NextHop::Mx => {
            let domain = Domain::parse(domain).map_err(|_| MxError::NoHost)?;
            let hosts = mx::hosts(&shared.resolver, &domain, shared.options.host_name.as_str()).await?;
            Ok(hosts.into_iter().map(|host| (host, shared.options.delivery.mx_port)).collect())
        }
    }
}

async fn start<Q, R>(
    shared: &Shared<Q, R>,
    tls: &Tls,
    verifies: bool,
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
    let mut options = ClientOptions { session, tls: tls.clone(), tls_verifies: verifies, ..ClientOptions::new(hello) };
    let stream = connect(addresses, port, delivery.connect_timeout).await?;
    match Client::start(stream, host, &options).await {
        Err(error) if error.suggests_clear() => {
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
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.0.next().await.map_err(io::Error::other)
    }

    fn length(&self) -> Option<u64> {
        Some(self.0.len())
    }
}
