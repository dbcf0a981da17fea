//! Clients that talk before the greeting.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{LOOPBACK, fixed, is_in};
use crate::{Context, Layer, NetworkSet, session::ServerSettings};

/// Turns away what only imitates SMTP: the greeting waits, and a client that does not gets 554 and
/// the end (RFC 5321 section 4.3.1).
///
/// This is [`greeting_delay`](crate::session::server::ServerTimeouts::greeting_delay) for strangers
/// alone. HTTP and other protocols need no layer: a session ends at the first line of them, with
/// 421, and reads nothing that follows.
///
/// ```
/// # use std::time::Duration;
/// use posthaste_server::layers::EarlyTalkers;
/// let mut layer = EarlyTalkers::default();
/// layer.delay = Duration::from_secs(6);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EarlyTalkers {
    /// How long the greeting waits. Default 2 seconds, which honest clients do not mind: they wait
    /// for 5 minutes. A client that waits takes a connection's place.
    pub delay: Duration,
    /// The networks that are greeted at once. Default: loopback.
    pub except: NetworkSet,
    /// The last settings and what became of them, so that connections share one copy.
    changed: Arc<Mutex<Option<[Arc<ServerSettings>; 2]>>>,
}

impl Default for EarlyTalkers {
    fn default() -> Self {
        Self { delay: Duration::from_secs(2), except: fixed(LOOPBACK), changed: Arc::default() }
    }
}

impl Layer for EarlyTalkers {
    fn settings(&self, cx: &Context, settings: Arc<ServerSettings>) -> Arc<ServerSettings> {
        if is_in(&self.except, cx) {
            return settings;
        }
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([before, after]) = &*changed
            && Arc::ptr_eq(before, &settings)
            && after.timeouts.greeting_delay == self.delay
        {
            return Arc::clone(after);
        }
        let mut after = ServerSettings::clone(&settings);
        after.timeouts.greeting_delay = self.delay;
        after.limits.forbid_early_talking = true;
        let after = Arc::new(after);
        *changed = Some([settings, Arc::clone(&after)]);
        after
    }
}
