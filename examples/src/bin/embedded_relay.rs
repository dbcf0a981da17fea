//! The shortest application that embeds the relay: mail from this host goes to a smart host.
//!
//! ```text
//! cargo run --bin embedded_relay -- /tmp/queue smarthost.example.org
//! ```

use std::error::Error;

use posthaste_relay::{
    NextHop, Relay, RelayOptions, Route, Routes, TracingObserver,
    client::SystemResolver,
    offers,
    queue::log::{LogOptions, LogQueue},
    server::{CancellationToken, Listener, ServerOptions, session::ServerSettings},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (Some(folder), Some(smarthost)) = (std::env::args().nth(1), std::env::args().nth(2)) else {
        return Err("usage: embedded_relay QUEUE-FOLDER SMARTHOST".into());
    };
    let queue = LogQueue::open(folder, LogOptions::default())?;
    let mut options = RelayOptions::new("localhost".parse()?);
    options.policy.relay_from.push("127.0.0.0/8".parse()?);
    let to = NextHop::Hosts(vec![(smarthost, 25)]);
    options.routes = Routes::new(vec![Route::new(vec!["*".parse()?], to)]);

    let relay = Relay::new(queue, SystemResolver, options, TracingObserver);
    let mut settings = ServerSettings::new("localhost".parse()?);
    settings.offers = offers();
    let listener = Listener::bind("127.0.0.1:2525".parse()?, settings, Default::default()).await?;
    relay.serve(vec![listener], ServerOptions::default(), CancellationToken::new()).await?;
    Ok(())
}
