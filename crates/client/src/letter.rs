//! A message on its way to one destination, over kept and new connections.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use pin_project_lite::pin_project;
use posthaste_tokio::{
    Content,
    wire::{BodyType, Mail, Rcpt, capability::Keyword},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};

use crate::{
    Client, ClientOptions, ConnectError, Dial, Race, Source, Target,
    delivery::{Break, Course, Delivery, Passed, Transact, Transacted},
    kept::{Kept, Shelf},
};

/// A message for recipients of one destination.
pub(crate) struct Letter<'l, C> {
    pub(crate) mail: &'l Mail,
    pub(crate) recipients: Vec<&'l Rcpt>,
    pub(crate) source: &'l C,
}

/// The connections to a destination, and how more are made.
pub(crate) struct Destination<'d, D: Dial> {
    pub(crate) shelf: &'d Arc<Shelf<D::Stream>>,
    pub(crate) dial: &'d D,
    pub(crate) options: &'d Arc<ClientOptions>,
}

impl<C: Source> Letter<'_, C> {
    /// Delivers over a kept connection, or over new ones to these targets. The permit goes with the
    /// connection that is kept. An error: no server could be reached.
    pub(crate) async fn deliver<D: Dial>(
        &mut self,
        to: &Destination<'_, D>,
        permit: OwnedSemaphorePermit,
        targets: impl Future<Output = Result<Vec<Target>, ConnectError>>,
    ) -> Result<Vec<Course>, ConnectError> {
        let shelf = to.shelf;
        let mut delivery = Delivery::new(self.recipients.len(), shelf.limits().recipients);
        let (mut kept, mut tried) = (None, None);
        while let Some(one) = shelf.take() {
            let server = one.client.server().map(|target| target.server);
            let (client, messages) = one.into_parts();
            let mut connection = Some(client);
            match delivery.over(&mut connection, self).await {
                // The server may be asked again over another connection.
                Passed::Worn | Passed::Broken(Break { says_nothing: true, .. } | Break { chunking: true, .. }) => {}
                Passed::Broken(_) => {
                    tried = server;
                    break;
                }
                Passed::Through => {
                    (kept, tried) = (connection.map(|client| Kept::used(client, messages)), server);
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
        (mut kept, tried): (Option<Kept<D::Stream>>, Option<SocketAddr>),
        to: &Destination<'_, D>,
        permit: OwnedSemaphorePermit,
        targets: impl Future<Output = Result<Vec<Target>, ConnectError>>,
    ) -> Result<Vec<Course>, ConnectError> {
        if delivery.is_open() {
            let mut targets = match targets.await {
                Ok(targets) => targets,
                Err(error) if !delivery.is_reached() => return Err(error),
                Err(_) => Vec::new(),
            };
            targets.retain(|target| Some(target.server) != tried);
            let mut race = Race::new(&targets, to.dial.clone(), Arc::clone(to.options));
            let (mut fresh, had_delivered) = (None, delivery.has_delivered());
            delivery.through(&mut race, self, &mut fresh).await;
            if !delivery.is_reached() {
                return Err(race.failed().pop().map_or(ConnectError::NoAddress, |(_, error)| error));
            }
            // The server that took the message is the better one for the next.
            if kept.is_none() || (delivery.has_delivered() && !had_delivered) {
                kept = fresh.map(|client| Kept::used(client, 0)).or(kept);
            }
        }
        if let Some(kept) = kept {
            to.shelf.give_back(kept, permit);
        }
        Ok(delivery.into_courses())
    }
}

impl<C: Source, S: AsyncRead + AsyncWrite + Unpin + Send> Transact<S> for Letter<'_, C> {
    async fn transact(&mut self, client: &mut Client<S>, recipients: &[usize]) -> io::Result<Transacted> {
        let mut content = pin!(Watched { content: self.source.open().await?, has_begun: false });
        let group = recipients.iter().filter_map(|index| self.recipients.get(*index));
        let mut group: Vec<_> = group.map(|rcpt| rcpt.borrowed()).collect();
        group.truncate(client.recipients_at_once(&group));
        let mut mail = self.mail.borrowed();
        mail.size = mail.size.or_else(|| content.length());
        // Where it is not offered, the recipients that need it are refused alone.
        let is_offered = client.capabilities().offers(Keyword::SmtpUtf8);
        mail.smtputf8 |= is_offered && group.iter().any(|rcpt| !rcpt.forward_path.is_ascii());
        let is_binary = mail.body == Some(BodyType::BinaryMime);
        let sent = client.transact(mail, &group, content.as_mut()).await;
        Ok(Transacted::new(sent, content.has_begun, is_binary))
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
