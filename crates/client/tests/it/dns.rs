//! What name servers answer, right and wrong, and what that means for mail.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{
    HickoryResolver, HostName, ResolveError, Resolver,
    mx::{self, MxError},
    wire::Domain,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

const A: u16 = 1;
const CNAME: u16 = 5;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// What a name server says to a question.
enum Answer {
    /// These records of the name that was asked for, each with its type.
    Records(Vec<(u16, Vec<u8>)>),
    /// No record, with this code.
    Code(u8),
    /// No record and no authority: a server that knows nothing of the name and will not say so.
    Lame,
    /// No record, but servers that are said to know.
    Referral,
    /// A message that breaks off within its record.
    Torn,
    /// A message that says that it is not whole, by TCP too.
    Truncated,
}
use Answer::{Code, Lame, Records, Referral, Torn, Truncated};

/// Every question, as the octets of its name and its type.
type Asked = Arc<Mutex<Vec<(Vec<u8>, u16)>>>;

/// A name server on a port of its own, by UDP and TCP.
async fn serve(zone: impl Fn(&str, u16) -> Answer + Send + Sync + 'static) -> (HickoryResolver, Asked) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let (address, asked, zone) = (udp.local_addr().unwrap(), Asked::default(), Arc::new(zone));
    let (by_udp, by_tcp) = ((Arc::clone(&asked), Arc::clone(&zone)), (Arc::clone(&asked), zone));
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((octets, peer)) = udp.recv_from(&mut query).await {
            let said = reply(&query[..octets], &*by_udp.1, &by_udp.0);
            udp.send_to(&said, peer).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let Ok(length) = stream.read_u16().await else { continue };
            let mut query = vec![0; usize::from(length)];
            if stream.read_exact(&mut query).await.is_ok() {
                let said = reply(&query, &*by_tcp.1, &by_tcp.0);
                let _ = stream.write_u16(u16::try_from(said.len()).unwrap()).await;
                let _ = stream.write_all(&said).await;
            }
        }
    });
    (HickoryResolver::with_servers(&[address]).unwrap(), asked)
}

fn reply(query: &[u8], zone: &impl Fn(&str, u16) -> Answer, asked: &Asked) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(query[at + 1..end].to_vec());
        at = end;
    }
    let (name, kind) = (query[12..=at].to_vec(), u16::from_be_bytes([query[at + 1], query[at + 2]]));
    let question = &query[12..at + 5];
    asked.lock().unwrap().push((name, kind));
    let text = HostName::from_labels(&labels).unwrap().to_string();
    let answer = zone(&text, kind);
    let (refers, truncated) = (matches!(answer, Referral), matches!(answer, Truncated));
    let (code, records, torn, authority) = match answer {
        Records(records) => (0, records, false, true),
        Code(code) => (code, Vec::new(), false, true),
        Lame | Referral | Truncated => (0, Vec::new(), false, false),
        Torn => (0, vec![(kind, vec![0, 10, 3, b'm', b'x'])], true, true),
    };
    let mut said = query[..2].to_vec();
    said.extend([
        0x84 | query[2] & 1 | if truncated { 2 } else { 0 },
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(records.len()).unwrap(),
    ]);
    said.extend([0, u8::from(refers || authority && records.is_empty()), 0, 0]);
    said.extend(question);
    for (kind, data) in &records {
        said.extend([0xc0, 12]);
        said.extend(kind.to_be_bytes());
        said.extend([0, 1, 0, 0, 0, 60]);
        said.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        said.extend(data);
    }
    if torn {
        said.truncate(said.len() - 2);
    }
    if refers {
        said.extend([0xc0, 12, 0, 2, 0, 1, 0, 0, 0, 1, 0, 3, 1, b'n', 0]);
    } else if authority && records.is_empty() {
        said.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 1, 0, 24, 1, b'n', 0, 0]);
        said.extend([0; 20]);
    }
    said
}

fn name(labels: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels {
        name.push(u8::try_from(label.len()).unwrap());
        name.extend(*label);
    }
    name.push(0);
    name
}

fn mx(preference: u16, labels: &[&[u8]]) -> (u16, Vec<u8>) {
    (MX, [preference.to_be_bytes().to_vec(), name(labels)].concat())
}

fn txt(strings: &[&[u8]]) -> (u16, Vec<u8>) {
    let string = |octets: &&[u8]| [&[u8::try_from(octets.len()).unwrap()], *octets].concat();
    (TXT, strings.iter().flat_map(string).collect())
}

fn alias(of: &str) -> Answer {
    Records(vec![(CNAME, name(&of.split('.').map(str::as_bytes).collect::<Vec<_>>()))])
}

/// What becomes of a domain: the addresses of its first host.
async fn way(resolver: &HickoryResolver, domain: &str) -> Result<Vec<IpAddr>, MxError> {
    let hosts = mx::hosts(resolver, &Domain::parse(domain).unwrap(), "relay.test").await?;
    let addresses = mx::addresses(resolver, &hosts.records[0].exchange, true).await?;
    assert!(!hosts.is_secure && !addresses.is_secure, "{domain}");
    Ok(addresses.records)
}

fn zone(name: &str, kind: u16) -> Answer {
    match (name, kind) {
        ("good.test", MX) | ("host-torn.test" | "host-fails.test" | "host-loops.test" | "host-gone.test", MX) => {
            let host = if name == "good.test" { "mail_1" } else { name.split('.').next().unwrap() };
            Records(vec![mx(10, &[host.as_bytes(), b"hosts", b"test"])])
        }
        ("mail_1.hosts.test", A) => Records(vec![(A, vec![127, 0, 0, 9])]),
        ("host-torn.hosts.test", _) | ("torn.test", _) => Torn,
        ("host-fails.hosts.test", _) | ("fails.test", _) => Code(SERVFAIL),
        ("host-loops.hosts.test", _) => alias("host-loops.hosts.test"),
        ("half-fails.test", A) | ("no-data.test", _) => Code(0),
        ("half-fails.test", AAAA) => Code(SERVFAIL),
        ("other-half-fails.test", A) => Code(SERVFAIL),
        ("half-fails.test" | "other-half-fails.test", MX) | ("other-half-fails.test", AAAA) => Code(0),
        ("loop-1.test", _) => alias("loop-1.test"),
        ("loop-2.test", _) => alias("loop-3.test"),
        ("loop-3.test", _) => alias("loop-2.test"),
        ("alias.test", _) => alias("good.test"),
        ("alias-of-none.test", _) => alias("none.test"),
        ("alias-fails.test", _) => alias("fails.test"),
        ("short-1.test", MX) => Records(vec![(MX, vec![0])]),
        ("short-2.test", MX) => Records(vec![(MX, vec![0, 10])]),
        ("empty.test", MX) => Records(vec![(MX, Vec::new())]),
        ("label.test", MX) => Records(vec![(MX, vec![0, 10, 0x40, 1, 2, 0])]),
        ("refused.test", _) => Code(REFUSED),
        ("cut.test", _) => Truncated,
        ("bare.test", _) => Lame,
        ("elsewhere.test", _) => Referral,
        ("null.test", MX) => Records(vec![mx(0, &[])]),
        ("_texts.good.test", TXT) => Records(vec![txt(&[b"v=1; ", b"a=\xff"]), txt(&[b""])]),
        ("_alias.good.test", TXT) => alias("_texts.good.test"),
        _ => Code(NXDOMAIN),
    }
}

#[tokio::test]
async fn answers_of_the_dns_are_temporary_failures_only_where_it_gave_none() {
    /// What is said of a domain: its address, or the class and detail of the status.
    const FOUND: (u16, u16, u16) = (2, 0, 0);
    let (resolver, _) = serve(zone).await;
    for (domain, expected) in [
        ("good.test", FOUND),
        ("alias.test", FOUND),
        // The name does not exist.
        ("none.test", (5, 1, 2)),
        ("alias-of-none.test", (5, 1, 2)),
        ("xn--0.test", (5, 1, 2)),
        ("xn--bcher-kvaa.test", (5, 1, 2)),
        // It exists, and leads nowhere.
        ("no-data.test", (5, 4, 4)),
        ("bare.test", (5, 4, 4)),
        ("host-gone.test", (5, 4, 4)),
        ("null.test", (5, 1, 10)),
        // Its records are wrong.
        ("loop-1.test", (5, 4, 4)),
        ("loop-2.test", (5, 4, 4)),
        ("host-loops.test", (5, 4, 4)),
        // Its answer cannot be read: whose fault that is, it does not say.
        ("torn.test", (4, 4, 3)),
        ("host-torn.test", (4, 4, 3)),
        ("short-1.test", (4, 4, 3)),
        ("short-2.test", (4, 4, 3)),
        ("empty.test", (4, 4, 3)),
        ("label.test", (4, 4, 3)),
        // The DNS gives no reliable answer.
        ("fails.test", (4, 4, 3)),
        ("half-fails.test", (4, 4, 3)),
        ("other-half-fails.test", (4, 4, 3)),
        ("host-fails.test", (4, 4, 3)),
        ("alias-fails.test", (4, 4, 3)),
        ("refused.test", (4, 4, 3)),
        ("cut.test", (4, 4, 3)),
        ("elsewhere.test", (4, 4, 3)),
    ] {
        let found = way(&resolver, domain).await;
        let status = match &found {
            Ok(addresses) => {
                assert_eq!(addresses, &["127.0.0.9".parse::<IpAddr>().unwrap()], "{domain}");
                FOUND
            }
            Err(error) => {
                let code = error.enhanced().unwrap();
                assert_eq!(error.is_transient(), code.class() == 4, "{domain}: {error}");
                (code.class(), code.subject(), code.detail())
            }
        };
        assert_eq!(status, expected, "{domain}: {found:?}");
    }
}

#[tokio::test]
async fn a_name_is_asked_for_octet_by_octet_and_is_harmless_text() {
    const NAMES: &[(&[&[u8]], &str)] = &[
        (&[b"mail_1", b"one", b"test"], "mail_1.one.test"),
        (&[b"xn--0", b"test"], "xn--0.test"),
        (&[b"MX", b"xn--bcher-kva", b"test"], "MX.xn--bcher-kva.test"),
        (&[b"xn--99999", b"test"], "xn--99999.test"),
        (&[b"-a-", b"123"], "-a-.123"),
        (&[b"192", b"0", b"2", b"1"], "192.0.2.1"),
        (&[b"[127", b"0", b"0", b"1]"], "\\091127.0.0.1\\093"),
        (&[b"a.b", b"test"], "a\\046b.test"),
        (&[b"a\\b", b"test"], "a\\092b.test"),
        (&[b"a\r\n250 ok\0", b"test"], "a\\013\\010250\\032ok\\000.test"),
        (&[b"\xfc\xff", b"test"], "\\252\\255.test"),
        (&["\u{fc}".as_bytes(), b"test"], "\\195\\188.test"),
        (&[b"*", b"test"], "\\042.test"),
    ];
    let zone = |name: &str, kind: u16| match (name, kind) {
        ("d.test", MX) => Records((1..).zip(NAMES).map(|(preference, (labels, _))| mx(preference, labels)).collect()),
        (_, A) => Records(vec![(A, vec![127, 0, 0, 9])]),
        _ => Code(0),
    };
    let (resolver, asked) = serve(zone).await;
    let records = resolver.mx("d.test").await.unwrap().records;
    let mut records: Vec<_> = records.iter().map(|it| (usize::from(it.preference), &*it.exchange)).collect();
    records.sort_unstable();
    for ((preference, exchange), (labels, text)) in records.into_iter().zip(NAMES) {
        assert_eq!((exchange, exchange.is_ascii()), (*text, true), "{preference}");
        assert!(!exchange.bytes().any(|octet| octet.is_ascii_control() || octet == b' '), "{text}");
        asked.lock().unwrap().clear();
        let found = mx::addresses(&resolver, exchange, true).await;
        let found = found.map(|answer| answer.records);
        assert_eq!(found, Ok(vec!["127.0.0.9".parse::<IpAddr>().unwrap()]), "{text}");
        assert!(asked.lock().unwrap().contains(&(name(labels), A)), "{text}");
        // And as a domain.
        let _ = resolver.mx(exchange).await;
        assert!(asked.lock().unwrap().contains(&(name(labels), MX)), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_the_dns_cannot_hold_is_not_asked_for() {
    let (resolver, asked) = serve(zone).await;
    let long = "a.".repeat(128);
    for name in ["a..test", ".", "", &long, &"a".repeat(64)] {
        assert_eq!(resolver.mx(name).await, Err(ResolveError::NoSuchName), "{name}");
        assert_eq!(resolver.addresses(name).await, Err(ResolveError::NoSuchName), "{name}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_strings_of_a_txt_record_are_joined_and_records_are_not() {
    let (resolver, _) = serve(zone).await;
    let mut records = resolver.txt("_texts.good.test").await.unwrap();
    records.sort_unstable();
    assert_eq!(records, [b"".to_vec(), b"v=1; a=\xff".to_vec()]);
    assert_eq!(resolver.txt("no-data.test").await, Ok(Vec::new()));
    assert_eq!(resolver.txt("_none.good.test").await, Err(ResolveError::NoSuchName));
    assert!(matches!(resolver.txt("fails.test").await, Err(ResolveError::Temporary(_))));
    assert_eq!(resolver.txt("torn.test").await, Err(ResolveError::Temporary("the answer cannot be read".to_owned())));
    // An `Arc` of a resolver asks it.
    assert_eq!(Arc::new(resolver).txt("_alias.good.test").await.unwrap().len(), 2);
}

/// With the cache of the resolver, and without one.
#[tokio::test]
async fn an_answer_tells_how_long_it_counts() {
    let zone = |name: &str, kind| match (name, kind) {
        ("one.test", MX) => Records(vec![mx(10, &[b"mx", b"test"]), mx(20, &[b"mx2", b"test"])]),
        _ => Code(0),
    };
    let (resolver, _) = serve(zone).await;
    for resolver in [resolver.clone(), resolver.trusting().unwrap()] {
        let ttl = resolver.mx("one.test").await.unwrap().ttl.unwrap();
        assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&ttl), "{ttl:?}");
        // The minimum of the SOA record is 0.
        assert_eq!(resolver.mx("none.test").await.unwrap().ttl, Some(Duration::ZERO));
    }
}
