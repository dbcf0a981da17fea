//! A public mail host behind layers, which turn away what is no mail: greylisting among them. Their
//! log goes to stderr.
//!
//! ```text
//! cargo run --bin mx -- 127.0.0.1:2525 jo@example.net,kim@example.net bl.example.net
//! ```
//!
//! The last argument is a DNS block list, and may be left out.

use std::{collections::HashSet, error::Error, future::ready, time::Duration};

use posthaste::client::{HickoryResolver, Resolver as _};
use posthaste::server::layers::{
    BlockList, EarlyTalkers, Greylist, Headers, Log, Observed, RateLimit, Received, Recipients, Tarpit,
};
use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service, accepted, handlers,
    session::ServerSettings,
};

#[derive(Clone)]
struct Print;

impl Handler for Print {
    async fn message(&mut self, _: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(16 << 20).await?;
        println!("{} octets from {}", content.len(), envelope.mail.reverse_path);
        Ok(accepted!("250 2.0.0 Printed"))
    }
}

/// A block list that works, or an error that says why it does not.
async fn block_list(zone: &str, resolver: HickoryResolver) -> Result<BlockList, Box<dyn Error>> {
    let list = BlockList::new(zone, move |name| {
        let resolver = resolver.clone();
        async move { resolver.addresses(&name).await.map(|answer| answer.records) }
    });
    list.test().await?;
    Ok(list)
}

/// `users`: their addresses, in lower case. The last layer decides first. The block list is on
/// trial: the log tells what it would refuse.
fn service(users: HashSet<String>, list: Option<BlockList>) -> impl Service {
    let minute = Duration::from_secs(60);
    handlers::cloned(Print)
        .layer(Received::default())
        .layer(Headers::default())
        .layer(Greylist::default())
        .layer(Recipients::new(move |mailbox| ready(Ok(users.contains(&mailbox.as_str().to_ascii_lowercase())))))
        .layer(list.map(|list| Observed::new("block list", list)))
        .layer(Tarpit::default())
        .layer(RateLimit::recipients(1_000, 60 * minute))
        .layer(RateLimit::connections(30, minute))
        .layer(EarlyTalkers::default())
        .layer(Log::default())
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, users, zone) = match &arguments[..] {
        [address, users] => (address, users, None),
        [address, users, zone] => (address, users, Some(zone)),
        _ => return Err("usage: mx ADDRESS MAILBOX,MAILBOX.. [BLOCK-LIST]".into()),
    };
    let users: HashSet<String> = users.to_ascii_lowercase().split(',').map(str::to_owned).collect();
    let list = match zone {
        Some(zone) => Some(block_list(zone, HickoryResolver::system()?).await?),
        None => None,
    };
    let listener = Listener::bind(address, ServerSettings::new("localhost".parse()?)).await?;
    println!("listening on {}", listener.local_address()?);
    let ended = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    Server::new(service(users, list)).listen(listener).with_graceful_shutdown(ended).serve().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use posthaste::server::test::Client;
    use posthaste_testkit::dns::{Kind, Signed};

    use super::*;

    #[tokio::test]
    async fn a_list_in_the_dns_is_tried_at_the_start_and_asked_about_each_client() {
        let list = "2.0.0.127 A 127.0.0.2\n1.100.51.198 A 127.0.0.4\n2.100.51.198 A 192.0.2.1\n";
        let names_all = "*.0.0.127 A 127.0.0.2\n";
        let zones = [("bl", list), ("wild", names_all), ("empty", "")].map(|(zone, list)| (zone, Kind::Unsigned, list));
        let servers = Signed::start(&zones).await;
        let resolver = HickoryResolver::with_servers(&[servers.address]).unwrap();
        for (zone, error) in [("wild", "names 127.0.0.1"), ("empty", "does not name 127.0.0.2")] {
            let tried = block_list(zone, resolver.clone()).await.map_err(|error| error.to_string());
            assert!(tried.is_err_and(|text| text.contains(error)), "{zone}");
        }
        let list = block_list("bl", resolver).await.unwrap();
        let listed = Client::connect(handlers::cloned(Print).layer(list)).peer("198.51.100.1").await;
        for (address, reply) in [("198.51.100.1", "550 5.7.1"), ("198.51.100.2", "250"), ("198.51.100.3", "250")] {
            let mut client = listed.another_from(address).await;
            client.ehlo().await;
            client.send("a@b.test", ["jo@d.test"], "Subject: x\r\n\r\n").await.expect(reply);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mail_to_users_gets_in_at_the_second_attempt_of_its_network() {
        let users = HashSet::from(["jo@d.test".to_owned()]);
        let mut client = Client::connect(service(users, None)).await;
        client.ehlo().await;
        let letter = "Subject: x\r\n\r\nHello\r\n";
        client.send("a@b.test", ["amy@d.test", "jo@other.test", "Jo@D.test"], letter).await.expect_each([
            "550 5.1.1",
            "550 5.1.1",
            "451 4.7.1",
        ]);
        client.wait(Duration::from_secs(61)).await;
        client.send("a@b.test", ["jo@d.test"], letter).await.expect("250 2.0.0 Printed");
        // The network is known now, and the next one is not.
        client.send("c@b.test", ["jo@d.test"], letter).await.expect("250 2.0.0 Printed");
        let mut other = client.another_from("198.51.100.1").await;
        other.ehlo().await;
        other.send("a@b.test", ["jo@d.test"], letter).await.expect("451 4.7.1");
    }
}
