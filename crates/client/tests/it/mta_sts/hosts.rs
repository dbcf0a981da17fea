//! A sender's loop over the MX hosts of a domain whose policy is enforced.

use bytes::Bytes;
use posthaste_client::{Client, ConnectError, Tls, mta_sts::MtaSts, tls::verified_by};
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
