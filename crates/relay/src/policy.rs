//! Who may send to whom. Relaying has to be written down to be open.

use posthaste_server::{
    Peer,
    wire::{Domain, ForwardPath, Rcpt, Reply},
};

use crate::{DomainSet, NetworkSet, domains::canonical};

/// Who may send to whom. By default nobody may relay, and mail is accepted for the relay's own name alone, if a route has it.
///
/// The domain behind the last `@` decides. The local part is opaque to this relay, but the host that the mail goes to may
/// read a route in it: from strangers, `user%other@here`, `other!user@here` and `"user@other"@here` are refused.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Clients that may send to any domain without logging in.
    pub relay_from: NetworkSet,
    /// Domains that anyone may send to.
    pub relay_domains: DomainSet,
}

static DENIED: Reply = Reply::from_static("550 5.7.1 Relaying denied\r\n");

impl Policy {
    /// Returns `true` if a client may do more than a stranger: it has logged in, or comes from a network that may relay.
    pub fn trusts(&self, peer: &Peer) -> bool {
        peer.identity.is_some() || self.relay_from.contains(peer.address.ip())
    }

    /// Refuses a recipient that a client may not send to. Where its mail can go to is not looked at here.
    ///
    /// # Errors
    /// The reply to refuse with.
    pub fn check(&self, peer: &Peer, own_name: &Domain, rcpt: &Rcpt) -> Result<(), Reply> {
        let ForwardPath::Mailbox(mailbox) = &rcpt.forward_path else { return Ok(()) };
        let (domain, own_name) = (mailbox.domain(), own_name.borrowed());
        let name = canonical(&domain);
        let is_own = name.is_some() && name == canonical(&own_name);
        let routes_on = || mailbox.unquoted_local_part().contains(['%', '!', '@']);
        let serves = is_own || name.is_some_and(|name| self.relay_domains.has(&name));
        if (serves && !routes_on()) || self.trusts(peer) { Ok(()) } else { Err(DENIED.clone()) }
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
            relay_from: vec!["192.0.2.0/24".parse().unwrap()].into(),
            relay_domains: vec!["dest.test".parse().unwrap(), "*.sub.test".parse().unwrap()].into(),
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
}
