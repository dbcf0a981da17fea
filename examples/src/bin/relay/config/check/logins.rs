//! Logins at next hops, and what verifies the hosts that get a password. Ports where TLS starts in
//! another way.

use crate::config::{
    file::File,
    findings::{At, Findings, Place},
    login::RouteLogin,
    next_hop::To,
    route::{Route, RouteTls, is_loopback},
};

pub(super) fn check(file: &File, findings: &mut Findings) {
    for route in &file.routes {
        if let Some(login) = &route.login {
            protected(route, login, findings);
        }
        if let Some(authorities) = route.authorities.as_ref().filter(|_| !route.is_verified()) {
            let text = "no certificate of this route's hosts is verified, and they have no effect";
            let remedy = "say tls = \"verified\" or \"implicit\" for hosts that `to` names, or take it out";
            findings.warn(authorities.place, format_args!("{text}; {remedy}"));
        }
        ports(route, findings);
    }
}

/// A password goes to a host that has proved its name, or stays on this host.
fn protected(route: &Route, login: &At<Option<RouteLogin>>, findings: &mut Findings) {
    let (Some(to), place) = (&route.to, login.place) else { return };
    if route.hop().is_some() {
        // That it has no effect was found before.
        return;
    }
    if matches!(to.value, To::Mx) {
        let text = "by MX mail goes to hosts that DNS has named, and they must not get a password";
        findings.error(place, format_args!("{text}; name the host in `to`, or take it out"));
        return;
    }
    if route.hosts().next().is_none() {
        return;
    }
    let is_here = route.hosts().all(|host| is_loopback(&host.value.name));
    match route.tls_in_force() {
        RouteTls::Verified | RouteTls::Implicit => {}
        RouteTls::Unverified if is_here => {}
        RouteTls::Required | RouteTls::Unverified => {
            let text = "another host could answer in the host's place and get the login";
            findings.error(place, format_args!("{text}; say tls = \"verified\", or \"implicit\" for port 465"));
        }
        RouteTls::Off | RouteTls::Opportunistic => {
            let text = "no login is sent without TLS that is required";
            let or = if is_here { ", or \"unverified\" for a host with SCRAM" } else { "" };
            let remedy = format!("say tls = \"verified\", or \"implicit\" for port 465{or}");
            findings.error(place, format_args!("{text}; {remedy}"));
        }
    }
}

/// What hosts expect on the well-known ports (RFC 8314).
fn ports(route: &Route, findings: &mut Findings) {
    let is_implicit = route.tls_in_force() == RouteTls::Implicit;
    let tls = route.tls.as_ref().map(|tls| tls.place);
    for host in route.hosts() {
        let place: Place = tls.unwrap_or(host.place);
        match host.value.port {
            465 if !is_implicit => {
                let text = "hosts start with TLS on port 465 (RFC 8314)";
                findings.warn(place, format_args!("{text}; say tls = \"implicit\", or use port 587"));
            }
            port @ (25 | 587) if is_implicit => {
                let text = format!("hosts do not start with TLS on port {port}");
                findings.warn(place, format_args!("{text}; say tls = \"verified\", or use port 465"));
            }
            _ => {}
        }
    }
}
