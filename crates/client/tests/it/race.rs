//! Races between servers that are dead, silent, slow or well, on a virtual clock.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste_client::{
    Client, ClientOptions, ConnectError, Credentials, Dial, Health, HostTls, Identity, Race, Server, Stage, Target, Tls,
};
use posthaste_testkit::{
    pki::tls,
    script::{Heard, polite, serve, verb},
};
use tokio::{io::DuplexStream, time::Instant};

use crate::support::{options, trusting};

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Refuses,
    /// Does not answer SYN.
    Absent,
    Silent,
    /// Greets after this many milliseconds.
    Greets(u64),
    ClosesAtOnce,
    ClosesAfterGreeting,
    /// 421 as its greeting.
    GoesAway,
    HangsAfterEhlo,
    /// Answers RCPT after this many milliseconds.
    SlowRcpt(u64),
    /// 535 to AUTH.
    RefusesLogin,
    /// 220 to STARTTLS, and no handshake.
    HangsInTls,
    /// 220 to STARTTLS, and no TLS.
    BreaksTls,
}
use Mood::*;

/// The servers of a test. Its clones share all.
#[derive(Debug, Clone, Default)]
struct Net(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    moods: HashMap<SocketAddr, Mood>,
    /// The port of each server that was dialed, and what it heard.
    dialed: Vec<(u16, Heard)>,
    pki: Option<Arc<posthaste_client::rustls::ServerConfig>>,
}

impl Net {
    fn dialed(&self) -> Vec<u16> {
        self.0.lock().unwrap().dialed.iter().map(|(port, _)| *port).collect()
    }

    /// What the servers of this port heard, over all connections.
    fn heard(&self, port: u16) -> Vec<String> {
        let world = self.0.lock().unwrap();
        let of_port = world.dialed.iter().filter(|(dialed, _)| *dialed == port);
        of_port.flat_map(|(_, heard)| heard.all()).map(|(_, line)| line).collect()
    }

    fn open(&self) -> usize {
        let world = self.0.lock().unwrap();
        world.dialed.iter().filter(|(_, heard)| !heard.all().is_empty() && heard.count("<eof>") == 0).count()
    }
}

impl Dial for Net {
    type Stream = DuplexStream;

    async fn dial(&self, server: &Server) -> io::Result<DuplexStream> {
        let server = server.address().unwrap();
        let mood = self.0.lock().unwrap().moods[&server];
        match mood {
            Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
            Absent => std::future::pending().await,
            _ => {}
        }
        let mut world = self.0.lock().unwrap();
        let offers: &[&str] = if world.pki.is_some() { &["STARTTLS"] } else { &[] };
        let script = move |place: posthaste_testkit::script::Place, line: &str| match (mood, verb(line)) {
            (Silent, _) | (HangsAfterEhlo, "EHLO") => String::new(),
            (Greets(after), "<connect>") => format!("after {after} 220 mx.test\r\n"),
            (ClosesAtOnce, _) | (ClosesAfterGreeting, "EHLO") => "close".to_owned(),
            (SlowRcpt(after), "RCPT") => format!("after {after} 250 ok\r\n"),
            (RefusesLogin, "AUTH") => "535 5.7.8 wrong\r\n".to_owned(),
            (GoesAway, "<connect>") => "421 4.3.2 Not now\r\nclose".to_owned(),
            (HangsInTls, "STARTTLS") => "220 go\r\n<hang>".to_owned(),
            (BreaksTls, "STARTTLS") => "220 go\r\n<garbage>".to_owned(),
            _ if place.tls => polite(line, &["AUTH PLAIN"]),
            _ => polite(line, offers),
        };
        let (stream, heard) = serve(script, world.pki.clone());
        world.dialed.push((server.port(), heard));
        Ok(stream)
    }
}

/// Servers with these moods, at ports from 1 on, each with a preference of its own if wanted.
fn servers(moods: &[Mood], apart: bool) -> (Net, Vec<Target>) {
    let net = Net::default();
    let mut targets = Vec::new();
    for (mood, port) in moods.iter().zip(1_u16..) {
        let server = SocketAddr::from(([192, 0, 2, 1], port));
        net.0.lock().unwrap().moods.insert(server, *mood);
        targets.push(Target::new("mx.test", server, if apart { port } else { 10 }));
    }
    (net, targets)
}

fn port(server: &Server) -> u16 {
    server.address().unwrap().port()
}

/// Races once. Returns the port of the winner, and the milliseconds until then.
async fn once(net: &Net, targets: &[Target], options: &Arc<ClientOptions>) -> (Option<u16>, u128) {
    let begun = Instant::now();
    let mut race = Race::new(targets, net.clone(), Arc::clone(options));
    let winner = race.next().await;
    let port = winner.as_ref().map(|(index, _)| port(&targets[*index].server));
    if let Some((_, client)) = winner {
        client.quit().await;
    }
    (port, begun.elapsed().as_millis())
}

fn of(health: &Health, port: u16) -> Option<posthaste_client::ServerHealth> {
    health.servers().into_iter().find(|known| self::port(&known.server) == port)
}

#[tokio::test(start_paused = true)]
async fn the_next_server_wins_after_a_head_start_and_the_first_is_remembered() {
    for (mood, apart, expected, stage) in [
        (Well, false, (1, 0), None),
        (Refuses, false, (2, 0), Some(Stage::Connect)),
        (Refuses, true, (2, 0), Some(Stage::Connect)),
        (Absent, false, (2, 250), Some(Stage::Connect)),
        (Absent, true, (2, 500), Some(Stage::Connect)),
        (Silent, false, (2, 250), Some(Stage::Greeting)),
        (Silent, true, (2, 500), Some(Stage::Greeting)),
        (Greets(60_000), false, (2, 250), Some(Stage::Greeting)),
        (ClosesAtOnce, true, (2, 0), Some(Stage::Greeting)),
        (ClosesAfterGreeting, true, (2, 0), Some(Stage::Hello)),
        (GoesAway, true, (2, 0), Some(Stage::Greeting)),
        (HangsAfterEhlo, true, (2, 500), Some(Stage::Hello)),
        // Within the head start.
        (Greets(200), false, (1, 200), None),
        (Greets(400), true, (1, 400), None),
    ] {
        let (net, targets) = servers(&[mood, Well], apart);
        let options = Arc::new(options(Tls::Off));
        let (winner, after) = once(&net, &targets, &options).await;
        assert_eq!((winner, after), (Some(expected.0), expected.1), "{mood:?} {apart}");
        let known = of(&options.health, 1).and_then(|known| known.last_failure);
        assert_eq!(known.map(|(stage, _)| stage), stage, "{mood:?} {apart}");
        // From then on nothing is lost.
        if stage.is_some() {
            for _ in 0..3 {
                assert_eq!(once(&net, &targets, &options).await, (Some(2), 0), "{mood:?} {apart}");
            }
            assert!(net.heard(1).iter().all(|line| verb(line) != "MAIL"));
            let probes = net.dialed().iter().filter(|port| **port == 1).count();
            assert!(probes <= 1, "{mood:?}: it was tried {probes} times");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_in_tls_is_overtaken_too() {
    for (policy, mood, expected) in [
        (Tls::Required(Identity::Verified(trusting())), HangsInTls, 500),
        (Tls::Opportunistic(trusting()), HangsInTls, 500),
        (Tls::Required(Identity::Verified(trusting())), BreaksTls, 0),
    ] {
        let (net, targets) = servers(&[mood, Well], true);
        net.0.lock().unwrap().pki = Some(tls("mx.test").0);
        let options = Arc::new(options(policy));
        assert_eq!(once(&net, &targets, &options).await, (Some(2), expected), "{mood:?}");
        assert_eq!(net.heard(1).iter().filter(|line| verb(line) == "MAIL").count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn opportunistic_tls_that_breaks_costs_one_more_connection_to_the_same_server() {
    let (net, targets) = servers(&[BreaksTls, Well], true);
    net.0.lock().unwrap().pki = Some(tls("mx.test").0);
    let options = Arc::new(options(Tls::Opportunistic(trusting())));
    let mut race = Race::new(&targets, net.clone(), Arc::clone(&options));
    let (winner, client) = race.next().await.unwrap();
    let mut client = client;
    assert_eq!((winner, client.is_tls(), client.server()), (0, false, Some(&targets[0])));
    assert_eq!(net.dialed(), [1, 1]);
    // Once a message has gone, there is no second connection.
    assert!(!options.health.breaks_tls(&targets[0].server));
    assert!(client.send("a@b.test", ["c@d.test"], "x\r\n").await.unwrap().is_complete());
    assert!(options.health.breaks_tls(&targets[0].server));
    client.quit().await;
    assert_eq!(once(&net, &targets, &options).await, (Some(1), 0));
    assert_eq!(net.dialed(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_overtaken_once_and_then_gets_its_time() {
    let (net, targets) = servers(&[Greets(3_000), Well], true);
    let options = Arc::new(options(Tls::Off));
    assert_eq!(once(&net, &targets, &options).await, (Some(2), 500));
    // While it is not known whether it is dead, it comes last.
    assert!(options.health.is_sick(&targets[0].server));
    tokio::time::sleep(Duration::from_secs(4)).await;
    let known = of(&options.health, 1).unwrap();
    assert_eq!((known.failures, known.ready_after), (0, Duration::from_secs(3)));
    let said = net.heard(1);
    assert!(said.iter().any(|line| line == "QUIT") && said.iter().all(|line| verb(line) != "MAIL"), "{said:?}");
    assert_eq!(once(&net, &targets, &options).await, (Some(1), 3_000));
    // After an hour, and when it is fast again, that is forgotten.
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(of(&options.health, 1).unwrap().ready_after, Duration::ZERO);
    net.0.lock().unwrap().moods.insert(targets[0].server.address().unwrap(), Well);
    assert_eq!(once(&net, &targets, &options).await, (Some(1), 0));
    assert!(options.health.servers().is_empty(), "{:?}", options.health);
}

#[tokio::test(start_paused = true)]
async fn one_race_has_few_connections_however_many_servers_win_and_fail() {
    let moods: Vec<_> = (0..48).map(|number| if number % 3 == 2 { Well } else { Silent }).collect();
    let (net, targets) = servers(&moods, false);
    let mut race = Race::new(&targets, net.clone(), Arc::new(options(Tls::Off)));
    let (mut most, mut won) = (0, 0);
    while let Some((_, client)) = race.next().await {
        client.quit().await;
        tokio::task::yield_now().await;
        (most, won) = (most.max(net.open()), won + 1);
    }
    assert_eq!((most <= 4, won), (true, 16), "{most} connections at once");
    assert_eq!(net.dialed().len(), 48, "each server was dialed once");
}

#[tokio::test(start_paused = true)]
async fn what_has_lost_and_is_ready_meanwhile_comes_next_without_another_connection() {
    let (net, targets) = servers(&[Greets(1_000), Well], true);
    let mut race = Race::new(&targets, net.clone(), Arc::new(options(Tls::Off)));
    let mut clients = Vec::new();
    while let Some((_, client)) = race.next().await {
        clients.push(client);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!((clients.len(), net.dialed()), (2, vec![1, 2]));
    drop(race);
    // A loser that is ready when the race is dropped says goodbye.
    let mut race = Race::new(&targets, net.clone(), Arc::new(options(Tls::Off)));
    let (winner, _client) = race.next().await.unwrap();
    assert_eq!(winner, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    drop(race);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(net.heard(1).iter().any(|line| line == "QUIT"));
}

#[tokio::test(start_paused = true)]
async fn the_last_server_has_the_time_of_rfc_5321() {
    let (net, targets) = servers(&[SlowRcpt(70_000), SlowRcpt(70_000)], true);
    let mut race = Race::new(&targets, net, Arc::new(options(Tls::Off)));
    for (index, is_complete) in [(0, false), (1, true)] {
        let (found, mut client) = race.next().await.unwrap();
        let sent = client.send("a@b.test", ["c@d.test"], "x\r\n").await.unwrap();
        assert_eq!((found, sent.is_complete()), (index, is_complete), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_tried_once_and_says_nothing_of_the_server() {
    let (net, targets) = servers(&[RefusesLogin; 5], false);
    let (server, config) = tls("mx.test");
    net.0.lock().unwrap().pki = Some(server);
    let mut options = options(Tls::Required(Identity::Verified(config)));
    options.credentials = Some(Credentials::new("me", "wrong").into());
    let options = Arc::new(options);
    let mut race = Race::new(&targets, net.clone(), Arc::clone(&options));
    assert!(race.next().await.is_none());
    assert!(matches!(race.failed()[..], [(0, ConnectError::Refused { stage: Stage::Auth, .. })]));
    assert_eq!((net.dialed(), options.health.servers().len()), (vec![1], 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_named_twice_is_tried_once() {
    let (net, targets) = servers(&[Silent, Silent], false);
    let twice = [targets.clone(), targets].concat();
    let mut race = Race::new(&twice, net.clone(), Arc::new(options(Tls::Off)));
    assert!(race.next().await.is_none());
    assert_eq!(net.dialed(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn any_head_start_is_taken() {
    for (head_start, expected) in [(Duration::ZERO, (Some(2), 0)), (Duration::MAX, (Some(2), 10_000))] {
        let (net, targets) = servers(&[Silent, Well], true);
        let mut options = options(Tls::Off);
        options.head_start = head_start;
        assert_eq!(once(&net, &targets, &Arc::new(options)).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn three_connections_at_once_are_the_most_and_the_first_of_them_is_given_up() {
    let (net, targets) = servers(&[Silent, Silent, Silent, Silent, Silent, Well], false);
    let options = Arc::new(options(Tls::Off));
    let watch = net.clone();
    let most = tokio::spawn(async move {
        let mut most = 0;
        for _ in 0..2_000 {
            most = most.max(watch.open());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    });
    // Three start within 0.5 s. The others follow at 8, 8.25 and 8.5 s.
    assert_eq!(once(&net, &targets, &options).await, (Some(6), 8_500));
    assert_eq!(most.await.unwrap(), 3);
    for port in 1..=5 {
        assert!(options.health.is_sick(&targets[usize::from(port - 1_u16)].server), "{port}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_winner_the_losers_are_tried_again_and_last() {
    let (net, targets) = servers(&[Greets(1_000), Well, Well], true);
    let options = Arc::new(options(Tls::Off));
    let mut race = Race::new(&targets, net.clone(), Arc::clone(&options));
    let mut order = Vec::new();
    while let Some((index, client)) = race.next().await {
        order.push(index);
        client.quit().await;
    }
    assert_eq!(order, [1, 2, 0]);
    assert!(race.failed().is_empty());
}

/// Hosts of one domain differ in what they demand, as with DANE.
#[tokio::test(start_paused = true)]
async fn a_target_has_the_tls_of_its_own_and_loses_none_that_it_demands() {
    let (net, mut targets) = servers(&[Well, Well, Well], true);
    let (server, client) = tls("mx.test");
    net.0.lock().unwrap().pki = Some(server);
    let proved = HostTls::from(Tls::Required(Identity::Verified(client)));
    targets[0].tls = Some(proved.clone());
    targets[1].tls = Some(HostTls { server_name: Some("other.test".into()), ..proved });
    targets[2].tls = Some(Tls::Opportunistic(trusting()).into());
    let off = Arc::new(options(Tls::Off));
    let mut race = Race::new(&targets, net.clone(), Arc::clone(&off));
    let mut met = Vec::new();
    while let Some((index, client)) = race.next().await {
        met.push((index, client.is_tls(), client.is_verified()));
        let again = race.again(index, &off).await.unwrap();
        // TLS that is optional goes, as the options say.
        met.push((index, again.is_tls(), again.is_verified()));
    }
    assert_eq!(met, [(0, true, true), (0, true, true), (2, true, false), (2, false, false)]);
    // The certificate is not for the name of the second.
    assert!(matches!(&race.failed()[..], [(1, ConnectError::Tls(_))]));
    assert!(net.heard(2).iter().all(|line| verb(line) != "MAIL"));
}

#[tokio::test(start_paused = true)]
async fn a_server_of_two_hosts_is_tried_for_each_that_demands_something_else() {
    let (net, mut targets) = servers(&[Well], true);
    net.0.lock().unwrap().pki = Some(tls("mx.test").0);
    let stranger = Tls::Required(Identity::Verified(tls("mx.test").1));
    let usual = Tls::Opportunistic(trusting());
    for tls in [stranger.clone(), stranger, usual.clone(), usual] {
        targets.push(Target { tls: Some(tls.into()), ..targets[0].clone() });
    }
    targets.remove(0);
    let mut race = Race::new(&targets, net.clone(), Arc::new(options(Tls::Off)));
    assert!(matches!(race.next().await, Some((2, client)) if client.is_tls()));
    assert!(race.next().await.is_none());
    assert_eq!((net.dialed().len(), race.failed().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_race_without_a_winner_says_why_for_each_server() {
    let (net, targets) = servers(&[Refuses, GoesAway, ClosesAfterGreeting], true);
    let options = Arc::new(options(Tls::Off));
    let mut race = Race::new(&targets, net, options);
    assert!(race.next().await.is_none());
    let failed = race.failed();
    assert!(
        matches!(
            &failed[..],
            [
                (0, ConnectError::Tcp { .. }),
                (1, ConnectError::Refused { stage: Stage::Greeting, .. }),
                (2, ConnectError::Conversation { stage: Stage::Hello, .. }),
            ]
        ),
        "{failed:?}"
    );
    assert!(race.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing_and_what_is_given_up_has_failed() {
    let (net, targets) = servers(&[Silent, Greets(300)], false);
    let options = Arc::new(options(Tls::Off));
    let mut race = Race::new(&targets, net.clone(), Arc::clone(&options));
    assert!(tokio::time::timeout(Duration::from_millis(400), race.next()).await.is_err());
    assert_eq!(race.next().await.unwrap().0, 1);
    assert_eq!(net.dialed(), [1, 2], "each was dialed once");

    let mut race = Race::new(&targets[..1], net, Arc::clone(&options));
    assert!(tokio::time::timeout(Duration::from_secs(2), race.next()).await.is_err());
    race.give_up();
    assert!(matches!(race.failed()[..], [(0, ConnectError::TooSlow { .. })]));
    assert!(race.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_just_begun_is_not_given_up() {
    let (net, targets) = servers(&[Silent, Greets(100)], false);
    let options = Arc::new(options(Tls::Off));
    let mut race = Race::new(&targets, net, Arc::clone(&options));
    assert!(tokio::time::timeout(Duration::from_millis(260), race.next()).await.is_err());
    race.give_up();
    assert!(matches!(race.failed()[..], [(0, ConnectError::TooSlow { .. })]));
    assert!(!options.health.is_sick(&targets[1].server));
    assert_eq!(race.next().await.unwrap().0, 1);
}

/// A client of an application that has its own stream needs no race.
#[tokio::test]
async fn connect_tries_all_addresses_of_a_name() {
    let server = posthaste_testkit::script::Scripted::polite().await;
    // `localhost` may have `::1` first, where the server does not listen.
    let client = Client::connect(("localhost", server.port), &options(Tls::Off)).await.unwrap();
    client.quit().await;
    assert_eq!(server.count("QUIT"), 1);
}
