//! Sends many messages to one server, and says how many there were in a second.
//!
//! ```text
//! cargo run --release --bin bulk -- 127.0.0.1:2525 10000
//! cargo run --release --bin bulk -- 127.0.0.1:2525 10000 10 1024 data
//! ```
//!
//! After the number of messages come that of the connections and the octets of a message, and
//! `data` for DATA where the server offers BDAT as well.

use std::{error::Error, time::Instant};

use bytes::Bytes;
use posthaste::client::{ClientOptions, Message, Pool, PoolOptions, Tcp};

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, messages, rest @ ..] = arguments.as_slice() else {
        return Err("say to whom and how many: `bulk ADDRESS MESSAGES [CONNECTIONS] [OCTETS] [data]`".into());
    };
    let number = |place: usize, default: usize| rest.get(place).map_or(Ok(default), |number| number.parse());
    let mut options = ClientOptions::new("localhost".parse()?);
    options.session.chunking = rest.get(2).is_none_or(|way| way != "data");
    let mut limits = PoolOptions::default();
    // As many on a connection as there are, as with other generators of load.
    (limits.connections, limits.messages) = (number(0, 10)?, u32::MAX);
    let content = text(number(1, 1_024)?);
    let pool = Pool::with([server.as_str()], options, limits, Tcp::default())?;

    let begun = Instant::now();
    let messages = (0..messages.parse::<usize>()?)
        .filter_map(|_| Message::new("me@example.org", ["you@example.net"], content.clone()).ok());
    let (mut taken, mut failed) = (0_u32, 0_u32);
    let mut all = pool.send_all(messages);
    while let Some((number, sent)) = all.next().await {
        let sent = sent?;
        sent.failed().for_each(|failed| eprintln!("message {number}: {failed}"));
        if sent.is_complete() { taken += 1 } else { failed += 1 }
    }
    drop(all);
    let took = begun.elapsed();
    pool.close().await;
    println!("{taken} taken, {failed} failed, {:.0} a second", f64::from(taken) / took.as_secs_f64());
    Ok(())
}

/// A message of this number of octets, or a few more.
fn text(octets: usize) -> Bytes {
    let mut text = b"Subject: hello\r\n\r\n".to_vec();
    while text.len() + 2 < octets {
        let line = (octets - text.len() - 2).min(76);
        text.resize(text.len() + line, b'a');
        text.extend_from_slice(b"\r\n");
    }
    text.into()
}
