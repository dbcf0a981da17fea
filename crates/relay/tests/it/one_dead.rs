//! One host of two is dead, in every way. Mail goes on over the other, with the timeouts of RFC
//! 5321.

use std::time::{Duration, Instant};

use posthaste_client::{Identity, Tls, tls::any_certificate};
use posthaste_relay::{Route, RouteTable};
use posthaste_testkit::{
    pki::tls,
    script::{Scripted, polite},
};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{options, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A bound that no timeout of RFC 5321 fits in. On an idle machine the first delivery takes less
/// than a second.
const SOON: Duration = Duration::from_secs(45);

/// How the first host is dead: what it says at a line.
const DEATHS: &[(&str, &str, &str)] = &[
    ("silent", "<connect>", ""),
    ("greets after a minute", "<connect>", "after 60000 220 mx.test\r\n"),
    ("closes at once", "<connect>", "close"),
    ("closes after the greeting", "EHLO", "close"),
    ("421 at once", "<connect>", "421 4.3.2 later\r\n"),
    ("hangs after EHLO", "EHLO", ""),
    ("hangs in the handshake", "STARTTLS", "220 go\r\n<hang>"),
    ("breaks the handshake", "STARTTLS", "220 go\r\n<garbage>"),
];

#[tokio::test]
async fn the_other_host_takes_the_mail_at_once_and_the_dead_one_is_remembered() {
    let (config, _) = tls("mx.test");
    for (death, at, says) in DEATHS {
        let offers: &[&str] = if *at == "STARTTLS" { &["STARTTLS"] } else { &[] };
        let dead = Scripted::start(move |_, line| match line.starts_with(at) {
            true => (*says).to_owned(),
            false => polite(line, offers),
        });
        let dead = dead.await;
        let alive =
            Scripted::with_tls(config.clone(), move |place, line| polite(line, if place.tls { &[] } else { offers }));
        let alive = alive.await;
        mail_goes_on(death, dead.port, &alive, !offers.is_empty()).await;
        assert_eq!(dead.count("MAIL"), 0, "{death}");
        assert!(dead.count("<connect>") <= 2, "{death}: {} connections", dead.count("<connect>"));
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_is_passed_over() {
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let alive = Scripted::polite().await;
    mail_goes_on("refuses", closed.local_addr().unwrap().port(), &alive, false).await;

    // A connection to it neither succeeds nor fails: the backlog of its listener is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = socket.listen(1).unwrap();
    let port = full.local_addr().unwrap().port();
    let fill: Vec<_> = (0..8).map(|_| tokio::spawn(TcpStream::connect(("127.0.0.1", port)))).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let alive = Scripted::polite().await;
    mail_goes_on("does not answer SYN", port, &alive, false).await;
    fill.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Sends one message, and then some more.
async fn mail_goes_on(death: &str, dead: u16, alive: &Scripted, by_tls: bool) {
    const MORE: usize = 100;
    let mut options = options(&[]);
    let mut route = Route::hosts([dead, alive.port].map(|port| ("127.0.0.1", port)));
    if by_tls {
        route.tls = Tls::Required(Identity::Unverified(any_certificate().unwrap()));
    }
    options.routes = RouteTable::all(route);
    let relay = start(options);
    let begun = Instant::now();
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 1).await;
    assert!(begun.elapsed() < SOON, "{death}: {:?}", begun.elapsed());
    for _ in 0..MORE {
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
    relay.log.wait("delivered", 1 + MORE).await;
    assert!(begun.elapsed() < SOON, "{death}: {:?}", begun.elapsed());
    assert_eq!((relay.log.count("deferred"), alive.count("<end>")), (0, 1 + MORE), "{death}");
    relay.end().await;
}
