//! A domain, what it publishes about the TLS of its host, and the host with its failures.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{
    Answer, ClientOptions, Delivered, Dial, Mx, MxOptions, MxRecord, Pool, PoolOptions, Published, ResolveError,
    Resolver, SendError, Server, Tcp, TlsaRecord,
    mta_sts::{HttpsFetch, MtaSts},
    rustls::ServerConfig,
    session::{client::ClientTimeouts, sasl::Credentials},
    tls::verified_by,
    wire::Secret,
};
use posthaste_testkit::{
    https,
    script::{Place, Script, Scripted, polite, verb},
};
use tokio::net::TcpStream;

use super::{Failure, Row, Sts, Tlsa, Way};
use crate::support::{
    Policy,
    certificates::{By::Key, Certified},
    options, trusting,
};

/// The authority that clients trust, and the certificates of hosts.
pub(super) struct Certificates {
    pub(super) root: Certified,
    good: Certified,
    other_name: Certified,
    stranger: Certified,
    expired: Certified,
    other_key: Certified,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let root = Certified::root("one");
        let stranger = Certified::root("two").server(&["mx.test"]);
        let [good, other_key] = [(); 2].map(|()| root.server(&["mx.test"]));
        let (other_name, expired) = (root.server(&["other.test"]), root.server_of(&["mx.test"], 2020, 2021));
        Self { root, good, other_name, stranger, expired, other_key }
    }

    /// What the host shows.
    fn shown(&self, failure: Failure) -> &Certified {
        match failure {
            Failure::Name => &self.other_name,
            Failure::Authority => &self.stranger,
            Failure::Expired => &self.expired,
            Failure::Key => &self.other_key,
            _ => &self.good,
        }
    }

    /// The record of DANE-EE is about the key that the host shows, unless that is the failure.
    fn tlsa(&self, tlsa: Tlsa, failure: Failure) -> Records {
        let named = if failure == Failure::Key { &self.good } else { self.shown(failure) };
        match tlsa {
            Tlsa::None => Err(ResolveError::NoSuchName),
            Tlsa::EndEntity => Ok(Answer::secure(vec![named.tlsa(3, Key, 1)])),
            Tlsa::Anchor => Ok(Answer::secure(vec![self.root.tlsa(2, Key, 1)])),
            Tlsa::Unusable => Ok(Answer::secure(vec![named.tlsa(1, Key, 1)])),
            Tlsa::Unsigned => Ok(vec![self.good.tlsa(3, Key, 1)].into()),
            Tlsa::Fails => Err(ResolveError::Temporary("SERVFAIL".to_owned())),
        }
    }
}

/// Every domain has the host `mx.test`, on loopback. Only the MX records of `insecure.test` are not
/// signed.
#[derive(Clone)]
pub(super) struct Zone {
    tlsa: Arc<Mutex<Records>>,
    sts: Option<&'static [&'static str]>,
}

type Records = Result<Answer<TlsaRecord>, ResolveError>;

impl Zone {
    /// A zone with these records of the host, and with records of MTA-STS for these domains.
    /// `None`: the DNS does not answer.
    pub(super) fn new(tlsa: Records, sts: Option<&'static [&'static str]>) -> Self {
        Self { tlsa: Arc::new(Mutex::new(tlsa)), sts }
    }

    pub(super) fn set(&self, tlsa: Records) {
        *self.tlsa.lock().unwrap() = tlsa;
    }
}

impl Resolver for Zone {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        let hosts = vec![MxRecord { preference: 10, exchange: "mx.test".to_owned() }];
        Ok(if domain == "insecure.test" { hosts.into() } else { Answer::secure(hosts) })
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(Answer::secure(vec![[127, 0, 0, 1].into()]))
    }

    async fn tlsa(&self, _: &str) -> Result<Answer<TlsaRecord>, ResolveError> {
        self.tlsa.lock().unwrap().clone()
    }

    async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, ResolveError> {
        match self.sts {
            None => Err(ResolveError::Temporary("SERVFAIL".to_owned())),
            Some(domains) if domains.iter().any(|domain| name == format!("_mta-sts.{domain}")) => {
                Ok(vec![b"v=STSv1; id=1;".to_vec()])
            }
            Some(_) => Err(ResolveError::NoSuchName),
        }
    }
}

/// Reaches every name at loopback.
#[derive(Clone)]
struct ByName;

impl Dial for ByName {
    type Stream = TcpStream;

    fn resolves_names(&self) -> bool {
        true
    }

    async fn dial(&self, server: &Server) -> io::Result<TcpStream> {
        let Server::Name(_, port) = server else { panic!("{server}") };
        TcpStream::connect(("127.0.0.1", *port)).await
    }
}

/// What a host does that fails in this way.
fn script(failure: Failure, is_implicit: bool) -> impl Script {
    let handshake = match failure {
        Failure::NotOffered | Failure::Later | Failure::Unknown | Failure::Syntax | Failure::Gone => "",
        Failure::Garbage => "<garbage>",
        Failure::Alert => "<alert>",
        Failure::Closes => "<close>",
        Failure::Silent => "<hang>",
        Failure::Residue => "250-mx.test\r\n250 AUTH PLAIN\r\n",
        _ => "<tls>",
    };
    let inside = move |line: &str| match (failure, verb(line)) {
        (Failure::EhloRefused, "EHLO" | "HELO") => Some("550 5.3.2 never\r\n"),
        (Failure::EhloCloses, "EHLO" | "HELO") | (Failure::MailCloses, "MAIL") => Some("close"),
        _ => None,
    };
    move |place: Place, line: &str| match (line, inside(line)) {
        ("<connect>", _) if is_implicit && !place.tls && !handshake.is_empty() => handshake.to_owned(),
        (_, Some(said)) if place.tls => said.to_owned(),
        ("STARTTLS", _) => match failure {
            Failure::Later => "454 4.7.0 later\r\n".to_owned(),
            Failure::Unknown => "502 5.5.1 what\r\n".to_owned(),
            Failure::Syntax => "501 5.5.4 no\r\n".to_owned(),
            Failure::Gone => "421 4.3.2 going\r\n".to_owned(),
            _ => format!("220 go\r\n{handshake}"),
        },
        _ if failure == Failure::NotOffered || is_implicit => polite(line, &["AUTH PLAIN"]),
        _ => polite(line, &["STARTTLS", "AUTH PLAIN"]),
    }
}

/// A host that fails in this way.
pub(super) async fn host(certificates: &Certificates, failure: Failure, is_implicit: bool) -> Scripted {
    let config: Arc<ServerConfig> = certificates.shown(failure).serves(&[&certificates.root]);
    Scripted::with_tls(config, script(failure, is_implicit)).await
}

/// A client's MTA-STS.
pub(super) async fn mta_sts(certificates: &Certificates, sts: Sts, folder: &tempfile::TempDir) -> MtaSts {
    let (mode, mx) = match sts {
        Sts::Testing => ("testing", "mx.test"),
        Sts::ModeNone => ("none", "mx.test"),
        Sts::OtherHost => ("enforce", "other.test"),
        Sts::TestingOtherHost => ("testing", "other.test"),
        _ => ("enforce", "mx.test"),
    };
    let file = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n");
    let names = ["d.test", "e.test", "insecure.test"].map(|domain| format!("mta-sts.{domain}"));
    let config = certificates.root.server(&names.each_ref().map(String::as_str)).serves(&[]);
    let (address, _) = https::serve(config, move |_| https::Answer::ok("text/plain", &file)).await;
    let mut fetch = HttpsFetch::new(certificates.root.roots().into()).unwrap();
    (fetch.allow_private, fetch.port) = (true, address.port());
    if matches!(sts, Sts::KeptAndGone | Sts::KeptAndDnsFails) {
        let kept = MtaSts::open(fetch.clone(), folder.path()).unwrap();
        let zone = Zone::new(Err(ResolveError::NoSuchName), Some(&["d.test"]));
        assert!(kept.policy(&zone, "d.test").await.policy.is_some());
    }
    if matches!(sts, Sts::Gone | Sts::KeptAndGone) {
        let (closed, _) = https::serve(certificates.other_name.serves(&[]), |_| panic!("it is asked")).await;
        fetch.port = closed.port();
    }
    MtaSts::open(fetch, folder.path()).unwrap()
}

/// Sends one message to `d.test` as the row says, and tells what came of it.
pub(super) async fn send(certificates: &Certificates, row: &Row, failure: Failure, port: u16) -> char {
    let config = match row.policy {
        Policy::Verified | Policy::Implicit => verified_by(certificates.root.roots().into()).unwrap(),
        Policy::Off | Policy::Opportunistic | Policy::Required => trusting(),
    };
    let mut client: ClientOptions = options(row.policy.tls(config));
    if failure == Failure::Silent {
        client.session.timeouts = ClientTimeouts::all(Duration::from_millis(1_500));
    }
    let sent = match row.way {
        Way::Named => {
            if matches!(row.policy, Policy::Verified | Policy::Implicit) {
                let credentials = Credentials {
                    authorization_identity: None,
                    authentication_identity: "me".to_owned(),
                    password: Secret::new("secret".to_owned()),
                };
                client.credentials = Some(credentials.into());
            }
            let pool = Pool::with([("mx.test", port)], client, PoolOptions::default(), ByName).unwrap();
            let sent = pool.send("me@s.test", ["you@d.test"], "Subject: x\r\n\r\nhello\r\n").await;
            pool.close().await;
            sent
        }
        Way::Mx(tlsa, sts) => {
            let folder = tempfile::tempdir().unwrap();
            let mut published = Published::default().with_dane();
            if sts != Sts::None {
                let verified = verified_by(certificates.root.roots().into()).unwrap();
                published = published.with_mta_sts(mta_sts(certificates, sts, &folder).await, verified);
            }
            let record = match sts {
                Sts::None => Some(&[][..]),
                Sts::DnsFails | Sts::KeptAndDnsFails => None,
                _ => Some(&["d.test"][..]),
            };
            let zone = Zone::new(certificates.tlsa(tlsa, failure), record);
            let mx = mx(zone, client, published, port);
            let sent = mx.send("me@s.test", ["you@d.test"], "Subject: x\r\n\r\nhello\r\n").await;
            mx.close().await;
            sent
        }
    };
    outcome(&sent)
}

pub(super) fn mx(zone: Zone, client: ClientOptions, published: Published, port: u16) -> Mx<Zone> {
    let mut limits = MxOptions::default();
    (limits.port, limits.allow_private, limits.published) = (port, true, published);
    Mx::with(zone, client, limits, Tcp::default())
}

/// The letter of the table.
pub(super) fn outcome(sent: &Result<Delivered, SendError>) -> char {
    let sent = match sent {
        Ok(sent) if sent.is_complete() => sent,
        Ok(_) | Err(SendError::Connect(_)) => return '-',
        Err(error) => panic!("{error}"),
    };
    match sent.recipients[0].server.as_ref() {
        Some(server) if server.is_verified && server.tls.is_some() => 'V',
        Some(server) if server.tls.is_some() => 'T',
        _ => 'C',
    }
}
