//! Proxies and content filters in front of the relay: the client that they name is the client.

mod support;

use std::fs;

use support::client::Smtp;
use support::relay::{Config, PASSWORD, Relay, USER};
use support::sink::Sink;
use support::{PATIENCE, token, wait_for};

/// A relay whose one listener has these keys. It relays for 198.51.100.0/24, and for all to
/// dest.test.
fn relay(sink: &Sink, listener: &str, rest: &str) -> Relay {
    let mut relay = Relay::prepare(&Config::default());
    let text = format!(
        "hostname = \"relay.test\"\nqueue = \"queue\"\nrelay_from = [\"198.51.100.0/24\"]\nrelay_domains = [\"dest.test\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{}\"\n{listener}\n\
         [[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:{}\"]\ntls = \"off\"\n{rest}\n",
        relay.port, sink.port
    );
    fs::write(relay.config(), text).expect("the folder is ours");
    relay.start_again();
    relay
}

/// The header of version 1.
fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 5678 25\r\n").into_bytes()
}

/// The header of version 2, from port 5678.
fn v2(client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[192, 0, 2, 1], &5_678_u16.to_be_bytes(), &25_u16.to_be_bytes()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &addresses[..]].concat()
}

/// The same of a client that has TLS 1.3 with the proxy.
fn v2_tls(client: [u8; 4]) -> Vec<u8> {
    // PP2_TYPE_SSL: PP2_CLIENT_SSL, a certificate that was not asked for, and the version.
    let facts = b"\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.3";
    let mut header = [&v2(client)[..], facts].concat();
    header[15] += u8::try_from(facts.len()).expect("they are few");
    header
}

/// The Received field that the relay has put in front.
fn received(sink: &mut Sink, token: &str) -> String {
    let text = String::from_utf8_lossy(&sink.one(token).data).into_owned();
    text.split("\r\nFrom:").next().unwrap_or_default().to_owned()
}

/// Waits for a line of the log.
fn line(relay: &Relay, words: &str) -> String {
    wait_for(words, PATIENCE, || relay.log().lines().find(|line| line.contains(words)).map(str::to_owned))
}

#[test]
fn a_client_behind_a_proxy_counts_by_its_own_address() {
    let mut sink = Sink::start();
    let relay = relay(&sink, "proxies = [\"127.0.0.1/32\"]", "");
    for header in [v1("203.0.113.7"), v2([203, 0, 113, 7])] {
        let token = token();
        let mut client = Smtp::through(relay.port, &header);
        client.expect("EHLO client.test", 250);
        assert_eq!(client.transact(&token).code, 250, "{}", client.log());
        let field = received(&mut sink, &token);
        assert!(field.contains("client.test ([203.0.113.7])") && !field.contains("127.0.0.1"), "{field}");
    }
    let told = line(&relay, "message accepted");
    assert!(told.contains("address=203.0.113.7:5678"), "{told}");
    // The policy: a stranger may not relay, and a client of ours may.
    for (address, code) in [([203, 0, 113, 7], 550), ([198, 51, 100, 7], 250)] {
        let mut client = Smtp::through(relay.port, &v2(address));
        client.expect("EHLO client.test", 250);
        client.expect("MAIL FROM:<a@sender.test>", 250);
        client.expect("RCPT TO:<b@elsewhere.test>", code);
    }
}

#[test]
fn connections_are_counted_by_the_client_behind_the_proxy() {
    let sink = Sink::start();
    // A tenth from one client.
    let relay = relay(&sink, "proxies = [\"127.0.0.1/32\"]", "[limits]\nconnections = 20");
    let _two = [(); 2].map(|()| Smtp::through(relay.port, &v1("203.0.113.7")));
    let mut third = Smtp::silent(relay.port);
    third.send(v1("203.0.113.7"));
    assert_eq!(third.reply().code, 421);
    let _other = Smtp::through(relay.port, &v1("192.0.2.8"));
}

#[test]
fn a_proxy_without_a_header_is_turned_away_and_a_header_of_another_is_no_command() {
    let sink = Sink::start();
    let behind = relay(&sink, "proxies = [\"127.0.0.1/32\"]", "");
    let mut client = Smtp::silent(behind.port);
    client.send("EHLO client.test\r\n");
    assert!(client.is_closed());
    let told = line(&behind, "PROXY header not accepted, connection closed");
    assert!(told.contains("WARN") && told.contains("proxy=127.0.0.1:"), "{told}");
    for listener in ["", "proxies = [\"192.0.2.0/24\"]"] {
        let relay = relay(&sink, listener, "");
        let mut client = Smtp::connect(relay.port);
        assert_eq!(client.command("PROXY TCP4 198.51.100.7 192.0.2.1 5678 25").code, 500);
        client.expect("EHLO client.test", 250);
        client.expect("MAIL FROM:<a@sender.test>", 250);
        client.expect("RCPT TO:<b@elsewhere.test>", 550);
    }
}

#[test]
fn a_client_named_by_xclient_counts_by_its_own_address() {
    let mut sink = Sink::start();
    let relay = relay(&sink, "xclient = [\"127.0.0.1/32\"]", "");
    for (address, code) in [("198.51.100.7", 250), ("203.0.113.7", 550)] {
        let mut client = Smtp::connect(relay.port);
        assert!(client.expect("EHLO proxy.test", 250).text.contains("XCLIENT NAME ADDR"));
        // The proxy itself may not relay.
        client.expect("MAIL FROM:<a@sender.test>", 250);
        client.expect("RCPT TO:<b@elsewhere.test>", 550);
        client.expect("RSET", 250);
        client.expect(&format!("XCLIENT ADDR={address} PORT=5678"), 220);
        client.expect("EHLO client.test", 250);
        client.expect("MAIL FROM:<a@sender.test>", 250);
        client.expect("RCPT TO:<b@elsewhere.test>", code);
        client.expect("RSET", 250);
        let token = token();
        assert_eq!(client.transact(&token).code, 250, "{}", client.log());
        let field = received(&mut sink, &token);
        assert!(field.contains(&format!("client.test ([{address}])")), "{field}");
        let told = line(&relay, &format!("client={address}:5678"));
        assert!(told.contains("address=127.0.0.1:"), "{told}");
    }
}

#[test]
fn the_log_has_what_xforward_says_and_the_policy_does_not_hear_of_it() {
    let mut sink = Sink::start();
    let relay = relay(&sink, "xforward = [\"127.0.0.1/32\"]", "");
    let mut client = Smtp::connect(relay.port);
    assert!(client.expect("EHLO filter.test", 250).text.contains("XFORWARD NAME ADDR"));
    client.expect("XFORWARD ADDR=198.51.100.7", 250);
    client.expect("MAIL FROM:<a@sender.test>", 250);
    client.expect("RCPT TO:<b@elsewhere.test>", 550);
    client.expect("RSET", 250);
    client.expect("XFORWARD ADDR=198.51.100.8", 250);
    let token = token();
    assert_eq!(client.transact(&token).code, 250, "{}", client.log());
    assert!(received(&mut sink, &token).contains("filter.test ([127.0.0.1])"));
    let told = line(&relay, "message accepted");
    assert!(told.contains("forwarded_for=198.51.100.8"), "{told}");
}

#[test]
fn a_client_that_is_not_listed_names_no_other() {
    let sink = Sink::start();
    for listener in ["", "xclient = [\"192.0.2.0/24\"]\nxforward = [\"192.0.2.0/24\"]"] {
        let relay = relay(&sink, listener, "");
        let mut client = Smtp::connect(relay.port);
        let offered = client.expect("EHLO client.test", 250).text;
        assert!(!offered.contains("XCLIENT") && !offered.contains("XFORWARD"), "{offered}");
        for line in ["XCLIENT ADDR=198.51.100.7", "XFORWARD ADDR=198.51.100.7"] {
            client.expect(line, 550);
        }
    }
}

#[test]
fn a_client_that_has_tls_with_its_proxy_may_log_in() {
    let mut sink = Sink::start();
    let account = format!("[[account]]\nname = {USER:?}\npassword = {PASSWORD:?}");
    let relay = relay(&sink, "role = \"submission\"\nproxies = [\"127.0.0.1/32\"]", &account);
    let mut client = Smtp::through(relay.port, &v2([203, 0, 113, 7]));
    assert!(!client.expect("EHLO client.test", 250).text.contains("AUTH"));
    let mut client = Smtp::through(relay.port, &v2_tls([203, 0, 113, 7]));
    let offered = client.expect("EHLO client.test", 250).text;
    assert!(offered.contains("AUTH PLAIN") && !offered.contains("PLUS"), "{offered}");
    // The tester with its password.
    client.expect("AUTH PLAIN AHRlc3RlcgBzM2NyZXQgcGFzcw==", 235);
    let token = token();
    assert_eq!(client.transact(&token).code, 250, "{}", client.log());
    let field = received(&mut sink, &token);
    assert!(field.contains("client.test ([203.0.113.7])") && field.contains("ESMTPSA"), "{field}");
}
