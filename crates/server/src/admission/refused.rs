//! What the log is told of clients that get no seat.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::counters;

/// Clients that got no seat since the last line about them.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<Since>);

#[derive(Debug, Default)]
struct Since {
    clients: u64,
    told: Option<Instant>,
}

/// The time between two lines of the log.
const TELL: Duration = Duration::from_secs(10);

impl Refused {
    /// One line in a while, however many clients are refused. `None`: a proxy.
    /// `limit`: the field of [`ServerOptions`](crate::ServerOptions) that leaves no room.
    pub(super) fn tell(&self, address: Option<IpAddr>, limit: &'static str) {
        counters::refused(limit);
        let last = address.map(tracing::field::display);
        debug!(address = last, limit, "client refused, no room");
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.clients += 1;
        if since.told.is_none_or(|told| told.elapsed() >= TELL) {
            let Since { clients, .. } =
                std::mem::replace(&mut *since, Since { clients: 0, told: Some(Instant::now()) });
            drop(since);
            warn!(clients, last, limit, "clients refused, no room");
        }
    }
}
