//! The server that is attacked. It takes every message and throws it away.

use std::net::SocketAddr;

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, SaslError, ScramKey, ScramUser, Server,
    ServerOptions, Tls, accepted, handlers,
    session::ServerSettings,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::pki::tls;

use crate::process::{Process, end_with_parent};

/// Loopback has ten times the limits of other networks. The clients here are to have those of
/// others: 100 connections of a network, and 300 of a wider one.
const OF_LOOPBACK: usize = 10;

/// Where the server listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// In clear, with AUTH.
    pub(crate) plain: SocketAddr,
    /// Under implicit TLS.
    pub(crate) tls: SocketAddr,
}

impl Target {
    pub(crate) fn of(process: &Process) -> Self {
        let [plain, tls] = process.addresses[..] else { panic!("two listeners") };
        Self { plain, tls }
    }
}

#[derive(Clone)]
struct Discard;

impl Handler for Discard {
    async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        Ok(accepted!("250 2.0.0 Thrown away"))
    }

    /// A password of an unknown user is checked against a key that is made up, in the same time.
    async fn scram_key(&mut self, _: &Context, _: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        Ok(None)
    }
}

/// Serves this many connections.
pub(crate) fn main(connections: &str) {
    end_with_parent();
    let connections = connections.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(serve(connections));
}

async fn serve(connections: usize) {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a name"));
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    settings.offers.chunking = true;
    let listen = async |tls| {
        let listener = Listener::bind("127.0.0.1:0", settings.clone()).await.expect("a port");
        listener.with_tls(tls)
    };
    let (plain, implicit) = (listen(Tls::Off).await, listen(Tls::Implicit(tls("mx.test").0)).await);
    let address = |listener: &Listener| listener.local_address().expect("an address");
    println!("{} {}", address(&plain), address(&implicit));
    let mut options = ServerOptions::default();
    options.connections = connections;
    options.connections_per_network /= OF_LOOPBACK;
    options.connections_per_prefix /= OF_LOOPBACK;
    Server::new(handlers::cloned(Discard)).with_options(options).listen(plain).listen(implicit).serve().await;
}
