//! What the system lets this process have.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many descriptors as the system allows: connections in, connections out and files all need them.
pub(crate) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With what there is the relay works too, for fewer connections.
    let _ = setrlimit(Resource::Nofile, limit);
}
