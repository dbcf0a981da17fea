//! Where the connections of an attempt come from.

use std::sync::Arc;

use posthaste_client::{RecipientOutcome, Resolver, delivery::Keep as _};
use posthaste_queue::Queue;
use posthaste_server::wire::EnhancedCode;
use tokio::time::Instant;

use super::{
    super::{
        connect::Connected,
        egress::{NoSource, Seat, To},
        lookup::Found,
        words::blocks_address,
    },
    Attempt,
};
use crate::{Diagnostic, Source, SourcePool};

impl<Q: Queue, R: Resolver> Attempt<'_, '_, Q, R> {
    /// Draws a source for a new connection.
    ///
    /// # Errors
    /// There is none. If the reason is that none has room, it notes when to look again.
    pub(super) async fn draw(&mut self, pool: &SourcePool, found: &Found) -> Result<Arc<Seat>, Diagnostic> {
        let (egress, site) = (&self.crew.shared.egress, self.site);
        let to = To { site: site.name(), limits: &self.source_limits, targets: &found.servers.targets };
        self.no_room = None;
        loop {
            let until = match egress.draw(pool, &to, &mut self.random) {
                Ok(seat) => return Ok(seat),
                Err(NoSource::PassedOver(why)) => return Err(why),
                Err(NoSource::Full(until)) => until,
            };
            // Connections that the message may not take count too.
            let is_in_the_way = |kept: &Connected| kept.from().is_some_and(|source| self.may_send(source));
            let Some(kept) = site.shelf.take_if(is_in_the_way) else {
                self.no_room = Some(until);
                let text = "no source of the route has room for another message now";
                return Err(Diagnostic::own(EnhancedCode::new(4, 4, 5), text));
            };
            kept.close().await;
        }
    }

    /// Returns `true` if a message may go now over a connection that a source has.
    pub(super) fn may_send(&self, source: &Source) -> bool {
        let now = Instant::now();
        self.crew.shared.egress.sends_at(source, &self.over_connection(), now).is_some_and(|at| at <= now)
    }

    /// Counts a message that goes over a connection that a source has. Returns `false` if it may
    /// not begin.
    pub(super) fn takes(&self, source: &Source) -> bool {
        self.crew.shared.egress.take(source, &self.over_connection(), false)
    }

    fn over_connection(&self) -> To<'_> {
        To { site: self.site.name(), limits: &self.source_limits, targets: &[] }
    }

    /// The message begins: its recipients are counted, once.
    pub(super) fn begin(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.site.begins(self.job.recipients().len());
        }
    }

    /// Sets a source to rest if the site has refused a recipient since it blocks the address. The
    /// mail goes from another source, or waits. Returns `true` if it has.
    pub(super) fn note_blocks(&mut self, source: Option<&Source>) -> bool {
        let Some(source) = source else { return false };
        let own = source.addresses();
        let before = self.blocked.len();
        for (index, course) in self.delivery.courses().iter().enumerate() {
            if let Some(RecipientOutcome::Refused(reply, _)) = &course.outcome
                && blocks_address(reply, &own)
                && !self.blocked.contains(&index)
            {
                if self.blocked.len() == before {
                    let target = course.server.as_ref().and_then(|server| server.target.as_ref());
                    let why = Diagnostic::reply(target.map_or("", |target| &*target.host), reply);
                    self.crew.shared.egress.blocked(source, self.site.name(), why);
                }
                self.blocked.push(index);
            }
        }
        self.blocked.len() > before
    }
}
