//! What DANE demands, for every standing of the MX records, the addresses and the TLSA records.

use std::{net::IpAddr, sync::Mutex};

use posthaste_client::{
    Alias, Answer, Identity, MxRecord, ResolveError, Resolver, SystemResolver, Tls, TlsaRecord,
    dane::{Dane, DaneError, NoDane, Policy},
    mx::{self, MxError},
    tls::any_certificate,
    wire::Domain,
};

/// What the DNS says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// Records that DNSSEC proves.
    Secure,
    /// Records without signatures.
    Insecure,
    /// No record, proved.
    SecureNone,
    /// No record, without proof.
    InsecureNone,
    NoSuchName,
    /// Signatures that are wrong.
    Bogus,
    Timeout,
    ServFail,
    /// Records that cannot be read.
    Broken,
    /// Secure: 3 1 1 with 31 octets, and 1 1 1.
    Unusable,
    /// The same, insecure.
    InsecureUnusable,
    /// Secure: one record that cannot be used and one that can.
    Mixed,
    /// An alias by a secure chain.
    SecureAlias,
    /// A secure alias into an unsigned zone.
    HalfAlias,
    /// An unsigned alias into a secure zone.
    InsecureAlias,
}
use Says::*;

const TARGET: &str = "target.test";

/// A zone of one domain with one host.
struct Zone {
    mx: Says,
    addresses: Says,
    /// At the host, and at the target of its alias.
    tlsa: [Says; 2],
    asked: Mutex<Vec<String>>,
}

/// The records as the resolver would give them.
fn said<T>(says: Says, records: Vec<T>) -> Result<Answer<T>, ResolveError> {
    let temporary = |reason: &str| Err(ResolveError::Temporary(reason.to_owned()));
    let mut answer = match says {
        Secure | Unusable | Mixed | SecureAlias => Answer::secure(records),
        Insecure | InsecureUnusable | HalfAlias | InsecureAlias => records.into(),
        SecureNone => Answer::secure(Vec::new()),
        InsecureNone => Answer::default(),
        NoSuchName => return Err(ResolveError::NoSuchName),
        Bogus => return temporary("DNSSEC validation failed"),
        Timeout => return temporary("no answer in time"),
        ServFail => return temporary("SERVFAIL"),
        Broken => return Err(ResolveError::Unusable("they cannot be read")),
    };
    if matches!(says, SecureAlias | HalfAlias | InsecureAlias) {
        answer.alias = Some(Alias { canonical_name: TARGET.to_owned(), is_secure: says != InsecureAlias });
    }
    Ok(answer)
}

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        said(self.mx, vec![MxRecord { preference: 10, exchange: "mx.test".to_owned() }])
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        said(self.addresses, vec![[127, 0, 0, 1].into()])
    }

    async fn tlsa(&self, name: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        self.asked.lock().unwrap().push(name.to_owned());
        let says = self.tlsa[usize::from(name.ends_with(TARGET))];
        let record = |usage, length| TlsaRecord { usage, selector: 1, matching_type: 1, data: vec![7; length] };
        said(
            says,
            match says {
                Unusable | InsecureUnusable => vec![record(3, 31), record(1, 32)],
                Mixed => vec![record(0, 32), record(3, 32)],
                _ => vec![record(3, 32)],
            },
        )
    }
}

/// The outcome for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// There is no host to deliver to: now, or at all.
    NoHost {
        is_transient: bool,
    },
    Without(NoDane),
    AnyCertificate,
    /// By the records at this name.
    Proof(&'static str),
    PassedOver,
}
use Outcome::*;

async fn outcome(zone: &Zone) -> Outcome {
    let no_host = |error: MxError| NoHost { is_transient: error.is_transient() };
    let hosts = match mx::hosts(zone, &Domain::parse("d.test").unwrap(), "relay.test").await {
        Ok(hosts) => hosts,
        Err(error) => return no_host(error),
    };
    let host = &hosts.records[0].exchange;
    let addresses = match mx::addresses(zone, host, true).await {
        Ok(addresses) => addresses,
        Err(error) => return no_host(error),
    };
    let policy = Dane::of_domain("d.test", &hosts).policy(zone, host, 25, &addresses).await;
    match &policy {
        Policy::NoDane(why) => Without(*why),
        Policy::Encrypt => AnyCertificate,
        Policy::PassOver(_) => PassedOver,
        Policy::Authenticate(good) => {
            let known = ["mx.test", "d.test", TARGET];
            Proof(known.into_iter().find(|name| *name == good.base_domain()).unwrap())
        }
    }
}

const GONE: Outcome = NoHost { is_transient: false };
const LATER: Outcome = NoHost { is_transient: true };
const INSECURE_MX: Outcome = Without(NoDane::InsecureMx);
const INSECURE_HOST: Outcome = Without(NoDane::InsecureAddresses);
const NONE: Outcome = Without(NoDane::NoRecords);
const UNSIGNED: Outcome = Without(NoDane::InsecureRecords);

/// MX records, addresses, TLSA records at the host, and what follows.
const ROWS: &[(Says, Says, Says, Outcome)] = &[
    // All is signed, and the TLSA records decide.
    (Secure, Secure, Secure, Proof("mx.test")),
    (Secure, Secure, Mixed, Proof("mx.test")),
    (Secure, Secure, Unusable, AnyCertificate),
    (Secure, Secure, Insecure, UNSIGNED),
    (Secure, Secure, InsecureUnusable, UNSIGNED),
    (Secure, Secure, SecureNone, NONE),
    (Secure, Secure, InsecureNone, NONE),
    (Secure, Secure, NoSuchName, NONE),
    (Secure, Secure, Bogus, PassedOver),
    (Secure, Secure, Timeout, PassedOver),
    (Secure, Secure, ServFail, PassedOver),
    (Secure, Secure, Broken, PassedOver),
    // The zone of the host is not signed: its TLSA records are not asked for.
    (Secure, Insecure, Secure, INSECURE_HOST),
    (Secure, Insecure, Unusable, INSECURE_HOST),
    (Secure, Insecure, Insecure, INSECURE_HOST),
    (Secure, Insecure, SecureNone, INSECURE_HOST),
    (Secure, Insecure, NoSuchName, INSECURE_HOST),
    (Secure, Insecure, Bogus, INSECURE_HOST),
    (Secure, Insecure, Timeout, INSECURE_HOST),
    (Secure, Insecure, ServFail, INSECURE_HOST),
    // The MX records are not signed.
    (Insecure, Secure, Secure, INSECURE_MX),
    (Insecure, Secure, Mixed, INSECURE_MX),
    (Insecure, Secure, Unusable, INSECURE_MX),
    (Insecure, Secure, Insecure, INSECURE_MX),
    (Insecure, Secure, SecureNone, INSECURE_MX),
    (Insecure, Secure, NoSuchName, INSECURE_MX),
    (Insecure, Secure, Bogus, INSECURE_MX),
    (Insecure, Secure, Timeout, INSECURE_MX),
    (Insecure, Insecure, Secure, INSECURE_MX),
    (Insecure, Insecure, Insecure, INSECURE_MX),
    (Insecure, Insecure, ServFail, INSECURE_MX),
    // No MX record: the domain is its own host.
    (SecureNone, Secure, Secure, Proof("d.test")),
    (SecureNone, Secure, Unusable, AnyCertificate),
    (SecureNone, Secure, NoSuchName, NONE),
    (SecureNone, Secure, Timeout, PassedOver),
    (SecureNone, Insecure, Secure, INSECURE_HOST),
    (InsecureNone, Secure, Secure, INSECURE_MX),
    (InsecureNone, Insecure, Bogus, INSECURE_MX),
    // There is no host.
    (NoSuchName, Secure, Secure, GONE),
    (Broken, Secure, Secure, GONE),
    (Bogus, Secure, Secure, LATER),
    (Timeout, Secure, Secure, LATER),
    (ServFail, Insecure, Secure, LATER),
    (Secure, SecureNone, Secure, GONE),
    (Secure, InsecureNone, Secure, GONE),
    (Secure, NoSuchName, Secure, GONE),
    (Secure, Broken, Secure, GONE),
    (Secure, Bogus, Secure, LATER),
    (Secure, Timeout, Secure, LATER),
    (Secure, ServFail, Secure, LATER),
    (Insecure, NoSuchName, Secure, GONE),
    (Insecure, Bogus, Secure, LATER),
    (Insecure, Timeout, Insecure, LATER),
    // The domain is an alias.
    (SecureAlias, Secure, Secure, Proof("mx.test")),
    (HalfAlias, Secure, Secure, INSECURE_MX),
    (InsecureAlias, Secure, Secure, INSECURE_MX),
];

#[tokio::test]
async fn the_standing_of_all_answers_decides() {
    for (mx, addresses, tlsa, expected) in ROWS.iter().copied() {
        let zone = Zone { mx, addresses, tlsa: [tlsa; 2], asked: Mutex::default() };
        let row = format!("{mx:?}, {addresses:?}, {tlsa:?}");
        assert_eq!(outcome(&zone).await, expected, "{row}");
        let asked = usize::from(!matches!(expected, INSECURE_MX | INSECURE_HOST | NoHost { .. }));
        assert_eq!(zone.asked.lock().unwrap().len(), asked, "{row}");
    }
}

/// Addresses, TLSA records at the target and at the host, and what follows.
#[tokio::test]
async fn the_target_of_a_secure_alias_comes_before_the_host() {
    for (addresses, at_target, at_host, expected, names) in [
        (SecureAlias, Secure, Secure, Proof(TARGET), &[TARGET][..]),
        (SecureAlias, Secure, Timeout, Proof(TARGET), &[TARGET]),
        (SecureAlias, Unusable, Secure, AnyCertificate, &[TARGET]),
        (SecureAlias, NoSuchName, Secure, Proof("mx.test"), &[TARGET, "mx.test"]),
        (SecureAlias, SecureNone, Secure, Proof("mx.test"), &[TARGET, "mx.test"]),
        (SecureAlias, Insecure, Secure, Proof("mx.test"), &[TARGET, "mx.test"]),
        (SecureAlias, InsecureNone, Unusable, AnyCertificate, &[TARGET, "mx.test"]),
        (SecureAlias, NoSuchName, NoSuchName, NONE, &[TARGET, "mx.test"]),
        (SecureAlias, Insecure, NoSuchName, UNSIGNED, &[TARGET, "mx.test"]),
        (SecureAlias, NoSuchName, Insecure, UNSIGNED, &[TARGET, "mx.test"]),
        (SecureAlias, NoSuchName, Bogus, PassedOver, &[TARGET, "mx.test"]),
        // What the target says is not known, so the host may not speak for it.
        (SecureAlias, Bogus, Secure, PassedOver, &[TARGET]),
        (SecureAlias, Timeout, Secure, PassedOver, &[TARGET]),
        (SecureAlias, ServFail, NoSuchName, PassedOver, &[TARGET]),
        // The zone of the host is signed, and that of the target is not.
        (HalfAlias, Secure, Secure, Proof("mx.test"), &["mx.test"]),
        (HalfAlias, Secure, NoSuchName, NONE, &["mx.test"]),
        (HalfAlias, Secure, Timeout, PassedOver, &["mx.test"]),
        (HalfAlias, Timeout, Secure, Proof("mx.test"), &["mx.test"]),
        // The zone of the host is not signed.
        (InsecureAlias, Secure, Secure, INSECURE_HOST, &[]),
        (InsecureAlias, Timeout, Timeout, INSECURE_HOST, &[]),
    ] {
        let zone = Zone { mx: Secure, addresses, tlsa: [at_host, at_target], asked: Mutex::default() };
        let row = format!("{addresses:?}, {at_target:?}, {at_host:?}");
        assert_eq!(outcome(&zone).await, expected, "{row}");
        let names: Vec<_> = names.iter().map(|name| format!("_25._tcp.{name}")).collect();
        assert_eq!(*zone.asked.lock().unwrap(), names, "{row}");
    }
}

#[tokio::test]
async fn a_host_of_the_configuration_needs_no_mx_records() {
    let zone = Zone { mx: Timeout, addresses: Secure, tlsa: [Secure; 2], asked: Mutex::default() };
    let addresses = mx::addresses(&zone, "MX.test", true).await.unwrap();
    let policy = Dane::of_host().policy(&zone, "MX.test", 587, &addresses).await;
    assert!(matches!(policy, Policy::Authenticate(_)), "{policy:?}");
    assert_eq!(*zone.asked.lock().unwrap(), ["_587._tcp.MX.test"]);
}

#[tokio::test]
async fn a_resolver_without_dnssec_has_no_dane() {
    let addresses = SystemResolver.addresses("127.0.0.1").await.unwrap();
    let policy = Dane::of_host().policy(&SystemResolver, "127.0.0.1", 25, &addresses).await;
    assert!(matches!(policy, Policy::NoDane(NoDane::InsecureAddresses)), "{policy:?}");
    // A resolver that says "secure" of addresses, and knows no TLSA records.
    let policy = Dane::of_host().policy(&SystemResolver, "mx.test", 25, &Answer::secure(addresses.records)).await;
    assert!(matches!(policy, Policy::NoDane(NoDane::NoRecords)), "{policy:?}");
    // An address literal is no name.
    let literal = mx::addresses(&SystemResolver, "[192.0.2.1]", true).await.unwrap();
    let policy = Dane::of_host().policy(&SystemResolver, "[192.0.2.1]", 25, &literal).await;
    assert!(matches!(policy, Policy::NoDane(NoDane::InsecureAddresses)), "{policy:?}");
}

/// What becomes of the TLS that a host would have without DANE.
#[tokio::test]
async fn dane_never_weakens_tls() {
    let config = any_certificate().unwrap();
    let identity = || Identity::Verified(config.clone());
    let usual = || {
        [
            Tls::Off,
            Tls::Opportunistic(config.clone()),
            Tls::Required(Identity::Unverified(config.clone())),
            Tls::Required(identity()),
            Tls::Implicit(identity()),
        ]
    };
    for (tlsa, kind) in [(NoSuchName, "none"), (Unusable, "encrypt"), (Secure, "authenticate"), (Bogus, "pass over")] {
        let zone = Zone { mx: Secure, addresses: Secure, tlsa: [tlsa; 2], asked: Mutex::default() };
        let policy = Dane::of_host().policy(&zone, "mx.test", 25, &Answer::secure(Vec::new())).await;
        for otherwise in usual() {
            let made = policy.tls(&otherwise);
            let row = format!("{kind}, {otherwise:?}");
            let tls = match made {
                Err(DaneError::Dns(ResolveError::Temporary(_))) if kind == "pass over" => continue,
                Err(error) => panic!("{row}: {error}"),
                Ok(_) if kind == "pass over" => panic!("{row}"),
                Ok(host) => {
                    assert_eq!(host.server_name.is_some(), kind == "authenticate", "{row}");
                    host.tls
                }
            };
            assert_eq!(matches!(tls, Tls::Implicit(_)), matches!(otherwise, Tls::Implicit(_)), "{row}");
            match kind {
                "none" => assert_eq!(tls, otherwise, "{row}"),
                "encrypt" if otherwise.is_demanded() => assert_eq!(tls, otherwise, "{row}"),
                "encrypt" => assert!(tls.is_demanded() && !tls.is_verified(), "{row}"),
                _ => {
                    assert!(tls.is_demanded() && tls.is_verified(), "{row}");
                    assert_ne!(tls, otherwise, "{row}");
                }
            }
        }
    }
}
