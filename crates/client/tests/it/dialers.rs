//! Which servers a dialer gets, and what its errors say.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use posthaste_client::{Client, ConnectError, Dial, Endpoint, Pool, PoolOptions, Server, Stage, Tls};
use posthaste_testkit::script::{polite, serve};
use tokio::io::DuplexStream;

use crate::support::options;

const TEXT: &str = "Subject: hello\r\n\r\nHello!\r\n";

/// Leads to one polite server, and notes what it was asked for.
#[derive(Debug, Clone, Default)]
struct Tunnel {
    asked: Arc<Mutex<Vec<Server>>>,
    fails: bool,
}

impl Dial for Tunnel {
    type Stream = DuplexStream;

    fn resolves_names(&self) -> bool {
        true
    }

    async fn dial(&self, server: &Server) -> io::Result<DuplexStream> {
        self.asked.lock().unwrap().push(server.clone());
        if self.fails {
            Err(io::Error::other("the tunnel is shut"))
        } else {
            Ok(serve(|_, line| polite(line, &[]), None).0)
        }
    }
}

#[tokio::test]
async fn a_dialer_that_resolves_names_gets_them_without_a_look_up() {
    for (endpoint, asked) in [
        ("no-such-host.invalid:25", Server::Name("no-such-host.invalid".into(), 25)),
        ("192.0.2.1:587", Server::Address(([192, 0, 2, 1], 587).into())),
        ("[2001:db8::1]:25", Server::Address("[2001:db8::1]:25".parse().unwrap())),
        ("unix:/run/lmtp", Server::Path(Path::new("/run/lmtp").into())),
    ] {
        let tunnel = Tunnel::default();
        let client = Client::connect_by(&tunnel, endpoint, &options(Tls::Off)).await.unwrap();
        assert_eq!(client.server().unwrap().server, asked);
        let pool = Pool::with([endpoint], options(Tls::Off), PoolOptions::default(), tunnel.clone()).unwrap();
        assert!(pool.send("me@s.test", ["you@d.test"], TEXT).await.unwrap().is_complete());
        assert_eq!(*tunnel.asked.lock().unwrap(), [asked.clone(), asked]);
    }
}

#[cfg(feature = "idna")]
#[tokio::test]
async fn a_name_in_u_labels_goes_to_the_dialer_in_a_labels() {
    let tunnel = Tunnel::default();
    Client::connect_by(&tunnel, ("b\u{fc}cher.test", 25), &options(Tls::Off)).await.unwrap();
    assert_eq!(*tunnel.asked.lock().unwrap(), [Server::Name("xn--bcher-kva.test".into(), 25)]);
}

#[tokio::test]
async fn a_dialers_own_error_names_the_server_and_is_not_the_servers_failure() {
    let tunnel = Tunnel { fails: true, ..Tunnel::default() };
    let options = options(Tls::Off);
    let error = Client::connect_by(&tunnel, "mx.test:25", &options).await.unwrap_err();
    assert_eq!(error.to_string(), "no connection to mx.test:25: the tunnel is shut");
    assert!(matches!(error, ConnectError::Tcp { .. }) && error.stage() == Stage::Connect && error.is_transient());
    assert!(options.health.servers().is_empty());
}

#[tokio::test]
async fn tcp_without_an_address_is_an_error_with_a_remedy() {
    let error = Client::connect(Endpoint::from(Path::new("/run/lmtp")), &options(Tls::Off)).await.unwrap_err();
    assert!(error.to_string().starts_with("no connection to unix:/run/lmtp: TCP needs an address; "), "{error}");
    assert!(error.is_permanent());
}
