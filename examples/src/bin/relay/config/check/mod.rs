//! What is wrong with a configuration although each value by itself is right. Nothing is started or
//! made for it.

mod delivery;
mod disk;
mod dkim;
mod listeners;
mod logins;
mod paths;
mod policy;
mod recipients;
mod submission;

use super::{
    Facts, conditions,
    file::{Dane, File},
    findings::{At, Findings},
    next_hop::To,
    site, source, to,
};

/// Looks at everything.
pub(super) fn all(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    listeners::check(file, findings);
    policy::check(file, facts, findings);
    paths::check(file, facts, findings);
    logins::check(file, findings);
    delivery::check(file, facts, findings);
    dkim::check(file, findings);
    to::check(file, findings);
    site::check(file, findings);
    submission::check(file, findings);
    conditions::check(file, findings);
    source::check(file, findings);
    disk::check(file, facts, findings);
}

/// Switches are on unless they are switched off.
pub(super) fn is_on(flag: Option<&At<bool>>) -> bool {
    flag.is_none_or(|flag| flag.value)
}

/// Returns `true` for what is written down as switched on.
pub(super) fn is_wanted(flag: Option<&At<bool>>) -> bool {
    flag.is_some_and(|flag| flag.value)
}

/// Returns `true` if a route names its hosts.
pub(super) fn names_hosts(file: &File) -> bool {
    file.routes.iter().filter_map(|route| route.to.as_ref()).any(|to| matches!(to.value, To::Hosts(_)))
}

/// Returns `true` if mail by MX follows the policies that domains publish.
pub(super) fn follows_policies(file: &File) -> bool {
    asks_for_mx(file) && (uses_dane(file) || is_wanted(file.delivery.mta_sts.as_ref()))
}

/// Returns `true` if hosts may be proved by their TLSA records.
fn uses_dane(file: &File) -> bool {
    file.delivery.dane.as_ref().is_some_and(|dane| dane.value != Dane::Off)
}

/// Returns `true` if mail that requires verified TLS can go somewhere. By MX it needs DANE or
/// MTA-STS: nothing else proves that a name from DNS is the domain's own.
pub(super) fn guards(file: &File) -> bool {
    (names_hosts(file) || follows_policies(file)) && is_on(file.offers.requiretls.as_ref())
}

/// Returns `true` if certificates of next hops are verified, for mail or for routes that demand it.
pub(super) fn verifies(file: &File) -> bool {
    (guards(file) && names_hosts(file))
        || is_wanted(file.delivery.mta_sts.as_ref())
        || file.routes.iter().any(|route| route.is_verified() && route.authorities.is_none())
}

/// Returns `true` if a route asks DNS for its hosts.
fn asks_for_mx(file: &File) -> bool {
    let written = file.routes.iter().any(|route| route.to.as_ref().is_none_or(|to| matches!(to.value, To::Mx)));
    written || file.routes.is_empty()
}

/// Returns `true` if clients can log in somewhere.
fn takes_submissions(file: &File) -> bool {
    file.listeners.iter().any(super::file::Listener::is_submission)
}
