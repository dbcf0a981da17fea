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

/// How many of this number of connections the process has descriptors for. Warns if that is fewer.
pub(crate) fn cap(connections: usize) -> usize {
    let Some(limit) = limit() else { return connections };
    let room = room(limit);
    if room < connections {
        warn!(
            limit,
            connections,
            served = room,
            "too few open files for all connections: raise the limit (`ulimit -n`, LimitNOFILE=) or lower `connections`"
        );
    }
    room.min(connections)
}

/// The connections that this number of descriptors is enough for. An eighth of the clients may be
/// leaving as well.
fn room(limit: u64) -> usize {
    let room = (limit - RESERVED.min(limit / 2)) / 9 * 8;
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}

/// Descriptors that are left for clients who are told that there is no room, for the files of
/// handlers, and for the program. At most half of all.
const RESERVED: u64 = 64 + 200;

#[cfg(unix)]
fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_those_who_leave_and_for_files() {
        for (limit, connections) in [
            (0, 1),
            (1, 1),
            (64, 24),
            (256, 112),
            (1_024, 672),
            (1_400, 1_008),
            (20_000, 17_536),
            (9_000_264, 8_000_000),
        ] {
            assert_eq!(room(limit), connections, "{limit}");
            let taken = (connections + connections / 8) as u64 + RESERVED.min(limit / 2);
            assert!(taken <= limit || connections == 1, "{limit}: {taken}");
        }
    }
}
