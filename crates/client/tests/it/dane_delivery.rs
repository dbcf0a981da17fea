//! Delivery from the zone to the mailbox, over loopback: name servers with signed zones, and
//! servers with certificates.

use std::{net::SocketAddr, sync::Arc};

use posthaste_client::{
    ClientOptions, Race, Target, Tcp, Tls, TlsaRecord,
    dane::{Dane, DaneError},
    mx,
    rustls::ServerConfig,
    tls::any_certificate,
    wire::Domain,
};
use posthaste_testkit::script::{Scripted, polite};

use crate::support::{
    certificates::{By::Key, Certified},
    options,
    signed::{Kind, Signed},
};

/// A server with or without STARTTLS.
async fn server(tls: Option<Arc<ServerConfig>>) -> Scripted {
    let offers: &[&str] = if tls.is_some() { &["STARTTLS"] } else { &[] };
    Scripted::at(([127, 0, 0, 1], 0).into(), tls, move |_, line| polite(line, offers)).await
}

/// The records of a host with this port.
fn host(name: &str, preference: u16, port: u16, tlsa: &[TlsaRecord]) -> String {
    let mut zone = format!("@ MX {preference} {name}\n{name} A 127.0.0.1\n");
    for TlsaRecord { usage, selector, matching_type, data } in tlsa {
        let data: String = data.iter().map(|octet| format!("{octet:02x}")).collect();
        zone += &format!("_{port}._tcp.{name} TLSA {usage} {selector} {matching_type} {data}\n");
    }
    zone
}

/// Sends a message to the domain as a relay would: each host with the TLS that it demands. `ports`
/// are those of the hosts by their names. Returns the host that took it, and if it was proved.
async fn send(zones: &Signed, domain: &str, ports: &[(&str, u16)]) -> Result<(String, bool), String> {
    let otherwise = Tls::Opportunistic(any_certificate().unwrap());
    let hosts = mx::hosts(&zones.resolver, &Domain::parse(domain).unwrap(), "relay.test").await.unwrap();
    let dane = Dane::of_domain(domain, &hosts);
    let (mut targets, mut passed_over) = (Vec::new(), String::new());
    for host in &hosts.records {
        let port = ports.iter().find(|(name, _)| *name == host.exchange).unwrap().1;
        let addresses = mx::addresses(&zones.resolver, &host.exchange, true).await.unwrap();
        match dane.policy(&zones.resolver, &host.exchange, port, &addresses).await.tls(&otherwise) {
            Err(error @ DaneError::Dns(_)) => passed_over += &error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(tls) => {
                let server = SocketAddr::new(addresses.records[0], port);
                let mut target = Target::new(host.exchange.as_str(), server, host.preference);
                target.tls = Some(tls);
                targets.push(target);
            }
        }
    }
    let options: Arc<ClientOptions> = Arc::new(options(Tls::Off));
    let mut race = Race::new(&targets, Tcp::default(), options);
    let Some((index, mut client)) = race.next().await else {
        let failed: Vec<_> = race.failed().iter().map(|(_, error)| error.to_string()).collect();
        return Err(passed_over + &failed.join("; "));
    };
    let is_verified = client.is_verified();
    let sent = client.send("me@s.test", [format!("you@{domain}").as_str()], "Subject: x\r\n\r\nhello\r\n").await;
    assert_eq!(sent.unwrap().failed().count(), 0);
    client.quit().await;
    Ok((targets[index].host.to_string(), is_verified))
}

#[tokio::test]
async fn mail_goes_to_the_right_key_and_to_no_other() {
    let root = Certified::root("one");
    let (right, wrong) = (root.server(&["mx.right"]), root.server(&["mx.right"]));
    let tlsa = || [right.tlsa(3, Key, 1)];
    let unusable = [TlsaRecord { data: vec![7; 31], ..right.tlsa(3, Key, 1) }];
    for (row, kind, records, tls, expected) in [
        ("the right key", Kind::Nsec, &tlsa()[..], Some(&right), Ok(true)),
        ("the right key, NSEC3", Kind::Nsec3, &tlsa(), Some(&right), Ok(true)),
        ("the wrong key", Kind::Nsec, &tlsa(), Some(&wrong), Err("no TLSA record in the DNS is about")),
        ("STARTTLS is hidden", Kind::Nsec, &tlsa(), None, Err("does not offer STARTTLS, which is required")),
        ("no usable record", Kind::Nsec, &unusable, Some(&wrong), Ok(false)),
        ("no usable record, no STARTTLS", Kind::Nsec, &unusable, None, Err("does not offer STARTTLS")),
        ("no record", Kind::Nsec, &[], Some(&wrong), Ok(false)),
        ("no record, no STARTTLS", Kind::Nsec, &[], None, Ok(false)),
        ("no record, no STARTTLS, NSEC3", Kind::Nsec3, &[], None, Ok(false)),
        // Records that DNSSEC does not prove say nothing, for better or worse.
        ("an unsigned zone, the wrong key", Kind::Unsigned, &tlsa(), Some(&wrong), Ok(false)),
        ("an unsigned zone, no STARTTLS", Kind::Unsigned, &tlsa(), None, Ok(false)),
    ] {
        let server = server(tls.map(|one| one.serves(&[&root]))).await;
        let zones = Signed::start(&[("right", kind, &host("mx", 10, server.port, records))]).await;
        let sent = send(&zones, "right", &[("mx.right", server.port)]).await;
        match (&sent, expected) {
            (Ok((_, verified)), Ok(expected)) => assert_eq!(*verified, expected, "{row}"),
            (Err(error), Err(words)) => assert!(error.contains(words), "{row}: {error}"),
            _ => panic!("{row}: {sent:?}"),
        }
        let heard = server.heard.of(&["MAIL", "RCPT", "DATA"]);
        assert_eq!(heard.is_empty(), expected.is_err(), "{row}");
        let is_in_tls = tls.is_some();
        assert!(heard.iter().all(|(place, _)| place.tls == is_in_tls), "{row}");
    }
}

/// The first host has a key that it should not have, and the next one is asked.
#[tokio::test]
async fn each_host_has_the_tls_that_its_own_records_demand() {
    let root = Certified::root("one");
    let (first, second) = (root.server(&["a.d"]), root.server(&["b.d"]));
    let servers = [server(Some(second.serves(&[]))).await, server(Some(second.serves(&[]))).await, server(None).await];
    let ports = [("a.d", servers[0].port), ("b.d", servers[1].port), ("c.d", servers[2].port)];
    let zone = host("a", 10, ports[0].1, &[first.tlsa(3, Key, 1)])
        + &host("b", 20, ports[1].1, &[second.tlsa(3, Key, 1)])
        + &host("c", 30, ports[2].1, &[]);
    let zones = Signed::start(&[("d", Kind::Nsec, &zone)]).await;
    assert_eq!(send(&zones, "d", &ports).await, Ok(("b.d".to_owned(), true)));
    assert!(servers[0].heard.of(&["MAIL"]).is_empty() && servers[2].heard.all().is_empty());

    // Without the second host, the third takes the mail, as it has asked for no TLS.
    let zone = host("a", 10, ports[0].1, &[first.tlsa(3, Key, 1)]) + &host("c", 30, ports[2].1, &[]);
    let zones = Signed::start(&[("d", Kind::Nsec, &zone)]).await;
    assert_eq!(send(&zones, "d", &ports).await, Ok(("c.d".to_owned(), false)));
    assert!(servers[0].heard.of(&["MAIL"]).is_empty());
}

/// The certificate of the provider, for a host that is an alias of the provider's.
#[tokio::test]
async fn a_host_that_is_an_alias_has_the_certificate_of_its_target() {
    let root = Certified::root("one");
    for (row, target, names, kind, expected) in [
        ("the name of the target", "mx.provider", &["mx.provider"][..], Kind::Nsec, true),
        ("the name of the domain", "mx.provider", &["d"], Kind::Nsec, true),
        ("the name of the alias", "mx.provider", &["mx.d"], Kind::Nsec, false),
        // The target is not signed, so the records at the alias count.
        ("an unsigned target", "mx.provider", &["mx.d"], Kind::Unsigned, true),
        ("an unsigned target, its name", "mx.provider", &["mx.provider"], Kind::Unsigned, false),
    ] {
        let server = server(Some(root.server(names).serves(&[&root]))).await;
        let records = [root.tlsa(2, Key, 1)];
        let own = host("other", 99, server.port, &records).replace("@ MX 99 other\n", "").replace("other", "mx");
        let own = own.replace("mx A 127.0.0.1\n", &format!("@ MX 10 mx\nmx CNAME {target}.\n"));
        let provider = host("mx", 10, server.port, &records);
        let zones = Signed::start(&[("d", Kind::Nsec, &own), ("provider", kind, &provider)]).await;
        let sent = send(&zones, "d", &[("mx.d", server.port)]).await;
        assert_eq!(sent.is_ok(), expected, "{row}: {sent:?}");
        assert_eq!(server.heard.of(&["MAIL"]).is_empty(), !expected, "{row}");
    }
}
