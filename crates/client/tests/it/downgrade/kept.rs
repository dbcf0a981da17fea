//! Kept connections: one that was made for a domain which asks for less is never used for one that
//! asks for more.

use std::sync::Arc;

use posthaste_client::{
    Answer, Message, Mx, Published, ResolveError, TlsaRecord, rustls::ServerConfig, tls::verified_by,
};
use posthaste_testkit::script::{Scripted, polite};

use super::{
    Sts,
    world::{Certificates, Zone, mta_sts, mx, outcome},
};
use crate::support::{
    Policy,
    certificates::{By::Key, Certified},
    options, trusting,
};

/// Two domains with the same host.
struct Two {
    host: Scripted,
    zone: Zone,
    mx: Mx<Zone>,
    _folder: tempfile::TempDir,
}

impl Two {
    /// The domains that have a policy of MTA-STS enforce it. `None`: the host has no TLS.
    async fn new(
        certificates: &Certificates,
        records: Vec<TlsaRecord>,
        sts: &'static [&'static str],
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let offers: &[&str] = if tls.is_some() { &["STARTTLS"] } else { &[] };
        let host = Scripted::at(([127, 0, 0, 1], 0).into(), tls, move |_, line| polite(line, offers)).await;
        let zone = Zone::new(Ok(Answer::secure(records)), Some(sts));
        let (folder, verified) = (tempfile::tempdir().unwrap(), verified_by(certificates.root.roots().into()).unwrap());
        let mta_sts = mta_sts(certificates, Sts::Enforce, &folder).await;
        let published = Published::default().with_dane().with_mta_sts(mta_sts, verified);
        let client = options(Policy::Opportunistic.tls(trusting()));
        let mx = mx(zone.clone(), client, published, host.port);
        Self { host, zone, mx, _folder: folder }
    }

    async fn send(&self, domain: &str) -> char {
        let to = format!("you@{domain}");
        outcome(&self.mx.send("me@s.test", [to.as_str()], "Subject: x\r\n\r\nhello\r\n").await)
    }

    /// The same in a batch, with a message for each of these.
    async fn send_all(&self, domains: [&str; 4]) -> [char; 4] {
        let to = domains.map(|domain| format!("you@{domain}"));
        let message = |to: &String| Message::new("me@s.test", [to.as_str()], "Subject: x\r\n\r\nhello\r\n").unwrap();
        let (mut batch, mut found) = (self.mx.send_all(to.iter().map(message)), [' '; 4]);
        while let Some((number, sent)) = batch.next().await {
            found[number] = outcome(&sent);
        }
        found
    }
}

#[tokio::test]
async fn a_kept_connection_is_not_used_for_a_domain_that_asks_for_more() {
    let certificates = Certificates::new();
    let root = &certificates.root;
    let (good, expired) = (root.server(&["mx.test"]), root.server_of(&["mx.test"], 2020, 2021));
    let of_domain = root.server(&["d.test"]);
    let unusable = || vec![good.tlsa(1, Key, 1)];
    let (good_tls, expired_tls, domain_tls) = (good.serves(&[]), expired.serves(&[]), of_domain.serves(&[root]));
    type Row<'r> =
        (&'r str, Vec<TlsaRecord>, &'static [&'static str], Option<&'r Arc<ServerConfig>>, [(&'r str, char); 2]);
    let rows: [Row<'_>; 12] = [
        ("no policy, enforce", vec![], &["d.test"], Some(&good_tls), [("e.test", 'T'), ("d.test", 'V')]),
        ("the same, expired", vec![], &["d.test"], Some(&expired_tls), [("e.test", 'T'), ("d.test", '-')]),
        ("the same, no TLS", vec![], &["d.test"], None, [("e.test", 'C'), ("d.test", '-')]),
        (
            "no policy, DANE",
            vec![good.tlsa(3, Key, 1)],
            &[],
            Some(&good_tls),
            [("insecure.test", 'T'), ("d.test", 'V')],
        ),
        ("another key", vec![expired.tlsa(3, Key, 1)], &[], Some(&good_tls), [("insecure.test", 'T'), ("d.test", '-')]),
        ("DANE, no TLS", vec![good.tlsa(3, Key, 1)], &[], None, [("insecure.test", 'C'), ("d.test", '-')]),
        ("unusable, no TLS", unusable(), &[], None, [("insecure.test", 'C'), ("d.test", '-')]),
        ("unusable, enforce", unusable(), &["d.test"], Some(&expired_tls), [("e.test", 'T'), ("d.test", '-')]),
        // Each proof is one for its own domain.
        (
            "enforce, DANE",
            vec![expired.tlsa(3, Key, 1)],
            &["insecure.test"],
            Some(&good_tls),
            [("insecure.test", 'V'), ("d.test", '-')],
        ),
        (
            "DANE, enforce",
            vec![expired.tlsa(3, Key, 1)],
            &["insecure.test"],
            Some(&expired_tls),
            [("d.test", 'V'), ("insecure.test", '-')],
        ),
        // Below an anchor the certificate may be for the domain of the mail instead of the host.
        ("the domain's name", vec![root.tlsa(2, Key, 1)], &[], Some(&domain_tls), [("d.test", 'V'), ("e.test", '-')]),
        (
            "the same, DANE-EE beside",
            vec![root.tlsa(2, Key, 1), good.tlsa(3, Key, 1)],
            &[],
            Some(&domain_tls),
            [("d.test", 'V'), ("e.test", '-')],
        ),
    ];
    for (row, records, sts, tls, [first, second]) in rows {
        for order in [[first, second], [second, first]] {
            let two = Two::new(&certificates, records.clone(), sts, tls.cloned()).await;
            for (domain, expected) in order.into_iter().chain(order) {
                assert_eq!(two.send(domain).await, expected, "{row}, {domain} of {order:?}");
            }
            let [(one, first), (other, second)] = order;
            let expected = [first, second, first, second];
            assert_eq!(two.send_all([one, other, one, other]).await, expected, "{row}, {order:?} in a batch");
            two.mx.close().await;
            for (domain, expected) in order {
                let heard = two.host.heard.lines(&["RCPT"]).iter().filter(|line| line.contains(domain)).count();
                assert_eq!(heard, if expected == '-' { 0 } else { 4 }, "{row}, {domain} of {order:?}");
            }
        }
    }
}

/// What saves handshakes: domains that ask the same of the same host share its connections.
#[tokio::test]
async fn domains_that_ask_for_the_same_share_a_connection() {
    let certificates = Certificates::new();
    let good = certificates.root.server(&["mx.test"]);
    for (row, records, sts, letter) in [
        ("no policy", vec![], &[][..], 'T'),
        ("enforce", vec![], &["d.test", "e.test"], 'V'),
        ("DANE-EE", vec![good.tlsa(3, Key, 1)], &[], 'V'),
        ("unusable", vec![good.tlsa(1, Key, 1)], &[], 'T'),
    ] {
        let two = Two::new(&certificates, records, sts, Some(good.serves(&[]))).await;
        for domain in ["d.test", "e.test", "d.test"] {
            assert_eq!(two.send(domain).await, letter, "{row}");
        }
        assert_eq!(two.host.count("<connect>"), 1, "{row}");
    }
}

/// The next message asks again: records that a domain has added, and that the DNS has lost.
#[tokio::test]
async fn a_policy_that_changes_counts_for_the_next_message() {
    let certificates = Certificates::new();
    let (good, other) = (certificates.root.server(&["mx.test"]), Certified::alone(&["mx.test"]));
    let two = Two::new(&certificates, vec![], &[], Some(good.serves(&[]))).await;
    let secure = |records| Ok(Answer::secure(records));
    for (answer, letter) in [
        (secure(vec![]), 'T'),
        (secure(vec![good.tlsa(3, Key, 1)]), 'V'),
        (Err(ResolveError::Temporary("SERVFAIL".to_owned())), '-'),
        (secure(vec![good.tlsa(1, Key, 1)]), 'T'),
        (secure(vec![other.tlsa(2, Key, 1)]), '-'),
        (Err(ResolveError::NoSuchName), 'T'),
    ] {
        two.zone.set(answer.clone());
        assert_eq!(two.send("d.test").await, letter, "{answer:?}");
    }
}
