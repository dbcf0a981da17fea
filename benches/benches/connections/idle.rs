//! The memory of idle connections.

use std::time::Duration;

use posthaste_client::tls::any_certificate;
use posthaste_testkit::talk::{Talk, handshake};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::sleep,
};

use crate::{process::Process, servers::Kind};

/// Octets of the message that some of the connections have sent.
const MESSAGE: usize = 100_000;
/// How long the server is watched while it has nothing to do.
const IDLE: Duration = Duration::from_secs(3);

pub(crate) async fn measure(connections: usize) {
    println!("| {connections} idle connections | after | KiB each | CPU while idle, % |");
    println!("|---|---|---|---|");
    let client = any_certificate().expect("a provider");
    for message in [None, Some("x".repeat(78) + "\r\n").map(|line| line.repeat(MESSAGE / line.len()))] {
        let connect = async |process: &Process| TcpStream::connect(process.address()).await.expect("a connection");
        fill(Kind::Plain, connections, message.as_deref(), connect).await;
        let connect = async |process: &Process| handshake(connect(process).await, &client).await;
        fill(Kind::Tls, connections, message.as_deref(), connect).await;
    }
}

/// Opens the connections, and prints what they took.
async fn fill<S: AsyncRead + AsyncWrite + Unpin>(
    kind: Kind,
    connections: usize,
    message: Option<&str>,
    connect: impl AsyncFn(&Process) -> S,
) {
    let process = Process::start(kind.name());
    // What a server allocates once is there before it is measured.
    drop(Talk::new(connect(&process).await).greeted().await);
    let before = process.resident();
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut talk = Talk::new(connect(&process).await).greeted().await;
        if let Some(message) = message {
            assert!(talk.message("a@b.test", message).await.starts_with("250"));
        }
        open.push(talk);
    }
    sleep(IDLE / 3).await;
    let each = process.resident().saturating_sub(before) / connections;
    let time = process.time();
    sleep(IDLE).await;
    let busy = (process.time() - time).as_secs_f64() / IDLE.as_secs_f64();
    let after = if message.is_some() { "a message of 100 KB" } else { "EHLO" };
    println!("| {} | {after} | {:.2} | {:.2} |", kind.name(), each as f64 / 1_024.0, 100.0 * busy);
}
