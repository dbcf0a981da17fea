//! What a resolver that validates DNSSEC says of zones that are signed, rightly or wrongly.

use posthaste_client::{Answer, HickoryResolver, ResolveError, Resolver as _, TrustAnchors};

use crate::support::signed::{Kind, Signed};

const CNAME: u16 = 5;

const SECURE: &str = "\
@ MX 10 mx\n\
mx A 127.0.0.1\n\
_25._tcp.mx TLSA 3 1 1 0707070707070707070707070707070707070707070707070707070707070707\n\
no-tlsa A 127.0.0.1\n\
tampered A 127.0.0.1\n\
alias CNAME mx\n\
alias-2 CNAME alias\n\
to-plain CNAME mx.plain.\n\
to-nsec3 CNAME mx.nsec3.\n\
to-nowhere CNAME none\n\
to-stripped CNAME mx.stripped.\n\
a-loop CNAME a-loop\n\
*.wild A 127.0.0.7\n";
const HOST: &str = "\
@ MX 10 mx\n\
mx A 127.0.0.1\n\
_25._tcp.mx TLSA 3 1 1 0707070707070707070707070707070707070707070707070707070707070707\n\
to-secure CNAME mx.secure.\n";

async fn zones() -> Signed {
    Signed::start(&[
        ("secure", Kind::Nsec, SECURE),
        ("nsec3", Kind::Nsec3, HOST),
        ("costly", Kind::Nsec3Costly, HOST),
        ("plain", Kind::Unsigned, HOST),
        ("stripped", Kind::Stripped, HOST),
        ("other-key", Kind::OtherKey, HOST),
        ("withheld", Kind::KeysWithheld, HOST),
        ("expired", Kind::Expired, HOST),
    ])
    .await
}

/// What came of a look-up: `4` for temporary, `5` for permanent, or the number of records with `s`
/// where they are secure. The canonical name follows, with `s` where the first alias is secure.
fn said<T>(found: &Result<Answer<T>, ResolveError>) -> String {
    match found {
        Err(ResolveError::NoSuchName) => "no such name".to_owned(),
        Err(ResolveError::Temporary(_)) => "temporary".to_owned(),
        Err(_) => "unusable".to_owned(),
        Ok(answer) => {
            let standing = |is_secure| if is_secure { "secure" } else { "insecure" };
            let mut said = format!("{} {}", answer.records.len(), standing(answer.is_secure));
            if let Some(alias) = &answer.alias {
                said += &format!(" at {} ({})", alias.canonical_name, standing(alias.is_secure));
            }
            said
        }
    }
}

#[tokio::test]
async fn an_answer_is_secure_if_every_record_and_alias_is_proved() {
    let zones = zones().await;
    // The signatures of `expired` are over in the second after the one in which they were made.
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    for (what, name, expected) in [
        ("MX", "secure", "1 secure"),
        ("A", "mx.secure", "1 secure"),
        ("TLSA", "_25._tcp.mx.secure", "1 secure"),
        // Proofs that there is none, by NSEC.
        ("MX", "mx.secure", "0 secure"),
        ("TLSA", "mx.secure", "0 secure"),
        ("TLSA", "_25._tcp.no-tlsa.secure", "no such name"),
        ("A", "none.secure", "no such name"),
        // And by NSEC3.
        ("MX", "nsec3", "1 secure"),
        ("A", "mx.nsec3", "1 secure"),
        ("TLSA", "_25._tcp.mx.nsec3", "1 secure"),
        ("MX", "mx.nsec3", "0 secure"),
        ("A", "none.nsec3", "no such name"),
        // With too many iterations the zone counts as unsigned, but only where it proves absence.
        ("A", "mx.costly", "1 secure"),
        ("MX", "mx.costly", "0 insecure"),
        ("A", "none.costly", "no such name"),
        // The gap of hickory that the documentation names. It errs on the safe side.
        ("A", "x.wild.secure", "temporary"),
        // An unsigned zone.
        ("MX", "plain", "1 insecure"),
        ("A", "mx.plain", "1 insecure"),
        ("TLSA", "_25._tcp.mx.plain", "1 insecure"),
        ("MX", "mx.plain", "0 insecure"),
        ("A", "none.plain", "no such name"),
        // Aliases.
        ("A", "alias.secure", "1 secure at mx.secure (secure)"),
        ("A", "alias-2.secure", "1 secure at mx.secure (secure)"),
        ("A", "to-nsec3.secure", "1 secure at mx.nsec3 (secure)"),
        ("A", "to-plain.secure", "1 insecure at mx.plain (secure)"),
        ("A", "to-secure.plain", "1 insecure at mx.secure (insecure)"),
        ("A", "to-secure.nsec3", "1 secure at mx.secure (secure)"),
        ("A", "to-nowhere.secure", "no such name"),
        ("A", "a-loop.secure", "0 insecure"),
        // Signatures that should be good, and are not.
        ("A", "tampered.secure", "temporary"),
        ("MX", "stripped", "temporary"),
        ("A", "mx.stripped", "temporary"),
        ("TLSA", "_25._tcp.mx.stripped", "temporary"),
        ("A", "none.stripped", "temporary"),
        ("A", "to-stripped.secure", "temporary"),
        ("A", "mx.other-key", "temporary"),
        ("TLSA", "_25._tcp.mx.other-key", "temporary"),
        ("A", "mx.expired", "temporary"),
        // Keys that are not to be had: a network failure, or an attacker who hopes for "insecure".
        ("A", "mx.withheld", "temporary"),
        ("TLSA", "_25._tcp.mx.withheld", "temporary"),
        // This host itself.
        ("A", "localhost", "2 insecure"),
    ] {
        let resolver = &zones.resolver;
        // Twice, since the second answer comes from a cache.
        for turn in ["first", "second"] {
            let found = match what {
                "MX" => said(&resolver.mx(name).await),
                "A" => said(&resolver.addresses(name).await),
                _ => said(&resolver.tlsa(name).await),
            };
            assert_eq!(found, expected, "{what} {name}, {turn}");
        }
    }
}

/// The cache of hickory leaves out an alias if its target is known.
#[tokio::test]
async fn an_alias_to_a_name_that_is_cached_keeps_its_standing() {
    let zones = zones().await;
    let resolver = &zones.resolver;
    assert_eq!(said(&resolver.addresses("mx.secure").await), "1 secure");
    for (name, expected) in [
        ("to-secure.plain", "1 insecure at mx.secure (insecure)"),
        ("to-secure.nsec3", "1 secure at mx.secure (secure)"),
        ("alias-2.secure", "1 secure at mx.secure (secure)"),
    ] {
        assert_eq!(said(&resolver.addresses(name).await), expected, "{name}");
    }
    assert_eq!(zones.asked("to-secure.plain", CNAME), 1);
}

/// Otherwise an attacker could take DNSSEC from any host: by an unsigned alias of his own to it.
#[tokio::test]
async fn an_unsigned_alias_takes_nothing_from_its_target() {
    let zones = zones().await;
    let resolver = &zones.resolver;
    assert_eq!(said(&resolver.addresses("to-secure.plain").await), "1 insecure at mx.secure (insecure)");
    assert_eq!(said(&resolver.addresses("mx.secure").await), "1 secure");
    assert_eq!(said(&resolver.addresses("alias.secure").await), "1 secure at mx.secure (secure)");
}

#[tokio::test]
async fn without_validation_nothing_is_secure_or_temporary() {
    let zones = zones().await;
    let resolver = HickoryResolver::with_servers(&[zones.address]).unwrap();
    for (name, expected) in
        [("mx.secure", "1 insecure"), ("tampered.secure", "1 insecure"), ("mx.stripped", "1 insecure")]
    {
        assert_eq!(said(&resolver.addresses(name).await), expected, "{name}");
    }
    assert_eq!(said(&resolver.tlsa("_25._tcp.mx.secure").await), "1 insecure");
}

#[tokio::test]
async fn other_anchors_prove_nothing() {
    let zones = zones().await;
    let resolver = HickoryResolver::with_servers(&[zones.address]).unwrap();
    let resolver = resolver.validating(&TrustAnchors::iana()).unwrap();
    for name in ["mx.secure", "mx.plain", "mx.nsec3"] {
        assert_eq!(said(&resolver.addresses(name).await), "temporary", "{name}");
    }
}

#[test]
fn trust_anchors_are_dnskey_records() {
    let root = "257 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHlFlExOLAJr5emLvN";
    for (text, is_good) in [
        (format!(". IN DNSKEY {root}\n"), true),
        (format!(". 172800 IN DNSKEY {root}\nexample. IN DNSKEY {root}\n"), true),
        (format!("; a comment\n. IN DNSKEY {root}\n"), true),
        (String::new(), false),
        (" \n".to_owned(), false),
        (". IN DNSKEY 257 3 8 ***\n".to_owned(), false),
        (". IN A 127.0.0.1\n".to_owned(), false),
        ("no anchors at all".to_owned(), false),
    ] {
        assert_eq!(TrustAnchors::from_dnskeys(&text).is_ok(), is_good, "{text:?}");
    }
}
