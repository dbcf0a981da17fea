//! What clients are refused for before the relay is asked.

use std::time::Duration;

use posthaste::server::{
    NameSet, NetworkSet, Service,
    layers::{Access, RateLimit},
};

use super::{file::File, findings::At};

/// The checks in front of the relay.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Networks, names and senders.
    access: Access,
    /// Recipients of clients that have not logged in, by network.
    strangers: Option<RateLimit>,
    /// Recipients of those that have, by user.
    users: Option<RateLimit>,
}

const HOUR: Duration = Duration::from_secs(3_600);

impl Guards {
    /// Clients in `trusted` networks are no strangers.
    pub(super) fn new(file: &File, trusted: &NetworkSet) -> Self {
        let networks = file.refuse.networks.iter().flat_map(|list| &list.value);
        let mut access = Access::deny(networks.map(|network| network.value).collect());
        access.hellos = names(file.refuse.hello.as_ref());
        access.senders = names(file.refuse.senders.as_ref());
        let trusted = trusted.clone();
        let limits = &file.limits;
        let strangers = limits.recipients_per_hour.as_ref().map(|most| {
            RateLimit::recipients(most.value, HOUR).by(move |cx| {
                let peer = &cx.peer;
                let is_known = peer.identity.is_some() || trusted.contains(peer.address.ip_or_loopback());
                (!is_known).then_some(peer.network)
            })
        });
        let users = limits.user_recipients_per_hour.as_ref();
        let users = users.map(|most| RateLimit::recipients(most.value, HOUR).by(|cx| cx.peer.identity.clone()));
        Self { access, strangers, users }
    }

    /// Puts them around a service.
    pub(crate) fn around(self, service: impl Service) -> impl Service {
        let Self { access, strangers, users } = self;
        service.layer(users).layer(strangers).layer(access)
    }
}

/// A set of patterns that were checked.
fn names(patterns: Option<&At<Vec<At<String>>>>) -> NameSet {
    let mut set = NameSet::default();
    for pattern in patterns.iter().flat_map(|list| &list.value) {
        let _ = set.push(&pattern.value);
    }
    set
}
