//! Receives messages and prints them.
//!
//! ```text
//! cargo run --bin receive -- 127.0.0.1:2525
//! ```

use std::error::Error;

use posthaste::server::{Listener, Server, accepted, handlers, session::ServerSettings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let service = handlers::message(async |cx, envelope, body| {
        let content = body.collect(16 << 20).await?;
        println!("from {} by {}", envelope.mail.reverse_path, cx.peer.address);
        envelope.recipients.iter().for_each(|rcpt| println!("to {}", rcpt.forward_path));
        println!("{}", String::from_utf8_lossy(&content));
        Ok(accepted!("250 2.0.0 Printed"))
    });
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2525".to_owned());
    let listener = Listener::bind(address, ServerSettings::new("localhost".parse()?)).await?;
    println!("listening on {}", listener.local_address()?);
    Server::new(service)
        .listen(listener)
        .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .serve()
        .await;
    Ok(())
}
