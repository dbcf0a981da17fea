//! The PROXY protocol, versions 1 and 2: the address of a client in front of its octets.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>

use std::{io, sync::Arc, time::Duration};

use posthaste_tokio::{rustls::ProtocolVersion, wire::Domain};
use proxy_header::{ParseConfig, Protocol, ProxyHeader, SslInfo, Tlv};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

use crate::{Peer, PeerTls, Proxy};

/// How long a proxy has for its header, which it sends first of all: room for a lost packet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Octets of a header at most. Version 1 has 107 at most, version 2 with the usual facts about TLS
/// some 200.
const MOST: usize = 4_096;

/// Octets of a header of version 1 at most, as the protocol has it.
const MOST_V1: usize = 107;

/// How every header of version 1 begins.
const V1: &[u8] = b"PROXY ";
/// The shortest header of version 1.
const LEAST_V1: usize = b"PROXY UNKNOWN\r\n".len();
/// How every header of version 2 begins.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version, family and length of version 2.
const START_V2: usize = V2.len() + 4;

/// Why a proxy's connection is closed.
#[derive(Debug, Error)]
pub(crate) enum ProxyError {
    /// Load balancers connect and say nothing, to see if the server is there.
    #[error("the connection ended before its first octet")]
    Silent,
    #[error("no PROXY header within {} seconds; have the proxy send one, or take it off the list", PATIENCE.as_secs())]
    Late,
    #[error("the connection does not begin with a PROXY header; have the proxy send one, or take it off the list")]
    Missing,
    #[error("the connection ended within its PROXY header")]
    Cut,
    #[error("the PROXY header has more than {MOST} octets; have the proxy send fewer facts")]
    Long,
    #[error("the PROXY header is malformed, or not for TCP")]
    Malformed,
    #[error("the connection failed within the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads a header, and not one octet after it, and puts its facts in the place of the proxy's. The
/// future may not be dropped, unless the connection is too.
pub(crate) async fn accept<S: AsyncRead + Unpin>(stream: &mut S, peer: &mut Peer) -> Result<(), ProxyError> {
    let octets = timeout(PATIENCE, read(stream)).await.map_err(|_| ProxyError::Late)??;
    let (header, _) = ProxyHeader::parse(&octets, ParseConfig::default()).map_err(|_| ProxyError::Malformed)?;
    let proxy = Proxy { address: peer.address, client_name: None };
    // Without an address the proxy speaks for itself (LOCAL), or does not know (UNKNOWN).
    let mut client = match header.proxied_address() {
        Some(proxied) if proxied.protocol == Protocol::Stream => Peer::new(proxied.source, proxied.destination),
        Some(_) => return Err(ProxyError::Malformed),
        None => return Ok(()),
    };
    client.proxy = Some(Arc::new(proxy));
    let (mut tls, mut server_name) = (None, None);
    for fact in header.tlvs() {
        match fact.map_err(|_| ProxyError::Malformed)? {
            Tlv::Ssl(facts) if facts.client_ssl() => tls = Some(PeerTls::new(version(&facts))),
            // A client chose it, so that only what is a name goes further.
            Tlv::Authority(name) => server_name = name.to_ascii_lowercase().parse().ok(),
            _ => {}
        }
    }
    client.tls = tls.map(|mut tls| {
        tls.server_name = server_name.map(|name: Domain| name.as_str().to_owned());
        tls.into()
    });
    *peer = client;
    Ok(())
}

fn version(facts: &SslInfo<'_>) -> ProtocolVersion {
    match facts.version() {
        Some("TLSv1.3") => ProtocolVersion::TLSv1_3,
        Some("TLSv1.2") => ProtocolVersion::TLSv1_2,
        Some("TLSv1.1") => ProtocolVersion::TLSv1_1,
        Some("TLSv1" | "TLSv1.0") => ProtocolVersion::TLSv1_0,
        _ => ProtocolVersion::Unknown(0),
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ProxyError> {
    let mut header = Vec::new();
    while let Some(more) = missing(&header)? {
        match (&mut *stream).take(more).read_buf(&mut header).await {
            Ok(0) | Err(_) if header.is_empty() => return Err(ProxyError::Silent),
            Ok(0) if header.starts_with(b"PROXY ") => return Err(ProxyError::Cut),
            Ok(0) => return Err(ProxyError::Missing),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(header)
}

/// How many octets can be read without one that may come after the header. `None`: it is complete.
///
/// Version 1 ends in CRLF and says no length, so its last octets are read one at a time.
fn missing(header: &[u8]) -> Result<Option<u64>, ProxyError> {
    let begins = |start: &[u8]| start.starts_with(header) || header.starts_with(start);
    let end = match header {
        [] => V2.len(),
        _ if begins(V2) => match header.get(START_V2 - 2..START_V2) {
            Some(&[high, low]) => START_V2 + usize::from(u16::from_be_bytes([high, low])),
            _ => START_V2,
        },
        _ if !begins(V1) => return Err(ProxyError::Missing),
        [.., b'\r', b'\n'] => header.len(),
        _ if header.len() >= MOST_V1 => return Err(ProxyError::Malformed),
        _ => LEAST_V1.max(header.len() + 1),
    };
    if end > MOST {
        return Err(ProxyError::Long);
    }
    Ok(end.checked_sub(header.len()).filter(|more| *more > 0).map(|more| more as u64))
}
