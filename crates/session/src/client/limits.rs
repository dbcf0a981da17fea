//! How a server's LIMITS (RFC 9422) divide a message's recipients.

use alloc::{collections::BTreeSet, string::String};

use posthaste_wire::{Capabilities, ForwardPath, Rcpt};

/// The number of these recipients, from the front, that fit into one transaction by RCPTMAX and
/// RCPTDOMAINMAX. Without limits all do, and at least one always does. Send the others in
/// transactions of their own.
///
/// ```
/// use posthaste_session::client::recipients_at_once;
/// use posthaste_session::wire::{Capabilities, ForwardPath, Mailbox, Rcpt, ReplyRef};
/// let offered = ReplyRef::parse(b"250-mx.example\r\n250 LIMITS RCPTMAX=10 RCPTDOMAINMAX=1\r\n").unwrap();
/// let offered = Capabilities::from_reply(&offered).into_owned();
/// let to = |text| Rcpt::new(ForwardPath::Mailbox(Mailbox::parse(text).unwrap()));
/// let recipients = [to("a@one.example"), to("b@ONE.example"), to("c@two.example")];
/// assert_eq!(recipients_at_once(&offered, &recipients), 2);
/// assert_eq!(recipients_at_once(&Capabilities::default(), &recipients), 3);
/// ```
pub fn recipients_at_once(server: &Capabilities, recipients: &[Rcpt<&str>]) -> usize {
    let limits = server.limits();
    let limit = |most: Option<core::num::NonZeroU32>| {
        most.map_or(usize::MAX, |most| usize::try_from(most.get()).unwrap_or(usize::MAX))
    };
    let most = recipients.len().min(limit(limits.rcpt_max));
    if limits.rcpt_domain_max.is_none() {
        return most;
    }
    let mut domains = BTreeSet::new();
    let fits = |rcpt: &&Rcpt<&str>| {
        domains.insert(domain(&rcpt.forward_path));
        domains.len() <= limit(limits.rcpt_domain_max)
    };
    recipients.iter().take(most).take_while(fits).count()
}

/// The domain for comparison. `None`: postmaster without a domain, which belongs to the server's
/// own.
fn domain(path: &ForwardPath<&str>) -> Option<String> {
    path.mailbox().map(|mailbox| mailbox.domain().as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_wire::{Mailbox, ReplyRef};

    #[test]
    fn each_limit_divides() {
        let to = |text| Rcpt::new(ForwardPath::Mailbox(Mailbox::parse(text).unwrap()));
        let recipients =
            [to("a@x.test"), to("b@X.test"), Rcpt::new(ForwardPath::Postmaster), to("c@y.test"), to("d@x.test")];
        for (limits, expected) in [
            ("", 5),
            ("RCPTMAX=1", 1),
            ("RCPTMAX=0", 5),
            ("RCPTMAX=9", 5),
            ("RCPTDOMAINMAX=1", 2),
            ("RCPTDOMAINMAX=2", 3),
            ("RCPTDOMAINMAX=3", 5),
            ("RCPTDOMAINMAX=3 RCPTMAX=4", 4),
            ("RCPTDOMAINMAX=1 RCPTMAX=4", 2),
            ("MAILMAX=1", 5),
        ] {
            let reply = alloc::format!("250-s\r\n250 LIMITS {limits}\r\n");
            let offered = Capabilities::from_reply(&ReplyRef::parse(reply.as_bytes()).unwrap()).into_owned();
            assert_eq!(recipients_at_once(&offered, &recipients), expected, "{limits}");
            assert_eq!(recipients_at_once(&offered, &[]), 0);
        }
    }
}
