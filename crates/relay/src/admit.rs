//! Which recipients are taken. What can only fail is refused at RCPT, while the client still has the message: a report of
//! it would go to a sender that may be forged.

use std::net::IpAddr;

use posthaste_client::mx::is_public;
use posthaste_server::{
    Envelope, Peer,
    wire::{Domain, ForwardPath, Mail, Mailbox, Rcpt, Reply, address::AddressLiteral},
};

use crate::{NextHop, RelayOptions, domains::canonical};

/// The most octets of a name in the DNS, as text (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

impl RelayOptions {
    /// Takes or refuses a recipient of a client's message.
    ///
    /// # Errors
    /// The reply to refuse with.
    pub(crate) fn admit(&self, peer: &Peer, mail: &Mail, rcpt: &Rcpt) -> Result<(), Reply> {
        if self.is_postmaster(Some(peer), &rcpt.forward_path) {
            let own = self.host_name.borrowed();
            let to = self.postmaster.as_ref().map_or(own, Mailbox::domain);
            return self.reaches(peer, mail, &to);
        }
        self.policy.check(peer, &self.host_name, rcpt)?;
        match &rcpt.forward_path {
            ForwardPath::Mailbox(mailbox) => self.reaches(peer, mail, &mailbox.domain()),
            ForwardPath::Postmaster => Ok(()),
        }
    }

    /// Sends what is for this host's postmaster to the mailbox that stands for it.
    pub(crate) fn forward_postmaster(&self, peer: Option<&Peer>, envelope: &mut Envelope) {
        let Some(mailbox) = &self.postmaster else { return };
        for rcpt in &mut envelope.recipients {
            if self.is_postmaster(peer, &rcpt.forward_path) {
                rcpt.forward_path = ForwardPath::Mailbox(mailbox.clone());
            }
        }
    }

    /// Returns `true` for the one mailbox that every host has (RFC 5321 section 4.5.1), by this host's name or address.
    fn is_postmaster(&self, peer: Option<&Peer>, path: &ForwardPath) -> bool {
        let ForwardPath::Mailbox(mailbox) = path else { return true };
        mailbox.unquoted_local_part().eq_ignore_ascii_case("postmaster") && {
            let domain = mailbox.domain();
            self.is_own(canonical(&domain).as_deref()) || peer.is_some_and(|peer| is_own_address(peer, &domain))
        }
    }

    fn is_own(&self, name: Option<&str>) -> bool {
        name.is_some() && canonical(&self.host_name.borrowed()).as_deref() == name
    }

    /// Refuses a domain whose mail cannot go anywhere, whatever hosts and the DNS say.
    fn reaches(&self, peer: &Peer, mail: &Mail, domain: &Domain<&str>) -> Result<(), Reply> {
        let Some(name) = canonical(domain) else {
            return Err(Reply::from_static("550 5.1.2 That domain cannot be in the DNS\r\n"));
        };
        let to = self.routes.route(&name).map(|route| &route.to);
        let verifies = match to {
            // Whatever the DNS says of our own name, it leads back here.
            None | Some(NextHop::Mx) if self.is_own(Some(&name)) => {
                return Err(Reply::from_static("550 5.1.1 There is no such mailbox here\r\n"));
            }
            None => return Err(Reply::from_static("550 5.1.1 There is no route to that recipient\r\n")),
            Some(NextHop::Mx) => {
                self.reaches_by_dns(peer, domain, &name)?;
                false
            }
            Some(NextHop::Hosts(_)) => self.delivery.verified_tls.is_some(),
        };
        // RFC 8689 section 4.2.1. A report may go on without.
        if mail.require_tls && !verifies && mail.reverse_path.mailbox().is_some() {
            return Err(Reply::from_static("550 5.7.10 No verified TLS leads to that recipient\r\n"));
        }
        Ok(())
    }

    fn reaches_by_dns(&self, peer: &Peer, domain: &Domain<&str>, name: &str) -> Result<(), Reply> {
        let any = self.delivery.allow_private;
        match domain.address_literal() {
            Some(_) if is_own_address(peer, domain) => {
                Err(Reply::from_static("550 5.4.6 That is this host, and it has no mailboxes\r\n"))
            }
            Some(AddressLiteral::Ip(address)) if is_nobody(address) || !(any || is_public(address)) => {
                Err(Reply::from_static("550 5.1.2 That address is not one that mail goes to\r\n"))
            }
            Some(AddressLiteral::Ip(_)) => Ok(()),
            Some(_) => Err(Reply::from_static("550 5.1.2 That kind of address literal leads nowhere\r\n")),
            None if name.len() > MAX_NAME => {
                Err(Reply::from_static("550 5.1.2 That domain is too long for the DNS\r\n"))
            }
            None if is_never_public(name) && !any => {
                Err(Reply::from_static("550 5.1.2 That domain is not in the public DNS\r\n"))
            }
            None => Ok(()),
        }
    }
}

/// Whether a literal is the address that the client has connected to.
fn is_own_address(peer: &Peer, domain: &Domain<&str>) -> bool {
    match domain.address_literal() {
        Some(AddressLiteral::Ip(address)) => address.to_canonical() == peer.local.ip().to_canonical(),
        _ => false,
    }
}

/// Whether no host has such an address. A connection to one may end at this host itself.
fn is_nobody(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_multicast()
}

/// Names that by agreement no public name server has (RFC 6761 sections 6.3 and 6.4, RFC 7686).
fn is_never_public(name: &str) -> bool {
    let top = name.rsplit('.').next().unwrap_or(name);
    ["localhost", "invalid", "onion"].contains(&top)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use posthaste_client::rustls;
    use posthaste_server::wire::Command;

    use super::*;
    use crate::{Route, Routes};

    fn parse<T>(line: &str, take: impl FnOnce(Command<'_>) -> Option<T>) -> T {
        Command::parse(line.as_bytes()).ok().and_then(take).unwrap_or_else(|| panic!("{line}"))
    }

    fn rcpt(path: &str) -> Rcpt {
        parse(&format!("RCPT TO:{path}"), |command| match command {
            Command::Rcpt(rcpt) => Some(rcpt.into_owned()),
            _ => None,
        })
    }

    fn envelope(mail: &str) -> Envelope {
        let mail = parse(&format!("MAIL FROM:{mail}"), |command| match command {
            Command::Mail(mail) => Some(mail.into_owned()),
            _ => None,
        });
        Envelope { mail, recipients: Vec::new() }
    }

    fn options(routes: &[(&str, bool)]) -> RelayOptions {
        let mut options = RelayOptions::new("Relay.test".parse().unwrap());
        options.policy.relay_from.push("192.0.2.0/24".parse().unwrap());
        options.policy.relay_domains =
            ["backup.test", "nowhere.test", "*.below.test"].iter().map(|text| text.parse().unwrap()).collect();
        options.routes = Routes::new(
            routes
                .iter()
                .map(|(domains, mx)| {
                    let to = if *mx { NextHop::Mx } else { NextHop::Hosts(vec![("hop.test".to_owned(), 25)]) };
                    Route::new(vec![domains.parse().unwrap()], to)
                })
                .collect(),
        );
        options
    }

    fn said(options: &RelayOptions, client: &str, mail: &str, path: &str) -> String {
        let local = "203.0.113.25:25".parse().unwrap();
        let peer = Peer::new(format!("{client}:1024").parse().unwrap(), local);
        match options.admit(&peer, &envelope(mail).mail, &rcpt(path)) {
            Ok(()) => "250".to_owned(),
            Err(reply) => reply.to_string().chars().take(9).collect(),
        }
    }

    const STRANGER: &str = "198.51.100.1";
    const TRUSTED: &str = "192.0.2.1";

    #[test]
    fn what_can_only_fail_is_refused_from_anyone() {
        let by_mx = &[("*", true)][..];
        let by_hosts = &[("*", false)][..];
        let some = &[("backup.test", true), ("*.relay.test", false), ("*.below.test", true)][..];
        let own = &[("relay.test", false), ("*", true)][..];
        for (routes, path, stranger, trusted) in [
            (by_mx, "<a@relay.test>", "550 5.1.1", "550 5.1.1"),
            (by_mx, "<a@RELAY.Test>", "550 5.1.1", "550 5.1.1"),
            (by_mx, "<Postmaster>", "550 5.1.1", "550 5.1.1"),
            (by_mx, "<postMASTER@relay.test>", "550 5.1.1", "550 5.1.1"),
            (by_mx, "<\"postmaster\"@relay.test>", "550 5.1.1", "550 5.1.1"),
            (by_mx, "<a@backup.test>", "250", "250"),
            (by_mx, "<a@sub.relay.test>", "550 5.7.1", "250"),
            (by_hosts, "<a@relay.test>", "250", "250"),
            (by_hosts, "<Postmaster>", "250", "250"),
            (own, "<a@relay.test>", "250", "250"),
            (own, "<Postmaster>", "250", "250"),
            (some, "<a@relay.test>", "550 5.1.1", "550 5.1.1"),
            (some, "<a@nowhere.test>", "550 5.1.1", "550 5.1.1"),
            (some, "<a@x.below.test>", "250", "250"),
            (some, "<a@backup.test>", "250", "250"),
            (some, "<a@other.test>", "550 5.7.1", "550 5.1.1"),
            // This host by its address, addresses that mail does not go to, and literals of another kind.
            (by_mx, "<a@[203.0.113.25]>", "550 5.7.1", "550 5.4.6"),
            (by_mx, "<postmaster@[203.0.113.25]>", "550 5.1.1", "550 5.1.1"),
            (by_mx, "<a@[IPv6:::ffff:203.0.113.25]>", "550 5.7.1", "550 5.4.6"),
            (by_mx, "<a@[127.0.0.1]>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@[10.1.2.3]>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@[0.0.0.0]>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@[IPv6:::1]>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@[IPv6:ff02::1]>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@[x:y]>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@[8.8.8.8]>", "550 5.7.1", "250"),
            (by_hosts, "<a@[10.1.2.3]>", "550 5.7.1", "250"),
            // Names that no public name server has.
            (by_mx, "<a@localhost>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@x.LOCALHOST>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@x.invalid>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@x.onion>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@notinvalid>", "550 5.7.1", "250"),
            (by_hosts, "<a@localhost>", "550 5.7.1", "250"),
            // What is no U-label has no form for the DNS; what is an A-label already is for the DNS to say.
            (by_mx, "<a@\u{301}a.test>", "550 5.7.1", "550 5.1.2"),
            (by_hosts, "<a@\u{301}a.test>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@xn--0.test>", "550 5.7.1", "250"),
        ] {
            let mut options = options(routes);
            for (client, wanted) in [(STRANGER, stranger), (TRUSTED, trusted)] {
                assert_eq!(said(&options, client, "<s@s.test> SMTPUTF8", path), wanted, "{routes:?} {client} {path}");
            }
            // With hosts in private networks, the private addresses lead somewhere; nothing else changes.
            options.delivery.allow_private = true;
            let private = ["[127.0.0.1]", "[10.1.2.3]", "[IPv6:::1]", "localhost", "LOCALHOST", "invalid", "onion"];
            let is_private = private.iter().any(|end| path.ends_with(&format!("{end}>")));
            let wanted = if is_private { "250" } else { trusted };
            assert_eq!(said(&options, TRUSTED, "<s@s.test> SMTPUTF8", path), wanted, "{routes:?} {path}");
        }
    }

    #[test]
    fn a_domain_of_more_octets_than_the_dns_takes_is_refused() {
        let peer = Peer::new("192.0.2.1:1".parse().unwrap(), "203.0.113.25:25".parse().unwrap());
        for (last, by_dns) in [(11, true), (12, false), (13, false)] {
            let mailbox: Mailbox = format!("a@{}{}", "a123456789.".repeat(22), "x".repeat(last)).parse().unwrap();
            let rcpt = Rcpt::new(ForwardPath::Mailbox(mailbox.borrowed())).into_owned();
            for (mx, taken) in [(true, by_dns), (false, true)] {
                let admitted = options(&[("*", mx)]).admit(&peer, &envelope("<s@s.test>").mail, &rcpt);
                assert_eq!(admitted.is_ok(), taken, "{last} {mx}");
            }
        }
    }

    #[test]
    fn the_postmaster_is_where_the_options_say() {
        let mut options = options(&[("*", true)]);
        options.postmaster = Some("admin@example.org".parse().unwrap());
        for path in
            ["<Postmaster>", "<postmaster@relay.test>", "<PostMaster@RELAY.test>", "<postmaster@[203.0.113.25]>"]
        {
            assert_eq!(said(&options, STRANGER, "<>", path), "250", "{path}");
        }
        for (path, wanted) in [("<a@relay.test>", "550 5.1.1"), ("<postmaster@backup.test>", "250")] {
            assert_eq!(said(&options, STRANGER, "<>", path), wanted, "{path}");
        }
        let peer = Peer::new("198.51.100.1:1".parse().unwrap(), "203.0.113.25:25".parse().unwrap());
        let mut envelope = envelope("<>");
        let paths = ["<Postmaster>", "<a@relay.test>", "<POSTMASTER@relay.test>", "<postmaster@backup.test>"];
        envelope.recipients = paths.iter().map(|path| rcpt(path)).collect();
        options.forward_postmaster(Some(&peer), &mut envelope);
        let forwarded: Vec<_> = envelope.recipients.iter().map(|rcpt| rcpt.forward_path.to_string()).collect();
        let there = "<admin@example.org>";
        assert_eq!(forwarded, [there, "<a@relay.test>", there, "<postmaster@backup.test>"]);
        // A postmaster who cannot be reached is refused as well.
        options.postmaster = Some("admin@relay.test".parse().unwrap());
        assert_eq!(said(&options, STRANGER, "<>", "<Postmaster>"), "550 5.1.1");
    }

    #[test]
    fn requiretls_mail_is_refused_where_no_host_can_prove_itself() {
        let roots = rustls::RootCertStore::empty();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        for (mx, verified, reply) in
            [(true, false, "550 5.7.1"), (true, true, "550 5.7.1"), (false, false, "550 5.7.1"), (false, true, "250")]
        {
            let mut options = options(&[("*", mx)]);
            options.delivery.verified_tls = verified.then(|| Arc::clone(&config));
            assert_eq!(said(&options, TRUSTED, "<s@s.test> REQUIRETLS", "<a@b.test>"), reply, "{mx} {verified}");
            // A report, and mail that does not ask for it, go on.
            assert_eq!(said(&options, TRUSTED, "<> REQUIRETLS", "<a@b.test>"), "250");
            assert_eq!(said(&options, TRUSTED, "<s@s.test>", "<a@b.test>"), "250");
        }
    }
}
