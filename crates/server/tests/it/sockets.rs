//! Sockets of all kinds, and several listeners with settings of their own in one server.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
};

use posthaste_server::{
    Listener, PeerAddress, Server, Tls,
    session::server::Protocol,
    wire::{Mechanism, MechanismSet},
};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Names, settings};

/// The client of the message that came last.
fn seen(names: &Names) -> PeerAddress {
    names.seen.lock().unwrap().pop().unwrap().0.address
}

#[tokio::test]
async fn listeners_with_roles_of_their_own_share_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lmtp");
    let (config, client) = tls("mx.test");
    let mut submission = settings();
    submission.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    submission.offers.demand_auth = true;
    let mut lmtp = settings();
    lmtp.protocol = Protocol::Lmtp;

    let mx = Listener::bind("127.0.0.1:0", settings()).await.unwrap().with_tls(Tls::StartTls(config.clone()));
    let port_587 = Listener::bind("127.0.0.1:0", submission.clone()).await.unwrap();
    let port_587 = port_587.with_tls(Tls::StartTls(config.clone()));
    let port_465 = Listener::bind("127.0.0.1:0", submission).await.unwrap().with_tls(Tls::Implicit(config));
    let lmtp = Listener::bind_unix(&path, 0o600, lmtp).await.unwrap();
    let names = Names::default();
    let server = Server::new(names.clone()).listen(mx).listen(port_587).listen(port_465).listen(lmtp);
    let [mx, port_587, port_465, PeerAddress::Local] = server.local_addresses().to_vec()[..] else { panic!() };
    let [mx, port_587, port_465] = [mx, port_587, port_465].map(|address| match address {
        PeerAddress::Ip(address) => address,
        _ => panic!("{address}"),
    });
    let running = tokio::spawn(server.serve());

    let mut talk = Talk::connect(mx).await;
    assert!(talk.reply().await.contains("ESMTP"));
    let offers = talk.ask("EHLO c.test").await;
    assert!(offers.contains("STARTTLS") && !offers.contains("AUTH"), "{offers}");
    assert!(talk.message("a@b.test", "x").await.starts_with("250"));
    talk.expect("LHLO c.test", "500").await;

    let mut talk = Talk::connect(port_587).await.greeted().await;
    talk.expect("MAIL FROM:<a@b.test>", "530 5.7.0").await;
    talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "538").await;
    talk.expect("STARTTLS", "220").await;
    let mut secure = [
        Talk::new(handshake(talk.stream, &client).await),
        Talk::new(handshake(TcpStream::connect(port_465).await.unwrap(), &client).await),
    ];
    assert!(secure[1].reply().await.starts_with("220"));
    for talk in &mut secure {
        let offers = talk.ask("EHLO c.test").await;
        assert!(!offers.contains("STARTTLS") && offers.contains("AUTH PLAIN"), "{offers}");
        talk.expect("MAIL FROM:<a@b.test>", "530 5.7.0").await;
        talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
        assert!(talk.message("a@b.test", "x").await.starts_with("250"));
    }

    names.seen.lock().unwrap().clear();
    let mut talk = Talk::new(UnixStream::connect(&path).await.unwrap());
    assert!(talk.reply().await.contains("LMTP"));
    talk.expect("EHLO c.test", "500").await;
    talk.expect("LHLO c.test", "250").await;
    assert!(talk.message("a@b.test", "x").await.starts_with("250"));
    assert_eq!(seen(&names), PeerAddress::Local);
    running.abort();
}

#[tokio::test]
async fn a_socket_for_ipv6_takes_both_and_shows_ipv4_as_such() {
    let listener = match Listener::bind("[::]:0", settings()).await {
        Ok(listener) => listener,
        // A machine without IPv6.
        Err(error) => return assert!(error.to_string().starts_with("cannot listen on [::]:0: "), "{error}"),
    };
    let port = listener.local_address().unwrap().port();
    let names = Names::default();
    let running = tokio::spawn(Server::new(names.clone()).listen(listener).serve());
    for host in ["127.0.0.1", "::1"] {
        let mut talk = Talk::connect((host, port)).await.greeted().await;
        talk.message("a@b.test", "x").await;
        assert_eq!(seen(&names), PeerAddress::Ip(talk.stream.local_addr().unwrap()));
    }
    let error = Listener::bind(("0.0.0.0", port), settings()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    running.abort();
}

#[tokio::test]
async fn open_sockets_that_block_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = Server::new(Names::default())
        .listen(Listener::from_tcp(tcp, settings()).unwrap())
        .listen(Listener::from_unix(unix, settings()).unwrap());
    let running = tokio::spawn(server.serve());
    // On one thread: a socket that blocks would hold the test.
    Talk::connect(address).await.greeted().await;
    Talk::new(UnixStream::connect(&path).await.unwrap()).greeted().await;
    running.abort();
}

#[tokio::test]
async fn a_unix_socket_has_its_permissions_and_replaces_a_stale_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let bind = async |mode| Listener::bind_unix(&path, mode, settings()).await;
    for mode in [0o600, 0o666] {
        // The second time the socket of the first is there, on which no program listens.
        let listener = bind(mode).await.unwrap();
        let file = path.metadata().unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, mode);
        let error = bind(mode).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = format!("cannot listen on {}: another program listens there; stop it first", path.display());
        assert_eq!(error.to_string(), text);
        drop(listener);
    }
    for file in ["file", "folder", "link"] {
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
        match file {
            "file" => std::fs::write(&path, "precious").unwrap(),
            "folder" => std::fs::create_dir(&path).unwrap(),
            _ => std::os::unix::fs::symlink("/nonexistent", &path).unwrap(),
        }
        let error = bind(0o600).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{file}");
        assert!(error.to_string().contains("a file that is no socket is there"), "{error}");
        assert!(path.symlink_metadata().is_ok());
    }
    let error = Listener::bind_unix(folder.path().join("no/where"), 0o600, settings()).await.unwrap_err();
    assert!(error.to_string().contains("no/where: No such file"), "{error}");
}
