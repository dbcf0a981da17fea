//! Sends a message: reads it from standard input and hands it to a server.
//!
//! ```text
//! printf 'Subject: hi\n\nHello!\n' | cargo run --bin send -- 127.0.0.1:2525 me@example.org you@example.net
//! ```

use std::{error::Error, net::SocketAddr, process::ExitCode, time::Duration};

use posthaste_client::{
    Client, ClientOptions, RecipientOutcome, connect,
    wire::{ForwardPath, Mail, Mailbox, Rcpt, ReversePath},
};
use tokio::io::AsyncReadExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, from, to @ ..] = &arguments[..] else { return Err("usage: send ADDRESS:PORT FROM TO...".into()) };
    let server: SocketAddr = server.parse()?;

    let mut text = String::new();
    tokio::io::stdin().read_to_string(&mut text).await?;
    // On the wire a line ends in CRLF and nothing else.
    let content = text.replace("\r\n", "\n").replace('\n', "\r\n");

    let mail = Mail::new(ReversePath::Mailbox(Mailbox::parse(from)?));
    let mailboxes = to.iter().map(|to| Mailbox::parse(to)).collect::<Result<Vec<_>, _>>()?;
    let recipients: Vec<_> = mailboxes.into_iter().map(|to| Rcpt::new(ForwardPath::Mailbox(to))).collect();

    let stream = connect(&[server.ip()], server.port(), Duration::from_secs(30)).await?;
    let options = ClientOptions::new("localhost".parse()?);
    let mut client = Client::start(stream, &server.ip().to_string(), &options).await?;
    let sent = client.transact(mail, &recipients, bytes::Bytes::from(content)).await;
    client.quit().await;

    let mut code = ExitCode::SUCCESS;
    for (recipient, outcome) in to.iter().zip(&sent.recipients) {
        println!("{recipient}: {outcome:?}");
        if !matches!(outcome, RecipientOutcome::Accepted(_)) {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
