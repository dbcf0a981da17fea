//! What this machine says where the file says nothing.

use std::path::PathBuf;

use posthaste::server::wire::Domain;

/// The machine's name, when it is one that mail can use.
pub(super) fn host_name() -> Domain {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok().and_then(|name| name.parse().ok());
    name.unwrap_or_else(|| Domain::parse("localhost").map(Domain::into_owned).unwrap_or_else(|_| unreachable!()))
}

/// Where the system keeps such things: for root below /var/lib, for others below their home.
pub(super) fn queue() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = if rustix::process::geteuid().is_root() {
        Some(PathBuf::from("/var/lib"))
    } else {
        std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)
    };
    base.unwrap_or_else(std::env::temp_dir).join("posthaste/queue")
}
