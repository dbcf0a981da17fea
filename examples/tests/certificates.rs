//! Certificates of the relay's listeners: several by name, and new ones at SIGHUP.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;

use posthaste::client::tls::any_certificate;
use rustix::process::Signal;
use rustls::{ClientConnection, StreamOwned};
use support::relay::{Config, Relay};
use support::{PATIENCE, wait_for};

/// A client inside TLS.
struct Client {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    /// Connects, asks for a name and reads the greeting.
    fn connect(port: u16, name: &str) -> Self {
        let config = any_certificate().expect("the features choose a provider");
        let name = name.to_owned().try_into().expect("a name");
        let connection = ClientConnection::new(config, name).expect("the configuration is whole");
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the relay listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
        let mut client = Self { stream: BufReader::new(StreamOwned::new(connection, stream)) };
        assert!(client.line().starts_with("220 "));
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the relay answers");
        line
    }

    /// The certificate that the relay has shown.
    fn certificate(&self) -> Vec<u8> {
        let shown = self.stream.get_ref().conn.peer_certificates().expect("a handshake was made");
        shown[0].to_vec()
    }
}

/// The certificate that a client gets who asks for a name.
fn shown(relay: &Relay, name: &str) -> Vec<u8> {
    Client::connect(relay.port, name).certificate()
}

/// Writes a certificate and its key as `FILE.pem` and `FILE.key`. Returns the certificate in DER.
fn write(folder: &Path, file: &str, names: &[&str], years: [i32; 2]) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("there is enough chance");
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut made = rcgen::CertificateParams::new(names).expect("they are names");
    let [from, to] = years.map(|year| rcgen::date_time_ymd(year, 1, 2));
    (made.not_before, made.not_after) = (from, to);
    let made = made.self_signed(&key).expect("it is whole");
    fs::write(folder.join(format!("{file}.pem")), made.pem()).expect("the folder is ours");
    fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).expect("the folder is ours");
    made.der().to_vec()
}

/// A relay under implicit TLS with a certificate for each name, and these in DER.
fn relay(names: [&str; 2]) -> (Relay, [Vec<u8>; 2]) {
    let mut relay = Relay::prepare(&Config::default());
    let folder = relay.folder();
    let made = names.map(|name| write(folder, name, &[name], [2001, 2301]));
    let mut text = format!(
        "hostname = \"relay.test\"\nqueue = \"queue\"\nrelay_from = [\"127.0.0.0/8\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{}\"\ntls = \"implicit\"\n",
        relay.port
    );
    for name in names {
        text += &format!("[[tls]]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n");
    }
    fs::write(relay.config(), text).expect("the folder is ours");
    relay.start_again();
    (relay, made)
}

/// Sends SIGHUP, and waits for a line of the log with these words, which was not there before.
fn hang_up(relay: &Relay, words: &str) -> String {
    let before = relay.log().matches(words).count();
    relay.signal(Signal::HUP);
    wait_for(words, PATIENCE, || {
        let log = relay.log();
        let line = log.lines().filter(|line| line.contains(words)).nth(before)?;
        Some(line.to_owned())
    })
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let (relay, [first, second]) = relay(["relay.test", "mail.other.test"]);
    for (name, wanted) in
        [("relay.test", &first), ("mail.other.test", &second), ("MAIL.other.test", &second), ("unknown.test", &first)]
    {
        assert_eq!(&shown(&relay, name), wanted, "{name}");
    }
}

#[test]
fn new_certificates_count_after_sighup_and_no_connection_ends() {
    let (mut relay, [first, _]) = relay(["relay.test", "mail.other.test"]);
    let mut open = Client::connect(relay.port, "relay.test");
    let renewed = write(relay.folder(), "relay.test", &["relay.test", "mx.relay.test"], [2020, 2300]);
    // Nothing watches the files.
    assert_eq!(shown(&relay, "relay.test"), first);
    let line = hang_up(&relay, "relay.test.pem");
    for words in
        ["INFO", "certificate exchanged", "relay.test, mx.relay.test", "2020-01-02T00:00:00Z", "2300-01-02T00:00:00Z"]
    {
        assert!(line.contains(words), "{words}: {line}");
    }
    for name in ["relay.test", "mx.relay.test"] {
        assert_eq!(shown(&relay, name), renewed, "{name}");
    }
    open.stream.get_mut().write_all(b"NOOP\r\n").expect("the relay reads");
    assert!(open.line().starts_with("250 "));
    assert_eq!(relay.stop().code(), Some(0));
}

#[test]
fn a_wrong_file_leaves_all_certificates_as_they_are() {
    let (mut relay, [first, second]) = relay(["relay.test", "mail.other.test"]);
    let path = |name: &str| relay.folder().join(name);
    let good = fs::read(path("mail.other.test.key")).expect("it was made");
    // The first one is good, and yet it must not count alone.
    write(relay.folder(), "relay.test", &["relay.test"], [2001, 2301]);
    let other = fs::read(path("relay.test.key")).expect("it was made");
    for (text, words) in [
        (Some(&other[..]), "does not fit the certificate in"),
        (Some(b""), "has no private key in it"),
        (Some(b"-----BEGIN PRIVATE KEY-----\nAAAA"), "is not well-formed PEM"),
        (None, "cannot read"),
    ] {
        let file = path("mail.other.test.key");
        text.map_or_else(|| fs::remove_file(&file), |text| fs::write(&file, text)).expect("the folder is ours");
        let line = hang_up(&relay, words);
        assert!(line.contains("ERROR") && line.contains("relay.toml:"), "{line}");
        assert!(line.contains("mail.other.test.key") && line.matches("; ").count() == 1, "{line}");
        assert_eq!([shown(&relay, "relay.test"), shown(&relay, "mail.other.test")], [first.clone(), second.clone()]);
    }
    fs::write(path("mail.other.test.key"), good).expect("the folder is ours");
    hang_up(&relay, "certificate exchanged");
    wait_for("it counts", PATIENCE, || (shown(&relay, "relay.test") != first).then_some(()));
    assert_eq!(shown(&relay, "mail.other.test"), second);
    assert_eq!(relay.stop().code(), Some(0));
}

#[test]
fn what_clients_will_refuse_is_told_when_it_is_exchanged() {
    let (relay, _) = relay(["relay.test", "mail.other.test"]);
    write(relay.folder(), "relay.test", &["elsewhere.test"], [2001, 2002]);
    for words in ["relay.test.pem has expired", "none of the certificates is for relay.test"] {
        let line = hang_up(&relay, words);
        assert!(line.contains("WARN") && line.contains("; "), "{line}");
    }
}
