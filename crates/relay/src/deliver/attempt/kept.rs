//! The connection that the last message left behind: whether this one may take it, and what comes
//! of that.

use std::{pin::pin, sync::Arc, time::Duration};

use posthaste_client::{
    Client, RecipientOutcome, Resolver, Server, Target,
    delivery::{Break, Course, Keep as _, Passed},
};
use posthaste_queue::Queue;

use super::super::{
    connect::{Connected, health},
    flow::Metered,
    job::Guard,
    letter::Letter,
    throttle::Signal,
};
use super::{Attempt, signal};
use crate::NextHop;

impl<Q: Queue, R: Resolver> Attempt<'_, '_, Q, R> {
    /// Returns `true` if no server has said anything of the message.
    pub(super) fn is_untouched(&self) -> bool {
        let is_lost = |course: &Course| matches!(course.outcome, None | Some(RecipientOutcome::Lost));
        self.delivery.courses().iter().all(|course| is_lost(course) && !course.in_doubt && !course.is_settled)
    }

    /// Tries the kept connection, if the message may take it. Returns the server if it is not to be
    /// asked again in this attempt. It may be asked again if it closed the connection without a
    /// reply about the message, unless it throttles.
    pub(super) async fn over_kept(&mut self, connection: &mut Option<Connected>) -> Option<Server> {
        let kept = connection.take()?;
        if !Arc::ptr_eq(&kept.options, &self.job.options) {
            kept.close().await;
            return None;
        }
        let kept = self.suiting(kept).await?;
        if !self.is_best(&kept.client, kept.is_best) && self.returns(&kept.client) {
            kept.close().await;
            return None;
        }
        if !kept.from().is_none_or(|source| self.takes(source)) {
            // Another worker was faster.
            self.put_back(kept, true).await;
            return None;
        }
        let Connected { client, verified, demand, is_best, pulse, seat, options } = kept;
        let source = seat.as_ref().map(|seat| &*seat.source);
        self.site.mark_up();
        let server = client.server().map(|target| target.server.clone());
        let mut client = Some(client);
        let mut letter = Letter::new(&self.crew.shared, self.site, self.job, &pulse, verified);
        let passed = self.flow.run(&pulse, pin!(self.delivery.over(&mut client, &mut letter))).await;
        if self.note_blocks(source)
            && let Some(client) = client.take()
        {
            client.quit().await;
        }
        let says_nothing = matches!(passed, Ok(Passed::Worn | Passed::Broken(Break { says_nothing: true, .. })));
        if let Some(source) = source.filter(|_| says_nothing && self.is_untouched()) {
            self.crew.shared.egress.give_back(source, self.site.name());
        }
        match passed {
            // A new connection would get the same answer.
            Ok(Passed::Broken(_)) if matches!(signal(&self.delivery), Signal::Refused(..)) => server,
            Ok(Passed::Worn | Passed::Broken(Break { chunking: true, .. } | Break { says_nothing: true, .. })) => None,
            Ok(Passed::Broken(_)) => server,
            Ok(Passed::Through) => {
                *connection =
                    client.map(|client| Connected { client, verified, demand, is_best, pulse, seat, options });
                server
            }
            Err(gave_up) => {
                let is_by_mx = self.site.leads().as_ref().is_ok_and(|route| route.to == NextHop::Mx);
                self.give_up(gave_up, &health(&self.crew.shared, is_by_mx, false));
                server
            }
        }
    }

    /// The connection, or another one of the site, that the message may take. One that it may not
    /// take is kept for other mail if there is room.
    async fn suiting(&mut self, kept: Connected) -> Option<Connected> {
        let needs_guard = self.guard() != Guard::Any;
        let demands = self.demands().await;
        let suits = |connected: &Connected| {
            let is_as_asked = demands
                .as_ref()
                .is_none_or(|demands| connected.demand.as_ref().is_some_and(|demand| demands.contains(demand)));
            is_as_asked
                && (connected.verified || !needs_guard)
                && Arc::ptr_eq(&connected.options, &self.job.options)
                && connected.from().is_none_or(|source| self.may_send(source))
        };
        if suits(&kept) {
            return Some(kept);
        }
        let other = self.site.shelf.take_if(suits);
        self.put_back(kept, other.is_none()).await;
        other
    }

    /// Keeps a connection for other mail, or closes it if there is no room for it beside the one
    /// that this message takes. If that is to be a new one and none may be made, it is closed too:
    /// with it on the shelf, the message would be tried again at once.
    async fn put_back(&self, kept: Connected, needs_new: bool) {
        let has_room = !needs_new || (self.flow.may_dial() && self.site.has_room_on_shelf());
        let left = if has_room { self.site.shelf.keep(kept) } else { Some(kept) };
        if let Some(left) = left {
            left.close().await;
        }
    }

    /// Returns `true` if the domain prefers no host to that of a connection. `is_best`: no host of
    /// the route is preferred.
    fn is_best(&self, client: &Client<Metered>, is_best: bool) -> bool {
        match (self.of, client.server()) {
            (Some(of), Some(target)) => of.is_best(&target.host),
            _ => is_best,
        }
    }

    /// Returns `true` if a better host than that of a kept connection is well, and it is time to
    /// return to it.
    fn returns(&self, client: &Client<Metered>) -> bool {
        // However old the look-up is: connections may have been kept since, and another follows.
        let (Some(found), Some(kept)) = (self.site.found(Duration::MAX), client.server()) else { return false };
        let preference = |target: &Target| self.of.map_or(target.preference, |of| of.preference(&target.host));
        let mut better = found.servers.targets.iter().filter(|target| preference(target) < preference(kept));
        better.any(|target| self.crew.shared.health.is_well(&target.server)) && self.site.is_time_to_return()
    }
}
