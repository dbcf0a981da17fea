//! What the relay honors from end to end, to be offered by its listeners.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use posthaste_queue::MAX_DELAY;
use posthaste_server::{
    session::{
        ServerSettings,
        server::{FutureRelease, Offers},
    },
    wire::parameter::DateTime,
};

/// Everything that the relay honors for mail from other hosts: DSN, SMTPUTF8, CHUNKING and BINARYMIME, DELIVERBY,
/// MT-PRIORITY, RRVS as a host without mailboxes does (RFC 7293 section 5.1.1), LIMITS, and inside TLS REQUIRETLS.
///
/// Take out what is not wanted: REQUIRETLS where no route names its hosts or
/// [`verified_tls`](crate::DeliveryOptions::verified_tls) is missing, since such mail would only be returned.
///
/// ```
/// use posthaste_relay::{offers, session::ServerSettings};
/// let mut settings = ServerSettings::new("relay.example.org");
/// settings.offers = offers();
/// settings.offers.require_tls = false;
/// ```
pub fn offers() -> Offers {
    Offers {
        smtputf8: true,
        dsn: true,
        chunking: true,
        binary_mime: true,
        require_tls: true,
        deliver_by: Some(0),
        mt_priority: Some(String::new()),
        rrvs: true,
        limits: true,
        ..Offers::default()
    }
}

/// FUTURERELEASE (RFC 4865), for a listener that takes submissions and for no other: a message is held for at most so long,
/// and for no longer than [`MAX_DELAY`]. [`RelayService`](crate::RelayService) keeps the latest point in time at the same
/// distance for each client.
pub fn future_release(longest: Duration) -> FutureRelease {
    let seconds = longest.min(MAX_DELAY).as_secs();
    let max_interval = u32::try_from(seconds).unwrap_or(u32::MAX);
    FutureRelease { max_interval, max_date_time: in_seconds(max_interval) }
}

/// The settings with the latest point in time at which a message may be released, counted from now.
pub(crate) fn as_of_now(settings: &Arc<ServerSettings>) -> Arc<ServerSettings> {
    let Some(most) = &settings.offers.future_release else { return Arc::clone(settings) };
    let max_date_time = in_seconds(most.max_interval);
    let mut settings = ServerSettings::clone(settings);
    settings.offers.future_release = Some(FutureRelease { max_interval: most.max_interval, max_date_time });
    Arc::new(settings)
}

/// The time in so many seconds, as RFC 3339 has it.
fn in_seconds(seconds: u32) -> DateTime {
    let then = Timestamp::now().as_second().saturating_add(seconds.into());
    let text = Timestamp::from_second(then).unwrap_or(Timestamp::MAX).to_string();
    match DateTime::parse(&text) {
        Ok(time) => time.into_owned(),
        // What jiff writes is RFC 3339, and in the years that it knows.
        Err(_) => unreachable!(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_release_moves_with_the_clock_and_has_a_bound() {
        for (longest, seconds) in [(60, 60), (0, 0), (u64::MAX, MAX_DELAY.as_secs())] {
            let release = future_release(Duration::from_secs(longest));
            assert_eq!(u64::from(release.max_interval), seconds);
            let left = release.max_date_time.unix_seconds() - Timestamp::now().as_second();
            assert!((seconds as i64 - 5..=seconds as i64).contains(&left), "{left}");
        }
        let mut settings = ServerSettings::new("relay.test");
        assert!(as_of_now(&Arc::new(settings.clone())).offers.future_release.is_none());
        let past = DateTime::parse("2001-01-01T00:00:00Z").unwrap().into_owned();
        settings.offers.future_release = Some(FutureRelease { max_interval: 60, max_date_time: past });
        let moved = as_of_now(&Arc::new(settings)).offers.future_release.clone().unwrap();
        assert!(moved.max_date_time.unix_seconds() > Timestamp::now().as_second() + 50);
    }
}
