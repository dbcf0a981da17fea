//! Sends a message: reads it from standard input and hands it to a server.
//!
//! ```text
//! printf 'Subject: hi\n\nHello!\n' | cargo run --bin send -- 127.0.0.1:2525 me@example.org you@example.net
//! ```

use std::{error::Error, process::ExitCode};

use posthaste::client::{Client, ClientOptions, Reader, Text, Tls};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, from, to @ ..] = &arguments[..] else { return Err("usage: send HOST:PORT FROM TO...".into()) };

    let mut options = ClientOptions::new("localhost".parse()?);
    options.tls = Tls::opportunistic()?;
    let mut client = Client::connect(server, &options).await?;
    // On the wire a line ends in CRLF and nothing else.
    let sent = client.send(from, to, Text::new(Reader::new(tokio::io::stdin()))).await?;
    client.quit().await;

    for recipient in &sent.recipients {
        println!("{}: {}", recipient.path, recipient.outcome);
    }
    Ok(if sent.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
