//! The extensions that the relay's listeners offer.

use std::time::Duration;

use posthaste_queue::MAX_DELAY;
use posthaste_server::session::server::Offers;

/// The extensions that the relay honors from end to end for mail from other hosts. They are DSN,
/// SMTPUTF8, CHUNKING, BINARYMIME, DELIVERBY, MT-PRIORITY, LIMITS, and REQUIRETLS inside TLS. RRVS
/// is honored as by a host without mailboxes (RFC 7293 section 5.1.1).
///
/// Remove what you do not want. Remove REQUIRETLS if no route names its hosts, or if
/// [`verified_tls`](crate::DeliveryOptions::verified_tls) is missing: such mail would only be
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

/// FUTURERELEASE (RFC 4865), for listeners that take submissions and for no others. Returns the
/// most seconds that a message may be held: `longest`, and at most [`MAX_DELAY`].
pub fn future_release(longest: Duration) -> u32 {
    u32::try_from(longest.min(MAX_DELAY).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn future_release_is_at_most_the_longest_delay() {
        for (longest, seconds) in [(60, 60), (0, 0), (u64::MAX, MAX_DELAY.as_secs())] {
            assert_eq!(u64::from(future_release(Duration::from_secs(longest))), seconds);
        }
    }
}
