//! Next hops in this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, accepted, handlers::cloned,
    session::ServerSettings,
};
use tokio::net::TcpListener;

/// When each message was taken, by its number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(Arc<Mutex<HashMap<u64, Instant>>>);

impl Taken {
    /// When this message was taken.
    pub(crate) fn at(&self, number: u64) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[derive(Debug, Clone)]
struct Hop {
    taken: Taken,
    /// How long it thinks about each message.
    thinks: Duration,
}

impl Handler for Hop {
    async fn message(&mut self, _: &Context, envelope: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        let sender = envelope.mail.reverse_path.to_string();
        let number = sender.trim_start_matches("<m").split('@').next().and_then(|number| number.parse().ok());
        if let Some(number) = number {
            self.taken.0.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_insert_with(Instant::now);
        }
        tokio::time::sleep(self.thinks).await;
        Ok(accepted!("250 2.0.0 Taken"))
    }
}

/// Starts a next hop. Returns its port.
pub(crate) async fn start(taken: Taken, thinks: Duration) -> u16 {
    let settings = ServerSettings::new("hop.test".parse().expect("a name"));
    let listener = Listener::bind("127.0.0.1:0", settings).await.expect("a port");
    let port = listener.local_address().expect("an address").port();
    tokio::spawn(Server::new(cloned(Hop { taken, thinks })).listen(listener).serve());
    port
}

/// Starts a host that accepts connections and says nothing. Returns its port.
pub(crate) async fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    port
}
