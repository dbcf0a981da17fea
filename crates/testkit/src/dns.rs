//! Name servers on loopback, with zones that are signed here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails there and says where")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_server::{
    Server,
    dnssec::NxProofKind,
    net::runtime::TokioRuntimeProvider,
    proto::{
        dnssec::{
            Algorithm, DigestType, DnssecSigner, Nsec3HashAlgorithm, SigningKey as _,
            crypto::EcdsaSigningKey,
            rdata::{DNSKEY, DS},
        },
        op::Message,
        rr::{LowerName, Name, RData, Record, RecordSet, RecordType, RrKey, rdata::A},
        serialize::txt::Parser,
    },
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneHandler as _, ZoneType},
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::UdpSocket;

/// How a zone is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Signed, with proofs of absence by NSEC.
    Nsec,
    /// Signed, with proofs of absence by NSEC3.
    Nsec3,
    /// With more iterations than a resolver has to do (RFC 9276 section 3.2).
    Nsec3Costly,
    /// Without signatures, and its parent says so.
    Unsigned,
    /// Without signatures, although its parent promises some.
    Stripped,
    /// Signed by a key that its parent does not name.
    OtherKey,
    /// Signed, but its server answers no question for its keys.
    KeysWithheld,
    /// Signed, but the signatures are over.
    Expired,
}

/// Name servers that know all zones.
#[derive(Debug)]
pub struct Signed {
    /// Where they answer, by UDP.
    pub address: SocketAddr,
    /// The key of the root, as a DNSKEY record in the form of a zone file.
    pub anchor: String,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

const DS_TYPE: u16 = 43;
const DNSKEY_TYPE: u16 = 48;

type Zone = InMemoryZoneHandler<TokioRuntimeProvider>;

impl Signed {
    /// Zones of one label below a signed root, each with its records in the form of a zone file.
    /// The address of a host named `tampered` is another than the one that was signed.
    pub async fn start(zones: &[(&str, Kind, &str)]) -> Self {
        let (root_key, mut delegations, mut children) = (Key::new(), String::new(), Catalog::new());
        for (label, kind, records) in zones {
            let (key, origin) = (Key::new(), Name::parse(&format!("{label}."), None).unwrap());
            delegations += &format!("{label} NS ns.{label}.\n");
            match kind {
                Kind::Unsigned => {}
                Kind::OtherKey => delegations += &Key::new().delegation(&origin),
                _ => delegations += &key.delegation(&origin),
            }
            let zone = make(&origin, *kind, records, &key);
            children.upsert(zone.origin().clone(), vec![Arc::new(zone)]);
        }
        let root = make(&Name::root(), Kind::Nsec, &delegations, &root_key);
        let mut parents = Catalog::new();
        parents.upsert(LowerName::from(Name::root()), vec![Arc::new(root)]);
        let (parents, children) = (listen(parents).await, listen(children).await);

        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let known: Vec<_> = zones.iter().map(|(label, kind, _)| (label.to_ascii_lowercase(), *kind)).collect();
        tokio::spawn(forward(Arc::new(front), parents, children, known, Arc::clone(&asked)));

        Self { address, anchor: format!(". IN DNSKEY {}\n", root_key.dnskey()), asked }
    }

    /// How often this name and type were asked for.
    pub fn asked(&self, name: &str, kind: u16) -> usize {
        self.asked.lock().unwrap().iter().filter(|(asked, of)| asked == name && *of == kind).count()
    }
}

/// A pair of keys of ECDSA P-256: the private one in PKCS #8, and the public one.
struct Key(PrivatePkcs8KeyDer<'static>, DNSKEY);

impl Key {
    fn new() -> Self {
        let pkcs8 = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256).unwrap();
        let key = EcdsaSigningKey::from_pkcs8(&pkcs8, Algorithm::ECDSAP256SHA256).unwrap();
        let dnskey = DNSKEY::from_key(&key.to_public_key().unwrap());
        Self(pkcs8, dnskey)
    }

    fn signer(&self, origin: &Name, valid: Duration) -> DnssecSigner {
        let key = EcdsaSigningKey::from_pkcs8(&self.0, Algorithm::ECDSAP256SHA256).unwrap();
        DnssecSigner::new(self.1.clone(), Box::new(key), origin.clone(), valid)
    }

    fn dnskey(&self) -> String {
        self.1.to_string()
    }

    /// The DS record of the parent.
    fn delegation(&self, origin: &Name) -> String {
        let digest = self.1.to_digest(origin, DigestType::SHA256).unwrap();
        let tag = self.1.calculate_key_tag().unwrap();
        let ds = DS::new(tag, Algorithm::ECDSAP256SHA256, DigestType::SHA256, digest.as_ref().to_vec());
        format!("{origin} DS {ds}\n")
    }
}

fn make(origin: &Name, kind: Kind, records: &str, key: &Key) -> Zone {
    let text = format!(
        "$TTL 60\n@ SOA ns.{origin} admin.{origin} 1 3600 600 86400 60\n@ NS ns.{origin}\n{records}\n",
        origin = if origin.is_root() { String::new() } else { origin.to_string() },
    );
    let text = text.replace("ns. ", "ns.root. ").replace("admin. ", "admin.root. ").replace("ns.\n", "ns.root.\n");
    let (_, records) = Parser::new(text, None, Some(origin.clone())).parse().unwrap();
    let nsec3 = |iterations| NxProofKind::Nsec3 {
        algorithm: Nsec3HashAlgorithm::SHA1,
        salt: Arc::new([]),
        iterations,
        opt_out: false,
    };
    let proofs = match kind {
        Kind::Nsec3 => nsec3(0),
        Kind::Nsec3Costly => nsec3(200),
        _ => NxProofKind::Nsec,
    };
    let is_signed = !matches!(kind, Kind::Unsigned | Kind::Stripped);
    let mut zone =
        Zone::new(origin.clone(), records, ZoneType::Primary, AxfrPolicy::Deny, is_signed.then_some(proofs)).unwrap();
    if is_signed {
        let valid = Duration::from_secs(if kind == Kind::Expired { 0 } else { 3_600 });
        zone.add_zone_signing_key_mut(key.signer(origin, valid)).unwrap();
        zone.secure_zone_mut().unwrap();
        tamper(&mut zone, origin);
    }
    zone
}

/// Changes the address of `tampered`, and leaves its signature.
fn tamper(zone: &mut Zone, origin: &Name) {
    let name = Name::parse("tampered", Some(origin)).unwrap();
    let key = RrKey::new(LowerName::from(&name), RecordType::A);
    if let Some(set) = zone.records_get_mut().get_mut(&key) {
        let mut records: Vec<_> = set.records_without_rrsigs().cloned().collect();
        records.iter_mut().for_each(|record| record.data = RData::A(A::new(127, 6, 6, 6)));
        let mut other = RecordSet::new(name, RecordType::A, 1);
        other.set_records(records);
        other.set_rrsigs(set.rrsigs().to_vec());
        *set = Arc::new(other);
    }
}

async fn listen(catalog: Catalog) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = Server::new(catalog);
    server.register_socket(socket);
    tokio::spawn(async move { server.block_until_done().await });
    address
}

/// Sends each question to the server of the zone that knows: what a zone delegates is known above
/// it.
async fn forward(
    front: Arc<UdpSocket>,
    parents: SocketAddr,
    children: SocketAddr,
    zones: Vec<(String, Kind)>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
) {
    let mut query = [0; 4_096];
    while let Ok((length, peer)) = front.recv_from(&mut query).await {
        let question = query[..length].to_vec();
        let (labels, kind) = read(&question);
        asked.lock().unwrap().push((labels.join("."), kind));
        let zone = labels.last().and_then(|last| zones.iter().find(|(label, _)| label == last));
        let is_withheld = kind == DNSKEY_TYPE && zone.is_some_and(|(_, kind)| *kind == Kind::KeysWithheld);
        let server = match zone {
            Some(_) if kind != DS_TYPE || labels.len() > 1 => children,
            _ => parents,
        };
        let front = Arc::clone(&front);
        tokio::spawn(async move {
            if is_withheld {
                // SERVFAIL.
                let mut said = question;
                (said[2], said[3]) = (0x80 | said[2], 0x82);
                return front.send_to(&said, peer).await.unwrap();
            }
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&question, server).await.unwrap();
            let mut said = vec![0; 65_535];
            let length = socket.recv(&mut said).await.unwrap();
            front.send_to(&without_surplus_proofs(&said[..length]), peer).await.unwrap()
        });
    }
}

/// The server sends proofs by NSEC3 that there is no record, also where there is one. Others do
/// not.
fn without_surplus_proofs(said: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(said).unwrap();
    let is_proof = |record: &Record| record.record_type() == RecordType::NSEC3;
    if message.answers.is_empty() || !message.authorities.iter().any(is_proof) {
        return said.to_vec();
    }
    message.authorities.clear();
    message.to_vec().unwrap()
}

/// The name and the type of a question.
fn read(query: &[u8]) -> (Vec<String>, u16) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_ascii_lowercase()).unwrap());
        at = end;
    }
    (labels, u16::from_be_bytes([query[at + 1], query[at + 2]]))
}
