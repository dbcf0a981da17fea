//! Times, numbers and extensions: what fits together, and what has no effect.

use std::time::Duration;

use posthaste::client::{HickoryResolver, ResolveError};
use posthaste::relay::{AddFields, RetrySchedule};
use posthaste::server::ServerOptions;
use rustix::process::{Resource, getrlimit};

use super::{asks_for_mx, guards, is_on, is_wanted, names_hosts, takes_submissions, verifies};
use crate::config::{
    DEFAULT_CONCURRENCY, Facts,
    file::{Dane, File, ListenerTls},
    findings::{Findings, Place},
    next_hop::To,
    route::RouteTls,
    values::span,
};
use crate::limits::needed;

/// What every server takes (RFC 5321 section 4.5.3.1.8).
const LEAST_RECIPIENTS: u16 = 100;

pub(super) fn check(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    times(file, findings);
    numbers(file, findings);
    descriptors(file, findings);
    routes(file, facts, findings);
    extensions(file, facts, findings);
    submissions(file, findings);
}

fn times(file: &File, findings: &mut Findings) {
    let delivery = &file.delivery;
    let default = RetrySchedule::default();
    let first = delivery.retry.as_ref().and_then(|waits| waits.value.first()).map(|wait| wait.value);
    let first = first.or(default.waits.first().copied()).unwrap_or(Duration::from_secs(60));
    let expire_after = delivery.expire_after.as_ref().map_or(default.expire_after, |span| span.value);
    if expire_after < first {
        let place = delivery.expire_after.as_ref().map(|span| span.place);
        let place = place.or(delivery.retry.as_ref().map(|waits| waits.place)).unwrap_or(Place::absent("expire_after"));
        let text =
            format!("mail is given up after {}, before the first wait of {} is over", span(expire_after), span(first));
        findings.warn(place, format_args!("{text}; write a longer `expire_after`, or a shorter wait in `retry`"));
    }
    if let Some(warn_after) = &delivery.warn_after
        && let Some(age) = warn_after.value
    {
        if age >= expire_after {
            let text = format!(
                "mail is given up after {}, so senders are never told of a delay after {}",
                span(expire_after),
                span(age)
            );
            findings.warn(warn_after.place, format_args!("{text}; write a shorter span, or \"never\""));
        } else if age < first {
            let (age, first) = (span(age), span(first));
            let text = format!("senders are told of a delay after {age}, before the first wait of {first} is over");
            findings.warn(warn_after.place, format_args!("{text}; write a longer span"));
        }
    }
}

fn numbers(file: &File, findings: &mut Findings) {
    let (delivery, limits) = (&file.delivery, &file.limits);
    let all = delivery.concurrency.as_ref().map_or(DEFAULT_CONCURRENCY, |number| number.value);
    if let Some(site) = delivery.concurrency_per_site.as_ref().filter(|site| site.value > all) {
        let text = format!("the relay makes {all} deliveries at once in all, so one next hop never gets more");
        findings.warn(site.place, format_args!("{text}; write at most {all}, or a larger `concurrency`"));
    }
    let clients = connections(file);
    if let Some(network) = limits.connections_per_network.as_ref().filter(|most| usize::from(most.value) > clients) {
        let text = format!("the relay has {clients} connections at once in all, so one network never gets more");
        findings.warn(network.place, format_args!("{text}; write at most {clients}, or a larger `connections`"));
    }
    let message = limits.message_size.as_ref().map_or(u64::MAX, |size| size.value);
    if let Some(returned) = limits.returned_size.as_ref().filter(|size| size.value > message) {
        let text = format!("no message has more than {message} octets, and more is never returned");
        findings.warn(returned.place, format_args!("{text}; write at most {message}"));
    }
    match &limits.recipients {
        Some(most) if most.value < LEAST_RECIPIENTS => {
            let text = format!("clients count on {LEAST_RECIPIENTS} recipients (RFC 5321 section 4.5.3.1.8)");
            findings.warn(most.place, format_args!("{text}; write {LEAST_RECIPIENTS} or more"));
        }
        _ => {}
    }
}

/// Connections of clients at once.
fn connections(file: &File) -> usize {
    let default = ServerOptions::default().connections;
    file.limits.connections.as_ref().map_or(default, |number| number.value.into())
}

/// Connections that the system would not let the relay have.
fn descriptors(file: &File, findings: &mut Findings) {
    let Some(most) = getrlimit(Resource::Nofile).maximum else { return };
    let deliveries = file.delivery.concurrency.as_ref().map_or(DEFAULT_CONCURRENCY, |number| number.value);
    let wanted = needed(connections(file), deliveries.into());
    if wanted > most {
        let place = file.limits.connections.as_ref().map(|number| number.place);
        let place = place.or(file.delivery.concurrency.as_ref().map(|number| number.place));
        let text = format!(
            "{wanted} open files may be needed, and the system allows {most}: `serve` will lower these numbers"
        );
        let remedy = "write smaller `connections` and `concurrency`, or raise the limit (LimitNOFILE, ulimit -n)";
        findings.warn(place.unwrap_or(Place::absent("connections")), format_args!("{text}; {remedy}"));
    }
}

/// Keys that only some routes make use of.
fn routes(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    for route in &file.routes {
        let Some(to) = &route.to else { continue };
        let tls = route.tls.as_ref().map(|tls| (tls.value, tls.place));
        let Some((tls, place)) = tls.or(route.hop().map(|_| (RouteTls::Verified, to.place))) else { continue };
        if matches!(to.value, To::Mx) && matches!(tls, RouteTls::Verified | RouteTls::Implicit) {
            let text = "by MX no certificate proves who a host is, since DNS alone has given its name";
            let remedy = "say \"required\" for TLS whatever the certificate, or name the hosts";
            findings.error(place, format_args!("{text}; {remedy}"));
        } else if route.is_verified()
            && route.authorities.is_none()
            && facts.verified_tls.is_none()
            && file.delivery.authorities.is_none()
        {
            let text = "this host trusts no authorities";
            findings.error(place, format_args!("{text}; write `authorities` here or in [delivery]"));
        }
    }
    let by_mx = asks_for_mx(file);
    let delivery = &file.delivery;
    let nothing = "no route goes by MX, and it has no effect; take it out, or say to = \"mx\" in a route";
    if let Some(port) = delivery.mx_port.as_ref().filter(|_| !by_mx) {
        findings.warn(port.place, nothing);
    }
    if let Some(allow) = delivery.allow_private.as_ref().filter(|allow| allow.value && !by_mx) {
        findings.warn(allow.place, nothing);
    }
    if let Some(dane) = delivery.dane.as_ref().filter(|dane| dane.value != Dane::Off && !by_mx) {
        findings.warn(dane.place, nothing);
    }
    if let Some(mta_sts) = delivery.mta_sts.as_ref().filter(|mta_sts| mta_sts.value) {
        if !by_mx {
            findings.warn(mta_sts.place, nothing);
        } else if facts.verified_tls.is_none() && file.delivery.authorities.is_none() {
            let text = "this host trusts no authorities, and no policy could be fetched";
            findings.error(mta_sts.place, format_args!("{text}; write `authorities` in [delivery]"));
        }
    }
    let by_name = file.routes.iter().filter_map(|route| route.to.as_ref()).any(|to| match &to.value {
        To::Mx => true,
        To::Hosts(groups) => groups.iter().flatten().any(|host| !host.value.name.starts_with('[')),
        To::Hop(_) | To::Refuse(_) | To::Discard | To::Hold => false,
    });
    if let Some(servers) = &file.dns {
        if !by_mx && !by_name {
            findings.warn(servers.place, "every route has addresses, and nothing is looked up; take it out");
        }
        for (at, server) in servers.value.iter().enumerate() {
            if servers.value.iter().take(at).any(|known| known.value == server.value) {
                findings.warn(server.place, format_args!("`{}` stands there already; take it out", server.value));
            }
        }
    }
    if let Some(dane) = delivery.dane.as_ref().filter(|dane| dane.value == Dane::Trust && by_mx) {
        trusted(file, dane.place, findings);
    }
}

/// The DNS servers that `dane = "trust"` believes.
fn trusted(file: &File, dane: Place, findings: &mut Findings) {
    let text = "an answer of another host can be forged, and dane = \"trust\" believes it";
    match &file.dns {
        Some(servers) => {
            for server in servers.value.iter().filter(|server| !server.value.ip().is_loopback()) {
                let remedy =
                    "name a server on this host that validates, such as 127.0.0.1:53, or say dane = \"validate\"";
                findings.error(server.place, format_args!("`{}` is not on this host: {text}; {remedy}", server.value));
            }
        }
        None => {
            let system = HickoryResolver::system().and_then(HickoryResolver::trusting);
            if matches!(system, Err(ResolveError::Unusable(_))) {
                let remedy = "name one on this host that validates in [dns] servers, or say \"validate\"";
                findings.error(dane, format_args!("the system's DNS servers are not on this host: {text}; {remedy}"));
            }
        }
    }
}

fn extensions(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    let offers = &file.offers;
    if let Some(flag) = offers.binarymime.as_ref().filter(|flag| flag.value && !is_on(offers.chunking.as_ref())) {
        findings.warn(flag.place, "it is not offered without chunking; say chunking = true, or take it out");
    }
    let has_tls = !file.tls.is_empty()
        && match &file.listeners[..] {
            [] => true,
            listeners => listeners.iter().any(|listener| listener.starts_tls(true) != ListenerTls::Off),
        };
    if let Some(flag) = offers.requiretls.as_ref().filter(|flag| flag.value) {
        let text = "so such mail could go nowhere, and REQUIRETLS is not offered";
        if !guards(file) {
            let remedy = "add a [[route]] that names its hosts, say mta_sts or dane in [delivery], or take it out";
            findings.warn(flag.place, format_args!("no route names its hosts, {text}; {remedy}"));
        } else if names_hosts(file) && facts.verified_tls.is_none() && file.delivery.authorities.is_none() {
            let remedy = "write `authorities` in [delivery]";
            findings.warn(flag.place, format_args!("this host trusts no authorities, {text}; {remedy}"));
        } else if !has_tls {
            let text = "it is offered inside TLS, and no listener has that";
            findings.warn(flag.place, format_args!("{text}; add [tls] with certificate and key, or take it out"));
        }
    }
    if let Some(authorities) = file.delivery.authorities.as_ref().filter(|_| !verifies(file)) {
        let text = "they are for routes with verified TLS, for messages that require it on routes that name their hosts, \
                    and for MTA-STS, and this file has none of these";
        findings.warn(authorities.place, format_args!("{text}; take it out"));
    }
}

/// Keys for clients that log in.
fn submissions(file: &File, findings: &mut Findings) {
    let submits = takes_submissions(file);
    let remedy = "add a [[listener]] with role = \"submission\", or take it out";
    if let Some(flag) = file.offers.futurerelease.as_ref().filter(|flag| is_wanted(Some(flag)) && !submits) {
        findings.warn(flag.place, format_args!("no client can log in to have mail held; {remedy}"));
    }
    if let Some(hold) = &file.limits.hold {
        if !submits {
            findings.warn(hold.place, format_args!("no client can log in to have mail held; {remedy}"));
        } else if !is_on(file.offers.futurerelease.as_ref()) {
            findings.warn(hold.place, "holding is switched off in [offers]; say futurerelease = true, or take it out");
        }
    }
    if let Some(most) = file.limits.user_recipients_per_hour.as_ref().filter(|_| !submits) {
        findings.warn(most.place, format_args!("no client can log in, and it has no effect; {remedy}"));
    }
    let trusts = file.relay_from.as_ref().is_some_and(|list| !list.value.is_empty());
    if let Some(add) = &file.submission.add_fields {
        let without_effect = match add.value {
            AddFields::Submitted => !submits,
            AddFields::Trusted => !submits && !trusts,
            _ => false,
        };
        if without_effect {
            findings.warn(add.place, format_args!("it changes the mail of no client; {remedy}"));
        }
    }
}
