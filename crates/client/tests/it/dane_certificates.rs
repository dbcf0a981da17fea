//! Certificates that TLSA records are about, and certificates that they are not about, in the
//! handshake of a conversation.

use std::{net::IpAddr, sync::Arc};

use posthaste_client::{
    Alias, Answer, Client, ClientError, ConnectError, MxRecord, ResolveError, Resolver, Tls, TlsaRecord,
    dane::{Dane, NoTlsaMatch, Policy},
    rustls::{CertificateError, Error, ServerConfig, sign::CertifiedKey, version},
    tls::{any_certificate, provider},
};
use posthaste_testkit::script::{polite, serve};

use crate::support::{
    certificates::{
        By::{Certificate, Key},
        Certified, Shown,
    },
    options,
};

/// These records, at every name that ends in this.
struct Records(Vec<TlsaRecord>, &'static str);

impl Resolver for Records {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(Answer::default())
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(Answer::default())
    }

    async fn tlsa(&self, name: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        if name.ends_with(self.1) { Ok(Answer::secure(self.0.clone())) } else { Err(ResolveError::NoSuchName) }
    }
}

/// The MX records of a domain that is the alias of `mail.canonical.test`.
fn hosts() -> Answer<MxRecord> {
    let mut hosts = Answer::secure(vec![MxRecord { preference: 10, exchange: "mx.test".to_owned() }]);
    hosts.alias = Some(Alias { canonical_name: "mail.canonical.test".to_owned(), is_secure: true });
    hosts
}

/// The policy for the host `mx.test` of the domain `next-hop.test`.
async fn policy(records: Vec<TlsaRecord>) -> Policy {
    let addresses = Answer::secure(vec![IpAddr::from([127, 0, 0, 1])]);
    let dane = Dane::of_domain("next-hop.test", &hosts());
    dane.policy(&Records(records, ".mx.test"), "mx.test", 25, &addresses).await
}

/// What comes of a conversation with this server. `Err`: the reason of the handshake.
async fn meet(policy: &Policy, server: Arc<ServerConfig>, name: &str) -> Result<bool, String> {
    let (stream, heard) = serve(|_, line| polite(line, &["STARTTLS"]), Some(server));
    let host = policy.tls(&Tls::Opportunistic(any_certificate().unwrap())).unwrap();
    let name = host.server_name.as_deref().unwrap_or(name).to_owned();
    match Client::start(stream, &name, &options(host.tls)).await {
        Ok(client) => {
            assert!(client.is_tls());
            Ok(client.is_verified())
        }
        Err(error) => {
            assert!(heard.of(&["MAIL"]).is_empty());
            Err(error.to_string())
        }
    }
}

/// A name, the records, the certificate of the server, the others that it shows, and what is said.
type Row<'a> = (&'a str, Vec<TlsaRecord>, &'a Certified, &'a [&'a Certified], &'a str);

const GOOD: &str = "";
const NO_MATCH: &str = "no TLSA record in the DNS is about the certificate";
const EXPIRED: &str = "the certificate has expired";
const NOT_YET: &str = "not valid yet";
const OTHER_NAME: &str = "the certificate is for another name";
const UNKNOWN: &str = "signed by no authority";

#[tokio::test]
async fn a_certificate_is_good_if_a_record_is_about_it() {
    let (root, other) = (Certified::root("one"), Certified::root("two"));
    let between = root.authority("between");
    let leaf = between.server(&["mx.test"]);
    let alone = Certified::alone(&["anything.test"]);
    let expired = between.server_of(&["other.test"], 2020, 2021);
    let late = between.server_of(&["mx.test"], 2119, 2120);
    let stranger = other.server(&["mx.test"]);
    let changed = |record: TlsaRecord, change: fn(&mut TlsaRecord)| {
        let mut record = record;
        change(&mut record);
        record
    };
    let (whole, part, gap, wrong) = ([&between, &root], [&between], [&root], [&between, &other]);
    let (whole, part, gap, wrong, none) = (&whole[..], &part[..], &gap[..], &wrong[..], &[][..]);
    let mut rows: Vec<Row<'_>> = Vec::new();
    // Every form of record, about the certificate that is shown and about another.
    for by in [Certificate, Key] {
        for matching_type in [0, 1, 2] {
            rows.push(("DANE-EE", vec![leaf.tlsa(3, by, matching_type)], &leaf, whole, GOOD));
            rows.push(("DANE-EE, no chain", vec![leaf.tlsa(3, by, matching_type)], &leaf, none, GOOD));
            rows.push(("DANE-EE, signed by itself", vec![alone.tlsa(3, by, matching_type)], &alone, none, GOOD));
            rows.push(("DANE-EE of another", vec![stranger.tlsa(3, by, matching_type)], &leaf, whole, NO_MATCH));
            rows.push(("DANE-EE of an issuer", vec![between.tlsa(3, by, matching_type)], &leaf, whole, NO_MATCH));
            rows.push(("DANE-TA, root", vec![root.tlsa(2, by, matching_type)], &leaf, whole, GOOD));
            rows.push(("DANE-TA, between", vec![between.tlsa(2, by, matching_type)], &leaf, part, GOOD));
            rows.push(("DANE-TA, between, with root", vec![between.tlsa(2, by, matching_type)], &leaf, whole, GOOD));
            rows.push((
                "DANE-TA of another",
                vec![other.tlsa(2, by, matching_type)],
                &leaf,
                whole,
                if (by, matching_type) == (Certificate, 0) { UNKNOWN } else { NO_MATCH },
            ));
            rows.push(("DANE-TA of a leaf", vec![leaf.tlsa(2, by, matching_type)], &leaf, whole, NO_MATCH));
            rows.push(("DANE-TA, by itself", vec![alone.tlsa(2, by, matching_type)], &alone, none, NO_MATCH));
            rows.push(("DANE-TA in the wrong chain", vec![other.tlsa(2, by, matching_type)], &leaf, wrong, UNKNOWN));
            rows.push(("DANE-TA, a gap", vec![root.tlsa(2, by, matching_type)], &leaf, gap, UNKNOWN));
        }
    }
    let (ee, ta) = (leaf.tlsa(3, Key, 1), root.tlsa(2, Key, 1));
    let corrupt: fn(&mut TlsaRecord) = |record| record.data[7] ^= 1;
    rows.extend([
        // The anchor is not in the chain, and its record has all of it, or too little.
        ("anchor whole in the record", vec![root.tlsa(2, Certificate, 0)], &leaf, part, GOOD),
        ("anchor between, whole in the record", vec![between.tlsa(2, Certificate, 0)], &leaf, none, GOOD),
        ("anchor is nowhere", vec![root.tlsa(2, Certificate, 1)], &leaf, part, NO_MATCH),
        ("anchor's key alone", vec![root.tlsa(2, Key, 0)], &leaf, part, NO_MATCH),
        // Dates.
        ("DANE-EE, expired, other name", vec![expired.tlsa(3, Key, 1)], &expired, whole, GOOD),
        ("DANE-EE, not valid yet", vec![late.tlsa(3, Certificate, 2)], &late, none, GOOD),
        ("DANE-TA, expired", vec![ta.clone()], &expired, whole, EXPIRED),
        ("DANE-TA, not valid yet", vec![ta.clone()], &late, whole, NOT_YET),
        // Several records.
        ("the second", vec![stranger.tlsa(3, Key, 1), ee.clone()], &leaf, whole, GOOD),
        ("DANE-TA after DANE-EE of another", vec![stranger.tlsa(3, Key, 1), ta.clone()], &leaf, whole, GOOD),
        ("DANE-EE with DANE-TA of another", vec![ee.clone(), other.tlsa(2, Key, 1)], &leaf, whole, GOOD),
        ("expired, by DANE-EE beside DANE-TA", vec![ta.clone(), expired.tlsa(3, Key, 1)], &expired, whole, GOOD),
        ("two anchors", vec![other.tlsa(2, Key, 1), ta.clone()], &leaf, whole, GOOD),
        // Usages that SMTP does not have change nothing.
        (
            "PKIX-EE of it, DANE-EE of another",
            vec![leaf.tlsa(1, Key, 1), stranger.tlsa(3, Key, 1)],
            &leaf,
            whole,
            NO_MATCH,
        ),
        (
            "PKIX-TA of its, DANE-EE of another",
            vec![root.tlsa(0, Key, 1), stranger.tlsa(3, Key, 1)],
            &leaf,
            whole,
            NO_MATCH,
        ),
        ("PKIX-EE of another, DANE-EE", vec![stranger.tlsa(1, Key, 1), ee.clone()], &leaf, whole, GOOD),
        // Digests.
        ("a wrong digest", vec![changed(ee.clone(), corrupt)], &leaf, whole, NO_MATCH),
        ("a wrong digest of an anchor", vec![changed(ta.clone(), corrupt)], &leaf, whole, NO_MATCH),
        ("a wrong digest of 512", vec![changed(leaf.tlsa(3, Key, 2), corrupt)], &leaf, whole, NO_MATCH),
        (
            "SHA-512 wrong, SHA-256 right",
            vec![changed(leaf.tlsa(3, Key, 2), corrupt), ee.clone()],
            &leaf,
            whole,
            NO_MATCH,
        ),
        ("SHA-512 right, SHA-256 wrong", vec![changed(ee.clone(), corrupt), leaf.tlsa(3, Key, 2)], &leaf, whole, GOOD),
        (
            "SHA-512 of the certificate wrong",
            vec![changed(leaf.tlsa(3, Certificate, 2), corrupt), ee.clone()],
            &leaf,
            whole,
            GOOD,
        ),
        (
            "SHA-512 cut, SHA-256 right",
            vec![changed(leaf.tlsa(3, Key, 2), |it| it.data.truncate(63)), ee.clone()],
            &leaf,
            whole,
            GOOD,
        ),
        (
            "SHA-256 cut, beside one of another",
            vec![changed(ee.clone(), |it| it.data.truncate(31)), stranger.tlsa(3, Key, 1)],
            &leaf,
            whole,
            NO_MATCH,
        ),
        ("the wrong selector", vec![changed(ee.clone(), |it| it.selector = 0)], &leaf, whole, NO_MATCH),
        ("the wrong usage", vec![changed(ee.clone(), |it| it.usage = 2)], &leaf, whole, NO_MATCH),
        ("whole, one octet more", vec![changed(leaf.tlsa(3, Key, 0), |it| it.data.push(0))], &leaf, whole, NO_MATCH),
    ]);
    for (row, records, server, chain, expected) in rows {
        let text = format!(
            "{row}: {:?}",
            records.iter().map(|it| (it.usage, it.selector, it.matching_type)).collect::<Vec<_>>()
        );
        let met = meet(&policy(records).await, server.serves(chain), "mx.test").await;
        match met {
            Ok(verified) => assert!(expected == GOOD && verified, "{text}: it was taken"),
            Err(error) => assert!(expected != GOOD && error.contains(expected), "{text}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_certificate_below_an_anchor_is_for_the_host_or_the_domain() {
    let root = Certified::root("one");
    let records = || vec![root.tlsa(2, Certificate, 1)];
    for (names, expected) in [
        (&["mx.test"][..], GOOD),
        (&["MX.TEST"], GOOD),
        (&["other.test", "mx.test"], GOOD),
        (&["next-hop.test"], GOOD),
        (&["mail.canonical.test"], GOOD),
        (&["*.canonical.test"], GOOD),
        (&["other.test"], OTHER_NAME),
        (&["*.mx.test"], OTHER_NAME),
        // A whole top-level domain.
        (&["*.test"], OTHER_NAME),
        (&["sub.mx.test"], OTHER_NAME),
        (&["mx.test.other.test"], OTHER_NAME),
        (&["127.0.0.1"], OTHER_NAME),
        // A name in the subject is none.
        (&[], OTHER_NAME),
    ] {
        let server = root.server(names).serves(&[&root]);
        let met = meet(&policy(records()).await, server, "mx.test").await;
        assert!(
            met.as_ref().err().map_or(expected == GOOD, |error| expected != GOOD && error.contains(expected)),
            "{names:?}: {met:?}"
        );
    }
    let clients = root.client(&["mx.test"]).serves(&[&root]);
    let error = meet(&policy(records()).await, clients, "mx.test").await.unwrap_err();
    assert!(error.contains("not for servers"), "{error}");
    // The anchor signs with a key that has changed.
    let (renamed, leaf) = (Certified::root("one"), root.server(&["mx.test"]));
    let error =
        meet(&policy(vec![renamed.tlsa(2, Certificate, 0)]).await, leaf.serves(&[]), "mx.test").await.unwrap_err();
    assert!(error.contains("not signed by the authority") || error.contains(UNKNOWN), "{error}");
}

/// Two hosts with one alias: the certificate is for the name at the end of it.
#[tokio::test]
async fn the_name_of_an_alias_is_the_one_that_the_server_hears_and_shows() {
    let root = Certified::root("one");
    let mut addresses = Answer::secure(vec![IpAddr::from([127, 0, 0, 1])]);
    addresses.alias = Some(Alias { canonical_name: "host.provider.test".to_owned(), is_secure: true });
    for (at, name, expected) in [
        (".host.provider.test", "host.provider.test", GOOD),
        (".host.provider.test", "next-hop.test", GOOD),
        (".host.provider.test", "mx.test", OTHER_NAME),
        // Only the alias itself has records.
        (".tcp.mx.test", "mx.test", GOOD),
        (".tcp.mx.test", "host.provider.test", OTHER_NAME),
    ] {
        let at = at.replace(".tcp", "._tcp");
        let records = Records(vec![root.tlsa(2, Key, 1)], at.leak());
        let policy = Dane::of_domain("next-hop.test", &hosts()).policy(&records, "mx.test", 25, &addresses).await;
        let Policy::Authenticate(good) = &policy else { panic!("{policy:?}") };
        assert!(records.1.ends_with(good.base_domain()), "{name}");
        let met = meet(&policy, root.server(&[name]).serves(&[&root]), "never used").await;
        assert!(
            met.as_ref().err().map_or(expected == GOOD, |error| expected != GOOD && error.contains(expected)),
            "{name}: {met:?}"
        );
    }
}

/// The key stays, and the certificate is new.
#[tokio::test]
async fn a_renewed_certificate_of_the_same_key_is_good_by_its_key_alone() {
    let root = Certified::root("one");
    let leaf = root.server(&["mx.test"]);
    let renewed = || leaf.serves_raw(vec![root.renewed(&leaf, &["mx.test"])]);
    assert_eq!(meet(&policy(vec![leaf.tlsa(3, Key, 1)]).await, renewed(), "mx.test").await, Ok(true));
    let error = meet(&policy(vec![leaf.tlsa(3, Certificate, 1)]).await, renewed(), "mx.test").await.unwrap_err();
    assert!(error.contains(NO_MATCH), "{error}");
}

/// A certificate is public: a server has to have the key as well.
#[tokio::test]
async fn a_copied_certificate_is_no_good_in_either_version_of_tls() {
    let (root, thief) = (Certified::root("one"), Certified::root("two"));
    let leaf = root.server(&["mx.test"]);
    for version in [&version::TLS12, &version::TLS13] {
        let policy = policy(vec![leaf.tlsa(3, Key, 1)]).await;
        // rustls refuses a key that does not fit a certificate, unless it is told not to look.
        let provider = provider().unwrap();
        let key = thief.private_key(&provider);
        let resolver = Arc::new(Shown(Arc::new(CertifiedKey::new(vec![leaf.der.clone()], key))));
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let server = Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver));
        let error = meet(&policy, server, "mx.test").await.unwrap_err();
        assert!(
            error.contains("not signed by the authority that it names, or not the server's own"),
            "{version:?}: {error}"
        );
    }
}

/// The next connection resumes no session that began without DANE, or with other records.
#[tokio::test]
async fn a_session_that_another_policy_began_is_not_resumed() {
    let leaf = Certified::root("one").server(&["mx.test"]);
    let server = leaf.serves(&[]);
    let otherwise = Tls::Opportunistic(any_certificate().unwrap());
    let start = async |tls: Tls| {
        let (stream, _) = serve(|_, line| polite(line, &["STARTTLS"]), Some(Arc::clone(&server)));
        Client::start(stream, "mx.test", &options(tls)).await.map(|client| client.is_verified())
    };
    let by = async |record: TlsaRecord| start(policy(vec![record]).await.tls(&otherwise).unwrap().tls).await;
    let wrong = || Certified::alone(&["mx.test"]).tlsa(3, Key, 1);
    assert!(!start(otherwise.clone()).await.unwrap());
    assert!(by(wrong()).await.unwrap_err().to_string().contains(NO_MATCH));
    assert!(by(leaf.tlsa(3, Key, 1)).await.unwrap());
    assert!(by(wrong()).await.unwrap_err().to_string().contains(NO_MATCH));
    // And with one configuration for both connections.
    let once = policy(vec![leaf.tlsa(3, Key, 1)]).await.tls(&otherwise).unwrap().tls;
    assert!(start(once.clone()).await.unwrap() && start(once).await.unwrap());
}

/// A report about TLS can tell this failure from others (RFC 8460 section 4.3).
#[tokio::test]
async fn a_caller_can_find_the_reason_in_the_error() {
    let leaf = Certified::root("one").server(&["mx.test"]);
    let host = policy(vec![Certified::alone(&["mx.test"]).tlsa(3, Key, 1)]).await.tls(&Tls::Off).unwrap();
    let (stream, _) = serve(|_, line| polite(line, &["STARTTLS"]), Some(leaf.serves(&[])));
    let error = Client::start(stream, "mx.test", &options(host.tls)).await.unwrap_err();
    let ConnectError::Tls(ClientError::Io(io)) = &error else { panic!("{error:?}") };
    let fault = io.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(CertificateError::Other(other))) = fault else { panic!("{fault:?}") };
    assert!(other.0.downcast_ref::<NoTlsaMatch>().is_some());
    assert!(!error.suggests_clear() && error.is_transient());
}

/// Records that no operator can have meant, and many of them.
#[tokio::test]
async fn hostile_records_cost_little_and_open_nothing() {
    let root = Certified::root("one");
    let leaf = root.server(&["mx.test"]);
    let junk =
        |length: usize, matching_type| TlsaRecord { usage: 3, selector: 1, matching_type, data: vec![0x30; length] };
    // None of them can be used: TLS with any certificate, and not without.
    let mut unusable: Vec<_> = (0..200).filter(|length| *length != 32).map(|length| junk(length, 1)).collect();
    unusable.push(TlsaRecord { usage: 2, selector: 0, matching_type: 0, data: vec![0x30; 65_535] });
    unusable.push(TlsaRecord { usage: 3, selector: 0, matching_type: 0, data: Vec::new() });
    unusable.push(TlsaRecord { usage: 3, selector: 1, matching_type: 0, data: Vec::new() });
    assert!(matches!(policy(unusable.clone()).await, Policy::Encrypt));
    // The good one among them counts, if it is among the first 32 that can be used.
    unusable.push(leaf.tlsa(3, Key, 1));
    assert_eq!(meet(&policy(unusable).await, leaf.serves(&[]), "mx.test").await, Ok(true));
    let digest = |number: u16| TlsaRecord { data: number.to_be_bytes().repeat(16), ..leaf.tlsa(3, Key, 1) };
    for (before, is_good) in [(31, true), (32, false), (1_000, false)] {
        let mut many: Vec<_> = (0..before).map(digest).collect();
        many.push(leaf.tlsa(3, Key, 1));
        assert_eq!(meet(&policy(many).await, leaf.serves(&[]), "mx.test").await.is_ok(), is_good, "{before}");
    }
    // A key of 64 KiB may be one, and is not this one.
    let error = meet(&policy(vec![junk(65_535, 0)]).await, leaf.serves(&[]), "mx.test").await.unwrap_err();
    assert!(error.contains(NO_MATCH), "{error}");
}
