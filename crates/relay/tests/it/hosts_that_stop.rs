//! The first of two hosts stops, dies or refuses while mail is due, and comes back: the other host
//! gets the mail meanwhile, and the first one again afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::support::{PATIENCE, Running, options, start};
use posthaste_testkit::script::{Scripted, polite, verb};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
/// Deliveries at once.
const WORKERS: usize = 4;

/// What a host is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    Polite,
    /// As a process that is stopped: the system takes its connections and octets.
    Stopped,
    /// Stopped, but for those who are in the middle of a transaction until its end.
    StoppedAtEnd,
    /// It greets, and says nothing to RCPT.
    HangsAtRcpt,
    /// It greets, and says nothing at the end of a message.
    HangsAtEnd,
    Dead,
    Refusing,
    /// It takes a second to decide about a message.
    Slow,
}

/// A host whose mood changes.
#[derive(Debug, Clone)]
struct Moody(Arc<AtomicU8>);

impl Moody {
    fn is(&self, mood: Mood) {
        self.0.store(mood as u8, SeqCst);
    }

    fn says(&self, line: &str) -> String {
        let mood = self.0.load(SeqCst);
        match verb(line) {
            _ if mood == Mood::Stopped as u8 => String::new(),
            "<connect>" | "<end>" if mood == Mood::StoppedAtEnd as u8 => String::new(),
            "RCPT" if mood == Mood::HangsAtRcpt as u8 => String::new(),
            "<end>" if mood == Mood::HangsAtEnd as u8 => String::new(),
            "<connect>" | "MAIL" if mood == Mood::Dead as u8 => "close".to_owned(),
            "MAIL" if mood == Mood::Refusing as u8 => "451 4.3.2 Not now\r\n".to_owned(),
            "<end>" if mood == Mood::Slow as u8 => "after 1000 250 ok\r\n".to_owned(),
            _ => polite(line, &[]),
        }
    }
}

/// A relay with two hosts, the first of which is polite at first.
async fn begin() -> (Running, Moody, [Scripted; 2]) {
    let moody = Moody(Arc::new(AtomicU8::new(0)));
    let says = moody.clone();
    let hosts = [Scripted::start(move |_, line| says.says(line)).await, Scripted::polite().await];
    let mut options = options(&[hosts[0].port, hosts[1].port]);
    options.delivery.concurrency_per_site = WORKERS;
    let relay = start(options);
    send(&relay, 20).await;
    relay.log.wait("delivered", 20).await;
    assert_eq!((hosts[0].count("<end>"), hosts[1].count("<connect>")), (20, 0));
    (relay, moody, hosts)
}

async fn send(relay: &Running, count: usize) {
    for _ in 0..count {
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
}

/// With the timeouts of RFC 5321, which are minutes.
#[tokio::test]
async fn a_host_that_is_stopped_holds_up_no_mail() {
    let (relay, moody, hosts) = begin().await;
    moody.is(Mood::Stopped);
    let begun = Instant::now();
    send(&relay, 100).await;
    relay.log.wait("delivered", 120).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!((hosts[1].count("<end>"), relay.log.count("deferred")), (100, 0));
    relay.end().await;
}

/// It may have the messages that had left, and they wait. The others do not.
#[tokio::test]
async fn a_host_that_is_stopped_with_messages_holds_up_those_alone() {
    let (relay, moody, hosts) = begin().await;
    moody.is(Mood::StoppedAtEnd);
    send(&relay, 100).await;
    relay.log.wait("delivered", 120 - WORKERS - 1).await;
    assert_eq!(relay.log.count("deferred"), 0);
    let in_doubt = hosts[0].count("<end>") - 20;
    assert!((1..=WORKERS + 1).contains(&in_doubt), "{in_doubt}");
    relay.log.wait("delivered", 120 - in_doubt).await;
    relay.drain.cancel();
}

/// That it greets shows that it is not dead, and no more.
#[tokio::test]
async fn a_host_that_greets_and_says_no_more_does_not_hold_up_the_rest() {
    for mood in [Mood::HangsAtRcpt, Mood::HangsAtEnd] {
        let (relay, moody, hosts) = begin().await;
        moody.is(mood);
        let begun = Instant::now();
        send(&relay, 100).await;
        let in_doubt = if mood == Mood::HangsAtEnd { WORKERS + 1 } else { 0 };
        relay.log.wait("delivered", 120 - in_doubt).await;
        assert!(begun.elapsed() < Duration::from_secs(40), "{mood:?}: {:?}", begun.elapsed());
        let held = hosts[0].count("<end>") - 20;
        assert!(held <= in_doubt, "{mood:?}: {held}");
        relay.drain.cancel();
    }
}

#[tokio::test]
async fn a_host_that_comes_back_is_used_again_while_mail_is_due() {
    for mood in [Mood::Dead, Mood::Stopped, Mood::Refusing] {
        let (relay, moody, hosts) = begin().await;
        moody.is(mood);
        send(&relay, 20).await;
        relay.log.wait("delivered", 40).await;
        moody.is(Mood::Polite);
        let back = Instant::now();
        // The connections to the second host are never unused for long.
        while hosts[0].count("<end>") < 21 + WORKERS {
            send(&relay, 2).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(back.elapsed() < PATIENCE, "{mood:?}");
        }
        assert!(back.elapsed() < Duration::from_secs(30), "{mood:?}: {:?}", back.elapsed());
        assert_eq!(relay.log.count("deferred"), 0);
        relay.end().await;
    }
}

#[tokio::test]
async fn a_host_that_refuses_every_message_is_asked_now_and_then() {
    let (relay, moody, hosts) = begin().await;
    moody.is(Mood::Refusing);
    let (begun, before) = (Instant::now(), hosts[0].count("MAIL"));
    for _ in 0..10 {
        send(&relay, 20).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    relay.log.wait("delivered", 220).await;
    let asked = hosts[0].count("MAIL") - before;
    let probes = usize::try_from(begun.elapsed().as_secs() / 5).unwrap();
    assert!((1..=WORKERS + probes).contains(&asked), "{asked}");
    assert_eq!((hosts[1].count("<end>"), relay.log.count("deferred")), (200, 0));
    relay.end().await;
}

/// One more connection finds out that the host greets. Its mail does not go elsewhere.
#[tokio::test]
async fn a_host_that_is_slow_keeps_its_mail() {
    let (relay, moody, hosts) = begin().await;
    moody.is(Mood::Slow);
    let before = hosts[0].count("<connect>");
    send(&relay, 3 * WORKERS).await;
    relay.log.wait("delivered", 20 + 3 * WORKERS).await;
    assert_eq!(hosts[1].count("<connect>"), 0);
    let connections = hosts[0].count("<connect>") - before;
    assert!(connections <= WORKERS + 3, "{connections}");
    relay.end().await;
}
