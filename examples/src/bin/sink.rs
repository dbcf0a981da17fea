//! Takes every message, throws it away, and says once a second how many there were.
//!
//! ```text
//! cargo run --release --bin sink -- 127.0.0.1:2525
//! ```
//!
//! With `chunking` behind the address it takes BDAT too.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, accepted, session::ServerSettings,
};

static MESSAGES: AtomicU64 = AtomicU64::new(0);
static OCTETS: AtomicU64 = AtomicU64::new(0);

struct Sink;

impl Handler for Sink {
    async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while let Some(piece) = body.next().await? {
            OCTETS.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        MESSAGES.fetch_add(1, Ordering::Relaxed);
        Ok(accepted!("250 2.0.0 Thrown away"))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2525".to_owned());
    let mut settings = ServerSettings::new("localhost".parse()?);
    settings.offers.chunking = std::env::args().nth(2).is_some_and(|way| way == "chunking");
    let listener = Listener::bind(address, settings).await?;
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
    Server::new(|_| async { Ok(Sink) }).listen(listener).serve().await;
    Ok(())
}
