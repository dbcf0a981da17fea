//! What clients are refused for before the relay is asked.

use std::time::Duration;

use posthaste::server::{
    Body, Context, Envelope, Layer, NameSet, NetworkSet, Refusal, Service,
    layers::{Access, Headers, RateLimit},
    wire::{Mail, Rcpt},
};

use super::{
    file::{Excess, File},
    findings::At,
};

/// The checks in front of the relay.
#[derive(Debug)]
pub(crate) struct Guards {
    /// Networks, names and senders.
    access: Access,
    limits: Limits,
}

/// How much a client may send. One layer, since each costs an allocation for every message.
#[derive(Debug, Clone, Default)]
struct Limits {
    /// In a time. Each has 2 MiB at most.
    rates: Vec<RateLimit>,
    headers: Option<Headers>,
}

const HOUR: Duration = Duration::from_secs(3_600);

impl Guards {
    /// Clients in `trusted` networks are no strangers.
    pub(super) fn new(file: &File, trusted: &NetworkSet) -> Self {
        let networks = file.refuse.networks.iter().flat_map(|list| &list.value);
        let mut access = Access::deny(networks.map(|network| network.value).collect());
        access.hellos = names(file.refuse.hello.as_ref());
        access.senders = names(file.refuse.senders.as_ref());
        let limits = &file.limits;
        let networks = trusted.clone();
        let is_trusted =
            move |cx: &Context| cx.peer.identity.is_some() || networks.contains(cx.peer.address.ip_or_loopback());
        let strangers = limits.recipients_per_hour.as_ref().map(|most| {
            let is_trusted = is_trusted.clone();
            let by_network = move |cx: &Context| (!is_trusted(cx)).then_some(cx.peer.network);
            RateLimit::recipients(most.value, HOUR).by(by_network)
        });
        let is_permanent = limits.excess.as_ref().is_some_and(|excess| excess.value == Excess::Refuse);
        let finished = |limit: RateLimit| if is_permanent { limit.permanently() } else { limit };
        let messages = |most: &At<u32>| RateLimit::messages(most.value, HOUR);
        let recipients = |most: &At<u32>| RateLimit::recipients(most.value, HOUR);
        let users = [
            limits.user_messages_per_hour.as_ref().map(messages),
            limits.user_recipients_per_hour.as_ref().map(recipients),
        ];
        let users = users.into_iter().flatten().map(|limit| limit.by(|cx| cx.peer.identity.clone()));
        // The sender of a stranger may be forged.
        let senders = [
            limits.sender_messages_per_hour.as_ref().map(messages),
            limits.sender_recipients_per_hour.as_ref().map(recipients),
        ];
        let senders = senders.into_iter().flatten().map(|limit| {
            let is_trusted = is_trusted.clone();
            limit.by(move |cx| is_trusted(cx).then_some(())).by_sender()
        });
        let rates = strangers.into_iter().chain(users.chain(senders).map(finished)).collect();
        let headers = (limits.header_size.is_some() || limits.header_fields.is_some()).then(|| {
            let mut headers = Headers::default();
            let size = limits.header_size.as_ref().and_then(|size| usize::try_from(size.value).ok());
            headers.octets = size.unwrap_or(headers.octets);
            headers.fields = limits.header_fields.as_ref().map_or(headers.fields, |most| most.value.into());
            headers
        });
        Self { access, limits: Limits { rates, headers } }
    }

    /// Puts them around a service.
    pub(crate) fn around(self, service: impl Service) -> impl Service {
        let Self { access, limits } = self;
        service.layer(limits).layer(access)
    }
}

impl Layer for Limits {
    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        for rate in &mut self.rates {
            rate.mail(cx, mail).await?;
        }
        Ok(())
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        for rate in &mut self.rates {
            rate.rcpt(cx, rcpt).await?;
        }
        Ok(())
    }

    async fn message<'b>(
        &mut self,
        cx: &Context,
        envelope: &mut Envelope,
        body: Body<'b>,
    ) -> Result<Body<'b>, Refusal> {
        self.headers.message(cx, envelope, body).await
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
