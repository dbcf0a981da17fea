//! Greylisting as a layer: puts off the first attempt of a sender, and lets a later one through.
//!
//! ```text
//! cargo run --bin greylist -- 127.0.0.1:2525 300
//! ```

use std::{
    collections::HashMap,
    error::Error,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Layer, Listener, Refusal, Server, Service as _, accepted, refusal,
    session::ServerSettings, wire::Rcpt,
};

/// Memory of first attempts, which all connections share.
#[derive(Clone)]
struct Greylist {
    wait: Duration,
    first: Arc<Mutex<HashMap<Attempt, Instant>>>,
}

/// The client's network, the sender and the recipient.
type Attempt = (IpAddr, String, String);

/// First attempts at most, of some 300 bytes each. Beyond it all are forgotten: their clients wait
/// once more.
const MOST: usize = 100_000;

impl Layer for Greylist {
    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let sender = cx.envelope.as_ref().map(|envelope| envelope.mail.reverse_path.to_string());
        let attempt = (cx.peer.network, sender.unwrap_or_default(), rcpt.forward_path.to_string());
        let mut first = self.first.lock().expect("no code panics under the lock");
        if first.len() >= MOST {
            first.clear();
        }
        let waited = first.entry(attempt).or_insert_with(Instant::now).elapsed();
        if waited < self.wait {
            let left = (self.wait - waited).as_secs() + 1;
            return Err(refusal!("451 4.7.1 Greylisted, try again in {left} s", left = left));
        }
        Ok(())
    }
}

/// What the layer is put around: any service, such as a relay's.
struct Print;

impl Handler for Print {
    async fn message(&mut self, _: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(16 << 20).await?;
        println!("{} octets from {}", content.len(), envelope.mail.reverse_path);
        Ok(accepted!("250 2.0.0 Printed"))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, seconds] = &arguments[..] else { return Err("usage: greylist ADDRESS SECONDS".into()) };
    let greylist = Greylist { wait: Duration::from_secs(seconds.parse()?), first: Arc::default() };
    let listener = Listener::bind(address, ServerSettings::new("localhost".parse()?)).await?;
    println!("listening on {}", listener.local_address()?);
    let service = |_| async { Ok(Print) };
    Server::new(service.layer(greylist)).listen(listener).serve().await;
    Ok(())
}
