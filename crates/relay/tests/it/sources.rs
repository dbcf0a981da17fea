//! Connections come from the sources of their route, and from no other.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use posthaste_relay::{DomainPattern, Route, RouteTable, Source, SourcePool, WarmUp};
use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service, accepted, refusal,
    session::ServerSettings,
    wire::{Mail, Rcpt},
};

use crate::support::{options, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// When a next hop answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    Mail,
    Rcpt,
    Body,
}

/// A next hop that notes from where each message came, under which name, and to whom it went.
#[derive(Debug, Clone, Default)]
struct Noting {
    taken: Arc<Mutex<Vec<(String, String, String)>>>,
    /// The address that it blocks.
    blocks: Option<&'static str>,
    /// When it does so. `None`: at the connection.
    at: Option<Exchange>,
}

impl Noting {
    async fn start(blocks: Option<&'static str>) -> (Self, u16) {
        Self::start_at(blocks, None).await
    }

    async fn start_at(blocks: Option<&'static str>, at: Option<Exchange>) -> (Self, u16) {
        let noting = Self { blocks, at, ..Self::default() };
        let settings = ServerSettings::new("hop.test".parse().unwrap());
        let listener = Listener::bind("127.0.0.1:0", settings).await.unwrap();
        let port = listener.local_address().unwrap().port();
        tokio::spawn(Server::new(noting.clone()).listen(listener).serve());
        (noting, port)
    }

    fn taken(&self) -> Vec<(String, String, String)> {
        self.taken.lock().unwrap().clone()
    }
}

fn address(cx: &Context) -> String {
    let address = cx.peer.address.to_string();
    address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.to_owned())
}

impl Service for Noting {
    type Handler = Self;

    async fn connect(&self, cx: &Context) -> Result<Self, Refusal> {
        match self.blocks {
            Some(blocked) if address(cx) == blocked && self.at.is_none() => {
                Err(refusal!("554 5.7.1 Your address is blocked"))
            }
            _ => Ok(self.clone()),
        }
    }
}

impl Noting {
    fn check(&self, cx: &Context, at: Exchange) -> Result<(), Refusal> {
        match self.blocks {
            Some(blocked) if self.at == Some(at) && address(cx) == blocked => {
                Err(refusal!("554 5.7.1 Client host [{}] blocked using bl.test", blocked))
            }
            _ => Ok(()),
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
        let to = envelope.recipients[0].forward_path.to_string();
        self.taken.lock().unwrap().push((address(cx), cx.peer.hello_text(), to));
        Ok(accepted!("250 2.0.0 Taken"))
    }
}

fn source(name: &str, last: u8) -> Source {
    let mut source = Source::new(name);
    source.v4 = Some([127, 0, 0, last].into());
    source.hello = Some(format!("{name}.test").parse().unwrap());
    source
}

fn through(port: u16, sources: impl IntoIterator<Item = (Source, u16)>) -> Route {
    let mut route = Route::hosts([("[127.0.0.1]", port)]);
    route.sources = Some(SourcePool::new(sources));
    route
}

#[tokio::test]
async fn the_next_hop_sees_the_address_and_the_name_and_no_connection_serves_another_pool() {
    let (hop, port) = Noting::start(None).await;
    let mut options = options(&[]);
    options.routes = RouteTable::empty();
    let one = || ["one.test".parse::<DomainPattern>().unwrap()];
    options.routes.push(one(), through(port, [(source("first", 2), 1)]));
    options.routes.push([DomainPattern::Any], through(port, [(source("second", 3), 1)]));
    let relay = start(options.clone());
    for count in (0..8).step_by(2) {
        relay.submit("<me@s.test>", &["<a@one.test>"], CONTENT).await;
        relay.submit("<me@s.test>", &["<a@two.test>"], CONTENT).await;
        relay.log.wait("delivered", count + 2).await;
    }
    let seen: BTreeSet<_> = hop.taken().into_iter().collect();
    let row = |address: &str, name: &str, to: &str| (address.to_owned(), name.to_owned(), to.to_owned());
    let wanted = [row("127.0.0.2", "first.test", "<a@one.test>"), row("127.0.0.3", "second.test", "<a@two.test>")];
    assert_eq!(seen, wanted.into());
    // After a reload, connections that were kept from the old source carry nothing more.
    options.routes = RouteTable::all(through(port, [(source("third", 4), 1)]));
    relay.relay.reload(options).unwrap();
    relay.submit("<me@s.test>", &["<a@one.test>"], CONTENT).await;
    relay.log.wait("delivered", 9).await;
    assert_eq!(hop.taken().pop(), Some(row("127.0.0.4", "third.test", "<a@one.test>")));
    relay.end().await;
}

#[tokio::test]
async fn a_new_source_sends_its_messages_of_the_day_and_another_the_rest() {
    let (hop, port) = Noting::start(None).await;
    let mut new = source("new", 2);
    new.warm_up = Some(WarmUp::new(SystemTime::now(), [3]));
    let mut options = options(&[]);
    options.routes = RouteTable::all(through(port, [(new, 1), (source("old", 3), 0)]));
    let relay = start(options);
    // Over connections that are made, and over those that are kept.
    for count in 0..8 {
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("delivered", count + 1).await;
    }
    let from = |address: &str| hop.taken().iter().filter(|(from, ..)| from == address).count();
    assert_eq!((from("127.0.0.2"), from("127.0.0.3"), relay.log.count("deferred")), (3, 5, 0));
    let counts = relay.relay.source_counts();
    assert_eq!((&*counts[0].source, counts[0].day, counts[0].messages), ("new", 0, 3));
    relay.end().await;
}

#[tokio::test]
async fn another_source_takes_over_at_once_for_one_that_the_site_blocks() {
    let (hop, port) = Noting::start(Some("127.0.0.2")).await;
    let mut options = options(&[]);
    options.routes = RouteTable::all(through(port, [(source("first", 2), 1), (source("second", 3), 0)]));
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert_eq!(relay.log.count("deferred"), 0);
    assert_eq!(hop.taken()[0].0, "127.0.0.3");
    let [resting] = &relay.relay.resting_sources()[..] else { panic!("{:?}", relay.relay.resting_sources()) };
    assert_eq!((&*resting.source, resting.site.is_some()), ("first", true));
    assert!(resting.why.text.contains("blocked"), "{resting:?}");
    relay.end().await;
}

/// Most sites say it at RCPT.
#[tokio::test]
async fn mail_that_is_refused_for_its_source_alone_goes_from_another_one_and_does_not_fail() {
    for at in [Exchange::Mail, Exchange::Rcpt, Exchange::Body] {
        let (hop, port) = Noting::start_at(Some("127.0.0.2"), Some(at)).await;
        let mut options = options(&[]);
        options.delivery.retry.waits = vec![Duration::from_millis(50)];
        options.routes = RouteTable::all(through(port, [(source("first", 2), 100), (source("second", 3), 0)]));
        let relay = start(options);
        for _ in 0..4 {
            relay.submit("<me@s.test>", &["<a@d.test>", "<b@d.test>"], CONTENT).await;
        }
        relay.log.wait("delivered", 8).await;
        assert_eq!(relay.log.count("failed"), 0, "{at:?}");
        assert!(hop.taken().iter().all(|(from, ..)| from == "127.0.0.3"));
        let [resting] = &relay.relay.resting_sources()[..] else { panic!("{:?}", relay.relay.resting_sources()) };
        assert!(resting.source == "first" && resting.why.text.contains("bl.test"), "{resting:?}");
        relay.end().await;
    }
}

#[tokio::test]
async fn mail_waits_while_its_only_source_is_blocked_or_not_of_this_machine() {
    let (hop, port) = Noting::start(Some("127.0.0.2")).await;
    let mut foreign = source("foreign", 0);
    foreign.v4 = Some([192, 0, 2, 1].into());
    let mut of_the_other_family = source("v6", 0);
    (of_the_other_family.v4, of_the_other_family.v6) = (None, Some(std::net::Ipv6Addr::UNSPECIFIED));
    for (source, why) in
        [(source("first", 2), "blocked"), (foreign, "192.0.2.1"), (of_the_other_family, "no address of the family")]
    {
        let mut options = options(&[]);
        options.routes = RouteTable::all(through(port, [(source, 1)]));
        let relay = start(options);
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        relay.log.wait("deferred", 1).await;
        let deferred = relay.log.of("deferred");
        assert!(deferred[0].text.contains(why), "{deferred:?}");
        assert_eq!((relay.log.count("failed"), hop.taken().len()), (0, 0));
        relay.end().await;
    }
}
