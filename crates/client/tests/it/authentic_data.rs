//! Name servers that are believed when they say that they have validated, by the AD bit.

use std::net::SocketAddr;

use hickory_server::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata},
};
use posthaste_client::{Answer, HickoryResolver, ResolveError, Resolver as _};
use tokio::net::UdpSocket;

/// A server that says what the zone says, and the AD bit of it, if the question has the DO bit.
async fn serve() -> HickoryResolver {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 4_096];
        while let Ok((length, peer)) = socket.recv_from(&mut query).await {
            let question = Message::from_vec(&query[..length]).unwrap();
            assert!(question.edns.as_ref().unwrap().flags().dnssec_ok);
            let query = &question.queries[0];
            let name = query.name().to_ascii();
            let (code, records, is_proved) = zone(name.trim_end_matches('.'), query.query_type());
            let mut said = Message::response(question.id, question.op_code);
            said.add_query(query.clone());
            said.metadata.response_code = code;
            said.metadata.authentic_data = is_proved;
            said.metadata.recursion_available = true;
            for (owner, data) in records {
                said.add_answer(Record::from_rdata(host(owner), 60, data));
            }
            socket.send_to(&said.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    HickoryResolver::with_servers(&[address]).unwrap().trusting().unwrap()
}

type Said = (ResponseCode, Vec<(&'static str, RData)>, bool);

fn zone(name: &str, kind: RecordType) -> Said {
    let good = |records, is_proved| (ResponseCode::NoError, records, is_proved);
    let (a, aaaa) = (RData::A(rdata::A::new(127, 0, 0, 1)), RData::AAAA(rdata::AAAA::new(0, 0, 0, 0, 0, 0, 0, 1)));
    let alias = |target| RData::CNAME(rdata::CNAME(host(target)));
    match (name, kind) {
        ("both.test" | "mixed.test" | "half.test" | "v4.test", RecordType::A) => {
            good(vec![(leak(name), a)], name != "half.test")
        }
        ("both.test", RecordType::AAAA) => good(vec![("both.test", aaaa)], true),
        ("mixed.test", RecordType::AAAA) => good(vec![("mixed.test", aaaa)], false),
        ("half.test", RecordType::AAAA) => (ResponseCode::ServFail, vec![], false),
        ("alias.test", RecordType::A) => good(vec![("alias.test", alias("both.test")), ("both.test", a)], true),
        ("leads-out.test" | "unsigned.test", RecordType::A) => {
            good(vec![(leak(name), alias("plain.test")), ("plain.test", a)], false)
        }
        ("leads-out.test" | "unsigned.test", RecordType::CNAME) => {
            good(vec![(leak(name), alias("plain.test"))], name == "leads-out.test")
        }
        // A record of another name says nothing of this one.
        ("strange.test", RecordType::A) => good(vec![("other.test", a)], true),
        ("nowhere.test", RecordType::A) => (ResponseCode::NXDomain, vec![("nowhere.test", alias("gone.test"))], true),
        ("gone.test", _) => (ResponseCode::NXDomain, vec![], true),
        ("bogus.test", _) => (ResponseCode::ServFail, vec![], false),
        ("both.test" | "plain.test", RecordType::MX) => {
            let mx = RData::MX(rdata::MX::new(10, host("mx.test")));
            good(vec![(leak(name), mx)], name == "both.test")
        }
        _ => good(vec![], true),
    }
}

fn host(name: &str) -> Name {
    Name::parse(&format!("{name}."), None).unwrap()
}

fn leak(name: &str) -> &'static str {
    name.to_owned().leak()
}

fn said<T>(found: &Result<Answer<T>, ResolveError>) -> String {
    match found {
        Err(ResolveError::NoSuchName) => "no such name".to_owned(),
        Err(ResolveError::Temporary(_)) => "temporary".to_owned(),
        Err(_) => "unusable".to_owned(),
        Ok(Answer { records, is_secure, alias, .. }) => {
            let alias = alias.as_ref().map(|alias| format!(" at {} {}", alias.canonical_name, alias.is_secure));
            format!("{} {is_secure}{}", records.len(), alias.unwrap_or_default())
        }
    }
}

#[tokio::test]
async fn an_answer_is_secure_if_its_server_on_this_host_says_so() {
    let resolver = serve().await;
    for (what, name, expected) in [
        ("A", "both.test", "2 true"),
        ("A", "mixed.test", "2 false"),
        ("A", "half.test", "1 false"),
        ("A", "v4.test", "1 true"),
        ("A", "alias.test", "1 true at both.test true"),
        ("A", "leads-out.test", "1 false at plain.test true"),
        ("A", "unsigned.test", "1 false at plain.test false"),
        ("A", "strange.test", "0 false"),
        ("A", "nowhere.test", "no such name"),
        ("A", "gone.test", "no such name"),
        ("A", "bogus.test", "temporary"),
        ("MX", "both.test", "1 true"),
        ("MX", "plain.test", "1 false"),
        // The bit of an answer without records is not heard.
        ("MX", "v4.test", "0 false"),
        ("MX", "bogus.test", "temporary"),
        ("TLSA", "_25._tcp.both.test", "0 false"),
        ("TLSA", "bogus.test", "temporary"),
    ] {
        let found = match what {
            "MX" => said(&resolver.mx(name).await),
            "A" => said(&resolver.addresses(name).await),
            _ => said(&resolver.tlsa(name).await),
        };
        assert_eq!(found, expected, "{what} {name}");
    }
}

#[test]
fn a_server_that_is_not_on_this_host_is_not_believed() {
    let trusting = |servers: &[&str]| {
        let servers: Vec<SocketAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        HickoryResolver::with_servers(&servers).unwrap().trusting().map(|_| ())
    };
    assert_eq!(trusting(&["127.0.0.1:53"]), Ok(()));
    assert_eq!(trusting(&["127.0.0.53:53", "[::1]:53"]), Ok(()));
    for servers in [&["192.0.2.53:53"][..], &["127.0.0.1:53", "192.0.2.53:53"], &["[2001:db8::53]:53"], &[]] {
        assert!(matches!(trusting(servers), Err(ResolveError::Unusable(_))), "{servers:?}");
    }
}
