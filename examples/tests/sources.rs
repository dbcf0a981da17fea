//! Sources of connections: what each may send to a next hop, and the certificate that it shows.

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use posthaste::server::tls::{Certificates, Pem, Roots};
use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service, Tls, accepted,
    session::ServerSettings,
};
use rustix::process::Signal;
use support::client::submit;
use support::relay::{Config, Relay};
use support::{PATIENCE, certificate, token, wait_for};

/// What a next hop has seen of one address.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    open: usize,
    /// The most connections at once.
    most: usize,
    messages: usize,
    /// The certificate that the last message's client has shown, in DER.
    certificate: Option<Vec<u8>>,
}

/// A next hop that notes what comes from each address. It takes its time for each message.
#[derive(Clone)]
struct Hop {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    /// The connection of a handler.
    _connection: Option<Arc<Connection>>,
}

/// Counts as open until it is dropped.
struct Connection {
    address: String,
    seen: Arc<Mutex<HashMap<String, Seen>>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.seen.lock().expect("no panic").entry(self.address.clone()).or_default().open -= 1;
    }
}

impl Hop {
    /// Runs on threads of the runtime.
    fn start(runtime: &tokio::runtime::Runtime, tls: Tls) -> (Self, u16) {
        let hop = Self { seen: Arc::default(), _connection: None };
        let settings = ServerSettings::new("hop.test".parse().expect("a name"));
        let listener = runtime.block_on(Listener::bind("127.0.0.1:0", settings)).expect("a free port").with_tls(tls);
        let port = listener.local_address().expect("it listens").port();
        runtime.spawn(Server::new(hop.clone()).listen(listener).serve());
        (hop, port)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().expect("no panic")
    }

    fn of(&self, address: &str) -> Seen {
        self.all().get(address).cloned().unwrap_or_default()
    }

    fn messages(&self) -> usize {
        self.all().values().map(|seen| seen.messages).sum()
    }
}

fn address(cx: &Context) -> String {
    cx.peer.address.ip().map(|address| address.to_string()).unwrap_or_default()
}

impl Service for Hop {
    type Handler = Self;

    async fn connect(&self, cx: &Context) -> Result<Self, Refusal> {
        let (address, seen) = (address(cx), Arc::clone(&self.seen));
        {
            let mut all = self.all();
            let seen = all.entry(address.clone()).or_default();
            seen.open += 1;
            seen.most = seen.most.max(seen.open);
        }
        Ok(Self { _connection: Some(Arc::new(Connection { address, seen })), ..self.clone() })
    }
}

impl Handler for Hop {
    async fn message(&mut self, cx: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut all = self.all();
        let seen = all.entry(address(cx)).or_default();
        seen.messages += 1;
        seen.certificate = cx.peer.certificate().map(|shown| shown.der().to_vec());
        Ok(accepted!("250 2.0.0 Taken"))
    }
}

/// A relay with two sources, 127.0.0.2 and 127.0.0.3, to a next hop; further keys of the second
/// source, and what follows.
fn relay(port: u16, tls: &str, second: &str, rest: &str) -> Relay {
    let relay = Relay::prepare(&Config::default());
    fs::write(relay.config(), text(&relay, port, tls, second, rest)).expect("the folder is ours");
    relay
}

fn text(relay: &Relay, port: u16, tls: &str, second: &str, rest: &str) -> String {
    format!(
        "hostname = \"relay.test\"\nqueue = \"queue\"\nrelay_from = [\"127.0.0.0/8\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{}\"\n\
         [[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:{port}\"]\ntls = \"{tls}\"\nsources = [\"first\", \"second\"]\n\
         [[source]]\nname = \"first\"\naddresses = [\"127.0.0.2\"]\n\
         [[source]]\nname = \"second\"\naddresses = [\"127.0.0.3\"]\n{second}\n{rest}\n",
        relay.port
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("the system has threads")
}

#[test]
fn each_source_has_its_connections_and_messages_to_a_next_hop_and_no_more() {
    let runtime = runtime();
    let (hop, port) = Hop::start(&runtime, Tls::Off);
    let site =
        |per_source: &str| format!("[[site]]\nhosts = [\"127.0.0.1\"]\nconnections = 12\nper_source = {per_source}");
    let mut relay = relay(port, "off", "messages = \"15/1d\"", &site("{ connections = 2, messages = \"20/1d\" }"));
    relay.start_again();
    (0..50).for_each(|_| submit(relay.port, &token()));
    // The second may send 15 over all next hops, and each may send 20 to this one.
    wait_for("all leave that may", PATIENCE, || (hop.messages() == 35).then_some(()));
    relay.wait_queued(15);
    let (first, second) = (hop.of("127.0.0.2"), hop.of("127.0.0.3"));
    assert_eq!([first.most, second.most, first.messages, second.messages], [2, 2, 20, 15], "{first:?} {second:?}");
    assert_eq!(relay.status().get("retried"), Some(&0), "no attempt is counted");
    // Without limits the rest leaves.
    fs::write(relay.config(), text(&relay, port, "off", "", &site("{ connections = 3 }"))).expect("the folder is ours");
    relay.signal(Signal::HUP);
    relay.wait_queued(0);
    assert_eq!((hop.messages(), relay.status().get("retried")), (50, Some(&0)));
    assert!(hop.of("127.0.0.2").most <= 3 && hop.of("127.0.0.3").most <= 3, "{:?}", hop.all());
    assert_eq!(relay.stop().code(), Some(0));
}

/// Makes a certificate of a client, as `NAME.pem` and `NAME.key`. Returns it in DER.
fn make(folder: &Path, name: &str) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("there is enough chance");
    let mut made = rcgen::CertificateParams::new(["out2.test".to_owned()]).expect("it is a name");
    made.is_ca = rcgen::IsCa::ExplicitNoCa;
    let made = made.self_signed(&key).expect("it is whole");
    fs::write(folder.join(format!("{name}.pem")), made.pem()).expect("the folder is ours");
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("the folder is ours");
    made.der().to_vec()
}

#[test]
fn a_source_shows_its_certificate_and_after_sighup_the_renewed_one() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().expect("a temporary folder"));
    let made = ["old", "new"].map(|name| make(folder.path(), name));
    let pem = |name: &str| Pem::file(folder.path().join(name)).expect("it was made");
    let clients = Roots::empty().add_pem(&pem("old.pem")).and_then(|roots| roots.add_pem(&pem("new.pem")));
    let (certificate, _) = certificate(folder.path());
    let own = Certificates::new(&[(pem("cert.pem"), pem("key.pem"))]).expect("they fit");
    let config = own.server_config_asking(clients.expect("they are whole")).expect("it is whole");
    let (hop, port) = Hop::start(&runtime, Tls::StartTls(config));
    let files = "certificate = \"out2.pem\"\nkey = \"out2.key\"";
    let mut relay = relay(port, "verified", files, &format!("[delivery]\nauthorities = {certificate:?}"));
    let put = |relay: &Relay, name: &str, key: &str| {
        for (from, to) in [(format!("{name}.pem"), "out2.pem"), (format!("{key}.key"), "out2.key")] {
            fs::copy(folder.path().join(from), relay.folder().join(to)).expect("the folder is ours");
        }
    };
    let hang_up = |relay: &Relay, words: &str| {
        let before = relay.log().matches(words).count();
        relay.signal(Signal::HUP);
        wait_for(words, PATIENCE, || (relay.log().matches(words).count() > before).then_some(()));
    };
    put(&relay, "old", "old");
    relay.start_again();
    // Sent until both sources have been drawn. Kept connections have ended before the next try.
    let shown = |relay: &Relay, wanted: &[u8]| {
        wait_for("both sources are drawn", PATIENCE, || {
            let before = hop.messages();
            (0..6).for_each(|_| submit(relay.port, &token()));
            wait_for("they leave", PATIENCE, || (hop.messages() == before + 6).then_some(()));
            let seen = ["127.0.0.2", "127.0.0.3"].map(|address| hop.of(address));
            assert_eq!(seen[0].certificate, None);
            assert!(seen[1].certificate.as_ref().is_none_or(|shown| made.contains(shown)));
            let is_shown = seen[0].messages > 0 && seen[1].certificate.as_deref() == Some(wanted);
            if !is_shown {
                std::thread::sleep(Duration::from_secs(3));
            }
            is_shown.then_some(())
        });
    };
    shown(&relay, &made[0]);
    // A mistake leaves what is in use.
    put(&relay, "new", "old");
    hang_up(&relay, "out2.key does not fit the certificate in");
    shown(&relay, &made[0]);
    put(&relay, "new", "new");
    hang_up(&relay, "configuration exchanged");
    shown(&relay, &made[1]);
    assert_eq!(relay.stop().code(), Some(0));
}
