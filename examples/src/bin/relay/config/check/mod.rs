//! What is wrong with a configuration although each value by itself is right. Nothing is started or
//! made for it.

mod delivery;
mod disk;
mod listeners;
mod paths;
mod policy;

use super::{
    Facts,
    file::{File, RouteTls, To},
    findings::{At, Findings},
};

/// Looks at everything.
pub(super) fn all(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    listeners::check(file, findings);
    policy::check(file, facts, findings);
    paths::check(file, facts, findings);
    delivery::check(file, facts, findings);
    disk::check(file, facts, findings);
}

/// Switches are on unless they are switched off.
pub(super) fn is_on(flag: Option<&At<bool>>) -> bool {
    flag.is_none_or(|flag| flag.value)
}

/// Returns `true` for what is written down as switched on.
fn is_wanted(flag: Option<&At<bool>>) -> bool {
    flag.is_some_and(|flag| flag.value)
}

/// Returns `true` if a route names its hosts.
pub(super) fn names_hosts(file: &File) -> bool {
    file.routes.iter().filter_map(|route| route.to.as_ref()).any(|to| matches!(to.value, To::Hosts(_)))
}

/// Returns `true` if mail that requires verified TLS can go somewhere. By MX it could not: nothing
/// proves that a name from DNS is the domain's own.
pub(super) fn guards(file: &File) -> bool {
    names_hosts(file) && is_on(file.offers.requiretls.as_ref())
}

/// Returns `true` if certificates of next hops are verified, for mail or for routes that demand it.
pub(super) fn verifies(file: &File) -> bool {
    guards(file) || file.routes.iter().any(|route| route.tls_in_force() == RouteTls::Verified)
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
