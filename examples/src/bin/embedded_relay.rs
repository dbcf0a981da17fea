//! The shortest application that embeds the relay: mail from this host goes to a smart host.
//!
//! ```text
//! cargo run --bin embedded_relay -- 127.0.0.1:2525 smarthost.example.org:25 /tmp/queue
//! ```

use std::error::Error;

use posthaste::relay::{
    Relay, RelayOptions, Route, RouteTable,
    client::SystemResolver,
    queue::log::{LogOptions, LogQueue},
    server::Listener,
};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, smarthost, folder] = &arguments[..] else {
        return Err("usage: embedded_relay ADDRESS SMARTHOST:PORT QUEUE-FOLDER".into());
    };
    let (host, port) = smarthost.rsplit_once(':').ok_or("the smart host is HOST:PORT")?;
    let queue = LogQueue::open(folder, LogOptions::default())?;
    let mut options = RelayOptions::new("localhost".parse()?);
    options.policy.relay_from.push("127.0.0.0/8".parse()?);
    options.routes = RouteTable::all(Route::hosts([(host, port.parse()?)]));

    let relay = Relay::new(queue, SystemResolver, options);
    let listener = Listener::bind(address, relay.settings()).await?;
    println!("listening on {}", listener.local_address()?);
    relay.serve(relay.server().listen(listener), async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
    Ok(())
}
