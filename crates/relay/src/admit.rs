//! Takes or refuses recipients. Mail that can only fail is refused at RCPT, while the client still
//! has the message. A report of the failure would go to a sender that may be forged.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use posthaste_client::mx::is_public;
use posthaste_server::{
    Context, Envelope, Peer, Refusal, refusal,
    wire::{Domain, ForwardPath, Mail, Mailbox, Rcpt, address::AddressLiteral},
};

use tracing::warn;

use crate::{Facts, Label, NextHop, RelayOptions, Route, RouteQuery, domains::canonical, hooks::Hooks, rule::fits_key};

/// The most octets of a domain name in the DNS, as text (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

/// Takes or refuses a recipient of a client's message. Returns the label of its route.
///
/// # Errors
/// The refusal.
pub(crate) async fn admit(
    options: &RelayOptions,
    hooks: &Hooks,
    cx: &Context,
    trusted: bool,
    mail: &Mail,
    rcpt: &Rcpt,
) -> Result<Option<Label>, Refusal> {
    let peer = &cx.peer;
    let (ForwardPath::Mailbox(mailbox), false) =
        (&rcpt.forward_path, options.is_postmaster(Some(peer), &rcpt.forward_path))
    else {
        let own = options.host_name.borrowed();
        let to = options.postmaster.as_ref().map_or(own, Mailbox::domain);
        let recipient = options.recipient(Some(peer), &rcpt.forward_path);
        return reaches(options, hooks, peer, mail, &recipient, &to).await;
    };
    let domain = mailbox.domain();
    if !trusted {
        // The domain after the last `@` decides. The local part is opaque to this relay, but the
        // next hop may read a route in it.
        let routes_on = mailbox.unquoted_local_part().contains(['%', '!', '@']);
        let serves = options.is_own(canonical(&domain).as_deref()) || hooks.serves(options, cx, &domain).await?;
        if routes_on || !serves {
            return Err(refusal!("550 5.7.1 Relaying denied"));
        }
    }
    let label = reaches(options, hooks, peer, mail, &rcpt.forward_path, &domain).await?;
    hooks.check(options, cx, mailbox).await?;
    Ok(label)
}

/// Refuses a recipient whose mail can go nowhere, whatever hosts and the DNS say. Returns the label
/// of its route.
async fn reaches(
    options: &RelayOptions,
    hooks: &Hooks,
    peer: &Peer,
    mail: &Mail,
    recipient: &ForwardPath,
    domain: &Domain<&str>,
) -> Result<Option<Label>, Refusal> {
    let Some(name) = canonical(domain) else {
        return Err(refusal!("550 5.1.2 That domain cannot be in the DNS"));
    };
    let (identity, client) = (peer.identity.as_deref(), Some(peer.address.ip_or_loopback()));
    let facts = Facts { recipient, sender: &mail.reverse_path, identity, client, tag: None };
    let route = hooks.route(options, &RouteQuery::new(&name, facts)).await.map_err(|error| {
        warn!(domain = &*name, %error, "route not found, recipient refused for now");
        refusal!("451 4.4.3 The route to that recipient is not known now, try again later")
    })?;
    options.judge(Some(peer), recipient, domain, &name, route.as_deref())?;
    let label = route.as_ref().and_then(|route| route.label.clone());
    if label.as_ref().is_some_and(|label| !fits_key(&name, label)) {
        return Err(refusal!("550 5.1.2 That domain is too long for its route"));
    }
    // RFC 8689 section 4.2.1. A report may be sent on without.
    let verifies = route.as_deref().is_some_and(|route| options.verifies(route));
    if mail.require_tls && !verifies && mail.reverse_path.mailbox().is_some() {
        return Err(refusal!("550 5.7.10 No verified TLS leads to that recipient"));
    }
    Ok(label)
}

impl RelayOptions {
    /// Finds the route of mail with these facts, as RCPT does for a client that may send to any
    /// domain. The tables in these options decide, and no decision of the application.
    ///
    /// # Errors
    /// The reply of RCPT: the mailbox is known not to exist, the mail can go nowhere, or its route
    /// refuses it.
    ///
    /// ```
    /// use posthaste_relay::{Facts, NextHop, RelayOptions, server::wire::{ForwardPath, Mailbox, ReversePath}};
    /// let options = RelayOptions::new("relay.example.org".parse()?);
    /// let to = |text: &str| text.parse().map(ForwardPath::Mailbox);
    /// let (elsewhere, here) = (to("jo@example.com")?, to("jo@relay.example.org")?);
    /// assert_eq!(options.route_of(&Facts::new(&ReversePath::Null, &elsewhere))?.to, NextHop::Mx);
    /// // This host has no mailboxes.
    /// assert!(options.route_of(&Facts::new(&ReversePath::Null, &here)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn route_of(&self, facts: &Facts<'_>) -> Result<Arc<Route>, Refusal> {
        let recipient = self.recipient(None, facts.recipient);
        let own = self.host_name.borrowed();
        let domain = recipient.mailbox().map_or(own, Mailbox::domain);
        let name = canonical(&domain).ok_or(refusal!("550 5.1.2 That domain cannot be in the DNS"))?;
        let route = self.routes.route(&RouteQuery::new(&name, Facts { recipient: &recipient, ..*facts }));
        self.judge(None, &recipient, &domain, &name, route.map(|route| &**route))?;
        if let (Some(known), ForwardPath::Mailbox(mailbox)) = (&self.recipients, facts.recipient)
            && !self.is_postmaster(None, facts.recipient)
        {
            known.admit(mailbox)?;
        }
        route.cloned().ok_or(refusal!("550 5.1.1 There is no route to that recipient"))
    }

    /// Refuses a recipient whose mail can go nowhere by its route.
    fn judge(
        &self,
        peer: Option<&Peer>,
        recipient: &ForwardPath,
        domain: &Domain<&str>,
        name: &str,
        route: Option<&Route>,
    ) -> Result<(), Refusal> {
        match route.map(|route| &route.to) {
            // Our own name leads back here, whatever the DNS says.
            None | Some(NextHop::Mx) if self.is_own(Some(name)) => {
                Err(refusal!("550 5.1.1 There is no such mailbox here"))
            }
            None => Err(refusal!("550 5.1.1 There is no route to that recipient")),
            Some(NextHop::Mx) => self.reaches_by_dns(peer, domain, name),
            Some(NextHop::Agent(agent)) => recipient.mailbox().map_or(Ok(()), |mailbox| agent.takes(mailbox)),
            Some(NextHop::Refuse(refusal)) => Err(refusal.clone()),
            Some(NextHop::Hosts(_) | NextHop::Discard | NextHop::Hold) => Ok(()),
        }
    }

    /// Returns `true` if mail by this route goes over verified TLS, or over no network.
    fn verifies(&self, route: &Route) -> bool {
        match &route.to {
            NextHop::Mx => !self.delivery.published.is_empty(),
            NextHop::Hosts(_) => route.is_local() || route.tls.is_verified() || self.delivery.verified_tls.is_some(),
            // It reaches no host without.
            NextHop::Agent(_) | NextHop::Refuse(_) | NextHop::Discard | NextHop::Hold => true,
        }
    }

    /// Replaces this host's postmaster by the mailbox in the options.
    pub(crate) fn forward_postmaster(&self, peer: Option<&Peer>, envelope: &mut Envelope) {
        let Some(mailbox) = &self.postmaster else { return };
        for rcpt in &mut envelope.recipients {
            if self.is_postmaster(peer, &rcpt.forward_path) {
                rcpt.forward_path = ForwardPath::Mailbox(mailbox.clone());
            }
        }
    }

    /// Where mail for a path goes: this host's postmaster is replaced by the mailbox in the
    /// options.
    pub(crate) fn recipient<'a>(&self, peer: Option<&Peer>, path: &'a ForwardPath) -> Cow<'a, ForwardPath> {
        match &self.postmaster {
            Some(mailbox) if self.is_postmaster(peer, path) => Cow::Owned(ForwardPath::Mailbox(mailbox.clone())),
            _ => Cow::Borrowed(path),
        }
    }

    /// Returns `true` if the path is this host's postmaster, by its name or address. Every host has
    /// that mailbox (RFC 5321 section 4.5.1).
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

    fn reaches_by_dns(&self, peer: Option<&Peer>, domain: &Domain<&str>, name: &str) -> Result<(), Refusal> {
        let any = self.delivery.allow_private;
        match domain.address_literal() {
            Some(_) if peer.is_some_and(|peer| is_own_address(peer, domain)) => {
                Err(refusal!("550 5.4.6 That is this host, and it has no mailboxes"))
            }
            Some(AddressLiteral::Ip(address)) if is_no_host(address) || !(any || is_public(address)) => {
                Err(refusal!("550 5.1.2 No mail is sent to that address"))
            }
            Some(AddressLiteral::Ip(_)) => Ok(()),
            Some(_) => Err(refusal!("550 5.1.2 That kind of address literal leads nowhere")),
            None if name.len() > MAX_NAME => Err(refusal!("550 5.1.2 That domain is too long for the DNS")),
            None if is_never_public(name) && !any => Err(refusal!("550 5.1.2 That domain is not in the public DNS")),
            None => Ok(()),
        }
    }
}

/// Returns `true` if a literal is the address to which the client has connected.
fn is_own_address(peer: &Peer, domain: &Domain<&str>) -> bool {
    match domain.address_literal() {
        Some(AddressLiteral::Ip(address)) => {
            peer.local.ip().is_some_and(|local| local.to_canonical() == address.to_canonical())
        }
        _ => false,
    }
}

/// Returns `true` if no host can have this address. A connection to it may end at this host itself.
fn is_no_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified() || address.is_multicast()
}

/// Returns `true` if by agreement no public name server has the name (RFC 6761 sections 6.3 and
/// 6.4, RFC 7686).
fn is_never_public(name: &str) -> bool {
    let top = name.rsplit('.').next().unwrap_or(name);
    ["localhost", "invalid", "onion"].contains(&top)
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        net::SocketAddr,
        pin::pin,
        sync::Arc,
        task::{self, Poll, Waker},
    };

    use posthaste_server::{PeerTls, rustls::ProtocolVersion, session::ServerSettings};

    use super::*;
    use crate::{Policy, Recipients, Route, RouteTable, Rule};

    /// Polls a future that the tables complete at once.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("the future waited"),
        }
    }

    fn context(client: &str) -> Context {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let peer = Peer::new(address(&format!("{client}:1024")), address("203.0.113.25:25"));
        Context::new(peer, Arc::new(ServerSettings::new("relay.test".parse().unwrap())))
    }

    fn admit(options: &RelayOptions, client: &str, mail: &Mail, rcpt: &Rcpt) -> Result<Option<Label>, Refusal> {
        let (hooks, cx) = (Hooks::default(), context(client));
        now(async {
            let trusted = hooks.trusts(options, &cx).await?;
            super::admit(options, &hooks, &cx, trusted, mail, rcpt).await
        })
    }

    fn envelope(mail: &str) -> Envelope {
        Envelope::from_commands(mail.parse().unwrap(), Vec::new())
    }

    fn options(routes: &[(&str, bool)]) -> RelayOptions {
        let mut options = RelayOptions::new("Relay.test".parse().unwrap());
        options.policy.relay_from.push("192.0.2.0/24".parse().unwrap());
        options.policy.relay_domains =
            ["backup.test", "nowhere.test", "*.below.test"].iter().map(|text| text.parse().unwrap()).collect();
        options.routes = RouteTable::empty();
        for (domains, mx) in routes {
            let route = if *mx { Route::new(NextHop::Mx) } else { Route::hosts([("hop.test", 25)]) };
            options.routes.push([domains.parse().unwrap()], route);
        }
        options
    }

    fn said(options: &RelayOptions, client: &str, mail: &str, path: &str) -> String {
        match admit(options, client, &envelope(mail).mail, &path.parse().unwrap()) {
            Ok(_) => "250".to_owned(),
            Err(reply) => reply.to_string().chars().take(9).collect(),
        }
    }

    const STRANGER: &str = "198.51.100.1";
    const TRUSTED: &str = "192.0.2.1";

    #[test]
    fn mail_that_can_only_fail_is_refused_from_every_client() {
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
            // This host by its address, addresses that take no mail, and literals of another kind.
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
            // A name that is no U-label has no form for the DNS. An A-label stays as it is: the DNS
            // decides.
            (by_mx, "<a@\u{301}a.test>", "550 5.7.1", "550 5.1.2"),
            (by_hosts, "<a@\u{301}a.test>", "550 5.7.1", "550 5.1.2"),
            (by_mx, "<a@xn--0.test>", "550 5.7.1", "250"),
        ] {
            let mut options = options(routes);
            for (client, wanted) in [(STRANGER, stranger), (TRUSTED, trusted)] {
                assert_eq!(said(&options, client, "<s@s.test> SMTPUTF8", path), wanted, "{routes:?} {client} {path}");
            }
            // If hosts may have private addresses, mail to those addresses is taken. Nothing else
            // changes.
            options.delivery.allow_private = true;
            let private = ["[127.0.0.1]", "[10.1.2.3]", "[IPv6:::1]", "localhost", "LOCALHOST", "invalid", "onion"];
            let is_private = private.iter().any(|end| path.ends_with(&format!("{end}>")));
            let wanted = if is_private { "250" } else { trusted };
            assert_eq!(said(&options, TRUSTED, "<s@s.test> SMTPUTF8", path), wanted, "{routes:?} {path}");
        }
    }

    #[test]
    fn a_domain_of_more_octets_than_the_dns_takes_is_refused() {
        for (last, by_dns) in [(11, true), (12, false), (13, false)] {
            let mailbox: Mailbox = format!("a@{}{}", "a123456789.".repeat(22), "x".repeat(last)).parse().unwrap();
            let rcpt = Rcpt::new(ForwardPath::Mailbox(mailbox.borrowed())).into_owned();
            for (mx, taken) in [(true, by_dns), (false, true)] {
                let admitted = admit(&options(&[("*", mx)]), TRUSTED, &envelope("<s@s.test>").mail, &rcpt);
                assert_eq!(admitted.is_ok(), taken, "{last} {mx}");
            }
        }
    }

    #[test]
    fn postmaster_mail_goes_to_the_mailbox_in_the_options() {
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
        let peer = context(STRANGER).peer;
        let mut envelope = envelope("<>");
        let paths = ["<Postmaster>", "<a@relay.test>", "<POSTMASTER@relay.test>", "<postmaster@backup.test>"];
        envelope.recipients = paths.iter().map(|path| path.parse().unwrap()).collect();
        options.forward_postmaster(Some(&peer), &mut envelope);
        let forwarded: Vec<_> = envelope.recipients.iter().map(|rcpt| rcpt.forward_path.to_string()).collect();
        let there = "<admin@example.org>";
        assert_eq!(forwarded, [there, "<a@relay.test>", there, "<postmaster@backup.test>"]);
        // A postmaster's mailbox that cannot be reached is refused too.
        options.postmaster = Some("admin@relay.test".parse().unwrap());
        assert_eq!(said(&options, STRANGER, "<>", "<Postmaster>"), "550 5.1.1");
    }

    #[test]
    fn requiretls_mail_is_refused_where_no_host_can_prove_itself() {
        let (_, config) = posthaste_testkit::pki::tls("hop.test");
        for (mx, verified, reply) in
            [(true, false, "550 5.7.1"), (true, true, "550 5.7.1"), (false, false, "550 5.7.1"), (false, true, "250")]
        {
            let mut options = options(&[("*", mx)]);
            options.delivery.verified_tls = verified.then(|| Arc::clone(&config));
            assert_eq!(said(&options, TRUSTED, "<s@s.test> REQUIRETLS", "<a@b.test>"), reply, "{mx} {verified}");
            // Reports, and mail without REQUIRETLS, are taken.
            assert_eq!(said(&options, TRUSTED, "<> REQUIRETLS", "<a@b.test>"), "250");
            assert_eq!(said(&options, TRUSTED, "<s@s.test>", "<a@b.test>"), "250");
        }
    }

    #[test]
    fn requiretls_mail_is_taken_where_no_network_carries_it() {
        let agent = || Route::agent("all", crate::agent::Maildir::new("/m/{local}").unwrap());
        for (route, reply) in [
            (agent(), "250"),
            (Route::lmtp_unix("/run/lmtp"), "250"),
            (Route::lmtp([("hop.test", 24)]), "550 5.7.1"),
            (Route::lmtp([("unix:/run/lmtp", 0), ("hop.test", 24)]), "550 5.7.1"),
        ] {
            let mut options = options(&[]);
            options.routes = RouteTable::all(route);
            assert_eq!(said(&options, TRUSTED, "<s@s.test> REQUIRETLS", "<a@b.test>"), reply);
        }
        // What can only fail is refused here.
        let mut options = options(&[]);
        options.routes = RouteTable::all(agent());
        assert_eq!(said(&options, TRUSTED, "<s@s.test>", "<\"../a\"@b.test>"), "550 5.1.1");
    }

    fn allowed(options: &RelayOptions, client: &str, path: &str) -> bool {
        path.parse::<Rcpt>().is_ok_and(|rcpt| admit(options, client, &envelope("<>").mail, &rcpt).is_ok())
    }

    #[test]
    fn clients_relay_only_as_the_policy_table_says() {
        let mut policy = options(&[("*", false)]);
        policy.policy.relay_domains = vec!["dest.test".parse().unwrap(), "*.sub.test".parse().unwrap()].into();
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
        let mut closed = options(&[("*", false)]);
        closed.policy = crate::PolicyTable::default();
        assert!(!allowed(&closed, "127.0.0.1", "<v@other.test>"));
    }

    fn rule(name: &str, to: NextHop) -> Rule {
        Rule::new(name.parse().unwrap(), Route::new(to))
    }

    /// Rules that would have the mail of strangers, if strangers could send it.
    fn with_rules() -> RelayOptions {
        let mut options = options(&[]);
        options.policy.relay_domains = ["in.test", "refused.test"].iter().map(|text| text.parse().unwrap()).collect();
        let mailboxes = |text: &str| Some([text.parse().unwrap()].into_iter().collect());
        let mut refused = rule("refused", NextHop::Refuse(refusal!("521 5.7.1 Not to there")));
        refused.recipients = mailboxes("*.refused.test");
        let mut busy = rule("busy", NextHop::Refuse(refusal!("450 4.2.1 Not now")));
        busy.recipients = mailboxes("busy@in.test");
        let mut discarded = rule("discarded", NextHop::Discard);
        discarded.senders = mailboxes("spam@s.test");
        let mut held = rule("held", NextHop::Hold);
        held.clients = Some("198.51.100.0/24".parse().unwrap());
        held.senders = mailboxes("held@s.test");
        let mut to_host = rule("to_host", NextHop::Mx);
        to_host.route = Route::hosts([("hop.test", 25)]);
        to_host.clients = Some("198.51.100.0/24".parse().unwrap());
        for rule in [refused, busy, discarded, held, to_host] {
            options.routes.push_rule(rule).unwrap();
        }
        let refuse = NextHop::Refuse(refusal!("550 5.1.10 The domain takes no mail"));
        options.routes.push(["refused.test".parse().unwrap()], Route::new(refuse));
        options.routes.push([crate::DomainPattern::Any], Route::hosts([("rest.test", 25)]));
        options
    }

    /// The answer, or the label of what is taken.
    fn led(options: &RelayOptions, client: &str, mail: &str, path: &str) -> String {
        match admit(options, client, &envelope(mail).mail, &path.parse().unwrap()) {
            Ok(label) => label.map_or_else(|| "250".to_owned(), |label| format!("250 {label}")),
            Err(reply) => reply.to_string().chars().take(9).collect(),
        }
    }

    #[test]
    fn no_rule_lets_a_stranger_relay() {
        let options = with_rules();
        let denied = "550 5.7.1";
        for (mail, path, stranger, trusted) in [
            ("<s@s.test>", "<a@in.test>", "250 to_host", "250"),
            ("<s@s.test>", "<a@other.test>", denied, "250"),
            ("<spam@s.test>", "<a@other.test>", denied, "250 discarded"),
            ("<spam@s.test>", "<a@in.test>", "250 discarded", "250 discarded"),
            ("<held@s.test>", "<a@other.test>", denied, "250"),
            ("<held@s.test>", "<a@in.test>", "250 held", "250"),
            ("<held@s.test>", "<a%other.test@in.test>", denied, "250"),
            ("<held@s.test>", "<\"a@other.test\"@in.test>", denied, "250"),
            // Before that a stranger does not learn what the rules refuse.
            ("<s@s.test>", "<a@x.refused.test>", denied, "521 5.7.1"),
            ("<s@s.test>", "<a@refused.test>", "250 to_host", "550 5.1.1"),
            ("<s@s.test>", "<busy@in.test>", "450 4.2.1", "450 4.2.1"),
            ("<s@s.test>", "<BUSY@in.test>", "450 4.2.1", "450 4.2.1"),
            ("<s@s.test>", "<busy@other.test>", denied, "250"),
            // Every client may send to the postmaster, and that mail takes its rule.
            ("<s@s.test>", "<Postmaster>", "250 to_host", "250"),
            ("<spam@s.test>", "<postmaster@relay.test>", "250 discarded", "250 discarded"),
            ("<spam@s.test>", "<postmaster@other.test>", denied, "250 discarded"),
        ] {
            assert_eq!(led(&options, STRANGER, mail, path), stranger, "{mail} {path}");
            assert_eq!(led(&options, TRUSTED, mail, path), trusted, "{mail} {path}");
        }
    }

    #[test]
    fn the_postmaster_in_the_options_is_the_recipient_of_its_mail() {
        let mut options = with_rules();
        options.postmaster = Some("busy@in.test".parse().unwrap());
        for path in ["<Postmaster>", "<postmaster@relay.test>"] {
            assert_eq!(led(&options, TRUSTED, "<s@s.test>", path), "450 4.2.1", "{path}");
        }
    }

    #[test]
    fn mail_that_reaches_no_host_needs_no_tls() {
        let options = with_rules();
        for (sender, wanted) in [("held", "250 held"), ("spam", "250 discarded"), ("other", "550 5.7.1")] {
            let mail = format!("<{sender}@s.test> REQUIRETLS");
            assert_eq!(led(&options, STRANGER, &mail, "<a@in.test>"), wanted);
        }
    }

    /// A key has 255 octets.
    #[test]
    fn a_domain_that_leaves_no_room_for_its_label_is_refused() {
        let mut options = options(&[]);
        let mut named = rule(&"x".repeat(Label::MAX), NextHop::Mx);
        named.route = Route::hosts([("hop.test", 25)]);
        named.senders = Some(["s@s.test".parse().unwrap()].into_iter().collect());
        options.routes.push_rule(named).unwrap();
        options.routes.push([crate::DomainPattern::Any], Route::hosts([("rest.test", 25)]));
        for (octets, sender, is_taken) in
            [(222, "s", true), (223, "s", false), (253, "s", false), (223, "t", true), (253, "t", true)]
        {
            let domain = format!("{}{}", "a12345678.".repeat(20), "x".repeat(octets - 200));
            let mail = format!("<{sender}@s.test>");
            let said = led(&options, TRUSTED, &mail, &format!("<a@{domain}>"));
            assert_eq!(said.starts_with("250"), is_taken, "{octets} {sender}: {said}");
            assert!(is_taken || said == "550 5.1.2", "{said}");
        }
    }

    /// Knows one mailbox. For `away` the look-up fails.
    struct Mailboxes;

    impl Recipients for Mailboxes {
        async fn check(&self, cx: &Context, mailbox: &Mailbox) -> Result<(), Refusal> {
            assert_eq!(cx.peer.address.ip(), Some(STRANGER.parse().unwrap()));
            match mailbox.local_part() {
                "known" => Ok(()),
                "away" => Err(refusal!("451 4.3.0 Try again later").with_cause("the database is away")),
                _ => Err(refusal!("550 5.1.1 No such mailbox")),
            }
        }
    }

    /// Serves one domain. For `away.test` the look-up fails.
    struct OneDomain;

    impl Policy for OneDomain {
        async fn trusts(&self, cx: &Context) -> Result<bool, Refusal> {
            Ok(cx.peer.tls.is_some())
        }

        async fn serves(&self, _: &Context, domain: &Domain<&str>) -> Result<bool, Refusal> {
            match domain.as_str() {
                "in.test" => Ok(true),
                "away.test" => Err(refusal!("451 4.3.0 Try again later")),
                _ => Ok(false),
            }
        }
    }

    #[test]
    fn an_application_decides_about_senders_domains_and_mailboxes() {
        let options = options(&[("*", false)]);
        let hooks =
            Hooks { policy: Some(Box::new(OneDomain)), recipients: Some(Box::new(Mailboxes)), ..Hooks::default() };
        for (tls, path, wanted) in [
            (false, "<known@in.test>", "250"),
            (false, "<unknown@in.test>", "550 5.1.1"),
            (false, "<away@in.test>", "451 4.3.0"),
            (false, "<known@away.test>", "451 4.3.0"),
            (false, "<known@backup.test>", "550 5.7.1"),
            (false, "<known@relay.test>", "250"),
            (false, "<known%x@in.test>", "550 5.7.1"),
            (true, "<known@backup.test>", "250"),
            (true, "<unknown@backup.test>", "550 5.1.1"),
        ] {
            let mut cx = context(STRANGER);
            cx.peer.tls = tls.then(|| PeerTls::new(ProtocolVersion::TLSv1_3).into());
            let said = now(async {
                let trusted = hooks.trusts(&options, &cx).await?;
                super::admit(&options, &hooks, &cx, trusted, &envelope("<>").mail, &path.parse().unwrap()).await
            });
            let said = said.map_or_else(|refusal| refusal.to_string(), |_| "250".to_owned());
            assert!(said.starts_with(wanted), "{tls} {path}: {said}");
        }
    }
}
