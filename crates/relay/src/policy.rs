//! Who may send to whom. Relaying has to be written down to be open.

use std::str::FromStr;

use ipnet::IpNet;
use posthaste_server::{
    Peer,
    wire::{Domain, ForwardPath, Rcpt, Reply},
};
use thiserror::Error;

/// Who may send to whom. By default nobody may relay, and mail is accepted for the relay's own name alone.
///
/// The domain behind the last `@` decides. The local part is opaque to this relay, but the host that the mail goes to may
/// read a route in it: from strangers, `user%other@here`, `other!user@here` and `"user@other"@here` are refused.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Clients that may send to any domain without logging in.
    pub relay_from: Vec<IpNet>,
    /// Domains that anyone may send to.
    pub relay_domains: Vec<DomainPattern>,
}

/// A set of domains: `example.org` is that domain, `*.example.org` are those below it, `*` are all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// Every domain.
    Any,
    /// One domain, in lower case and A-labels.
    Exact(String),
    /// The domains below one, in lower case and A-labels.
    Below(String),
}

/// Text that is no pattern for domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a domain such as example.org, *.example.org or * was expected")]
pub struct DomainPatternError;

static DENIED: Reply = Reply::from_static("550 5.7.1 Relaying denied\r\n");

impl Policy {
    /// Whether a client may do more than a stranger: it has logged in, or comes from a network that may relay.
    pub fn trusts(&self, peer: &Peer) -> bool {
        let address = peer.address.ip().to_canonical();
        peer.identity.is_some() || self.relay_from.iter().any(|network| network.contains(&address))
    }

    /// Whether a client may send to a recipient.
    ///
    /// # Errors
    /// The reply to refuse with.
    pub fn check(&self, peer: &Peer, own_name: &Domain, rcpt: &Rcpt) -> Result<(), Reply> {
        let ForwardPath::Mailbox(mailbox) = &rcpt.forward_path else { return Ok(()) };
        let domain = mailbox.domain();
        let ours = is_same(&domain, own_name) || self.relay_domains.iter().any(|pattern| pattern.matches(&domain));
        let routes_on = mailbox.unquoted_local_part().contains(['%', '!', '@']);
        if self.trusts(peer) || (ours && !routes_on) { Ok(()) } else { Err(DENIED.clone()) }
    }
}

/// Whether both are the same name, whichever labels either is in.
fn is_same(domain: &Domain<&str>, own_name: &Domain) -> bool {
    if domain.as_str().is_ascii() && own_name.as_str().is_ascii() {
        return domain == own_name;
    }
    domain.to_a_labels().ok().zip(own_name.to_a_labels().ok()).is_some_and(|(domain, own)| domain == own)
}

impl DomainPattern {
    /// Whether a domain is in the set, in A-labels or in U-labels.
    pub fn matches(&self, domain: &Domain<&str>) -> bool {
        let in_a_labels = (!domain.as_str().is_ascii()).then(|| domain.to_a_labels().ok()).flatten();
        let domain = in_a_labels.as_ref().map_or(domain.as_str(), |domain| domain.as_str());
        match self {
            Self::Any => true,
            Self::Exact(name) => domain.eq_ignore_ascii_case(name),
            Self::Below(parent) => {
                let split = domain.len().checked_sub(parent.len() + 1);
                split
                    .and_then(|at| domain.get(at..))
                    .is_some_and(|tail| tail.strip_prefix('.').is_some_and(|tail| tail.eq_ignore_ascii_case(parent)))
            }
        }
    }
}

impl FromStr for DomainPattern {
    type Err = DomainPatternError;

    fn from_str(text: &str) -> Result<Self, DomainPatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let domain = Domain::parse(name).map_err(|_| DomainPatternError)?;
        let name = match name.is_ascii() {
            true => name.to_ascii_lowercase(),
            false => domain.to_a_labels().map_err(|_| DomainPatternError)?.as_str().to_owned(),
        };
        Ok(if text.starts_with("*.") { Self::Below(name) } else { Self::Exact(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_server::wire::Command;

    fn allowed(policy: &Policy, client: &str, path: &str) -> bool {
        let line = format!("RCPT TO:{path}");
        let Ok(Command::Rcpt(rcpt)) = Command::parse(line.as_bytes()) else { return false };
        let local = "127.0.0.1:25".parse().unwrap();
        let peer = Peer::new(format!("{client}:1024").parse().unwrap(), local);
        policy.check(&peer, &"relay.test".parse().unwrap(), &rcpt.into_owned()).is_ok()
    }

    #[test]
    fn nobody_relays_unless_it_is_written_down() {
        let policy = Policy {
            relay_from: vec!["192.0.2.0/24".parse().unwrap()],
            relay_domains: vec!["dest.test".parse().unwrap(), "*.sub.test".parse().unwrap()],
        };
        for path in
            ["<a@relay.test>", "<a@DEST.test>", "<Postmaster>", "<a@x.sub.test>", "<a@y.x.sub.test>", "<a@RELAY.TEST>"]
        {
            assert!(allowed(&policy, "198.51.100.1", path), "{path}");
        }
        for path in [
            "<v@other.test>",
            "<v@sub.test>",
            "<v@xsub.test>",
            "<v@xdest.test>",
            "<v@dest.test.other.test>",
            "<@dest.test:v@other.test>",
            "<v@[127.0.0.1]>",
            "<v@[192.0.2.1]>",
            "<v@dest.test@other.test>",
            "<\"v@dest.test\"@other.test>",
            "<v%dest.test@other.test>",
            "<dest.test!v@other.test>",
            "<v%other.test@dest.test>",
            "<other.test!v@relay.test>",
            "<\"v@other.test\"@dest.test>",
            "<\"v\\@other.test\"@dest.test>",
            "<v@dest.test.>",
        ] {
            assert!(!allowed(&policy, "198.51.100.1", path), "{path}");
        }
        assert!(allowed(&policy, "192.0.2.7", "<v@other.test>"));
        assert!(allowed(&policy, "192.0.2.7", "<v%w@dest.test>"));
        assert!(allowed(&policy, "[::ffff:192.0.2.7]", "<v@other.test>"));
        assert!(!allowed(&Policy::default(), "127.0.0.1", "<v@other.test>"));
    }

    #[test]
    fn a_domain_beyond_ascii_is_one_in_both_forms() {
        for pattern in ["b\u{fc}cher.test", "xn--bcher-kva.test", "B\u{dc}CHER.test"] {
            let pattern: DomainPattern = pattern.parse().unwrap();
            for domain in ["b\u{fc}cher.test", "XN--BCHER-kva.test"] {
                assert!(pattern.matches(&Domain::parse(domain).unwrap()), "{pattern:?} {domain}");
            }
            assert!(!pattern.matches(&Domain::parse("bucher.test").unwrap()));
        }
        let below: DomainPattern = "*.b\u{fc}cher.test".parse().unwrap();
        assert!(below.matches(&Domain::parse("a.xn--bcher-kva.test").unwrap()));
    }

    #[test]
    fn the_own_name_is_one_in_both_forms() {
        for (domain, own_name, expected) in [
            ("b\u{fc}cher.test", "xn--bcher-kva.test", true),
            ("XN--BCHER-kva.test", "b\u{fc}cher.test", true),
            ("b\u{fc}cher.test", "B\u{dc}CHER.test", true),
            ("bucher.test", "b\u{fc}cher.test", false),
            ("xn--0.test", "b\u{fc}cher.test", false),
            ("\u{301}a.test", "\u{301}b.test", false),
        ] {
            let (domain, own_name) = (Domain::parse(domain).unwrap(), own_name.parse().unwrap());
            assert_eq!(is_same(&domain, &own_name), expected, "{domain} {own_name}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "*.", "a b", "*.*", "a..b", "@a"] {
            assert_eq!(text.parse::<DomainPattern>(), Err(DomainPatternError), "{text}");
        }
    }
}
