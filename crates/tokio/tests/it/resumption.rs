//! Sessions of TLS are resumed, however many clients there were in between.

use std::sync::Arc;

use posthaste_testkit::talk::handshake;
use posthaste_tokio::{
    Connection,
    tls::{Pem, any_certificate, server_config},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, HandshakeKind, ServerConfig, client::Resumption};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// More than rustls remembers in a server's memory.
const OTHERS: usize = 300;

/// One connection; the kind of its handshake as the client saw it.
async fn connect(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let (near, far) = tokio::io::duplex(16 * 1_024);
    let mut connection = Connection::new(near);
    let (accepted, mut stream) = tokio::join!(connection.accept_tls(Arc::clone(server)), handshake(far, client));
    accepted.unwrap();
    // The tickets come with the first octets.
    stream.write_all(b"NOOP\r\n").await.unwrap();
    connection.read().await.unwrap();
    connection.close().await;
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn a_client_resumes_its_session_after_hundreds_of_others() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
    let server = server_config(&Pem::from(cert.pem().as_bytes()), &Pem::from(signing_key.serialize_pem().as_bytes()));
    let (server, client) = (server.unwrap(), any_certificate().unwrap());
    assert_eq!(connect(&server, &client).await, Some(HandshakeKind::Full));
    for _ in 0..OTHERS {
        let mut other = (*client).clone();
        other.resumption = Resumption::in_memory_sessions(1);
        assert_eq!(connect(&server, &Arc::new(other)).await, Some(HandshakeKind::Full));
    }
    assert_eq!(connect(&server, &client).await, Some(HandshakeKind::Resumed));
}
