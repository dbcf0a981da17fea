//! Takes every message, throws it away, and says once a second how many there were.
//!
//! ```text
//! cargo run --release --bin sink -- 127.0.0.1:2525
//! ```

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use posthaste_server::{
    Body, CancellationToken, Envelope, Handler, Listener, Peer, Server, ServerOptions, Service, Tls,
    session::ServerSettings, wire::Reply,
};

static MESSAGES: AtomicU64 = AtomicU64::new(0);
static OCTETS: AtomicU64 = AtomicU64::new(0);

struct Sink;

impl Service for Sink {
    type Handler = Self;

    async fn connect(&self, _peer: &Peer) -> Result<Self, Reply> {
        Ok(Self)
    }
}

impl Handler for Sink {
    async fn message(&mut self, _peer: &Peer, _envelope: Envelope, body: &mut Body<'_>) -> Result<Reply, Reply> {
        while let Some(piece) = body.next().await? {
            OCTETS.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        MESSAGES.fetch_add(1, Ordering::Relaxed);
        Ok(Reply::from_static("250 2.0.0 Thrown away\r\n"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2525".to_owned()).parse()?;
    let listener = Listener::bind(address, ServerSettings::new("localhost".parse()?), Tls::Off).await?;
    println!("listening on {}", listener.local_address()?);
    tokio::spawn(async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (messages, octets) = (MESSAGES.load(Ordering::Relaxed), OCTETS.load(Ordering::Relaxed));
            if messages != last {
                println!("{messages} messages, {octets} octets, {} a second", messages - last);
                last = messages;
            }
        }
    });
    Server::new(Sink, ServerOptions::default()).serve(vec![listener], CancellationToken::new()).await;
    Ok(())
}
