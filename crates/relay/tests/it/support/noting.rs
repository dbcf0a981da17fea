//! A next hop that notes from where each message came.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_relay::{Route, Source, SourcePool};
use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service, Tls, accepted, refusal,
    session::{ServerSettings, server::Offers},
    wire::{Mail, Rcpt},
};

/// When a next hop answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    Mail,
    Rcpt,
    Body,
}

/// A next hop that notes from where each message came, under which name, and to whom it went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noting {
    taken: Arc<Mutex<Vec<(String, String, String)>>>,
    /// The certificate of each message's client, in DER. Empty: it has shown none.
    certificates: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The open connections of each address, and the most that were open at once.
    open: Arc<Mutex<HashMap<String, (usize, usize)>>>,
    /// The address that it blocks.
    blocks: Option<&'static str>,
    /// When it does so. `None`: at the connection.
    at: Option<Exchange>,
    think: Duration,
    /// The connection of a handler.
    _connection: Option<Arc<Connection>>,
}

/// Counts as open until it is dropped.
#[derive(Debug)]
struct Connection {
    address: String,
    open: Arc<Mutex<HashMap<String, (usize, usize)>>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.lock().unwrap().get_mut(&self.address).unwrap().0 -= 1;
    }
}

impl Noting {
    pub(crate) async fn start(blocks: Option<&'static str>) -> (Self, u16) {
        Self::start_at(blocks, None).await
    }

    pub(crate) async fn start_at(blocks: Option<&'static str>, at: Option<Exchange>) -> (Self, u16) {
        Self { blocks, at, ..Self::default() }.listen(Tls::Off).await
    }

    /// It waits for this time before its reply to each message.
    pub(crate) async fn slow(think: Duration) -> (Self, u16) {
        Self { think, ..Self::default() }.listen(Tls::Off).await
    }

    pub(crate) async fn with_tls(tls: Tls) -> (Self, u16) {
        Self::default().listen(tls).await
    }

    async fn listen(self, tls: Tls) -> (Self, u16) {
        let mut settings = ServerSettings::new("hop.test".parse().unwrap());
        settings.offers = super::offering(Offers::default(), |offers| offers.require_tls = true);
        let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap().with_tls(tls);
        let port = listener.local_address().unwrap().port();
        tokio::spawn(Server::new(self.clone()).listen(listener).serve());
        (self, port)
    }

    /// The address, the name and the recipient of each message.
    pub(crate) fn taken(&self) -> Vec<(String, String, String)> {
        self.taken.lock().unwrap().clone()
    }

    /// The messages that came from an address of 127.0.0.
    pub(crate) fn count(&self, last: u8) -> usize {
        let from = format!("127.0.0.{last}");
        self.taken.lock().unwrap().iter().filter(|(address, ..)| *address == from).count()
    }

    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        self.certificates.lock().unwrap().clone()
    }

    /// The most connections that were open at once from an address of 127.0.0.
    pub(crate) fn most(&self, last: u8) -> usize {
        self.open.lock().unwrap().get(&format!("127.0.0.{last}")).map_or(0, |(_, most)| *most)
    }

    fn check(&self, cx: &Context, at: Exchange) -> Result<(), Refusal> {
        match self.blocks {
            Some(blocked) if self.at == Some(at) && address(cx) == blocked => {
                Err(refusal!("554 5.7.1 Client host [{}] blocked using bl.test", blocked))
            }
            _ => Ok(()),
        }
    }
}

fn address(cx: &Context) -> String {
    let address = cx.peer.address.to_string();
    address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.to_owned())
}

impl Service for Noting {
    type Handler = Self;

    async fn connect(&self, cx: &Context) -> Result<Self, Refusal> {
        let address = address(cx);
        match self.blocks {
            Some(blocked) if address == blocked && self.at.is_none() => {
                Err(refusal!("554 5.7.1 Your address is blocked"))
            }
            _ => {
                {
                    let mut all = self.open.lock().unwrap();
                    let (open, most) = all.entry(address.clone()).or_default();
                    *open += 1;
                    *most = (*most).max(*open);
                }
                let _connection = Some(Arc::new(Connection { address, open: Arc::clone(&self.open) }));
                Ok(Self { _connection, ..self.clone() })
            }
        }
    }
}

impl Handler for Noting {
    async fn mail(&mut self, cx: &Context, _: &Mail) -> Result<(), Refusal> {
        self.check(cx, Exchange::Mail)
    }

    async fn rcpt(&mut self, cx: &Context, _: &Rcpt) -> Result<(), Refusal> {
        self.check(cx, Exchange::Rcpt)
    }

    async fn message(&mut self, cx: &Context, envelope: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        self.check(cx, Exchange::Body)?;
        tokio::time::sleep(self.think).await;
        let to = envelope.recipients[0].forward_path.to_string();
        self.taken.lock().unwrap().push((address(cx), cx.peer.hello_text(), to));
        let shown = cx.peer.certificate().map(|shown| shown.der().to_vec());
        self.certificates.lock().unwrap().push(shown.unwrap_or_default());
        Ok(accepted!("250 2.0.0 Taken"))
    }
}

/// A source with an address of 127.0.0.
pub(crate) fn source(name: &str, last: u8) -> Source {
    let mut source = Source::new(name);
    source.v4 = Some([127, 0, 0, last].into());
    source.hello = Some(format!("{name}.test").parse().unwrap());
    source
}

/// A route from these sources to a port on loopback.
pub(crate) fn through(port: u16, sources: impl IntoIterator<Item = (Source, u16)>) -> Route {
    let mut route = Route::hosts([("[127.0.0.1]", port)]);
    route.sources = Some(SourcePool::new(sources));
    route
}
