//! Sends the demo's messages over a number of connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use posthaste::client::{
    Client, ClientOptions, Recipient, RecipientOutcome,
    wire::{ForwardPath, Mail, Mailbox, Rcpt, ReversePath},
};
use tokio::task::JoinSet;

use super::{content, ledger::Ledger};

/// Sends messages 0 to `messages`; what is not accepted is a fault.
pub(super) async fn run(relay: SocketAddr, messages: u32, connections: u32, ledger: Arc<Ledger>) -> Result<(), String> {
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (next, ledger) = (Arc::clone(&next), Arc::clone(&ledger));
        tasks.spawn(async move { one(relay, messages, &next, &ledger).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn one(relay: SocketAddr, messages: u32, next: &AtomicU32, ledger: &Ledger) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut options = ClientOptions::new("loader.test".parse().map_err(|error| text(&error))?);
    options.connect_timeout = Duration::from_secs(10);
    let mut client = Client::connect(relay, &options).await.map_err(|error| text(&error))?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= messages {
            break;
        }
        let (from, to, body) = (content::sender(number), content::recipient(number), content::content(number));
        let mail = Mail::new(ReversePath::Mailbox(Mailbox::parse(&from).map_err(|error| text(&error))?));
        let rcpt = Rcpt::new(ForwardPath::Mailbox(Mailbox::parse(&to).map_err(|error| text(&error))?));
        let octets = body.len();
        let sent = client.transact(mail, &[rcpt], body).await;
        match (&sent.recipients[..], sent.broken) {
            ([Recipient { outcome: RecipientOutcome::Accepted(_), .. }], None) => ledger.acknowledged(number, octets),
            (outcome, broken) => return Err(format!("message {number} was not accepted: {outcome:?} {broken:?}")),
        }
    }
    client.quit().await;
    Ok(())
}
