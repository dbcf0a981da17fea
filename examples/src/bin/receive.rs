//! Receives messages and prints them.
//!
//! ```text
//! cargo run --bin receive -- 127.0.0.1:2525
//! ```

use std::error::Error;

use posthaste_server::{
    Body, CancellationToken, Envelope, Handler, Listener, Peer, Server, ServerOptions, Service, Tls,
    session::ServerSettings, wire::Reply,
};

struct Print;

impl Service for Print {
    type Handler = Self;

    async fn connect(&self, peer: &Peer) -> Result<Self, Reply> {
        println!("connection from {}", peer.address);
        Ok(Self)
    }
}

impl Handler for Print {
    async fn message(&mut self, _peer: &Peer, envelope: Envelope, body: &mut Body<'_>) -> Result<Reply, Reply> {
        let content = body.collect(16 << 20).await?;
        println!("from {}", envelope.mail.reverse_path);
        envelope.recipients.iter().for_each(|rcpt| println!("to {}", rcpt.forward_path));
        println!("{}", String::from_utf8_lossy(&content));
        Ok(Reply::from_static("250 2.0.0 Printed\r\n"))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2525".to_owned()).parse()?;
    let listener = Listener::bind(address, ServerSettings::new("localhost".parse()?), Tls::Off).await?;
    println!("listening on {}", listener.local_address()?);
    Server::new(Print, ServerOptions::default()).serve(vec![listener], end()).await;
    Ok(())
}

/// Cancelled by Ctrl-C.
fn end() -> CancellationToken {
    let token = CancellationToken::new();
    let ending = token.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            ending.cancel();
        }
    });
    token
}
