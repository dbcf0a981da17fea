//! Connections from a source that the options name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use posthaste_client::{Client, Dial, HttpConnect, Server, Tcp, Tls};
use tokio::net::TcpListener;

use crate::support::options;

/// The address from which a connection to a listener here comes.
async fn source(tcp: &Tcp, listener: &TcpListener) -> IpAddr {
    let server = Server::Address(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(tcp.dial(&server), listener.accept());
    assert!(stream.unwrap().nodelay().unwrap());
    accepted.unwrap().1.ip()
}

/// Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_comes_from_the_source_of_the_servers_family() {
    let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let v6 = TcpListener::bind("[::1]:0").await.unwrap();
    let mut tcp = Tcp::default();
    assert_eq!(source(&tcp, &v4).await, Ipv4Addr::LOCALHOST);
    let other = Ipv4Addr::new(127, 0, 0, 9);
    tcp.source_v4 = Some(other);
    assert_eq!(source(&tcp, &v4).await, other);
    assert_eq!(source(&tcp, &v6).await, Ipv6Addr::LOCALHOST, "the other family has the system's choice");
    tcp.source_v6 = Some(Ipv6Addr::LOCALHOST);
    tcp.interface = Some("lo".into());
    assert_eq!((source(&tcp, &v4).await, source(&tcp, &v6).await), (other.into(), Ipv6Addr::LOCALHOST.into()));
    tcp.source_v4 = None;
    assert_eq!(source(&tcp, &v4).await, Ipv4Addr::LOCALHOST);
}

#[tokio::test]
async fn a_source_that_this_machine_does_not_have_is_an_error_that_names_it() {
    // A listener, so that only the source can be at fault.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, options) = (listener.local_addr().unwrap(), options(Tls::Off));
    let mut tcp = Tcp::default();
    tcp.source_v4 = Some(Ipv4Addr::new(203, 0, 113, 7));
    let error = Client::connect_by(&tcp, server, &options).await.unwrap_err().to_string();
    let start = format!("no connection to {server}: the source address 203.0.113.7 cannot be used: ");
    assert!(error.starts_with(&start) && error.contains("; name one that this machine has"), "{error}");

    let proxy = HttpConnect::new(server).unwrap().over(tcp);
    let error = Client::connect_by(&proxy, "mx.test:25", &options).await.unwrap_err().to_string();
    assert!(error.contains(&format!("no connection to the proxy {server}: the source address 203.0.113.7")), "{error}");

    let mut tcp = Tcp::default();
    tcp.source_v6 = Some("2001:db8::7".parse().unwrap());
    let error = Client::connect_by(&tcp, "[::1]:1", &options).await.unwrap_err().to_string();
    assert!(error.contains("the source address 2001:db8::7 cannot be used: "), "{error}");
    assert!(options.health.servers().is_empty(), "the server is not at fault");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_source_from_which_the_server_is_not_reached_is_an_error_that_names_it() {
    let mut tcp = Tcp::default();
    tcp.source_v4 = Some(Ipv4Addr::LOCALHOST);
    // Documentation's addresses: no packet leaves from loopback to there.
    let server = Server::Address(SocketAddr::from(([198, 51, 100, 7], 25)));
    let error = tcp.dial(&server).await.unwrap_err().to_string();
    assert!(
        error.starts_with("the source address 127.0.0.1 cannot be used: ") || error.contains("unreachable"),
        "{error}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_interface_that_does_not_exist_is_an_error_that_names_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for name in ["none0", "", "lo\0", "a-name-that-is-too-long"] {
        let mut tcp = Tcp::default();
        tcp.interface = Some(name.into());
        let error = Client::connect_by(&tcp, listener.local_addr().unwrap(), &options(Tls::Off)).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("the interface {name:?} cannot be used: ")), "{error}");
        assert!(error.ends_with("; name one that `ip link` lists"), "{error}");
    }
}
