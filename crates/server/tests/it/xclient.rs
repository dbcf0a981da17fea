//! XCLIENT and XFORWARD over real sockets: whose connection it is, and for whom it counts.

use std::sync::{Arc, Mutex};

use posthaste_server::{
    Accepted, Authentication, Body, Context, Credentials, Envelope, Handler, Listener, PeerAddress, Refusal, Server,
    ServerOptions, Service, Tls, accepted, converse, refusal,
    wire::{Mechanism, MechanismSet, Rcpt},
};
use posthaste_testkit::{
    pki::tls,
    talk::{Talk, handshake},
};
use tokio::{net::TcpStream, task::JoinHandle};
use tracing::Level;

use crate::support::{log::Log, options, settings};

/// Keeps the contexts of connections and messages. Refuses 192.0.2.66 and the recipient `refused`.
#[derive(Clone, Default)]
struct Contexts {
    connected: Arc<Mutex<Vec<Context>>>,
    messages: Arc<Mutex<Vec<Context>>>,
}

impl Service for Contexts {
    type Handler = Self;

    async fn connect(&self, cx: &Context) -> Result<Self, Refusal> {
        self.connected.lock().unwrap().push(cx.clone());
        let refused = cx.peer.address.to_string().starts_with("192.0.2.66:");
        if refused { Err(refusal!("554 5.7.1 Listed")) } else { Ok(self.clone()) }
    }
}

impl Handler for Contexts {
    async fn authenticate(&mut self, _: &Context, credentials: Credentials) -> Authentication {
        Authentication::Granted(credentials.authentication_identity)
    }

    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let refused = rcpt.forward_path.to_string().starts_with("<refused@");
        if refused { Err(refusal!("550 5.1.1 Unknown")) } else { Ok(()) }
    }

    async fn message(&mut self, cx: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        body.collect(1_000).await?;
        self.messages.lock().unwrap().push(cx.clone());
        Ok(accepted!("250 2.0.0 Yes"))
    }
}

impl Contexts {
    /// Of the message that came last.
    fn message(&self) -> Context {
        self.messages.lock().unwrap().pop().unwrap()
    }
}

struct Running {
    address: std::net::SocketAddr,
    contexts: Contexts,
    _task: JoinHandle<()>,
}

/// A server that takes both from these networks.
async fn trusting(networks: &str, tls: Tls, options: ServerOptions) -> Running {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    settings.offers.auth_in_clear = true;
    let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap().with_tls(tls);
    let address = listener.local_address().unwrap();
    let networks: posthaste_server::NetworkSet = networks.parse().unwrap();
    let listener =
        listener.with_xclient(networks.clone()).with_xforward(networks).with_proxies("127.0.0.9".parse().unwrap());
    let contexts = Contexts::default();
    let task = tokio::spawn(Server::new(contexts.clone()).with_options(options).listen(listener).serve());
    Running { address, contexts, _task: task }
}

async fn greeted(server: &Running) -> Talk<TcpStream> {
    Talk::connect(server.address).await.greeted().await
}

#[tokio::test]
async fn a_trusted_proxy_names_its_client_and_the_service_decides_about_that_one() {
    let server = trusting("127.0.0.1", Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(server.address).await;
    let proxy = PeerAddress::Ip(talk.stream.local_addr().unwrap());
    talk = talk.greeted().await;
    let offers = talk.ask("EHLO c.test").await;
    assert!(offers.contains("XCLIENT NAME ADDR") && offers.contains("XFORWARD NAME ADDR"), "{offers}");
    talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
    talk.expect("XFORWARD NAME=x.test", "250").await;
    let facts = "NAME=a.test ADDR=IPV6:2001:db8::7 PORT=1024 HELO=helo.test PROTO=SMTP DESTADDR=192.0.2.1 DESTPORT=25";
    talk.expect(&format!("XCLIENT {facts}"), "220 mx.test ESMTP").await;
    {
        let connected = server.contexts.connected.lock().unwrap();
        let [first, second] = &connected[..] else { panic!("{connected:?}") };
        assert_eq!((first.peer.address, first.peer.proxy.is_none()), (proxy, true));
        assert_eq!(first.connection, second.connection);
        let peer = &second.peer;
        assert_eq!([peer.address, peer.local].map(|a| a.to_string()), ["[2001:db8::7]:1024", "192.0.2.1:25"]);
        assert_eq!(peer.network.to_string(), "2001:db8::");
        assert_eq!((peer.hello_text().as_str(), peer.extended, &peer.identity), ("helo.test", false, &None));
        let via = peer.proxy.as_deref().unwrap();
        assert_eq!((via.address, via.client_name.as_deref()), (proxy, Some("a.test")));
    }
    // As after a greeting.
    talk.expect("MAIL FROM:<a@b.test>", "503").await;
    talk.expect("XCLIENT ADDR=192.0.2.9", "550 5.7.0").await;
    let offers = talk.ask("EHLO a.test").await;
    assert!(offers.contains("AUTH PLAIN") && !offers.contains("XCLIENT") && !offers.contains("XFORWARD"), "{offers}");
    assert!(talk.message("a@b.test", "x").await.starts_with("250"));
    let cx = server.contexts.message();
    assert_eq!((cx.peer.hello_text().as_str(), cx.peer.extended, cx.peer.identity), ("a.test", true, None));
    assert_eq!(cx.peer.address.to_string(), "[2001:db8::7]:1024");
    assert!(cx.forwarded.is_none());

    let mut talk = greeted(&server).await;
    talk.expect("XCLIENT LOGIN=me ADDR=192.0.2.8", "220").await;
    talk.expect("EHLO a.test", "250").await;
    talk.message("a@b.test", "x").await;
    let peer = server.contexts.message().peer;
    assert_eq!((peer.identity.as_deref(), peer.address.to_string().as_str()), (Some("me"), "192.0.2.8:0"));

    // Not the proxy's own, which rules may trust.
    let mut talk = greeted(&server).await;
    talk.expect("XCLIENT ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE] PORT=7", "220").await;
    talk.expect("EHLO a.test", "250").await;
    talk.message("a@b.test", "x").await;
    let peer = server.contexts.message().peer;
    assert_eq!((peer.address.to_string().as_str(), peer.network.to_string().as_str()), ("0.0.0.0:7", "0.0.0.0"));

    let mut talk = greeted(&server).await;
    talk.expect("XCLIENT ADDR=192.0.2.66", "554 5.7.1 Listed").await;
    assert_eq!(talk.reply().await, "<eof>");
}

#[tokio::test]
async fn log_lines_have_the_client_that_a_proxy_names_beside_the_proxy() {
    let log = Log::default();
    let _guard = log.listen(Level::DEBUG);
    let server = trusting("127.0.0.1", Tls::Off, ServerOptions::default()).await;
    // A name without an address: the proxy is still the client.
    let mut talk = greeted(&server).await;
    talk.expect("XCLIENT NAME=a.test", "220").await;
    talk.expect("EHLO a.test", "250").await;
    talk.expect("QUIT", "221").await;
    let line = log.line("session ended").await;
    assert!(line.contains("address=127.0.0.1:") && !line.contains("client="), "{line}");
    let mut talk = greeted(&server).await;
    talk.expect("XCLIENT ADDR=192.0.2.9 PORT=7", "220").await;
    talk.expect("EHLO a.test", "250").await;
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    let named = log.line("client named by its proxy").await;
    drop(talk);
    for line in [named, log.line("reason=Eof").await] {
        assert!(line.contains("address=127.0.0.1:") && line.contains(" client=192.0.2.9:7}"), "{line}");
    }
    // XFORWARD: of one transaction.
    let mut talk = greeted(&server).await;
    talk.expect("XFORWARD ADDR=192.0.2.10 PORT=7", "250").await;
    talk.expect("MAIL FROM:<a@b.test>", "250").await;
    talk.expect("RCPT TO:<refused@d.test>", "550").await;
    let line = log.line("recipient refused").await;
    assert!(line.contains("sender=\"<a@b.test>\" forwarded_for=192.0.2.10}") && !line.contains("client="), "{line}");
}

#[tokio::test]
async fn a_client_that_is_not_trusted_names_no_other() {
    for networks in ["", "192.0.2.0/24"] {
        let server = trusting(networks, Tls::Off, ServerOptions::default()).await;
        let mut talk = greeted(&server).await;
        let own = PeerAddress::Ip(talk.stream.local_addr().unwrap());
        let offers = talk.ask("EHLO c.test").await;
        assert!(!offers.contains("XCLIENT") && !offers.contains("XFORWARD"), "{offers}");
        talk.expect("XCLIENT ADDR=192.0.2.7 LOGIN=me", "550 5.7.0").await;
        talk.expect("XFORWARD ADDR=192.0.2.7", "550 5.7.0").await;
        talk.message("a@b.test", "x").await;
        let cx = server.contexts.message();
        assert_eq!((cx.peer.address, cx.peer.identity, cx.forwarded), (own, None, None));
    }
}

/// A proxy of one kind behind one of the other.
#[tokio::test]
async fn the_address_in_a_proxy_header_is_the_one_that_is_trusted() {
    let server = trusting("192.0.2.7", Tls::Off, ServerOptions::default()).await;
    for (source, code) in [("192.0.2.7", "220"), ("192.0.2.8", "550")] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let mut talk = Talk::new(socket.connect(server.address).await.unwrap());
        talk.send(format!("PROXY TCP4 {source} 192.0.2.1 5 25\r\n")).await;
        let mut talk = talk.greeted().await;
        talk.expect("XCLIENT ADDR=198.51.100.3", code).await;
        talk.expect("EHLO c.test", "250").await;
        talk.message("a@b.test", "x").await;
        let named = server.contexts.message().peer.address.to_string();
        assert_eq!(named, if code == "220" { "198.51.100.3:0" } else { "192.0.2.8:5" });
    }
}

#[tokio::test]
async fn named_clients_count_and_their_proxy_does_not() {
    let options = options(|options| options.connections_per_network = 1);
    let server = trusting("127.0.0.1", Tls::Off, options).await;
    let mut served = Vec::new();
    // The address of the proxy itself could have ten.
    for n in 1..=12 {
        let mut talk = greeted(&server).await;
        talk.expect("XCLIENT NAME=a.test", "220").await;
        talk.expect(&format!("XCLIENT ADDR=192.0.2.{n}"), "220").await;
        served.push(talk);
    }
    let mut again = greeted(&server).await;
    again.expect("XCLIENT ADDR=192.0.2.7", "421 4.3.2").await;
    assert_eq!(again.reply().await, "<eof>");
    // Its place is free when it leaves.
    let mut seventh = served.remove(6);
    seventh.expect("QUIT", "221").await;
    assert_eq!(seventh.reply().await, "<eof>");
    for _ in 0..100 {
        if greeted(&server).await.ask("XCLIENT ADDR=192.0.2.7").await.starts_with("220") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("its place was not freed");
}

#[tokio::test]
async fn tls_stays_as_it_is_between_the_proxy_and_the_server() {
    let (config, client) = tls("mx.test");
    let server = trusting("127.0.0.1", Tls::StartTls(config), ServerOptions::default()).await;
    let mut talk = greeted(&server).await;
    talk.expect("XCLIENT NAME=a.test LOGIN=me", "220").await;
    talk.expect("EHLO a.test", "250").await;
    talk.expect("STARTTLS", "220").await;
    let mut talk = Talk::new(handshake(talk.stream, &client).await);
    talk.expect("EHLO a.test", "250").await;
    talk.message("a@b.test", "x").await;
    let peer = server.contexts.message().peer;
    // What was said in clear is forgotten (RFC 3207 section 4.2); who connected is not.
    assert_eq!((peer.identity, peer.tls.is_some()), (None, true));
    assert_eq!(peer.proxy.unwrap().client_name.as_deref(), Some("a.test"));
    talk.expect("XCLIENT ADDR=192.0.2.7 LOGIN=you", "220").await;
    talk.expect("STARTTLS", "503").await;
    let offers = talk.ask("EHLO a.test").await;
    assert!(!offers.contains("STARTTLS"), "{offers}");
    talk.message("a@b.test", "x").await;
    let peer = server.contexts.message().peer;
    assert_eq!((peer.identity.as_deref(), peer.tls.is_some()), (Some("you"), true));
}

#[tokio::test]
async fn facts_of_xforward_are_in_the_context_of_one_transaction() {
    let server = trusting("127.0.0.1", Tls::Off, ServerOptions::default()).await;
    let mut talk = greeted(&server).await;
    let own = PeerAddress::Ip(talk.stream.local_addr().unwrap());
    talk.expect("XFORWARD NAME=a.test ADDR=192.0.2.7", "250").await;
    talk.expect("XFORWARD IDENT=7A3B SOURCE=LOCAL", "250").await;
    talk.message("a@b.test", "x").await;
    let cx = server.contexts.message();
    let facts = cx.forwarded.unwrap();
    assert_eq!((facts.name.as_deref(), facts.ident.as_deref()), (Some("a.test"), Some("7A3B")));
    assert_eq!((facts.address.unwrap().to_string().as_str(), facts.is_local), ("192.0.2.7", Some(true)));
    // It changes no fact about the client itself.
    assert_eq!((cx.peer.address, cx.peer.proxy), (own, None));
    talk.message("a@b.test", "x").await;
    assert_eq!(server.contexts.message().forwarded, None);
}

#[tokio::test]
async fn settings_alone_offer_it_on_any_stream() {
    let mut settings = settings();
    settings.offers.xclient = true;
    let (contexts, (ours, theirs)) = (Contexts::default(), tokio::io::duplex(4_096));
    let service = contexts.clone();
    let served = tokio::spawn(async move {
        let peer = posthaste_server::Peer::new(PeerAddress::Local, PeerAddress::Local);
        converse(theirs, peer, &service, settings.into(), Tls::Off, std::future::pending()).await
    });
    let mut talk = Talk::new(ours).greeted().await;
    talk.expect("XCLIENT ADDR=2001:db8::7", "220").await;
    talk.expect("EHLO a.test", "250").await;
    talk.message("a@b.test", "x").await;
    let peer = contexts.message().peer;
    assert_eq!(
        (peer.address.to_string().as_str(), peer.network.to_string().as_str()),
        ("[2001:db8::7]:0", "2001:db8::")
    );
    assert_eq!(peer.proxy.unwrap().address, PeerAddress::Local);
    served.abort();
}

#[tokio::test]
async fn a_drain_ends_the_conversation_with_a_named_client_too() {
    let contexts = Contexts::default();
    let listener = Listener::bind("127.0.0.1:0", settings()).await.unwrap();
    let address = listener.local_address().unwrap();
    let drain = tokio_util::sync::CancellationToken::new();
    let server = Server::new(contexts).listen(listener.with_xclient("127.0.0.1".parse().unwrap()));
    let task = tokio::spawn(server.with_graceful_shutdown(drain.clone().cancelled_owned()).serve());
    let mut talk = Talk::connect(address).await.greeted().await;
    talk.expect("XCLIENT ADDR=192.0.2.7", "220").await;
    drain.cancel();
    assert!(talk.reply().await.starts_with("421 4.3.2"));
    task.await.unwrap();
}
