//! The PROXY protocol over real sockets: which addresses count, and what closes the connection.

use std::time::Duration;

use posthaste_server::{
    Listener, Peer, PeerAddress, Server, ServerOptions, Tls,
    rustls::ProtocolVersion,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::support::{InMemory, Names, Running, log::Log, options, settings};

/// A server behind proxies in these networks.
async fn behind(networks: &str, tls: Tls, options: ServerOptions) -> Running {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let address = listener.local_address().unwrap();
    let listener = listener.with_tls(tls).with_proxies(networks.parse().unwrap());
    let (names, drain) = (Names::default(), CancellationToken::new());
    let server = Server::new(names.clone()).with_options(options).listen(listener);
    let task = tokio::spawn(server.with_graceful_shutdown(drain.clone().cancelled_owned()).serve());
    Running { address, drain, task, names }
}

fn addresses(source: &str, destination: &str) -> ProxiedAddress {
    ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap())
}

fn v2(source: &str, destination: &str) -> Vec<u8> {
    with_facts(source, destination, [])
}

fn with_facts<const N: usize>(source: &str, destination: &str, facts: [Tlv<'_>; N]) -> Vec<u8> {
    let mut octets = vec![0; 4_096];
    let header = ProxyHeader::with_tlvs(Some(addresses(source, destination)), facts);
    let length = header.encode_to_slice_v2(&mut octets).unwrap();
    octets.truncate(length);
    octets
}

/// Version 2 by hand: command, family, and what follows the length.
fn raw(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

async fn connect(server: &Running, header: &[u8]) -> Talk<TcpStream> {
    let mut talk = Talk::connect(server.address).await;
    talk.send(header).await;
    talk
}

/// The client of the message that came last.
fn seen(server: &Running) -> Peer {
    server.names.seen.lock().unwrap().pop().unwrap().0
}

#[tokio::test]
async fn a_header_gives_the_clients_address_in_any_chunks() {
    let server = behind("127.0.0.0/8", Tls::Off, ServerOptions::default()).await;
    let long_v6 = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff";
    let unix = [&[b'x'; 216][..], &[4, 0, 2, 0, 0]].concat();
    for (header, source, destination) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5678 25\r\n".to_vec(), "192.0.2.7:5678", "198.51.100.1:25"),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), "0.0.0.0:0", "0.0.0.0:0"),
        (b"PROXY TCP6 ::2 ::1 2 3\r\n".to_vec(), "[::2]:2", "[::1]:3"),
        (
            format!("PROXY TCP6 {long_v6} {long_v6} 65535 65535\r\n").into_bytes(),
            &format!("[{long_v6}]:65535"),
            &format!("[{long_v6}]:65535"),
        ),
        // A proxy with a socket for both.
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 2 3\r\n".to_vec(), "192.0.2.7:2", "192.0.2.1:3"),
        (v2("192.0.2.7:5678", "198.51.100.1:25"), "192.0.2.7:5678", "198.51.100.1:25"),
        (v2("[2001:db8::7]:5678", "[2001:db8::1]:25"), "[2001:db8::7]:5678", "[2001:db8::1]:25"),
        (with_facts("192.0.2.7:2", "192.0.2.1:3", [Tlv::Noop(4_000)]), "192.0.2.7:2", "192.0.2.1:3"),
        // The proxy itself, or it does not know.
        (b"PROXY UNKNOWN\r\n".to_vec(), "", ""),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "", ""),
        (raw(0x20, 0, b""), "", ""),
        (raw(0x20, 0x11, &[1; 12]), "", ""),
        (raw(0x21, 0, b""), "", ""),
        (raw(0x21, 0x31, &unix), "", ""),
    ] {
        for chunk in [header.len() + 100, 1, 7] {
            let text = header.escape_ascii();
            let mut talk = Talk::connect(server.address).await;
            let own = talk.stream.local_addr().unwrap();
            // Not one octet behind the header may be lost.
            let all = [&header[..], b"EHLO c.test\r\n"].concat();
            for chunk in all.chunks(chunk) {
                talk.send(chunk).await;
                tokio::task::yield_now().await;
            }
            assert!(talk.reply().await.starts_with("220"), "{text}");
            assert!(talk.reply().await.starts_with("250"), "{text}");
            // It comes once.
            talk.expect("PROXY TCP4 192.0.2.66 198.51.100.1 5678 25", "500 5.5.1").await;
            assert!(talk.message("a@b.test", "x").await.starts_with("250"), "{text}");
            let peer = seen(&server);
            if source.is_empty() {
                assert_eq!((peer.address, peer.local), (own.into(), server.address.into()), "{text}");
                assert!(peer.proxy.is_none());
            } else {
                let expected = [source, destination].map(|text| PeerAddress::Ip(text.parse().unwrap()));
                assert_eq!([peer.address, peer.local], expected, "{text}");
                assert_eq!(peer.proxy.unwrap().address, PeerAddress::Ip(own));
                assert_eq!(peer.network, posthaste_server::Networks::default().of(expected[0].ip().unwrap()));
            }
        }
    }
}

#[tokio::test]
async fn a_header_from_elsewhere_is_an_unknown_command() {
    for networks in ["", "192.0.2.0/24"] {
        let server = behind(networks, Tls::Off, ServerOptions::default()).await;
        let mut talk = Talk::connect(server.address).await;
        let own = talk.stream.local_addr().unwrap();
        assert!(talk.reply().await.starts_with("220"));
        talk.expect("PROXY TCP4 192.0.2.7 198.51.100.1 5678 25", "500 5.5.1").await;
        talk.expect("EHLO c.test", "250").await;
        talk.message("a@b.test", "x").await;
        assert_eq!(seen(&server).address, PeerAddress::Ip(own));
        // Version 2 has a bare LF, which no line of SMTP has.
        let mut talk = connect(&server, &v2("192.0.2.7:5678", "198.51.100.1:25")).await;
        assert!(talk.reply().await.starts_with("220"));
        let mut said = String::new();
        talk.stream.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("500 5.5.2 A line has to end in CRLF\r\n"), "{said}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_proxys_connection_without_a_good_header_is_closed_without_a_word() {
    let log = Log::default();
    let _listening = log.listen(Level::WARN);
    let server = behind("127.0.0.1", Tls::Off, ServerOptions::default()).await;
    let missing = "does not begin with a PROXY header";
    let malformed = "is malformed, or not for TCP";
    for (octets, reason) in [
        (b"EHLO c.test\r\n".to_vec(), missing),
        (b"E".to_vec(), missing),
        (b"proxy TCP4 192.0.2.7 198.51.100.1 5678 25\r\n".to_vec(), missing),
        (b"PROXYTCP4 192.0.2.7 198.51.100.1 5678 25\r\n".to_vec(), missing),
        (b"\r\n\r\n\0\r\nQUIT\r\n".to_vec(), missing),
        // The connection ends within it.
        (b"PROXY TCP4 192.0.2.7".to_vec(), "ended within its PROXY header"),
        (b"PROXY \r\n".to_vec(), malformed),
        (b"PROXY TCP4\r\n1234567890".to_vec(), malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5678\r\n".to_vec(), malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5678 25 \r\n".to_vec(), malformed),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n".to_vec(), malformed),
        (b"PROXY TCP4 2001:db8::1 198.51.100.1 5678 25\r\n".to_vec(), malformed),
        (b"PROXY TCP5 192.0.2.7 198.51.100.1 5678 25\r\n".to_vec(), malformed),
        (format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes(), malformed),
        (raw(0x11, 0x11, &[1; 12]), malformed),
        (raw(0x22, 0x11, &[1; 12]), malformed),
        (raw(0x21, 0x11, &[1; 11]), malformed),
        (raw(0x21, 0x12, &[1; 12]), malformed),
        (raw(0x21, 0x41, &[1; 12]), malformed),
        // A fact that is longer than the header.
        (raw(0x21, 0x11, &[&[1; 12][..], &[2, 0, 9, b'x']].concat()), malformed),
        (raw(0x21, 0x11, &[1; 4_081])[..16].to_vec(), "has more than 4096 octets"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&octets).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        assert!(said.is_empty(), "{}", octets.escape_ascii());
        let lines = log.lines("PROXY header not accepted, connection closed");
        assert!(lines.last().is_some_and(|line| line.contains(reason)), "{}: {lines:?}", octets.escape_ascii());
    }
    assert_eq!(log.lines("").len(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_header_has_five_seconds() {
    let (accepts, from) = mpsc::channel(1);
    let listener = Listener::new(InMemory(from), settings()).with_proxies("203.0.113.0/24".parse().unwrap());
    let server = tokio::spawn(Server::new(Names::default()).listen(listener).serve());
    for (octets, pause, waits) in [
        (&b""[..], 0, 5_000),
        // One octet now and then is no progress.
        (b"PROXY TCP4 192.0.2.7", 400, 5_000),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 5678 25\r\n", 100, 4_300),
    ] {
        let (mut ours, theirs) = tokio::io::duplex(4_096);
        accepts.send(theirs).await.unwrap();
        let begun = Instant::now();
        for octet in octets {
            if ours.write_all(&[*octet]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let said = Talk::new(ours).reply().await;
        assert_eq!(said.starts_with("220"), octets.ends_with(b"\n"), "{said}");
        assert!(begun.elapsed() >= Duration::from_millis(waits));
        assert!(begun.elapsed() < Duration::from_secs(9));
    }
    server.abort();
}

#[tokio::test]
async fn limits_count_the_client_and_not_its_proxy() {
    let mut limits = options(|options| options.connections_per_network = 1);
    limits.connections = 20;
    let server = behind("127.0.0.1", Tls::Off, limits).await;
    let mut served = Vec::new();
    // The address of the proxy itself could have ten.
    for n in 1..=15 {
        served.push(connect(&server, &v2(&format!("192.0.2.{n}:2"), "192.0.2.1:25")).await.greeted().await);
    }
    let again = connect(&server, &v2("192.0.2.7:3", "192.0.2.1:25")).await.reply().await;
    assert!(again.starts_with("421 4.3.2"), "{again}");
    // Without their headers they count in all.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(connect(&server, b"PROXY ").await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let header = v2("192.0.2.16:3", "192.0.2.1:25");
    assert!(connect(&server, &header).await.reply().await.starts_with("421 4.3.2"));
    // A drain does not wait for them.
    drop((silent.pop(), served));
    server.drain.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn tls_begins_behind_a_header() {
    let (config, client) = tls("mx.test");
    for starttls in [false, true] {
        let tls = if starttls { Tls::StartTls(config.clone()) } else { Tls::Implicit(config.clone()) };
        let server = behind("127.0.0.1", tls, ServerOptions::default()).await;
        let mut talk = connect(&server, &v2("192.0.2.7:5678", "198.51.100.1:25")).await;
        if starttls {
            talk = talk.greeted().await;
            talk.expect("STARTTLS", "220").await;
        }
        let mut talk = Talk::new(handshake(talk.stream, &client).await);
        if !starttls {
            talk.reply().await;
        }
        talk.expect("EHLO c.test", "250").await;
        talk.message("a@b.test", "x").await;
        let peer = seen(&server);
        assert_eq!(peer.address.to_string(), "192.0.2.7:5678");
        assert!(peer.tls.is_some() && peer.proxy.is_some());
    }
}

#[tokio::test]
async fn a_proxy_may_have_spoken_tls_with_the_client() {
    let server = behind("127.0.0.1", Tls::StartTls(tls("mx.test").0), ServerOptions::default()).await;
    let ssl = |secure: bool, version: &'static str| {
        let mut ssl = SslInfo::new(secure, false, false, 1);
        ssl.append_tlv(Tlv::SslVersion(version.into()));
        Tlv::Ssl(ssl)
    };
    for (secure, version, name, expected) in [
        (true, "TLSv1.3", "MX.test", Some((ProtocolVersion::TLSv1_3, Some("mx.test")))),
        (true, "TLSv1.2", "evil\r\nname", Some((ProtocolVersion::TLSv1_2, None))),
        (true, "?", "", Some((ProtocolVersion::Unknown(0), None))),
        (false, "TLSv1.3", "mx.test", None),
    ] {
        let facts = [Tlv::Authority(name.into()), ssl(secure, version)];
        let mut talk = connect(&server, &with_facts("192.0.2.7:5678", "198.51.100.1:25", facts)).await;
        assert!(talk.reply().await.starts_with("220"));
        let offers = talk.ask("EHLO c.test").await;
        assert_eq!((offers.contains("STARTTLS"), offers.contains("AUTH PLAIN")), (!secure, secure));
        talk.message("a@b.test", "x").await;
        let peer = seen(&server);
        let tls = peer.tls.as_deref().map(|tls| (tls.version, tls.server_name.as_deref()));
        assert_eq!(tls, expected, "{version}");
    }
}
