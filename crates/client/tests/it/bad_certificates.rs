//! Certificates that prove nothing, and what is said of them. A certificate has to be good by the
//! authorities of the configuration, by MTA-STS, and below an anchor of DANE.

use std::{net::IpAddr, sync::Arc};

use posthaste_client::{
    Answer, Client, HostTls, MxRecord, ResolveError, Resolver, Tls, TlsaRecord,
    dane::Dane,
    mta_sts::MtaSts,
    rustls::{ServerConfig, pki_types::CertificateDer},
    tls::{any_certificate, verified_by},
};
use posthaste_testkit::script::{polite, serve};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};

use crate::{
    mta_sts::{Files, POLICY, Zone},
    support::{
        Policy,
        certificates::{By::Certificate, Certified, authority, server},
        options,
    },
};

const HOST: &str = "mx.d.test";

const GOOD: &str = "";
const OTHER_NAME: &str = "the certificate is for another name";
const UNKNOWN: &str = "signed by no authority that is trusted here";
const EXPIRED: &str = "the certificate has expired";
const NOT_YET: &str = "the certificate is not valid yet";
const NOT_FOR_SERVERS: &str = "the certificate is not for servers";
const BAD_SIGNATURE: &str = "not signed by the authority that it names";
const NOT_WELL_FORMED: &str = "the certificate is not well-formed";

/// This record, at every name.
struct Record(TlsaRecord);

impl Resolver for Record {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(Answer::default())
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(Answer::default())
    }

    async fn tlsa(&self, _: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        Ok(Answer::secure(vec![self.0.clone()]))
    }
}

/// The policies under which the certificate of a host below this authority has to be good.
async fn policies(root: &Certified) -> [(&'static str, HostTls); 4] {
    let verified = verified_by(root.roots().into()).unwrap();
    let usual = Tls::Opportunistic(any_certificate().unwrap());
    let found = MtaSts::new(Files::with(POLICY)).policy(&Zone::with("1"), "d.test").await;
    let hosts = Answer::secure(vec![MxRecord { preference: 10, exchange: HOST.to_owned() }]);
    let addresses = Answer::secure(vec![IpAddr::from([127, 0, 0, 1])]);
    // The record has the whole authority: servers need not show it.
    let record = Record(root.tlsa(2, Certificate, 0));
    let dane = Dane::of_domain("never.used", &hosts).policy(&record, HOST, 25, &addresses).await;
    [
        ("required", Policy::Verified.tls(Arc::clone(&verified)).into()),
        ("MTA-STS", found.tls(HOST, &usual, &verified).unwrap().into()),
        ("DANE-TA", dane.tls(&usual).unwrap()),
        ("DANE-TA without TLS otherwise", dane.tls(&Tls::Off).unwrap()),
    ]
}

/// A server's certificate for the host, with one change.
fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = server(&[HOST]);
    change(&mut params);
    params
}

fn named(name: SanType) -> CertificateParams {
    changed(|params| params.subject_alt_names = vec![name])
}

/// An authority with one change.
fn between(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = authority("between");
    change(&mut params);
    params
}

/// A server's certificate with other octets in this place.
fn patched(server: &Certified, octets: &[u8], others: &[u8]) -> CertificateDer<'static> {
    let mut der = server.der.to_vec();
    let at = der.windows(octets.len()).position(|window| window == octets).unwrap();
    der[at..at + others.len()].copy_from_slice(others);
    der.into()
}

#[tokio::test]
async fn a_bad_certificate_gets_no_mail_and_is_explained() {
    let root = Certified::root("one");
    let mut rows: Vec<(&str, Arc<ServerConfig>, &str)> = Vec::new();
    // Right below the authority.
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uses = |purpose| changed(|params| params.extended_key_usages = vec![purpose]);
    let dates = |from, to| {
        changed(|params| (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1)))
    };
    let critical = || {
        let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        unknown.set_criticality(true);
        changed(|params| params.custom_extensions = vec![unknown])
    };
    for (row, params, words) in [
        ("good", changed(|_| {}), GOOD),
        ("for servers", uses(ExtendedKeyUsagePurpose::ServerAuth), GOOD),
        ("wildcard", named(dns("*.d.test")), GOOD),
        ("for clients", uses(ExtendedKeyUsagePurpose::ClientAuth), NOT_FOR_SERVERS),
        ("for code", uses(ExtendedKeyUsagePurpose::CodeSigning), NOT_FOR_SERVERS),
        ("for mail of persons", uses(ExtendedKeyUsagePurpose::EmailProtection), NOT_FOR_SERVERS),
        // RFC 5280 section 4.2.1.12 lets a client refuse it.
        ("for any purpose", uses(ExtendedKeyUsagePurpose::Any), NOT_FOR_SERVERS),
        (
            "an authority",
            changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "an authority's own and not a server's",
        ),
        ("expired", dates(2020, 2021), EXPIRED),
        ("not valid yet", dates(2119, 2120), NOT_YET),
        ("ends before it begins", dates(2120, 2020), "the certificate"),
        ("an unknown critical extension", critical(), "the certificate is not good"),
        (
            "a name in the subject alone",
            changed(|params| {
                params.subject_alt_names = Vec::new();
                params.distinguished_name.push(DnType::CommonName, HOST);
            }),
            OTHER_NAME,
        ),
        ("another name", named(dns("other.test")), OTHER_NAME),
        ("a wildcard over two labels", named(dns("*.test")), OTHER_NAME),
        ("a wildcard below the host", named(dns("*.mx.d.test")), OTHER_NAME),
        ("a wildcard for a part of a label", named(dns("m*.d.test")), OTHER_NAME),
        ("a wildcard in the middle", named(dns("mx.*.test")), OTHER_NAME),
        ("a wildcard for everything", named(dns("*")), OTHER_NAME),
        ("the domain", named(dns("d.test")), OTHER_NAME),
        ("a subdomain of the host", named(dns("a.mx.d.test")), OTHER_NAME),
        ("the name with more after it", named(dns("mx.d.test.other.test")), OTHER_NAME),
        ("the name and a NUL", named(dns("mx.d.test\0.other.test")), OTHER_NAME),
        ("the name and a space", named(dns("mx.d.test ")), OTHER_NAME),
        ("an address", named(SanType::IpAddress([127, 0, 0, 1].into())), OTHER_NAME),
        ("an address as a name", named(dns("127.0.0.1")), OTHER_NAME),
        ("a mailbox", named(SanType::Rfc822Name(format!("postmaster@{HOST}").try_into().unwrap())), OTHER_NAME),
        ("a URI", named(SanType::URI(format!("smtp://{HOST}").try_into().unwrap())), OTHER_NAME),
    ] {
        let leaf = root.sign(params);
        rows.push((row, leaf.serves_unchecked(vec![leaf.der.clone()]), words));
    }

    // Of another authority, or of none.
    let (stranger, namesake) = (Certified::root("two"), Certified::root("one"));
    let alone = Certified::alone(&[HOST]);
    rows.push(("signed by itself", alone.serves(&[]), UNKNOWN));
    rows.push(("signed by itself, the authority beside it", alone.serves(&[&root]), UNKNOWN));
    rows.push(("of another authority", stranger.server(&[HOST]).serves(&[&stranger]), UNKNOWN));
    rows.push(("of an authority of the same name", namesake.server(&[HOST]).serves(&[&namesake]), BAD_SIGNATURE));

    // Below an authority between them.
    let limited = |subtree: &str, is_permitted| {
        let (list, none) = (vec![GeneralSubtree::DnsName(subtree.to_owned())], Vec::new());
        between(|params| {
            params.name_constraints = Some(match is_permitted {
                true => NameConstraints { permitted_subtrees: list, excluded_subtrees: none },
                false => NameConstraints { permitted_subtrees: none, excluded_subtrees: list },
            });
        })
    };
    for (row, params, is_shown, words) in [
        ("good, between", between(|_| {}), true, GOOD),
        ("permitted", limited("d.test", true), true, GOOD),
        ("missing", between(|_| {}), false, UNKNOWN),
        ("no authority", server(&["other.test"]), true, "the certificate"),
        // webpki does not look at key usages.
        ("may not sign", between(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]), true, GOOD),
        ("expired", between(|params| params.not_after = date_time_ymd(2021, 1, 1)), true, EXPIRED),
        ("not valid yet", between(|params| params.not_before = date_time_ymd(2119, 1, 1)), true, NOT_YET),
        (
            "for clients",
            between(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            true,
            NOT_FOR_SERVERS,
        ),
        ("for another domain", limited("other.test", true), true, "the certificate is not good"),
        ("not for this domain", limited("d.test", false), true, "the certificate is not good"),
    ] {
        let issuer = root.sign(params);
        let chain = [&issuer];
        rows.push((row, issuer.server(&[HOST]).serves(if is_shown { &chain } else { &[] }), words));
    }
    let last = root.sign(between(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))));
    let one_more = last.authority("one more");
    rows.push(("one authority too many", one_more.server(&[HOST]).serves(&[&one_more, &last]), "the certificate"));
    let mut chain = vec![root.authority("0")];
    for number in 1..12 {
        chain.push(chain[number - 1].authority(&number.to_string()));
    }
    let leaf = chain[11].server(&[HOST]);
    rows.push(("a long chain", leaf.serves(&chain.iter().rev().collect::<Vec<_>>()), "the certificate"));

    // Octets.
    let good = root.server(&[HOST]);
    let tail = good.der.last_chunk::<8>().unwrap();
    let signature = patched(&good, tail, &tail.map(|octet| octet ^ 1));
    let version_1 = patched(&good, &[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 0]);
    let short = CertificateDer::from(good.der[..good.der.len() - 1].to_vec());
    let long = CertificateDer::from([&good.der[..], b"\0"].concat());
    for (row, shown, words) in [
        ("a wrong signature", vec![signature], BAD_SIGNATURE),
        ("version 1", vec![version_1], "of X.509 version 1"),
        ("an octet too few", vec![short], NOT_WELL_FORMED),
        ("an octet too many", vec![long], NOT_WELL_FORMED),
        ("no certificate", vec![CertificateDer::from(b"certificate".to_vec())], NOT_WELL_FORMED),
        ("an empty one", vec![CertificateDer::from(Vec::new())], NOT_WELL_FORMED),
        ("none", Vec::new(), "shows no certificate"),
        ("the authority first", vec![root.der.clone(), good.der.clone()], "the certificate"),
    ] {
        rows.push((row, good.serves_unchecked(shown), words));
    }

    let (mut wrong, count) = (Vec::new(), rows.len());
    for (policy, tls) in policies(&root).await {
        for (row, server, words) in &rows {
            let (stream, heard) = serve(|_, line| polite(line, &["STARTTLS"]), Some(Arc::clone(server)));
            let name = tls.server_name.as_deref().unwrap_or(HOST).to_owned();
            let said = match Client::start(stream, &name, &options(tls.tls.clone())).await {
                Ok(client) if client.is_verified() => String::new(),
                Ok(_) => "in doubt".to_owned(),
                Err(error) => error.to_string(),
            };
            if said.is_empty() != words.is_empty() || !said.contains(words) {
                wrong.push(format!("{policy}, {row}: {said:?} and not {words:?}"));
            }
            assert!(words.is_empty() || !heard.all().iter().any(|(place, _)| place.tls), "{policy}, {row}");
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 4 * count, wrong.join("\n"));
    assert!(count > 50, "{count}");
}
