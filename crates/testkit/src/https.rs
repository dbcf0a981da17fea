//! A server of HTTPS that says what a closure says, right or wrong.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What a server answers to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The octets of the response.
    pub octets: Vec<u8>,
    /// What follows them.
    pub end: End,
}

/// What follows a response.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// The end of TLS, then that of the connection.
    Closed,
    /// The end of the connection.
    Cut,
    /// Silence.
    Silent,
}

/// The heads of requests, in the order of their arrival.
pub type Requests = Arc<Mutex<Vec<String>>>;

impl Answer {
    /// A response with status 200, this media type and body.
    pub fn ok(media_type: &str, body: &str) -> Self {
        let fields = format!("Content-Type: {media_type}\r\nContent-Length: {}", body.len());
        Self::whole(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"))
    }

    /// These octets, and then the end.
    pub fn whole(octets: impl Into<Vec<u8>>) -> Self {
        Self { octets: octets.into(), end: End::Closed }
    }
}

/// Serves on a loopback port of its own, one request for each connection.
pub async fn serve(
    config: Arc<ServerConfig>,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, requests, answer) = (listener.local_addr().unwrap(), Requests::default(), Arc::new(answer));
    let heard = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, heard, answer) = (TlsAcceptor::from(config.clone()), heard.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(octet) = stream.read_u8().await else { return };
                    head.push(octet);
                }
                let head = String::from_utf8(head).unwrap();
                let Answer { octets, end } = answer(&head);
                heard.lock().unwrap().push(head);
                // A client may have enough before the end.
                let _ = stream.write_all(&octets).await;
                let _ = stream.flush().await;
                match end {
                    End::Closed => drop(stream.shutdown().await),
                    End::Cut => {}
                    End::Silent => std::future::pending().await,
                }
            });
        }
    });
    (address, requests)
}
