//! Where it listens, with which certificate, and who may log in there.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use super::takes_submissions;
use crate::config::{
    file::{File, Listener, ListenerTls},
    findings::{Findings, Place},
};

/// Characters of a password below which guessing it is too easy.
const SHORT: usize = 8;

pub(super) fn check(file: &File, findings: &mut Findings) {
    addresses(file, findings);
    let (unclear_tls, unclear_accounts) = (findings.has_error_in(&["tls"]), findings.has_error_in(&["account"]));
    for listener in &file.listeners {
        if !file.tls.is_empty() || !unclear_tls {
            tls(file, listener, findings);
        }
        if listener.is_submission() && file.accounts.is_empty() && !unclear_accounts {
            findings.error(role(listener), "no client could log in to submit; add an [[account]], or say \"mx\"");
        }
        ports(file, listener, findings);
    }
    if let Some(tls) = file.tls.first()
        && !file.listeners.is_empty()
        && file.listeners.iter().all(|listener| listener.starts_tls(true) == ListenerTls::Off)
    {
        findings.warn(tls.place, "no listener uses it; take `tls = \"off\"` out of one of them, or take [tls] out");
    }
    accounts(file, findings);
    if let Some(most) = file.limits.idle_commands.as_ref().filter(|most| most.value < FEW) {
        if most.value < FEWEST {
            let text = "each client that begins TLS or logs in is disconnected before its first message";
            findings.error(most.place, format_args!("{text}; write {FEW} or more"));
            return;
        }
        let text = format!("a client may need {FEW} for TLS, a login and its first message, and is closed at the next");
        findings.warn(most.place, format_args!("{text}; write {FEW} or more"));
    }
}

/// Commands that begin no message: EHLO, STARTTLS and EHLO again, a login that is tried again, NOOP
/// and RSET.
const FEW: u16 = 10;
/// EHLO, STARTTLS, EHLO again and a login: without these no user sends anything.
const FEWEST: u16 = 4;

/// Two listeners cannot have one port of one address.
fn addresses(file: &File, findings: &mut Findings) {
    let known: Vec<_> = file.listeners.iter().filter_map(|listener| listener.address.as_ref()).collect();
    for (at, later) in known.iter().enumerate() {
        if let Some(earlier) = known.iter().take(at).find(|earlier| overlap(earlier.value, later.value)) {
            let line = findings.line(earlier.place);
            let text = format!("the listener in line {line} has that port of that address already ({})", earlier.value);
            findings.error(later.place, format_args!("{text}; write another one, or take one of the two out"));
        }
        // A datagram socket of no port: nothing is listened on, and no port is taken.
        if !is_local(later.value.ip()) {
            let text = format!("this host has no such address now ({})", later.value.ip());
            findings.warn(
                later.place,
                format_args!("{text}; write one of its own, or \"[::]:{}\" for all", later.value.port()),
            );
        }
    }
}

/// Returns `true` if no two sockets can listen on both.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (one_ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (one_ip == other_ip || covers(one_ip, other_ip) || covers(other_ip, one_ip))
}

/// Returns `true` if a socket on the first address takes what comes for the second.
pub(super) fn covers(all: IpAddr, address: IpAddr) -> bool {
    match all {
        IpAddr::V4(all) => all.is_unspecified() && address.is_ipv4(),
        // IPv4 too, unless the system keeps them apart.
        IpAddr::V6(all) => all.is_unspecified() && (address.is_ipv6() || !keeps_ipv6_apart()),
    }
}

fn keeps_ipv6_apart() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1")
}

/// Returns `true` if an address is one of this host.
pub(super) fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address.to_canonical(), 0)).is_ok()
}

fn tls(file: &File, listener: &Listener, findings: &mut Findings) {
    let has_certificate = !file.tls.is_empty();
    let starts = listener.starts_tls(has_certificate);
    if let Some(tls) = listener.tls.as_ref().filter(|_| starts != ListenerTls::Off && !has_certificate) {
        let text = "there is no certificate for TLS; add [tls] with certificate and key, or say \"off\"";
        findings.error(tls.place, text);
    } else if listener.is_submission() && starts == ListenerTls::Off && !is_behind_proxies(listener) {
        let place = listener.tls.as_ref().map_or_else(|| role(listener), |tls| tls.place);
        let remedy =
            if has_certificate { "say \"starttls\" or \"implicit\"" } else { "add [tls] with certificate and key" };
        findings.error(
            place,
            format_args!("no client can log in without TLS, and no mail is taken without a login; {remedy}"),
        );
    }
}

/// Returns `true` if a proxy may have spoken TLS with the clients.
fn is_behind_proxies(listener: &Listener) -> bool {
    listener.proxies.as_ref().is_some_and(|proxies| !proxies.value.is_empty())
}

fn role(listener: &Listener) -> Place {
    listener.role.as_ref().map_or(listener.place, |role| role.place)
}

/// What clients expect on the well-known ports.
fn ports(file: &File, listener: &Listener, findings: &mut Findings) {
    let Some(address) = &listener.address else { return };
    let place = listener.tls.as_ref().map_or(address.place, |tls| tls.place);
    let implicit = listener.starts_tls(!file.tls.is_empty()) == ListenerTls::Implicit;
    match address.value.port() {
        25 if listener.is_submission() => {
            let text = "other relays send to port 25, and they do not log in; use port 587 or 465, or say \"mx\"";
            findings.warn(role(listener), text);
        }
        25 if implicit => {
            findings.warn(place, "other relays do not start with TLS on port 25; say \"starttls\", or use port 465");
        }
        port @ (465 | 587) if !listener.is_submission() => {
            let text = format!("port {port} is where people and programs log in");
            findings.warn(role(listener), format_args!("{text}; say role = \"submission\", or use port 25"));
        }
        465 if !implicit => {
            findings
                .warn(place, "clients start with TLS on port 465 (RFC 8314); say tls = \"implicit\", or use port 587");
        }
        587 if implicit => {
            findings.warn(place, "clients do not start with TLS on port 587; say tls = \"starttls\", or use port 465");
        }
        _ => {}
    }
}

fn accounts(file: &File, findings: &mut Findings) {
    let mut known = HashMap::new();
    for name in file.accounts.iter().filter_map(|account| account.name.as_ref()) {
        // It is as SASLprep makes it.
        if let Some(line) = known.insert(&*name.value, findings.line(name.place)) {
            let text = format!("the account in line {line} has that name already");
            findings.error(name.place, format_args!("{text}; write another name, or take one of the two out"));
        }
    }
    if let Some(account) = file.accounts.first()
        && !takes_submissions(file)
        && !findings.has_error_in(&["listener", "role"])
    {
        let place = account.name.as_ref().map_or(Place::absent("account"), |name| name.place);
        let text = "no client can log in at any listener; add a [[listener]] with role = \"submission\", or take the \
                    accounts out";
        findings.warn(place, text);
    }
    for password in file.accounts.iter().filter_map(|account| account.password.as_ref()) {
        if password.value.expose().chars().count() < SHORT {
            let text = format!("a password of fewer than {SHORT} characters is soon guessed");
            findings.warn(password.place, format_args!("{text}; write a longer one"));
        }
    }
    let mut verifiers = file.accounts.iter().filter_map(|account| account.verifier.as_ref());
    if let Some(first) = verifiers.next() {
        let iterations = first.value.iterations();
        for other in verifiers.filter(|other| other.value.iterations() != iterations) {
            let text = format!(
                "the first verifier has {iterations} iterations and this one {}, so clients can find out that this name has an account",
                other.value.iterations()
            );
            findings.warn(other.place, format_args!("{text}; run `relay verifier --iterations {iterations}`"));
        }
    }
}
