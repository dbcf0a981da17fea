//! A public mail host behind layers, which turn away what is no mail. Their log goes to stderr.
//!
//! ```text
//! cargo run --bin mx -- 127.0.0.1:2525 jo,kim bl.example.net
//! ```
//!
//! The last argument is a DNS block list, and may be left out.

use std::{collections::HashSet, error::Error, future::ready, time::Duration};

use posthaste::client::{HickoryResolver, Resolver as _};
use posthaste::server::layers::{
    BlockList, EarlyTalkers, Greylist, Headers, Log, Observed, RateLimit, Recipients, Tarpit,
};
use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service as _, accepted,
    session::ServerSettings,
};

struct Print;

impl Handler for Print {
    async fn message(&mut self, _: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(16 << 20).await?;
        println!("{} octets from {}", content.len(), envelope.mail.reverse_path);
        Ok(accepted!("250 2.0.0 Printed"))
    }
}

/// A block list that works, or an error that says why it does not.
async fn block_list(zone: &str) -> Result<BlockList, Box<dyn Error>> {
    let resolver = HickoryResolver::system()?;
    let list = BlockList::new(zone, move |name| {
        let resolver = resolver.clone();
        async move { resolver.addresses(&name).await.map(|answer| answer.records) }
    });
    list.test().await?;
    Ok(list)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, users, zone) = match &arguments[..] {
        [address, users] => (address, users, None),
        [address, users, zone] => (address, users, Some(zone)),
        _ => return Err("usage: mx ADDRESS USER,USER.. [BLOCK-LIST]".into()),
    };
    let users: HashSet<String> = users.split(',').map(str::to_owned).collect();
    let list = match zone {
        Some(zone) => Some(block_list(zone).await?),
        None => None,
    };
    let minute = Duration::from_secs(60);

    // The last one decides first. Greylisting is on trial: the log tells what it would refuse.
    let inbox = |_| ready(Ok(Print));
    let service = inbox
        .layer(Headers::default())
        .layer(Recipients::new(move |mailbox| ready(Ok(users.contains(mailbox.local_part())))))
        .layer(Observed::new("greylist", Greylist::default()))
        .layer(list)
        .layer(Tarpit::default())
        .layer(RateLimit::recipients(1_000, 60 * minute))
        .layer(RateLimit::connections(30, minute))
        .layer(EarlyTalkers::default())
        .layer(Log::default());
    let listener = Listener::bind(address, ServerSettings::new("localhost".parse()?)).await?;
    println!("listening on {}", listener.local_address()?);
    let ended = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Server::new(service).listen(listener).with_graceful_shutdown(ended).serve().await;
    Ok(())
}
