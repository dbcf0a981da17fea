//! If STARTTLS or CHUNKING fails with a server that offers it, the relay leaves it out with that
//! server from then on, if it may.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{Identity, Tls, session::client::ClientTimeouts};
use posthaste_relay::{NextHop, RelayOptions, Route, RouteTable};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use support::{RawHop, options, polite, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A next hop with TLS that replies as a test says, at a line inside TLS or before.
#[derive(Clone)]
struct TlsHop {
    port: u16,
    /// Lines, each with `true` if it came inside TLS.
    lines: Arc<Mutex<Vec<(bool, String)>>>,
}

impl TlsHop {
    /// `close` closes the connection, and an empty text makes no reply for a while.
    fn start(says: impl Fn(bool, &str) -> Option<String> + Send + Sync + Clone + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hop = Self { port: listener.local_addr().unwrap().port(), lines: Arc::default() };
        let seen = hop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (hop, says, config) = (seen.clone(), says.clone(), Arc::clone(&config));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    if hop.converse(&mut stream, false, &says) {
                        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                        hop.converse(&mut tls, true, &says);
                    }
                });
            }
        });
        hop
    }

    /// Returns `true` if TLS begins next.
    fn converse(
        &self,
        stream: &mut (impl Read + Write),
        is_tls: bool,
        says: &impl Fn(bool, &str) -> Option<String>,
    ) -> bool {
        let mut line = if is_tls { String::new() } else { "<connect>".to_owned() };
        let mut is_content = false;
        loop {
            if !line.is_empty() && (!is_content || line == ".") {
                if is_content {
                    line = "<end>".to_owned();
                }
                self.lines.lock().unwrap().push((is_tls, line.clone()));
                let said = says(is_tls, &line).unwrap_or_else(|| match &*line {
                    line if line.starts_with("EHLO") && !is_tls => "250-hop.test\r\n250 STARTTLS\r\n".to_owned(),
                    "STARTTLS" => "220 go\r\n".to_owned(),
                    line => polite(line),
                });
                if said == "close" || stream.write_all(said.as_bytes()).is_err() || stream.flush().is_err() {
                    return false;
                }
                if line == "STARTTLS" && said.starts_with("220") {
                    return true;
                }
                is_content = said.starts_with("354");
            }
            line.clear();
            let mut octet = [0];
            while !line.ends_with("\r\n") {
                match stream.read(&mut octet) {
                    Ok(1) => line.push(octet[0].into()),
                    _ => return false,
                }
            }
            line.truncate(line.len() - 2);
        }
    }

    fn count(&self, is_tls: bool, start: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|(tls, line)| *tls == is_tls && line.starts_with(start)).count()
    }
}

fn by_tls(port: u16, tls: Tls) -> RelayOptions {
    let mut options = options(&[]);
    let to = NextHop::Hosts(vec![("[127.0.0.1]".to_owned(), port)]);
    options.routes = RouteTable::new(vec![Route { tls, ..Route::new(vec!["*".parse().unwrap()], to) }]);
    options.delivery.timeouts = ClientTimeouts::all(Duration::from_millis(400));
    options.delivery.retry.waits = vec![Duration::from_secs(600)];
    // One connection for each message.
    options.delivery.idle = Duration::from_millis(1);
    options
}

/// Where TLS breaks: inside or before it, at which line, and how.
const BREAKS: &[(bool, &str, &str)] = &[
    (false, "STARTTLS", "close"),
    (false, "STARTTLS", ""),
    (false, "STARTTLS", "220 go\r\nX"),
    (false, "STARTTLS", "421 4.7.0 no\r\n"),
    (true, "EHLO", "close"),
    (true, "EHLO", ""),
    (true, "EHLO", "421 4.7.0 no\r\n"),
    (true, "EHLO", "502 what?\r\n"),
    (true, "MAIL", "close"),
    (true, "MAIL", ""),
    (true, "MAIL", "what?\r\n"),
];

fn breaking(is_tls: bool, at: &'static str, how: &'static str) -> TlsHop {
    TlsHop::start(move |inside, line| {
        // HELO counts as EHLO.
        let line = if line.starts_with("HELO") && at == "EHLO" { "EHLO" } else { line };
        (inside == is_tls && line.starts_with(at)).then(|| how.to_owned())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_tls_is_left_out_and_not_tried_for_every_message() {
    for (is_tls, at, how) in BREAKS {
        let hop = breaking(*is_tls, at, how);
        let relay = start(by_tls(hop.port, Tls::opportunistic().unwrap()));
        for count in 1..=3 {
            relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
            relay.log.wait("delivered", count).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(relay.log.count("deferred"), 0, "{is_tls} {at} {how:?}: {:?}", relay.log.all());
        let counts = (hop.count(false, "STARTTLS"), hop.count(false, "<end>"), hop.count(true, "<end>"));
        assert_eq!(counts, (1, 3, 0), "{is_tls} {at} {how:?}");
        relay.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_must_be_encrypted_never_goes_in_clear() {
    for (is_tls, at, how) in BREAKS {
        let hop = breaking(*is_tls, at, how);
        let mut options = by_tls(hop.port, Tls::Required(Identity::unverified().unwrap()));
        options.delivery.retry.waits = vec![Duration::from_millis(50)];
        let relay = start(options);
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 3).await;
        assert_eq!((hop.count(false, "MAIL"), relay.log.count("delivered")), (0, 0), "{is_tls} {at} {how:?}");
        relay.end().await;
    }
}

/// A host that is gone does not break TLS, and a message that is refused inside TLS was not stopped
/// by TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_kept_after_a_failure_of_another_cause() {
    for says in ["421 4.7.0 slow down\r\n", "451 4.7.1 greylisted\r\n"] {
        let hop = breaking(true, "MAIL", says);
        let mut options = by_tls(hop.port, Tls::opportunistic().unwrap());
        options.delivery.retry.waits = vec![Duration::from_millis(50)];
        let relay = start(options);
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 3).await;
        assert_eq!(hop.count(false, "MAIL"), 0, "{says}");
        relay.end().await;
    }
    // The network broke once, in clear too: this says nothing of TLS.
    let times = Arc::new(Mutex::new(0));
    let hop = TlsHop::start(move |_, line| {
        let mut times = times.lock().unwrap();
        *times += usize::from(line.starts_with("MAIL"));
        (line.starts_with("MAIL") && *times <= 2).then(|| "close".to_owned())
    });
    let mut options = by_tls(hop.port, Tls::opportunistic().unwrap());
    options.delivery.retry.waits = vec![Duration::from_millis(50)];
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((relay.log.count("deferred"), hop.count(true, "<end>"), hop.count(false, "MAIL")), (1, 1, 1));
    relay.end().await;
}

/// A server that offers CHUNKING and gives every chunk this reply.
async fn chunkless(says: &'static str) -> RawHop {
    RawHop::start(move |_, line| match line {
        line if line.starts_with("EHLO") => {
            "250-hop.test\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250 CHUNKING\r\n".to_owned()
        }
        line if line.starts_with("BDAT") => says.to_owned(),
        line => polite(line),
    })
    .await
}

#[tokio::test]
async fn broken_chunking_is_left_out_and_not_tried_for_every_message() {
    for says in
        ["500 what?\r\n", "502 5.5.1 no\r\n", "503 5.5.1 bad sequence\r\n", "504 no\r\n", "502 what?\r\n", "", "close"]
    {
        let hop = chunkless(says).await;
        let mut options = options(&[hop.port]);
        options.delivery.timeouts = ClientTimeouts::all(Duration::from_millis(400));
        let relay = start(options);
        for count in 1..=3 {
            relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
            relay.log.wait("delivered", count).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((hop.count("BDAT"), hop.count("<end>"), relay.log.count("failed")), (1, 3, 0), "{says:?}");
        // After silence or a close the server may have the message, so it is not sent again at
        // once.
        let in_doubt = usize::from(says.is_empty() || says == "close");
        assert_eq!(relay.log.count("deferred"), in_doubt, "{says:?}");
        relay.end().await;
    }
}

#[tokio::test]
async fn chunking_is_kept_after_a_refusal_of_the_message() {
    for (says, what) in
        [("550 5.7.1 spam\r\n", "failed"), ("554 5.6.0 no\r\n", "failed"), ("452 4.3.1 full\r\n", "deferred")]
    {
        let hop = chunkless(says).await;
        let mut options = options(&[hop.port]);
        options.delivery.retry.waits = vec![Duration::from_secs(600)];
        let relay = start(options);
        relay.submit("<>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait(what, 1).await;
        assert_eq!((hop.count("BDAT"), hop.count("DATA")), (1, 0), "{says}");
        relay.end().await;
    }
}

#[tokio::test]
async fn binary_content_goes_by_bdat_or_fails() {
    let hop = chunkless("502 5.5.1 no\r\n").await;
    let relay = start(options(&[hop.port]));
    relay.submit("<> BODY=BINARYMIME", &["<a@d.test>"], b"Subject: x\r\n\r\na\0b").await;
    relay.log.wait("failed", 1).await;
    assert_eq!((hop.count("BDAT"), hop.count("DATA")), (1, 0));
    relay.end().await;
}

#[tokio::test]
async fn a_route_without_chunking_uses_data_at_once() {
    let hop = chunkless("250 ok\r\n").await;
    let mut options = options(&[]);
    let to = NextHop::Hosts(vec![("[127.0.0.1]".to_owned(), hop.port)]);
    options.routes = RouteTable::new(vec![Route { chunking: false, ..Route::new(vec!["*".parse().unwrap()], to) }]);
    let relay = start(options);
    relay.submit("<>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!((hop.count("BDAT"), hop.count("<end>")), (0, 1));
    relay.submit("<> BODY=BINARYMIME", &["<a@d.test>"], b"Subject: x\r\n\r\na\0b").await;
    relay.log.wait("delivered", 2).await;
    assert_eq!(hop.count("BDAT"), 1);
    relay.end().await;
}
