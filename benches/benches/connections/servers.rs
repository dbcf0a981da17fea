//! The servers that are measured. Each says its address on a line, and ends with its input.

use std::future::ready;

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, ServerOptions, Tls, accepted,
    session::ServerSettings,
};
use posthaste_testkit::pki::tls;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::process::end_with_parent;

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours, which throws each message away.
    Plain,
    /// The same under implicit TLS.
    Tls,
    /// A greeting and an echo on tokio-rustls.
    Bare,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Bare => "bare",
        }
    }
}

pub(crate) fn main(name: &str) {
    let kind = [Kind::Plain, Kind::Tls, Kind::Bare].into_iter().find(|kind| kind.name() == name).expect("a server");
    end_with_parent();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(serve(kind));
}

#[derive(Clone)]
struct Discard;

impl Handler for Discard {
    async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while body.next().await?.is_some() {}
        Ok(accepted!("250 2.0.0 Thrown away"))
    }
}

async fn serve(kind: Kind) {
    let (config, _) = tls("mx.test");
    if kind == Kind::Bare {
        return echo(TlsAcceptor::from(config)).await;
    }
    let settings = ServerSettings::new("mx.test".parse().expect("a name"));
    let tls = if kind == Kind::Tls { Tls::Implicit(config) } else { Tls::Off };
    let listener = Listener::bind("127.0.0.1:0", settings).await.expect("a port").with_tls(tls);
    println!("{}", listener.local_address().expect("an address"));
    let mut options = ServerOptions::default();
    (options.connections, options.connections_per_network, options.connections_per_prefix) =
        (100_000, 100_000, 100_000);
    Server::new(|_| ready(Ok(Discard))).with_options(options).listen(listener).serve().await;
}

async fn echo(acceptor: TlsAcceptor) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.write_all(b"220 mx.test\r\n").await;
            let _ = stream.flush().await;
            let mut octets = [0; 1_024];
            while let Ok(read @ 1..) = stream.read(&mut octets).await {
                let _ = stream.write_all(octets.get(..read).unwrap_or_default()).await;
                let _ = stream.flush().await;
            }
            let _ = stream.shutdown().await;
        });
    }
}
