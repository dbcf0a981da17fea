//! A sender's loop over the MX hosts of a domain whose policy is enforced.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_client::{
    Client, ConnectError, Tls,
    mta_sts::MtaSts,
    tls::{Observer, any_certificate, explain, verified_by},
};
use posthaste_testkit::{
    pki::Authority,
    script::{polite, serve},
};

use super::{Files, POLICY, Zone};
use crate::support::{letters, options, send};

#[tokio::test]
async fn mail_of_a_domain_that_enforces_goes_to_the_host_that_matches_and_proves_its_name() {
    let authority = Authority::new("one");
    let verified = verified_by(authority.roots().into()).unwrap();
    let found = MtaSts::new(Files::with(POLICY)).policy(&Zone::with("1"), "d.test").await;
    let mut log = Vec::new();
    for (host, certificate) in [
        ("mx.evil.test", Some("mx.evil.test")),
        ("mx.d.test", None),
        ("a.hosts.test", Some("b.hosts.test")),
        ("b.hosts.test", Some("b.hosts.test")),
    ] {
        let Some(tls) = found.tls(host, &Tls::Off, &verified) else {
            log.push(format!("{host} passed over"));
            continue;
        };
        let offers: &[&str] = if certificate.is_some() { &["STARTTLS"] } else { &[] };
        let script = move |_, line: &str| polite(line, offers);
        let (stream, heard) = serve(script, certificate.map(|name| authority.server(&[name], 2020, 2120)));
        match Client::start(stream, host, &options(tls)).await {
            Ok(mut client) => {
                let sent = send(&mut client, 1, Bytes::from_static(b"x\r\n")).await;
                log.push(format!("{host} {} {}", letters(&sent), client.is_tls()));
            }
            Err(error) => {
                assert!(matches!(error, ConnectError::TlsUnavailable | ConnectError::Tls(_)), "{error}");
                assert!(heard.of(&["MAIL"]).is_empty());
                log.push(format!("{host} failed"));
            }
        }
    }
    assert_eq!(log, ["mx.evil.test passed over", "mx.d.test failed", "a.hosts.test failed", "b.hosts.test A true"]);
}

#[tokio::test]
async fn mail_of_a_domain_that_only_tests_goes_and_the_failure_is_seen() {
    let authority = Authority::new("one");
    let observer = Observer::new(authority.roots().into()).unwrap();
    let verified = verified_by(authority.roots().into()).unwrap();
    let found =
        MtaSts::new(Files::with(&POLICY.replace("enforce", "testing"))).policy(&Zone::with("1"), "d.test").await;
    let policy = found.tested().unwrap();
    let other = Authority::new("two");
    for (host, server, expected) in [
        ("mx.d.test", authority.server(&["mx.d.test"], 2020, 2120), None),
        ("mx.evil.test", authority.server(&["mx.evil.test"], 2020, 2120), Some("not permitted")),
        ("mx.d.test", authority.server(&["other.test"], 2020, 2120), Some("for another name")),
        ("mx.d.test", authority.server(&["mx.d.test"], 2020, 2021), Some("has expired")),
        ("mx.d.test", other.server(&["mx.d.test"], 2020, 2120), Some("no authority that is trusted")),
    ] {
        // Twice, since the second session is resumed.
        let opportunistic = Tls::Opportunistic(any_certificate().unwrap());
        for _ in 0..2 {
            let tls = found.tls(host, &opportunistic, &verified).unwrap();
            let (stream, _) = serve(|_, line: &str| polite(line, &["STARTTLS"]), Some(Arc::clone(&server)));
            let mut client = Client::start(stream, host, &options(tls)).await.unwrap();
            let sent = send(&mut client, 1, Bytes::from_static(b"x\r\n")).await;
            assert!(client.is_tls() && letters(&sent) == "A", "{host}");

            let fault = match observer.judge(client.certificates(), &host.try_into().unwrap()) {
                _ if !policy.permits(host) => Some("not permitted".to_owned()),
                Ok(()) => None,
                Err(fault) => Some(explain(&fault)),
            };
            assert_eq!(fault.is_some(), expected.is_some(), "{fault:?}");
            assert!(fault.is_none_or(|fault| fault.contains(expected.unwrap())), "{expected:?}");
        }
    }
    assert!(observer.judge(&[], &"mx.d.test".try_into().unwrap()).is_err());
}
