//! Sends a letter of its own to each address, many at a time, over a pool. Waits, and tries again
//! those that failed for now.
//!
//! ```text
//! cargo run --bin send_many -- 127.0.0.1:2525 me@example.org 60 < addresses
//! ```

use std::{error::Error, process::ExitCode, time::Duration};

use posthaste::client::{ClientOptions, Delivered, Pool, SendError, Tls};
use tokio::task::JoinSet;

/// Attempts for each address. More of them, over days, are the work of a relay with its queue.
const ATTEMPTS: u32 = 3;

/// Letters that are written at a time. The pool has 10 connections; the others wait for one.
const AT_ONCE: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, from, seconds] = &arguments[..] else { return Err("usage: send_many HOST:PORT FROM SECONDS".into()) };
    let wait = Duration::from_secs(seconds.parse()?);
    let mut options = ClientOptions::new("localhost".parse()?);
    options.tls = Tls::opportunistic()?;
    let pool = Pool::new([server], options)?;

    let mut open: Vec<String> = std::io::read_to_string(std::io::stdin())?.lines().map(str::to_owned).collect();
    let mut failed = 0;
    for attempt in 1..=ATTEMPTS {
        let mut again = Vec::new();
        let mut under_way = JoinSet::new();
        let mut addresses = open.into_iter();
        loop {
            for to in addresses.by_ref().take(AT_ONCE - under_way.len()) {
                let (pool, from) = (pool.clone(), from.clone());
                under_way.spawn(async move {
                    let letter = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: hello\r\n\r\nHello {to}!\r\n");
                    (pool.send(from, [&to], letter).await, to)
                });
            }
            let Some(done) = under_way.join_next().await else { break };
            let (sent, to) = done?;
            let (line, is_permanent) = outcome(&sent);
            println!("{to}: {line}");
            match is_permanent {
                None => {}
                Some(false) if attempt < ATTEMPTS => again.push(to),
                Some(_) => failed += 1,
            }
        }
        if again.is_empty() {
            break;
        }
        tokio::time::sleep(wait).await;
        open = again;
    }
    pool.close().await;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The outcome of a letter with one recipient, and if its failure is permanent. `None`: it arrived.
fn outcome(sent: &Result<Delivered, SendError>) -> (String, Option<bool>) {
    match sent {
        Ok(sent) => match sent.failed().next() {
            None => ("sent".to_owned(), None),
            // One in doubt may get the letter twice, which is better than not at all.
            Some(recipient) => (recipient.to_string(), Some(recipient.is_permanent())),
        },
        // Either the address is wrong, or no server could be reached.
        Err(error) => (error.to_string(), Some(error.is_permanent())),
    }
}
