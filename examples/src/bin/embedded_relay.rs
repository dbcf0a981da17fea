//! The shortest application that embeds the relay: it submits a message, which goes to a smart
//! host. What happens to it is printed; of what fails the sender gets a report.
//!
//! ```text
//! cargo run --bin embedded_relay -- smarthost.example.org:25 /tmp/queue me@a.test you@b.test < letter
//! ```

use std::error::Error;

use posthaste::client::{Reader, SystemResolver, Text};
use posthaste::queue::Owner;
use posthaste::queue::log::{LogOptions, LogQueue};
use posthaste::relay::{Event, Relay, RelayOptions, Route, RouteTable};
use posthaste::server::Envelope;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [smarthost, folder, from, to @ ..] = &arguments[..] else {
        return Err("usage: embedded_relay SMARTHOST:PORT QUEUE-FOLDER FROM TO...".into());
    };
    let (host, port) = smarthost.rsplit_once(':').ok_or("the smart host is HOST:PORT")?;
    let mut options = RelayOptions::new("localhost".parse()?);
    options.routes = RouteTable::all(Route::hosts([(host, port.parse()?)]));
    let told = |event: &Event<'_>| match event {
        Event::Delivered { recipient, remote, .. } => println!("{recipient}: taken by {remote}"),
        Event::Failed { recipient, diagnostic, .. } => println!("{recipient}: {diagnostic}"),
        Event::Reported { sender, failed, .. } => println!("{sender}: gets a report of {failed}"),
        _ => {}
    };
    let relay = Relay::builder(LogQueue::open(folder, LogOptions::default())?, SystemResolver, options).observer(told);
    let relay = relay.build();
    relay.submit(Owner::default(), &Envelope::new(from, to)?, Text::new(Reader::new(tokio::io::stdin()))).await?;
    Ok(relay.deliver(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?)
}
