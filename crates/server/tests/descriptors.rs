//! A process that may open few files. A test binary of its own: the limit is the process's.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, PeerAddress, Refusal, Server, accepted,
    session::ServerSettings,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

#[derive(Clone)]
struct Discard;

impl Handler for Discard {
    async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        body.collect(1_024).await?;
        Ok(accepted!("250 2.0.0 Thrown away"))
    }
}

async fn connect(address: std::net::SocketAddr) -> (String, BufReader<TcpStream>) {
    let mut client = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut line = String::new();
    client.read_line(&mut line).await.unwrap();
    (line, client)
}

/// The limit counts at the start of the server: the clients of this process need descriptors too.
#[tokio::test]
async fn a_server_takes_no_more_clients_than_there_are_descriptors_for() {
    let set =
        |files| setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..getrlimit(Resource::Nofile) }).unwrap();
    let settings = ServerSettings::new("mx.test".parse().unwrap());
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
    let server = Server::new(|_| async { Ok(Discard) }).listen(listener);
    let PeerAddress::Ip(address) = server.local_addresses()[0] else { unreachable!("TCP") };
    set(64);
    let mut serve = Box::pin(server.serve());
    // The first poll begins to serve.
    assert!(futures_util::poll!(&mut serve).is_pending());
    set(512);
    let serve = tokio::spawn(serve);
    // Half of 64 is left, and of the rest an eighth may be leaving. All are strangers who wait for
    // less than two seconds, so that none has to leave for another.
    let mut served = Vec::new();
    for number in 1..=24 {
        let (greeting, client) = connect(address).await;
        assert!(greeting.starts_with("220 "), "{number}: {greeting}");
        served.push(client);
    }
    let (refused, _) = connect(address).await;
    assert_eq!(refused, "421 4.3.2 Too many connections, try again later\r\n");
    let mut first = served.swap_remove(0);
    first.write_all(b"QUIT\r\n").await.unwrap();
    let mut line = String::new();
    first.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("221 "), "{line}");
    serve.abort();
}
