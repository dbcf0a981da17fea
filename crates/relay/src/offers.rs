//! What the relay honors from end to end, to be offered by its listeners.

use std::time::Duration;

use posthaste_queue::MAX_DELAY;
use posthaste_server::session::server::Offers;

/// Everything that the relay honors for mail from other hosts: DSN, SMTPUTF8, CHUNKING and
/// BINARYMIME, DELIVERBY, MT-PRIORITY, RRVS as a host without mailboxes does (RFC 7293 section
/// 5.1.1), LIMITS, and inside TLS REQUIRETLS.
///
/// Take out what is not wanted: REQUIRETLS where no route names its hosts or
/// [`verified_tls`](crate::DeliveryOptions::verified_tls) is missing, since such mail would only be
/// returned.
///
/// ```
/// use posthaste_relay::{offers, session::ServerSettings};
/// let mut settings = ServerSettings::new("relay.example.org".parse().expect("a domain"));
/// settings.offers = offers();
/// settings.offers.require_tls = false;
/// ```
pub fn offers() -> Offers {
    let mut offers = Offers::default();
    offers.smtputf8 = true;
    offers.dsn = true;
    offers.chunking = true;
    offers.binary_mime = true;
    offers.require_tls = true;
    offers.deliver_by = Some(0);
    offers.mt_priority = Some(String::new());
    offers.rrvs = true;
    offers.limits = true;
    offers
}

/// FUTURERELEASE (RFC 4865), for a listener that takes submissions and for no other: the most
/// seconds for which a message is held, [`MAX_DELAY`] at most.
pub fn future_release(longest: Duration) -> u32 {
    u32::try_from(longest.min(MAX_DELAY).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_hold_has_a_bound() {
        for (longest, seconds) in [(60, 60), (0, 0), (u64::MAX, MAX_DELAY.as_secs())] {
            assert_eq!(u64::from(future_release(Duration::from_secs(longest))), seconds);
        }
    }
}
