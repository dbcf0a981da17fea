//! A route to several LMTP servers over TCP, one of which is not there.
#![allow(clippy::unwrap_used, reason = "a test fails there and says where")]

mod support;

use std::fs;
use std::sync::{Arc, Mutex};

use posthaste::server::session::ServerSettings;
use posthaste::server::{Listener, Server, accepted, handlers};
use support::client::Smtp;
use support::free_port;
use support::relay::{Config, Relay};

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_shares_mail_among_lmtp_hosts_and_passes_over_one_that_is_dead() {
    let (mut ports, mut counts) = (vec![free_port()], Vec::new());
    for _ in 0..2 {
        let count = Arc::new(Mutex::new(0));
        let taken = Arc::clone(&count);
        let service = handlers::message(move |_, _, body| {
            let taken = Arc::clone(&taken);
            async move {
                body.collect(1_000).await?;
                *taken.lock().unwrap() += 1;
                Ok(accepted!("250 2.0.0 Delivered"))
            }
        });
        let settings = ServerSettings::lmtp("localhost".parse().unwrap());
        let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
        ports.push(listener.local_address().unwrap().port());
        counts.push(count);
        tokio::spawn(Server::new(service).listen(listener).serve());
    }
    let relay = tokio::task::spawn_blocking(move || {
        let mut relay = Relay::prepare(&Config { next_hops: vec![free_port()], ..Config::default() });
        let [dead, first, second] = ports[..] else { unreachable!() };
        let to = format!(
            "to = [\"lmtp:127.0.0.1:{dead}\", [\"lmtp:127.0.0.1:{first}\", \"lmtp:127.0.0.1:{second}\"]]\ntls = \"off\"\n"
        );
        let text = fs::read_to_string(relay.config()).unwrap();
        let (before, after) = text.split_once("[[route]]").unwrap();
        let route = format!("{before}[[route]]\ndomains = [\"lmtp.test\"]\n{to}[[route]]{after}");
        fs::write(relay.config(), route).unwrap();
        relay.start_again();
        let mut client = Smtp::ehlo(relay.port);
        for _ in 0..8 {
            client.open("me@sender.test", "jo@lmtp.test");
            client.send("Subject: x\r\n\r\nHello\r\n.\r\n");
            assert_eq!(client.reply().code, 250);
        }
        relay.wait_queued(0);
        relay
    });
    let relay = relay.await.unwrap();
    assert_eq!(counts.iter().map(|count| *count.lock().unwrap()).sum::<u32>(), 8);
    tokio::task::spawn_blocking(move || drop(relay)).await.unwrap();
}
