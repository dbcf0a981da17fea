//! A queued message as the client sends it: fitted to each server, its content read from the queue.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use posthaste_client::{
    Client, Content, Server,
    delivery::{Transact, Transacted},
    mx::Servers,
};
use posthaste_queue::{Body, Queue};
use posthaste_server::wire::{BodyType, ReversePath};
use tracing::{info, warn};

use super::{
    connect::Way,
    fit::Fit,
    flow::{Metered, Pulse},
    job::Job,
    site::{Site, Unreachable},
};
use crate::{message::whole_len, shared::Shared};

/// A delivery's message on its way to the servers of one attempt.
pub(super) struct Letter<'l, Q, R> {
    shared: &'l Shared<Q, R>,
    site: &'l Site,
    job: &'l Job,
    pulse: &'l Arc<Pulse>,
    /// TLS proves the identity of the servers.
    verified: bool,
    /// The way, the servers, and the domain whose policies they follow.
    way: Option<(&'l Way, &'l Servers, &'l str)>,
    /// Why servers that were ready must not get the message.
    pub(super) ruled_out: Vec<Unreachable>,
    /// A server was ready that may get it.
    pub(super) is_reached: bool,
    /// The hosts of these servers.
    pub(super) ready: Vec<Arc<str>>,
}

impl<'l, Q, R> Letter<'l, Q, R> {
    pub(super) const fn new(
        shared: &'l Shared<Q, R>,
        site: &'l Site,
        job: &'l Job,
        pulse: &'l Arc<Pulse>,
        verified: bool,
    ) -> Self {
        Self {
            shared,
            site,
            job,
            pulse,
            verified,
            way: None,
            ruled_out: Vec::new(),
            is_reached: false,
            ready: Vec::new(),
        }
    }

    /// Sets the way in which new connections are made.
    pub(super) fn in_way(self, way: &'l Way, servers: &'l Servers, domain: &'l str) -> Self {
        Self { way: Some((way, servers, domain)), ..self }
    }
}

impl<Q: Queue, R: Send + Sync> Transact<Metered> for Letter<'_, Q, R> {
    async fn transact(&mut self, client: &mut Client<Metered>, group: &[usize]) -> io::Result<Transacted> {
        let job = self.job;
        if let (Some(target), Some(why)) = (client.server(), &client.facts().tls_failure)
            && self.site.begins_in_clear(&target.host)
        {
            warn!(site = self.site.name(), host = &*target.host, why = &**why, "TLS failed, mail goes without it");
        }
        let local = client.server().is_some_and(|target| is_local(&target.server));
        let (by, verified) = (job.by(), self.verified);
        let fit = Fit { outside: &job.outside, by, server: client.capabilities(), verified, local };
        let recipients = || group.iter().filter_map(|index| job.recipients().get(*index));
        let forward: Vec<_> = recipients().map(|it| fit.ascii(it.rcpt.forward_path.mailbox())).collect();
        let fitted = recipients().zip(&forward).map(|(it, ascii)| fit.rcpt(it.rcpt.borrowed(), ascii.as_ref()));
        let mut named: Vec<_> = fitted.collect();
        named.truncate(client.recipients_at_once(&named));
        let reverse_path = &job.outside.mail.reverse_path;
        let ascii_sender = fit.ascii(reverse_path.mailbox());
        let sender =
            ascii_sender.as_ref().map_or(reverse_path.borrowed(), |ascii| ReversePath::Mailbox(ascii.borrowed()));
        let mail = fit.mail(sender);
        // The queue could read the body for no other host either.
        let body = self.shared.queue.body(job.lease().message()).await.map_err(io::Error::other)?;
        self.pulse.no_content();
        let content = QueuedContent { front: job.outside.front.clone(), body, pulse: self.pulse, has_begun: false };
        self.pulse.transacts_with(client.server().map(|target| target.server.clone()));
        let sent = client.transact(mail, &named, content).await;
        self.pulse.transacts_with(None);
        job.note_damage(self.pulse.take_damage());
        let has_begun = self.pulse.content_has_begun();
        self.pulse.no_content();
        if sent.in_doubt {
            let host = client.server().map_or("", |target| &*target.host);
            info!(message = %job.lease().message(), host, "end of content not answered, a duplicate is possible");
        }
        Ok(Transacted::new(sent, has_begun, job.outside.mail.body == Some(BodyType::BinaryMime)))
    }

    fn admits(&mut self, client: &Client<Metered>) -> bool {
        if let (Some((way, servers, domain)), Some(target)) = (self.way, client.server()) {
            if let Some(policy) = servers.policy(&target.host) {
                let published = &self.job.options.delivery.published;
                published.count_ready(domain, policy, client);
            }
            if let Some(why) = way.rules_out(&target.host, client) {
                self.ruled_out.push(why);
                return false;
            }
        }
        if let Some(target) = client.server() {
            self.ready.push(Arc::clone(&target.host));
        }
        if let Some(target) = client.server()
            && self.site.ends_to_fail(&target.host)
        {
            info!(site = self.site.name(), host = &*target.host, "host of a route ready again");
        }
        if let Some(target) = client.server()
            && client.is_tls()
            && self.site.ends_in_clear(&target.host)
        {
            info!(site = self.site.name(), host = &*target.host, "TLS works again, mail goes over it");
        }
        self.is_reached = true;
        self.site.mark_up();
        true
    }
}

/// Returns `true` for a Unix socket.
pub(super) const fn is_local(server: &Server) -> bool {
    matches!(server, Server::Path(_))
}

/// A queued body as content to send, after its front. It tells the pulse how far it is.
struct QueuedContent<'p, B> {
    front: Bytes,
    body: B,
    pulse: &'p Pulse,
    has_begun: bool,
}

impl<B: Body> Content for QueuedContent<'_, B> {
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.pulse.content_begins(self.octets());
            if !self.front.is_empty() {
                return Poll::Ready(Some(Ok(self.front.clone())));
            }
        }
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        if piece.is_none() {
            // The last piece leaves after this.
            self.pulse.content_is_whole();
        }
        if let Some(Err(error)) = &piece {
            self.pulse.note_damage(error);
        }
        Poll::Ready(piece)
    }

    fn length(&self) -> Option<u64> {
        Some(self.octets())
    }
}

impl<B: Body> QueuedContent<'_, B> {
    fn octets(&self) -> u64 {
        whole_len(&self.front, self.body.len())
    }
}
