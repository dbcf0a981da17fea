//! Descriptors of open files, of which each connection needs one.

use std::io;

use tracing::warn;

/// Returns `true` if the process or the system has as many open files as it may have.
pub(crate) fn are_used_up(error: &io::Error) -> bool {
    /// The same on each Unix. Windows has no such limits.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Warns if the process may not have as many descriptors as this number of connections can take.
#[cfg(unix)]
pub(crate) fn compare(connections: usize) {
    use rustix::process::{Resource, getrlimit};
    let wanted = needed(connections);
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < wanted) {
        warn!(
            limit,
            wanted,
            connections,
            "too few open files for all connections: raise the limit (`ulimit -n`, LimitNOFILE=) or lower `connections`"
        );
    }
}

#[cfg(not(unix))]
pub(crate) fn compare(_: usize) {}

/// An eighth of the clients may be leaving, others are being told that there is no room, and the
/// program has files of its own.
#[cfg(unix)]
fn needed(connections: usize) -> u64 {
    (connections as u64).saturating_add(connections as u64 / 8).saturating_add(100)
}
