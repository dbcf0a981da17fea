//! The processor's time of TLS handshakes, in turn with a server of nothing but tokio-rustls.

use std::{sync::Arc, time::Duration};

use posthaste_client::{
    rustls::{ClientConfig, HandshakeKind},
    tls::any_certificate,
};
use posthaste_testkit::talk::{Talk, handshake};
use tokio::net::TcpStream;

use crate::{process::Process, servers::Kind};

/// Turns: other load on the machine meets both servers alike.
const TURNS: usize = 10;

pub(crate) async fn measure(handshakes: usize) {
    println!("\n| {handshakes} connections with TLS | ours, CPU us each | bare, CPU us each | ratio |");
    println!("|---|---|---|---|");
    let (ours, bare) = (Process::start(Kind::Tls.name()), Process::start(Kind::Bare.name()));
    for (name, resumes) in [("full handshakes", false), ("resumed", true)] {
        let [mut of_ours, mut of_bare] = [Duration::ZERO; 2];
        for _ in 0..TURNS {
            let count = handshakes.div_ceil(TURNS);
            of_ours += time(&ours, count, resumes).await;
            of_bare += time(&bare, count, resumes).await;
        }
        let [of_ours, of_bare] = [of_ours, of_bare].map(|time| time.as_secs_f64() * 1e6 / handshakes as f64);
        println!("| {name} | {of_ours:.0} | {of_bare:.0} | {:.2} |", of_ours / of_bare);
    }
}

/// The server's time for this many connections, each with a greeting, a line, a reply and a close.
async fn time(process: &Process, connections: usize, resumes: bool) -> Duration {
    let resuming = any_certificate().expect("a provider");
    connect(process, &resuming, false).await;
    let before = process.time();
    for _ in 0..connections {
        let fresh = if resumes { None } else { Some(any_certificate().expect("a provider")) };
        connect(process, fresh.as_ref().unwrap_or(&resuming), resumes).await;
    }
    process.time() - before
}

async fn connect(process: &Process, config: &Arc<ClientConfig>, resumes: bool) {
    let stream = TcpStream::connect(process.address()).await.expect("a connection");
    stream.set_nodelay(true).expect("an open socket");
    let mut talk = Talk::new(handshake(stream, config).await);
    talk.reply().await;
    talk.ask("221 Echoed or refused").await;
    let kind = if resumes { HandshakeKind::Resumed } else { HandshakeKind::Full };
    assert_eq!(talk.stream.get_ref().1.handshake_kind(), Some(kind));
}
