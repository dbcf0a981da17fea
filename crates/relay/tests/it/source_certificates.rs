//! A source shows its certificate to next hops that ask for one, and nothing else changes.

use std::{collections::BTreeSet, time::Duration};

use posthaste_client::{
    Identity, Tls,
    tls::{ClientCertificate, Pem},
};
use posthaste_relay::{RouteTable, Source};
use posthaste_server::{Tls as ServerTls, tls::Certificates};
use posthaste_testkit::pki::Authority;

use crate::support::{Noting, options, source, start, through};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

fn pem([certificate, key]: [String; 2]) -> (Pem, Pem) {
    (Pem::from(certificate.as_bytes()), Pem::from(key.as_bytes()))
}

/// A next hop of this authority, which asks clients for a certificate of the same.
async fn asking(authority: &Authority) -> (Noting, u16) {
    let certificates = Certificates::new(&[pem(authority.pem(&["127.0.0.1"]))]).unwrap();
    let config = certificates.server_config_asking(authority.roots().into()).unwrap();
    Noting::with_tls(ServerTls::StartTls(config)).await
}

/// A source with a certificate, and this in DER.
fn showing(authority: &Authority, name: &str, last: u8) -> (Source, Vec<u8>) {
    let (certificate, key) = pem(authority.pem(&[&format!("{name}.test")]));
    let mut source = source(name, last);
    source.certificate = Some(ClientCertificate::new(&certificate, &key).unwrap());
    (source, certificate.certificates().unwrap()[0].to_vec())
}

#[tokio::test]
async fn each_source_shows_its_own_certificate() {
    let authority = Authority::new("one");
    let (hop, port) = asking(&authority).await;
    let ((first, first_der), (second, second_der)) =
        (showing(&authority, "first", 2), showing(&authority, "second", 3));
    for tls in [Tls::opportunistic().unwrap(), Tls::Required(Identity::verified(authority.roots().into()).unwrap())] {
        let mut route = through(port, [(first.clone(), 1), (second.clone(), 1), (source("third", 4), 1)]);
        route.tls = tls;
        let mut options = options(&[]);
        // Each message has a connection of its own: no session may be taken for that of another.
        options.delivery.idle = Duration::ZERO;
        options.routes = RouteTable::all(route);
        let relay = start(options);
        for count in 0..30 {
            relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
            relay.log.wait("delivered", count + 1).await;
        }
        relay.end().await;
    }
    let seen: BTreeSet<_> = hop.taken().into_iter().map(|(from, ..)| from).zip(hop.certificates()).collect();
    let row = |last: u8, certificate: &[u8]| (format!("127.0.0.{last}"), certificate.to_vec());
    assert_eq!(seen, [row(2, &first_der), row(3, &second_der), row(4, b"")].into());
}

/// The same rules say which next hop is the right one.
#[tokio::test]
async fn a_source_with_a_certificate_trusts_no_other_next_hop() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let (hop, port) = asking(&authority).await;
    let mut route = through(port, [(showing(&authority, "first", 2).0, 1)]);
    route.tls = Tls::Required(Identity::verified(other.roots().into()).unwrap());
    let mut options = options(&[]);
    options.routes = RouteTable::all(route);
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("deferred", 1).await;
    assert!(relay.log.of("deferred")[0].text.contains("certificate"), "{:?}", relay.log.all());
    assert!(hop.taken().is_empty());
    relay.end().await;
}

#[test]
fn sources_are_equal_if_their_certificates_are() {
    let authority = Authority::new("one");
    let files = pem(authority.pem(&["first.test"]));
    let of = |files: &(Pem, Pem)| {
        let mut source = source("first", 2);
        source.certificate = Some(ClientCertificate::new(&files.0, &files.1).unwrap());
        source
    };
    assert_eq!(of(&files), of(&files));
    let renewed = of(&pem(authority.pem(&["first.test"])));
    assert!(of(&files) != renewed && source("first", 2) != renewed);
    assert!(!format!("{renewed:?}").contains("PRIVATE"));
}
