//! Messages to the mail hosts of domains, and from one host to the next.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use posthaste_client::{
    Answer, Delivered, FileSource, Mx, MxOptions, MxRecord, Once, Reader, RecipientOutcome, ResolveError, Resolver,
    Source, Tcp, Tls, Unreachable,
};
use posthaste_testkit::script::{Scripted, polite};

use crate::support::{letters_of, options, trusting};

const CONTENT: &str = "Subject: x\r\n\r\nbody\r\n";

/// The mail hosts of domains: `hN.test` is 127.0.1.N.
#[derive(Clone)]
struct Zone(Arc<HashMap<&'static str, Vec<(u16, &'static str)>>>);

impl Resolver for Zone {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        let record =
            |(preference, host): &(u16, &str)| MxRecord { preference: *preference, exchange: (*host).to_owned() };
        match self.0.get(domain) {
            Some(records) => Ok(records.iter().map(record).collect::<Vec<_>>().into()),
            None if domain == "broken.test" => Err(ResolveError::Temporary("SERVFAIL".to_owned())),
            None => Err(ResolveError::NoSuchName),
        }
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        match host.strip_prefix('h').and_then(|host| host.strip_suffix(".test")) {
            Some(number) => Ok(vec![format!("127.0.1.{number}").parse().unwrap()].into()),
            None => Err(ResolveError::Temporary("SERVFAIL".to_owned())),
        }
    }
}

/// Hosts that share a port, and a client for domains that name them.
struct World {
    hosts: Vec<Scripted>,
    mx: Mx<Zone>,
}

impl World {
    /// The first host is `h1.test`.
    async fn new(
        zone: &[(&'static str, &[(u16, &'static str)])],
        scripts: Vec<Box<dyn Says>>,
        change: impl FnOnce(&mut MxOptions),
    ) -> Self {
        let mut hosts: Vec<Scripted> = Vec::new();
        for (script, number) in scripts.into_iter().zip(1..) {
            let port = hosts.first().map_or(0, |first| first.port);
            let address = SocketAddr::from(([127, 0, 1, number], port));
            let mut script = script;
            hosts.push(Scripted::at(address, None, move |place, line| script.says(place.connection, line)).await);
        }
        let mut limits = MxOptions::default();
        (limits.port, limits.allow_private) = (hosts[0].port, true);
        change(&mut limits);
        let zone = Zone(Arc::new(zone.iter().map(|(domain, hosts)| (*domain, hosts.to_vec())).collect()));
        Self { hosts, mx: Mx::with(zone, options(Tls::Off), limits, Tcp::default()) }
    }

    async fn send(&self, to: &[&str], content: impl Source) -> Delivered {
        self.mx.send("me@s.test", to.iter().copied(), content).await.unwrap()
    }

    /// The number of lines that each host heard.
    fn counts(&self, start: &str) -> Vec<usize> {
        self.hosts.iter().map(|host| host.count(start)).collect()
    }
}

/// A script by the number of the connection.
trait Says: Send + 'static {
    fn says(&mut self, connection: usize, line: &str) -> String;
}

impl<F: FnMut(usize, &str) -> String + Send + 'static> Says for F {
    fn says(&mut self, connection: usize, line: &str) -> String {
        self(connection, line)
    }
}

fn well() -> Box<dyn Says> {
    Box::new(|_: usize, line: &str| polite(line, &[]))
}

/// Says something else at lines that begin so.
fn at(start: &'static str, says: &'static str) -> Box<dyn Says> {
    Box::new(move |_: usize, line: &str| if line.starts_with(start) { says.to_owned() } else { polite(line, &[]) })
}

const TWO: &[(u16, &str)] = &[(10, "h1.test"), (20, "h2.test")];

#[tokio::test]
async fn each_domain_goes_to_its_hosts_and_equal_hosts_share_connections() {
    let zone =
        [("one.test", TWO), ("two.test", &[(5, "h2.test"), (1, "h1.test")][..]), ("three.test", &[(1, "h2.test")])];
    let world = World::new(&zone, vec![well(), well()], |options| options.domains = 1).await;
    for _ in 0..2 {
        let delivered = world.send(&["a@one.test", "b@two.test", "c@ONE.test", "d@three.test"], CONTENT).await;
        assert_eq!(letters_of(&delivered.recipients), "AAAA", "{delivered:?}");
        let hosts =
            delivered.recipients.iter().map(|it| it.server.as_ref().unwrap().target.as_ref().unwrap().host.to_string());
        assert_eq!(hosts.collect::<Vec<_>>(), ["h1.test", "h1.test", "h1.test", "h2.test"]);
    }
    assert_eq!((world.counts("<connect>"), world.counts("<end>")), (vec![1, 1], vec![4, 2]));
    world.mx.close().await;
    assert_eq!(world.counts("QUIT"), [1, 1]);
    assert!(world.send(&["a@one.test"], CONTENT).await.is_complete());
}

#[tokio::test]
async fn a_recipient_goes_on_to_the_next_host_unless_the_answer_counts() {
    for (line, says, letters, first, second) in [
        ("RCPT TO:<a", "450 4.2.1 later\r\n", "AA", 1, 1),
        ("RCPT TO:<a", "550 5.1.1 nobody\r\n", "RA", 1, 0),
        ("RCPT", "451 4.3.0 later\r\n", "AA", 0, 1),
        ("MAIL", "550 5.7.1 no\r\n", "MM", 0, 0),
        ("MAIL", "close", "AA", 0, 1),
        ("DATA", "451 4.3.0 later\r\n", "AA", 0, 1),
        ("<end>", "451 4.3.0 later\r\n", "AA", 1, 1),
        ("<end>", "554 5.6.0 no\r\n", "CC", 1, 0),
        // The server may have it: another would make a duplicate.
        ("<end>", "close", "LL", 1, 0),
    ] {
        let world = World::new(&[("d.test", TWO)], vec![at(line, says), well()], |_| {}).await;
        let delivered = world.send(&["a@d.test", "b@d.test"], CONTENT).await;
        let context = format!("{line} {says:?} {delivered:?}");
        assert_eq!(letters_of(&delivered.recipients), letters, "{context}");
        assert_eq!(world.counts("<end>"), [first, second], "{context}");
        assert_eq!(delivered.recipients[0].in_doubt, letters == "LL", "{context}");
    }
}

#[tokio::test]
async fn a_domain_without_a_host_is_an_outcome_and_the_others_get_their_mail() {
    let zone = [
        ("well.test", &[(1, "h1.test")][..]),
        ("null.test", &[(0, "")]),
        ("dead.test", &[(1, "h9.test")]),
        ("lame.test", &[(1, "other.test")]),
    ];
    let world = World::new(&zone, vec![well()], |_| {}).await;
    let to =
        ["a@well.test", "a@null.test", "a@gone.test", "a@broken.test", "a@dead.test", "a@lame.test", "a@[127.0.1.1]"];
    let delivered = world.send(&to, CONTENT).await;
    assert_eq!(letters_of(&delivered.recipients), "A-----A", "{delivered:?}");
    let failed: Vec<_> = delivered.failed().map(|failed| (failed.is_permanent(), failed.to_string())).collect();
    for ((is_permanent, text), (wanted, part)) in failed.iter().zip([
        (true, "<a@null.test>: the domain does not take mail"),
        (true, "<a@gone.test>: the domain does not exist"),
        (false, "<a@broken.test>: no answer from DNS: SERVFAIL"),
        (false, "<a@dead.test>: no connection to 127.0.1.9"),
        (false, "<a@lame.test>: no answer from DNS: SERVFAIL"),
    ]) {
        assert!(*is_permanent == wanted && text.starts_with(part), "{text}");
    }
}

#[tokio::test]
async fn dns_cannot_lead_to_private_addresses_unless_that_is_allowed() {
    let world = World::new(&[("d.test", TWO)], vec![well(), well()], |options| options.allow_private = false).await;
    let delivered = world.send(&["a@d.test", "a@[127.0.1.1]"], CONTENT).await;
    for recipient in &delivered.recipients {
        assert!(
            matches!(&recipient.outcome, RecipientOutcome::Unreachable(why) if matches!(**why, Unreachable::Mx(_))),
            "{recipient}"
        );
        assert!(recipient.is_permanent());
    }
    assert_eq!(world.counts("<connect>"), [0, 0]);
}

#[tokio::test]
async fn a_host_whose_bdat_fails_gets_the_message_by_data() {
    let script = Box::new(|_: usize, line: &str| match line {
        line if line.starts_with("BDAT") => "502 5.5.1 what\r\n".to_owned(),
        line => polite(line, &["CHUNKING"]),
    });
    let world = World::new(&[("d.test", TWO)], vec![script, well()], |_| {}).await;
    for _ in 0..2 {
        assert!(world.send(&["a@d.test"], CONTENT).await.is_complete());
    }
    // It is remembered.
    assert_eq!((world.counts("BDAT"), world.counts("<end>")), (vec![1, 0], vec![2, 0]));
}

#[tokio::test]
async fn many_recipients_take_several_transactions() {
    let world = World::new(&[("d.test", TWO)], vec![well(), well()], |_| {}).await;
    let to: Vec<_> = (0..250).map(|number| format!("u{number}@d.test")).collect();
    let to: Vec<_> = to.iter().map(String::as_str).collect();
    assert!(world.send(&to, CONTENT).await.is_complete());
    assert_eq!(
        (world.counts("<connect>"), world.counts("<end>"), world.counts("RCPT")),
        (vec![1, 0], vec![3, 0], vec![250, 0])
    );
}

#[tokio::test]
async fn only_so_many_domains_are_served_at_once() {
    let names: Vec<&'static str> = (0..30).map(|number| &*format!("d{number}.test").leak()).collect();
    let zone: Vec<_> = names.iter().map(|name| (*name, &[(1_u16, "h1.test")][..])).collect();
    let slow = |_: usize, line: &str| match line {
        "<end>" => format!("after 20 {}", polite(line, &[])),
        line => polite(line, &[]),
    };
    let to: Vec<_> = names.iter().map(|name| format!("a@{name}")).collect();
    let to: Vec<_> = to.iter().map(String::as_str).collect();
    for (domains, deliveries, connections) in [(4, 100, 100), (100, 4, 100), (100, 100, 4)] {
        let world = World::new(&zone, vec![Box::new(slow)], |options| {
            (options.domains, options.deliveries, options.destination.connections) = (domains, deliveries, connections);
        })
        .await;
        assert!(world.send(&to, CONTENT).await.is_complete());
        let (opened, taken) = (world.counts("<connect>")[0], world.counts("<end>"));
        assert!(opened <= 4 && taken == [30], "{opened} {taken:?}");
    }
}

#[tokio::test]
async fn content_that_can_be_read_once_goes_to_another_host_until_it_is_begun() {
    for (line, says, letter, ends) in [
        ("<connect>", "421 later\r\n", "A", [0, 1]),
        ("DATA", "451 4.3.0 later\r\n", "A", [0, 1]),
        ("<end>", "451 4.3.0 later\r\n", "L", [1, 0]),
    ] {
        let world = World::new(&[("d.test", TWO)], vec![at(line, says), well()], |_| {}).await;
        let delivered = world.send(&["a@d.test"], Once::new(Reader::new(CONTENT.as_bytes()))).await;
        assert_eq!(letters_of(&delivered.recipients), letter, "{line} {delivered:?}");
        assert_eq!(world.counts("<end>"), ends, "{line}");
        if letter == "L" {
            let text = delivered.recipients[0].to_string();
            assert!(text.contains("can be read once") && !delivered.recipients[0].in_doubt, "{text}");
        }
    }
}

#[tokio::test]
async fn a_file_is_opened_for_each_host() {
    let folder = std::env::temp_dir().join(format!("posthaste-exchange-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("message.eml");
    std::fs::write(&path, CONTENT).unwrap();
    let world = World::new(&[("d.test", TWO)], vec![at("<end>", "451 4.3.0 later\r\n"), well()], |_| {}).await;
    assert!(world.send(&["a@d.test"], FileSource::new(&path)).await.is_complete());
    for host in &world.hosts {
        assert_eq!(host.heard.lines(&["<octets>"]), ["<octets> Subject: x\r\n", "<octets> \r\n", "<octets> body\r\n"]);
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let delivered = world.send(&["a@d.test", "b@d.test"], FileSource::new(&path)).await;
    assert_eq!(letters_of(&delivered.recipients), "LL");
    let text = delivered.recipients[1].to_string();
    assert!(text.contains("message.eml") && !delivered.recipients[1].is_permanent(), "{text}");
    // Both were asked once: the connection stays.
    assert_eq!(world.counts("<end>"), [1, 1]);
}

/// A message that breaks off in the middle arrives nowhere.
#[tokio::test]
async fn content_that_cannot_be_read_is_sent_to_no_host() {
    let world = World::new(&[("d.test", TWO)], vec![well(), well()], |_| {}).await;
    let broken =
        futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"half")), Err(io::Error::other("the disk is gone"))]);
    let delivered = world.send(&["a@d.test"], Once::new(posthaste_client::Streamed::new(broken))).await;
    assert_eq!((letters_of(&delivered.recipients).as_str(), world.counts("<end>")), ("L", vec![0, 0]));
    assert!(delivered.recipients[0].to_string().contains("the disk is gone"));
}

#[tokio::test]
async fn an_outcome_names_the_server_and_its_tls() {
    let (server, _) = posthaste_testkit::pki::tls("h1.test");
    let host = Scripted::at(([127, 0, 1, 1], 0).into(), Some(server), |_, line| polite(line, &["STARTTLS"])).await;
    let zone = Zone(Arc::new([("d.test", vec![(1, "h1.test")])].into_iter().collect()));
    let mut limits = MxOptions::default();
    (limits.port, limits.allow_private) = (host.port, true);
    let mx = Mx::with(zone, options(Tls::Opportunistic(trusting())), limits, Tcp::default());
    let delivered = mx.send("me@s.test", ["a@d.test"], CONTENT).await.unwrap();
    let server = delivered.recipients[0].server.as_ref().unwrap();
    let (target, tls) = (server.target.as_ref().unwrap(), server.tls.unwrap());
    assert_eq!((&*target.host, target.server.to_string()), ("h1.test", format!("127.0.1.1:{}", host.port)));
    assert!(format!("{:?}", tls.version).contains("TLSv1_3") && !server.is_verified, "{tls:?}");
}

#[tokio::test]
async fn a_dropped_message_gives_its_place_back() {
    let world = World::new(&[("d.test", TWO)], vec![at("<end>", ""), well()], |options| {
        options.destination.connections = 1;
    })
    .await;
    for _ in 0..3 {
        let sent = world.send(&["a@d.test"], CONTENT);
        assert!(tokio::time::timeout(Duration::from_millis(200), sent).await.is_err());
    }
    assert_eq!(world.counts("<end>")[0], 3);
}

#[tokio::test]
async fn lines_that_end_in_lf_go_to_each_host() {
    use posthaste_client::Text;
    let world = World::new(&[("d.test", TWO)], vec![at("<end>", "451 4.3.0 later\r\n"), well()], |_| {}).await;
    assert!(world.send(&["a@d.test"], Text::new("Subject: x\n\nbody\n")).await.is_complete());
    for host in &world.hosts {
        assert_eq!(host.heard.lines(&["<octets>"]).len(), 3);
    }
}

/// What keeps an eye on connections ends with its runtime, and begins again in the next.
#[test]
fn connections_are_closed_after_their_time_in_another_runtime_too() {
    use posthaste_client::{Pool, PoolOptions};
    let server = tokio::runtime::Runtime::new().unwrap();
    let hop = server.block_on(Scripted::polite());
    let mut limits = PoolOptions::default();
    limits.idle = Duration::from_millis(300);
    let pool = Pool::with([("127.0.0.1", hop.port)], options(Tls::Off), limits, Tcp::default()).unwrap();
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(pool.send("a@b.test", ["c@d.test"], CONTENT)).unwrap().is_complete());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(pool.send("a@b.test", ["c@d.test"], CONTENT).await.unwrap().is_complete());
        tokio::time::sleep(Duration::from_millis(900)).await;
    });
    assert!(format!("{pool:?}").contains("unused: 0"), "{pool:?}");
}

#[tokio::test]
async fn what_is_no_regular_file_is_an_error_that_names_it() {
    let world = World::new(&[("d.test", TWO)], vec![well(), well()], |_| {}).await;
    for path in ["/dev/zero", "/", "/none"] {
        let delivered = world.send(&["a@d.test"], FileSource::new(path)).await;
        assert!(delivered.recipients[0].to_string().contains(path), "{delivered:?}");
    }
    assert_eq!(world.counts("MAIL"), [0, 0]);
}
