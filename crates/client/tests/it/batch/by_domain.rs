//! Batches to the hosts of domains.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use posthaste_client::{
    Answer, Delivered, Dial, Message, Mx, MxOptions, MxRecord, Once, RecipientOutcome, ResolveError, Resolver,
    SendError, Server, Source, Tls,
};
use posthaste_testkit::script::{Heard, polite, serve, verb};
use tokio::{
    io::DuplexStream,
    time::{Instant, timeout},
};

use super::model::{Act, Taken, model};
use crate::support::{letters_of, options};

const CONTENT: &str = "Subject: x\r\n\r\nbody\r\n";
const BOTH: &[&str] = &["PIPELINING", "CHUNKING"];

/// A network without sockets, and its DNS: the hosts of `NAME.test` are `hN.test`, 10.0.0.N.
#[derive(Clone)]
struct Net(Arc<World>);

struct World {
    zone: Vec<(&'static str, Vec<(u16, &'static str)>)>,
    hosts: HashMap<&'static str, Host>,
    /// How often each domain was looked up.
    asked: Mutex<HashMap<String, usize>>,
    heard: Mutex<Vec<(String, Heard)>>,
    dialing: AtomicUsize,
    most_dialing: AtomicUsize,
}

type Says = Arc<Mutex<dyn FnMut(posthaste_testkit::script::Place, &str) -> String + Send>>;

#[derive(Clone)]
enum Host {
    Says(Says),
    /// Does not answer SYN.
    Absent,
    /// Connects and says nothing.
    Silent,
}

impl Resolver for Net {
    async fn mx(&self, domain: &str) -> Result<Answer<MxRecord>, ResolveError> {
        *self.0.asked.lock().unwrap().entry(domain.to_owned()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let record =
            |(preference, host): &(u16, &str)| MxRecord { preference: *preference, exchange: (*host).to_owned() };
        match self.0.zone.iter().find(|(name, _)| *name == domain) {
            Some((_, records)) => Ok(records.iter().map(record).collect::<Vec<_>>().into()),
            None if domain.starts_with("mute") => std::future::pending().await,
            None => Err(ResolveError::NoSuchName),
        }
    }

    async fn addresses(&self, host: &str) -> Result<Answer<IpAddr>, ResolveError> {
        let number = host.trim_start_matches('h').trim_end_matches(".test");
        Ok(vec![
            format!("10.0.{}.{}", number.parse::<usize>().unwrap() / 250, number.parse::<usize>().unwrap() % 250)
                .parse()
                .unwrap(),
        ]
        .into())
    }
}

impl Dial for Net {
    type Stream = DuplexStream;

    async fn dial(&self, server: &Server) -> io::Result<DuplexStream> {
        let IpAddr::V4(address) = server.address().unwrap().ip() else { unreachable!() };
        let [_, _, high, low] = address.octets();
        let name = format!("h{}.test", usize::from(high) * 250 + usize::from(low));
        let host = self.0.hosts.get(name.as_str()).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let _dialing = Dialing::begin(&self.0);
        let says = match host {
            Host::Says(says) => says,
            Host::Absent => std::future::pending().await,
            Host::Silent => Arc::new(Mutex::new(|_: posthaste_testkit::script::Place, _: &str| String::new())),
        };
        let mut heard = self.0.heard.lock().unwrap();
        let connection = heard.iter().filter(|(known, _)| *known == name).count();
        let (stream, hears) = serve(
            move |mut place: posthaste_testkit::script::Place, line: &str| {
                place.connection = connection;
                says.lock().unwrap()(place, line)
            },
            None,
        );
        heard.push((name, hears));
        Ok(stream)
    }
}

/// Counts the connections that are being made.
struct Dialing<'w>(&'w World);

impl<'w> Dialing<'w> {
    fn begin(world: &'w World) -> Self {
        let now = world.dialing.fetch_add(1, Relaxed) + 1;
        world.most_dialing.fetch_max(now, Relaxed);
        Self(world)
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.dialing.fetch_sub(1, Relaxed);
    }
}

impl Net {
    fn new(zone: &[(&'static str, &[(u16, &'static str)])], hosts: Vec<(&'static str, Host)>) -> Self {
        Self(Arc::new(World {
            zone: zone.iter().map(|(name, records)| (*name, records.to_vec())).collect(),
            hosts: hosts.into_iter().collect(),
            asked: Mutex::default(),
            heard: Mutex::default(),
            dialing: AtomicUsize::new(0),
            most_dialing: AtomicUsize::new(0),
        }))
    }

    fn mx(&self, change: impl FnOnce(&mut MxOptions)) -> Mx<Self, Self> {
        let mut limits = MxOptions::default();
        limits.allow_private = true;
        change(&mut limits);
        Mx::with(self.clone(), options(Tls::Off), limits, self.clone())
    }

    /// The number of lines of a host that begin so.
    fn count(&self, host: &str, start: &str) -> usize {
        let heard = self.0.heard.lock().unwrap();
        heard.iter().filter(|(name, _)| name == host).map(|(_, heard)| heard.count(start)).sum()
    }

    fn asked(&self, domain: &str) -> usize {
        self.0.asked.lock().unwrap().get(domain).copied().unwrap_or_default()
    }
}

fn says(script: impl FnMut(posthaste_testkit::script::Place, &str) -> String + Send + 'static) -> Host {
    Host::Says(Arc::new(Mutex::new(script)))
}

fn well(offers: &'static [&'static str]) -> Host {
    says(move |_, line| polite(line, offers))
}

fn to(recipients: &[&str]) -> Message<&'static str> {
    Message::new("me@s.test", recipients.iter().copied(), CONTENT).unwrap()
}

/// The outcomes of all messages, in their order.
async fn send<C: Source>(mx: &Mx<Net, Net>, messages: Vec<Message<C>>) -> Vec<Delivered> {
    let mut found: Vec<_> = messages.iter().map(|_| None).collect();
    let mut batch = mx.send_all(messages);
    while let Some((number, delivered)) = batch.next().await {
        assert!(found[number].is_none(), "message {number} has one outcome");
        found[number] = Some(delivered.unwrap());
    }
    found.into_iter().map(|found| found.expect("each message has an outcome")).collect()
}

fn all_letters(found: &[Delivered]) -> Vec<String> {
    found.iter().map(|delivered| letters_of(&delivered.recipients)).collect()
}

const TWO: &[(u16, &str)] = &[(10, "h1.test"), (20, "h2.test")];

#[tokio::test(start_paused = true)]
async fn messages_go_to_the_hosts_of_each_domain_and_each_recipient_has_its_outcome() {
    for offers in [&[][..], &["PIPELINING"], BOTH] {
        let refuses = says(move |_, line| match line {
            "RCPT TO:<no@three.test>" => "550 5.1.1 no\r\n".to_owned(),
            _ => polite(line, offers),
        });
        let zone =
            [("one.test", TWO), ("two.test", &[(1, "h1.test"), (5, "h2.test")][..]), ("three.test", &[(1, "h3.test")])];
        let net = Net::new(&zone, vec![("h1.test", well(offers)), ("h3.test", refuses)]);
        let mx = net.mx(|options| options.destination.connections = 1);
        let messages =
            (0..20).map(|_| to(&["no@three.test", "a@one.test", "b@three.test", "c@TWO.test", "d@gone.test"]));
        let found = send(&mx, messages.collect()).await;
        assert_eq!(all_letters(&found), ["RAAA-"; 20], "{offers:?}");
        for delivered in &found {
            let paths: Vec<_> = delivered.recipients.iter().map(|recipient| recipient.path.to_string()).collect();
            assert_eq!(paths[..3], ["<no@three.test>", "<a@one.test>", "<b@three.test>"]);
            let host = &delivered.recipients[3].server.as_ref().unwrap().target.as_ref().unwrap().host;
            assert_eq!((&**host, delivered.recipients[4].is_permanent()), ("h1.test", true));
        }
        // Domains with the same hosts share their connection.
        assert_eq!((net.count("h1.test", "<connect>"), net.count("h1.test", "MAIL")), (1, 40), "{offers:?}");
        assert_eq!((net.count("h3.test", "<connect>"), net.count("h3.test", "MAIL")), (1, 20), "{offers:?}");
        for domain in ["one.test", "two.test", "three.test", "gone.test"] {
            assert_eq!(net.asked(domain), 1, "{domain} is looked up once");
        }
        mx.close().await;
        assert_eq!(net.count("h1.test", "QUIT"), 1);
        assert!(send(&mx, vec![to(&["a@one.test"])]).await[0].is_complete());
    }
}

/// As for a single message, whatever the place in the batch.
#[tokio::test(start_paused = true)]
async fn a_recipient_goes_on_to_the_next_host_unless_the_answer_counts() {
    for offers in [&[][..], &["PIPELINING"], BOTH] {
        for (line, reply, letter, second) in [
            ("RCPT TO:<m2r0@", "450 4.2.1 later\r\n", "A", 1),
            ("RCPT TO:<m2r0@", "550 5.1.1 nobody\r\n", "R", 0),
            ("MAIL FROM:<m2@", "550 5.7.1 no\r\n", "M", 0),
            ("MAIL FROM:<m2@", "451 4.3.0 later\r\n", "A", 1),
            ("end of m2", "451 4.3.0 later\r\n", "A", 1),
            ("end of m2", "554 5.6.0 no\r\n", "C", 0),
        ] {
            let mut now = String::new();
            let (first, _) = model(offers, false, move |_, heard| {
                if verb(heard) == "MAIL" {
                    now = heard.split(['<', '@']).nth(1).unwrap_or_default().to_owned();
                }
                let is_end = matches!(verb(heard), "<end>" | "BDAT") && line == format!("end of {now}");
                (heard.starts_with(line) || is_end).then_some(Act::Say(reply))
            });
            let net = Net::new(&[("d.test", TWO)], vec![("h1.test", says(first)), ("h2.test", well(offers))]);
            let message = |number| super::message(number, 1);
            let mx = net.mx(|options| options.destination.connections = 1);
            let found = send(&mx, (0..5).map(message).collect()).await;
            assert_eq!(all_letters(&found).concat(), format!("AA{letter}AA"), "{offers:?} {line} {reply}");
            assert_eq!(net.count("h2.test", "MAIL"), second, "{offers:?} {line} {reply}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn domains_that_are_silent_hold_up_no_other() {
    let zone = [
        ("absent.test", &[(1, "h1.test")][..]),
        ("silent.test", &[(1, "h2.test")]),
        ("refuses.test", &[(1, "h9.test")]),
        ("well.test", &[(1, "h3.test")]),
    ];
    let hosts = vec![("h1.test", Host::Absent), ("h2.test", Host::Silent), ("h3.test", well(BOTH))];
    let net = Net::new(&zone, hosts);
    let mx = net.mx(|options| options.deliveries = 2);
    let silent = (0..300).map(|number| to(&[["a@absent.test", "a@silent.test", "a@refuses.test"][number % 3]]));
    let messages: Vec<_> = silent.chain((0..100).map(|_| to(&["a@well.test"]))).collect();
    let (begun, mut batch) = (Instant::now(), mx.send_all(messages));
    let mut well = 0;
    while let Some((number, delivered)) = batch.next().await {
        let (delivered, took) = (delivered.unwrap(), begun.elapsed());
        match number {
            300.. => {
                assert!(delivered.is_complete() && took < Duration::from_secs(1), "{number} {took:?}");
                well += 1;
            }
            _ => {
                let failed = delivered.failed().next().unwrap();
                assert!(matches!(failed.outcome, RecipientOutcome::Unreachable(_)) && !failed.is_permanent());
                // The greeting has five minutes.
                assert!(took < Duration::from_secs(301), "{number} {took:?}");
            }
        }
    }
    assert_eq!(well, 100);
    // Each was tried once, for all of its messages.
    assert_eq!((net.count("h2.test", "<connect>"), net.asked("absent.test")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_within_a_minute_are_not_sent_to_hosts_that_cannot_be_reached() {
    let net = Net::new(&[("absent.test", &[(1, "h1.test")][..])], vec![("h1.test", Host::Absent)]);
    let mx = net.mx(|options| options.messages = 10);
    let begun = Instant::now();
    let found = send(&mx, (0..100).map(|_| to(&["a@absent.test"])).collect()).await;
    assert_eq!(all_letters(&found), ["-"; 100]);
    assert!(begun.elapsed() < Duration::from_secs(31), "{:?}", begun.elapsed());
    // The next batch tries again.
    assert!(timeout(Duration::from_secs(20), send(&mx, vec![to(&["a@absent.test"])])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn look_ups_that_are_silent_hold_up_no_other_and_each_domain_is_asked_once_a_minute() {
    let net = Net::new(&[("well.test", &[(1, "h1.test")][..])], vec![("h1.test", well(BOTH))]);
    let mx = net.mx(|_| {});
    let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
    let messages =
        futures_util::stream::unfold(messages, |mut messages| async { Some((messages.recv().await?, messages)) });
    let mut batch = mx.send_stream(messages);
    for number in 0..400 {
        sender.send(to(&[&*format!("a@mute{}.test", number % 200)])).unwrap();
    }
    for (number, wait) in [(400, 0), (401, 30), (402, 31)] {
        assert!(timeout(Duration::from_secs(wait), batch.next()).await.is_err());
        sender.send(to(&["a@well.test"])).unwrap();
        let (found, delivered) = timeout(Duration::from_secs(1), batch.next()).await.unwrap().unwrap();
        assert!(found == number && delivered.unwrap().is_complete());
    }
    assert_eq!((net.asked("mute0.test"), net.asked("well.test")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_bounds_of_a_batch_hold() {
    let names: Vec<&'static str> = (1..=30).map(|number| &*format!("d{number}.test").leak()).collect();
    let hosts: Vec<&'static str> = (1..=30).map(|number| &*format!("h{number}.test").leak()).collect();
    let records: Vec<_> = hosts.iter().map(|host| [(1_u16, *host)]).collect();
    let zone: Vec<_> = names.iter().zip(&records).map(|(name, records)| (*name, &records[..])).collect();
    let slow = Arc::new(AtomicUsize::new(0));
    for (connections, deliveries, messages) in [(1, 200, 1_000), (3, 200, 1_000), (3, 5, 1_000), (3, 200, 7)] {
        let most = Arc::new(AtomicUsize::new(0));
        let of_host = |host: &&'static str| {
            let (open, most) = (Arc::clone(&slow), Arc::clone(&most));
            let script = move |_, line: &str| match verb(line) {
                "MAIL" => {
                    let now = open.fetch_add(1, Relaxed) + 1;
                    most.fetch_max(now, Relaxed);
                    polite(line, &[])
                }
                "<end>" => {
                    open.fetch_sub(1, Relaxed);
                    "after 50 250 ok\r\n".to_owned()
                }
                _ => polite(line, &[]),
            };
            (*host, says(script))
        };
        let net = Net::new(&zone, hosts.iter().map(of_host).collect());
        let mx = net.mx(|options| {
            (options.destination.connections, options.deliveries, options.messages) =
                (connections, deliveries, messages);
        });
        let (taken, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let all = (0..600).map(|number| {
            let ahead = taken.fetch_add(1, Relaxed) + 1 - done.load(Relaxed);
            // One outcome may wait to be fetched.
            assert!(ahead <= messages + 30, "{ahead} messages were taken and have no outcome");
            to(&[&*format!("a@{}", names[number % 30])])
        });
        let mut batch = mx.send_all(all);
        while let Some((_, delivered)) = batch.next().await {
            assert!(delivered.unwrap().is_complete());
            done.fetch_add(1, Relaxed);
        }
        drop(batch);
        assert!(most.load(Relaxed) <= deliveries.min(messages).min(30 * connections), "{}", most.load(Relaxed));
        for host in &hosts {
            let opened = net.count(host, "<connect>");
            assert!((1..=connections).contains(&opened), "{host}: {opened} of {connections}");
        }
        let several = hosts.iter().any(|host| net.count(host, "<connect>") > 1);
        assert_eq!(several, connections > 1 && messages > 7, "{connections} {deliveries} {messages}");
    }
}

/// A host that takes two connections and no third: all messages go over the two.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_refused_beside_others_fails_no_message() {
    let says = says(|place, line| match (place.connection, verb(line)) {
        (2.., "<connect>") => "421 4.7.0 too many\r\n<hang>".to_owned(),
        (_, "<end>") => "after 10 250 ok\r\n".to_owned(),
        _ => polite(line, &[]),
    });
    let net = Net::new(&[("d.test", &[(1, "h1.test")][..])], vec![("h1.test", says)]);
    let found = send(&net.mx(|_| {}), (0..150).map(|_| to(&["a@d.test"])).collect()).await;
    assert_eq!(all_letters(&found), ["A"; 150]);
    assert!(net.count("h1.test", "<connect>") < 20, "{}", net.count("h1.test", "<connect>"));
}

#[tokio::test(start_paused = true)]
async fn many_recipients_and_none_have_outcomes_too() {
    let net = Net::new(&[("d.test", &[(1, "h1.test")][..])], vec![("h1.test", well(BOTH))]);
    let many: Vec<_> = (0..250).map(|number| format!("u{number}@d.test")).collect();
    let mut none = to(&["a@d.test"]);
    none.recipients.clear();
    let messages = [to(&["a@d.test"]), none, to(&many.iter().map(String::as_str).collect::<Vec<_>>())];
    let (mx, mut found) = (net.mx(|_| {}), [0, 0, 0]);
    let mut batch = mx.send_all(messages);
    while let Some((number, delivered)) = batch.next().await {
        match delivered {
            Ok(delivered) => assert!(delivered.is_complete()),
            Err(error) => assert!(number == 1 && matches!(error, SendError::NoRecipient)),
        }
        found[number] += 1;
    }
    assert_eq!((found, net.count("h1.test", "MAIL")), ([1, 1, 1], 4));
}

/// One domain of a message gets it, the other does not.
#[tokio::test(start_paused = true)]
async fn content_that_can_be_read_once_goes_to_one_domain() {
    let zone = [("one.test", &[(1, "h1.test")][..]), ("two.test", &[(1, "h2.test")])];
    let net = Net::new(&zone, vec![("h1.test", well(BOTH)), ("h2.test", well(BOTH))]);
    let message = |to: &[&str]| Message::new("me@s.test", to.iter().copied(), Once::new(CONTENT)).unwrap();
    let found =
        send(&net.mx(|_| {}), vec![message(&["a@one.test", "b@one.test"]), message(&["a@one.test", "a@two.test"])])
            .await;
    let mut letters = all_letters(&found);
    assert_eq!(letters.remove(0), "AA");
    assert!(["AL", "LA"].contains(&letters[0].as_str()), "{letters:?}");
    let failed = found[1].failed().next().unwrap();
    assert!(failed.to_string().contains("can be read once") && !failed.in_doubt, "{failed}");
}

/// What was begun keeps nothing alive.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_dropped_closes_its_connections_and_keeps_no_message() {
    let silent = says(|_, line| if verb(line) == "<end>" { String::new() } else { polite(line, &[]) });
    let zone = [("d.test", &[(1, "h1.test")][..]), ("e.test", &[(1, "h2.test")])];
    let net = Net::new(&zone, vec![("h1.test", silent), ("h2.test", Host::Absent)]);
    let (mx, content) = (net.mx(|_| {}), Arc::new(Bytes::from_static(CONTENT.as_bytes())));
    let message = |_| Message::new("me@s.test", ["a@d.test", "a@e.test", "a@mute.test"], Arc::clone(&content)).unwrap();
    let mut batch = mx.send_all((0..20).map(message));
    assert!(timeout(Duration::from_secs(2), batch.next()).await.is_err());
    assert!(Arc::strong_count(&content) > 20);
    drop(batch);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(Arc::strong_count(&content), 1);
    assert_eq!(net.count("h1.test", "<connect>"), net.count("h1.test", "<eof>"));
}

/// Any schedule of replies and closings at the first of two hosts: nothing arrives twice, and what
/// was accepted has arrived.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice_unless_it_is_in_doubt() {
    for seed in 0..300 {
        let schedule = super::schedules::Schedule::new(seed);
        let (first, taken) = model(schedule.offers, schedule.asks_anyway, schedule.act());
        let (second, also): (_, Taken) = model(schedule.offers, false, |_, _| None::<Act>);
        let hosts = vec![("h1.test", says(first)), ("h2.test", says(second))];
        let net = Net::new(&[("d.test", TWO)], hosts);
        let messages = (0..schedule.messages).map(|number| super::message(number, schedule.recipients));
        let found = send(&net.mx(|options| options.destination.connections = 2), messages.collect()).await;
        for (number, delivered) in found.iter().enumerate() {
            for (rcpt, (letter, recipient)) in
                letters_of(&delivered.recipients).chars().zip(&delivered.recipients).enumerate()
            {
                let context = format!("seed {seed}: {:?} {:?} {number} {recipient:?}", schedule.offers, schedule.acts);
                let count = taken.count(number, rcpt) + also.count(number, rcpt);
                match (letter, recipient.in_doubt) {
                    ('A', _) => assert_eq!(count, 1, "{context}"),
                    ('L', true) => assert!(count <= 1, "{context}"),
                    _ => assert_eq!(count, 0, "{context}"),
                }
            }
        }
        taken.check();
        also.check();
    }
}

/// The domains of one message: those that are silent take their time together.
#[tokio::test(start_paused = true)]
async fn silent_domains_of_one_message_give_their_place_to_others() {
    let names: Vec<&'static str> = (1..=120).map(|number| &*format!("d{number}.test").leak()).collect();
    let hosts: Vec<&'static str> = (1..=120).map(|number| &*format!("h{number}.test").leak()).collect();
    let records: Vec<_> = hosts.iter().map(|host| [(1_u16, *host)]).collect();
    let zone: Vec<_> = names.iter().zip(&records).map(|(name, records)| (*name, &records[..])).collect();
    let recipients: Vec<_> = names.iter().map(|name| format!("a@{name}")).collect();
    for (domains, deliveries, seconds) in [(20, 200, 32), (20, 30, 62), (20, 1, 1_600), (3, 200, 38)] {
        let most = (domains + deliveries).min(2 * deliveries);
        let of_host =
            |(number, host): (usize, &&'static str)| (*host, if number % 6 == 5 { well(&[]) } else { Host::Absent });
        let net = Net::new(&zone, hosts.iter().enumerate().map(of_host).collect());
        let mx = net.mx(|options| (options.domains, options.deliveries) = (domains, deliveries));
        let begun = Instant::now();
        let delivered = mx.send("me@s.test", recipients.iter().map(String::as_str), CONTENT).await.unwrap();
        assert_eq!(delivered.failed().count(), 100);
        let (took, at_once) = (begun.elapsed().as_secs(), net.0.most_dialing.load(Relaxed));
        assert!(took < seconds, "{domains} domains, {deliveries} deliveries: {took} s");
        assert!(at_once <= most, "{domains} domains, {deliveries} deliveries: {at_once} at once");
    }
}
