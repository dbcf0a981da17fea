//! A message on its way to one destination, over kept and new connections.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use pin_project_lite::pin_project;
use posthaste_tokio::{
    Content,
    wire::{BodyType, Mail, Rcpt},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};

use crate::{
    Client, ClientOptions, ConnectError, Dial, Published, Race, Server, Source, Target,
    delivery::{Break, Course, Delivery, Passed, Transact, Transacted},
    destination::{Destination, Used},
    mx::Servers,
    send::Addresses,
};

/// A message for recipients of one destination.
pub(crate) struct Letter<'l, C> {
    pub(crate) mail: &'l Mail,
    pub(crate) recipients: Vec<&'l Rcpt>,
    pub(crate) source: &'l C,
    /// Counts the new connections.
    pub(crate) watch: Option<Watch<'l>>,
}

/// Counts how the TLS of new connections to a domain's hosts went, and tells when one is ready.
pub(crate) struct Watch<'l> {
    pub(crate) published: &'l Published,
    pub(crate) domain: &'l str,
    pub(crate) servers: &'l Servers,
    /// Set when a transaction begins.
    pub(crate) is_ready: &'l AtomicBool,
}

impl Watch<'_> {
    pub(crate) fn count_failed(&self, host: &str, error: &ConnectError) {
        if let Some(policy) = self.servers.policy(host) {
            self.published.count_failed(self.domain, host, policy, error);
        }
    }

    pub(crate) fn count_ready<S: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, client: &Client<S>) {
        if let Some(policy) = self.servers.policy(host) {
            self.published.count_ready(self.domain, policy, client);
        }
    }
}

/// The connections to a destination, and how more are made.
pub(crate) struct Way<'d, D: Dial> {
    pub(crate) destination: &'d Destination<D::Stream>,
    pub(crate) dial: &'d D,
    pub(crate) options: &'d Arc<ClientOptions>,
}

impl<C: Source> Letter<'_, C> {
    /// Delivers over a kept connection, or over new ones to these targets. The permit goes with the
    /// connection that is kept. An error: no server could be reached.
    pub(crate) async fn deliver<D: Dial>(
        &mut self,
        to: &Way<'_, D>,
        permit: OwnedSemaphorePermit,
        targets: impl Future<Output = Result<Vec<Target>, ConnectError>>,
    ) -> Result<Vec<Course>, ConnectError> {
        let mut delivery = Delivery::new(self.recipients.len(), to.destination.limits.recipients);
        let (mut kept, mut tried) = (None, None);
        while let Some(Used { client, messages }) = to.destination.shelf.take() {
            let server = client.server().map(|target| target.server.clone());
            let mut connection = Some(client);
            match delivery.over(&mut connection, self).await {
                // The server may be asked again over another connection.
                Passed::Worn | Passed::Broken(Break { says_nothing: true, .. } | Break { chunking: true, .. }) => {}
                Passed::Broken(_) => {
                    tried = server;
                    break;
                }
                Passed::Through => {
                    (kept, tried) = (connection.map(|client| Used { client, messages }), server);
                    break;
                }
            }
        }
        self.deliver_rest(delivery, (kept, tried), to, permit, targets).await
    }

    /// Delivers to the recipients that are open, over new connections to these targets but the one
    /// that was tried. The connection that is kept so far gives way to a better one.
    pub(crate) async fn deliver_rest<D: Dial>(
        &mut self,
        mut delivery: Delivery,
        (mut kept, tried): (Option<Used<D::Stream>>, Option<Server>),
        to: &Way<'_, D>,
        permit: OwnedSemaphorePermit,
        targets: impl Future<Output = Result<Vec<Target>, ConnectError>>,
    ) -> Result<Vec<Course>, ConnectError> {
        if delivery.is_open() {
            let mut targets = match targets.await {
                Ok(targets) => targets,
                Err(error) if !delivery.is_reached() => return Err(error),
                Err(_) => Vec::new(),
            };
            targets.retain(|target| Some(&target.server) != tried.as_ref());
            let mut race = Race::new(&targets, to.dial.clone(), Arc::clone(to.options));
            let (mut fresh, had_delivered) = (None, delivery.has_delivered());
            delivery.through(&mut race, self, &mut fresh).await;
            let mut failed = race.failed();
            for (target, error) in failed.iter().filter_map(|(index, error)| Some((targets.get(*index)?, error))) {
                self.watch.iter().for_each(|watch| watch.count_failed(&target.host, error));
            }
            if !delivery.is_reached() {
                return Err(failed.pop().map_or(ConnectError::NoAddress, |(_, error)| error));
            }
            // The server that took the message is the better one for the next.
            if kept.is_none() || (delivery.has_delivered() && !had_delivered) {
                kept = fresh.map(|client| Used { client, messages: 0 }).or(kept);
            }
        }
        if let Some(kept) = kept {
            to.destination.give_back(kept, permit);
        }
        Ok(delivery.into_courses())
    }
}

impl<C: Source, S: AsyncRead + AsyncWrite + Unpin + Send> Transact<S> for Letter<'_, C> {
    async fn transact(&mut self, client: &mut Client<S>, recipients: &[usize]) -> io::Result<Transacted> {
        self.watch.iter().for_each(|watch| watch.is_ready.store(true, Relaxed));
        let mut content = pin!(Watched { content: self.source.open().await?, has_begun: false });
        let group = recipients.iter().filter_map(|index| self.recipients.get(*index).copied());
        let addresses = Addresses::of(self.mail, group.clone(), client.capabilities());
        let (mut mail, mut group) = addresses.borrowed(self.mail, group);
        group.truncate(client.recipients_at_once(&group));
        mail.size = mail.size.or_else(|| content.length());
        let is_binary = mail.body == Some(BodyType::BinaryMime);
        let sent = client.transact(mail, &group, content.as_mut()).await;
        Ok(Transacted::new(sent, content.has_begun, is_binary))
    }

    fn admits(&mut self, client: &Client<S>) -> bool {
        if let (Some(watch), Some(target)) = (&self.watch, client.server()) {
            watch.count_ready(&target.host, client);
        }
        true
    }
}

pin_project! {
    /// Content of which it is known if any of it was read.
    pub(crate) struct Watched<C> {
        #[pin]
        pub(crate) content: C,
        pub(crate) has_begun: bool,
    }
}

impl<C: Content> Content for Watched<C> {
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.project();
        *this.has_begun = true;
        this.content.poll_next(context)
    }

    fn length(&self) -> Option<u64> {
        self.content.length()
    }
}
