//! Servers that say what a closure says, right or wrong.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use posthaste_client::{
    Client, ClientOptions, Identity, RecipientOutcome, RefusedAt, Sent, Tls,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    tls::{Roots, any_certificate, verified_by},
    wire::{Command, Mail, Rcpt},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, DuplexStream,
};
use tokio_rustls::TlsAcceptor;

/// What the client has said: `true` inside TLS, and the line; `<octets>` and a line or a chunk of
/// content.
pub(crate) type Heard = Arc<Mutex<Vec<(bool, String)>>>;

/// The reply to a line; a line is `<connect>`, a command, or `<end>` for the end of the
/// content. The octets of a chunk are read before the reply to its BDAT is asked for.
///
/// `close` closes, and an empty reply is silence; `<tls>` after a reply does a handshake,
/// `<garbage>` what is none, and `<alert>` refuses one.
pub(crate) trait Script: FnMut(bool, &str) -> String + Send + 'static {}

impl<F: FnMut(bool, &str) -> String + Send + 'static> Script for F {}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A server on one end of a pipe; the other end, and what the server hears.
pub(crate) fn serve(script: impl Script, tls: Option<Arc<ServerConfig>>) -> (DuplexStream, Heard) {
    let (ours, theirs) = tokio::io::duplex(64 * 1_024);
    let heard = Heard::default();
    tokio::spawn(run(Box::new(theirs), script, tls, Arc::clone(&heard)));
    (ours, heard)
}

/// The same on a port of this host, for any number of connections.
pub(crate) async fn serve_tcp(
    script: impl Script + Clone,
    tls: Option<Arc<ServerConfig>>,
) -> (std::net::SocketAddr, Heard) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
    let all = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(run(Box::new(stream), script.clone(), tls.clone(), Arc::clone(&all)));
        }
    });
    (address, heard)
}

async fn run(stream: Box<dyn Stream>, mut script: impl Script, tls: Option<Arc<ServerConfig>>, heard: Heard) {
    let (mut stream, mut inside) = (BufReader::new(stream), false);
    let (mut line, mut content) = ("<connect>".to_owned(), false);
    loop {
        heard.lock().unwrap().push((inside, line.clone()));
        let said = script(inside, &line);
        if said == "close" {
            return;
        }
        let (text, then) = said.split_once('<').unwrap_or((&said, ""));
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        match (then, &tls) {
            ("tls>", Some(config)) => {
                let accepted = TlsAcceptor::from(Arc::clone(config)).accept(stream.into_inner()).await;
                let Ok(accepted) = accepted else { return };
                (stream, inside) = (BufReader::new(Box::new(accepted) as Box<dyn Stream>), true);
            }
            ("garbage>", _) => {
                // What is no TLS record, once the client waits for one.
                tokio::task::yield_now().await;
                let _ = stream.write_all(b"250 AUTH PLAIN\r\n").await;
                return;
            }
            ("alert>", _) => {
                tokio::task::yield_now().await;
                // handshake_failure (RFC 8446 section 6).
                let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
                let _ = stream.read_line(&mut String::new()).await;
                return;
            }
            _ => {}
        }
        content |= text.starts_with("354");
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if !content {
                line.truncate(line.trim_end().len());
                if let Some(size) = line.strip_prefix("BDAT ").and_then(|rest| rest.split(' ').next()) {
                    let mut chunk = vec![0; size.parse().unwrap()];
                    if stream.read_exact(&mut chunk).await.is_err() {
                        return;
                    }
                    let chunk = String::from_utf8_lossy(&chunk);
                    heard.lock().unwrap().push((inside, format!("<octets> {chunk}")));
                }
                break;
            }
            if line == ".\r\n" {
                (line, content) = ("<end>".to_owned(), false);
                break;
            }
            heard.lock().unwrap().push((inside, format!("<octets> {line}")));
        }
    }
}

pub(crate) fn verb(line: &str) -> &str {
    line.split([' ', ':']).next().unwrap_or_default()
}

/// What a server says that takes everything and offers these extensions.
pub(crate) fn polite(line: &str, offers: &[&str]) -> String {
    match verb(line) {
        "<connect>" => "220 mx.test\r\n".to_owned(),
        "EHLO" | "LHLO" => {
            let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
            format!("250-mx.test\r\n{lines}250 HELP\r\n")
        }
        "DATA" => "354 go on\r\n".to_owned(),
        "STARTTLS" => "220 go\r\n<tls>".to_owned(),
        "AUTH" => "235 ok\r\n".to_owned(),
        "QUIT" => "221 bye\r\n".to_owned(),
        _ => "250 ok\r\n".to_owned(),
    }
}

/// Everything that was heard of these verbs.
pub(crate) fn of(heard: &Heard, verbs: &[&str]) -> Vec<(bool, String)> {
    heard.lock().unwrap().iter().filter(|(_, line)| verbs.contains(&verb(line))).cloned().collect()
}

/// How much TLS, without the configuration that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    Off,
    Opportunistic,
    /// By STARTTLS, from a server whose identity counts for nothing.
    Required,
    /// By STARTTLS, from a server whose identity counts.
    Verified,
    /// The same from the first octet.
    Implicit,
}

impl Policy {
    pub(crate) fn tls(self, config: Arc<ClientConfig>) -> Tls {
        match self {
            Self::Off => Tls::Off,
            Self::Opportunistic => Tls::Opportunistic(config),
            Self::Required => Tls::Required(Identity::Unverified(config)),
            Self::Verified => Tls::Required(Identity::Verified(config)),
            Self::Implicit => Tls::Implicit(Identity::Verified(config)),
        }
    }
}

pub(crate) fn options(tls: Tls) -> ClientOptions {
    let mut options = ClientOptions::new("client.test".parse().unwrap());
    options.tls = tls;
    options
}

pub(crate) async fn connected(stream: DuplexStream) -> Client<DuplexStream> {
    Client::start(stream, "mx.test", &options(Tls::Off)).await.unwrap()
}

/// `A`ccepted, refused at `M`ail, `R`cpt, `D`ata, `B`dat or `C`ontent, or `L`ost.
pub(crate) fn letters<S: AsRef<str>>(sent: &Sent<S>) -> String {
    let letter = |outcome: &RecipientOutcome| match outcome {
        RecipientOutcome::Accepted(_) => 'A',
        RecipientOutcome::Refused(_, RefusedAt::Mail) => 'M',
        RecipientOutcome::Refused(_, RefusedAt::Rcpt | RefusedAt::LaterRcpt) => 'R',
        RecipientOutcome::Refused(_, RefusedAt::Data) => 'D',
        RecipientOutcome::Refused(_, RefusedAt::Bdat) => 'B',
        RecipientOutcome::Refused(_, RefusedAt::Content) => 'C',
        RecipientOutcome::Undeliverable(_) => 'U',
        RecipientOutcome::Postponed => 'P',
        RecipientOutcome::Lost => 'L',
    };
    sent.recipients.iter().map(|recipient| letter(&recipient.outcome)).collect()
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("u{number}")).collect()
}

pub(crate) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    recipients: &[Rcpt],
    content: Bytes,
) -> Sent {
    let recipients: Vec<_> = recipients.iter().map(|rcpt| rcpt.borrowed()).collect();
    client.transact(mail("MAIL FROM:<me@s.test>"), &recipients, content).await.into_owned()
}

pub(crate) fn mail(text: &'static str) -> Mail<&'static str> {
    match Command::parse(text.as_bytes()) {
        Ok(Command::Mail(mail)) => mail,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn rcpts(names: &[String]) -> Vec<Rcpt> {
    let parse = |name: &String| match Command::parse(format!("RCPT TO:<{name}@d.test>").as_bytes()) {
        Ok(Command::Rcpt(rcpt)) => rcpt.into_owned(),
        other => panic!("{other:?}"),
    };
    names.iter().map(parse).collect()
}

/// Both sides' configurations, for a certificate of this name that the client trusts.
pub(crate) fn tls(name: &str) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let authority = Authority::new("one");
    (authority.server(&[name], 2020, 2120), authority.client())
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A server whose certificate is for these names, from the first of one year to that of
    /// another.
    pub(crate) fn server(&self, names: &[&str], from: i32, to: i32) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, from, to).signed_by(&key, &self.issuer).unwrap().der().clone();
        server(certificate, &key)
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let roots = Roots::from(roots);
        verified_by(roots).unwrap()
    }
}

/// A server that has signed its certificate itself; as an authority, as `openssl req -x509` has it,
/// or not.
pub(crate) fn self_signed(name: &str, authority: bool) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = params(&[name], 2020, 2120);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    server(params.self_signed(&key).unwrap().der().clone(), &key)
}

/// A client that takes any certificate.
pub(crate) fn trusting() -> Arc<ClientConfig> {
    any_certificate().unwrap()
}

fn params(names: &[&str], from: i32, to: i32) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    params
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(posthaste_client::tls::provider().unwrap());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}
