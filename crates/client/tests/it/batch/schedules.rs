//! Any schedule of replies and closings: what the server has taken is what was accepted, and
//! nothing but what is in doubt beside it.

use posthaste_client::{Pool, PoolOptions, Tcp, Tls};
use posthaste_testkit::script::{Scripted, serve};

use super::{
    OFFERS, message,
    model::{Act, model},
    sent,
};
use crate::support::{connected, letters_of, options};

/// What can happen at a line.
const ACTS: &[Act] = &[
    Act::Close,
    Act::CloseAfter,
    Act::Say("421 4.3.2 bye\r\n"),
    Act::Say("450 4.2.0 later\r\n"),
    Act::Say("550 5.7.1 no\r\n"),
    Act::Say("503 5.5.1 bad sequence\r\n"),
    Act::Say("500 5.5.1 what\r\n"),
    Act::Say("250 odd\n"),
    Act::Say("250-odd\r\n251 odder\r\n"),
    Act::Say("550 odd\n"),
    Act::Say("250 ok\r\n"),
    Act::Say("220 what\r\n"),
    Act::Say("354 what\r\n"),
    Act::Say("hello\r\n"),
];

pub(super) struct Schedule {
    pub(super) offers: &'static [&'static str],
    pub(super) asks_anyway: bool,
    pub(super) messages: usize,
    pub(super) recipients: usize,
    pub(super) acts: Vec<(usize, Act)>,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (messages, recipients) = (random.usize(1..10), random.usize(1..4));
        let lines = messages * (recipients + 3);
        let acts = (0..random.usize(0..4)).map(|_| (random.usize(0..lines), ACTS[random.usize(0..ACTS.len())]));
        let acts = acts.collect();
        Self { offers: OFFERS[random.usize(0..OFFERS.len())], asks_anyway: random.bool(), messages, recipients, acts }
    }

    pub(super) fn act(&self) -> impl FnMut(usize, &str) -> Option<Act> + Send + 'static {
        let acts = self.acts.clone();
        move |number, _| acts.iter().find(|(at, _)| *at == number).map(|(_, act)| *act)
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_has_taken_is_accepted_or_in_doubt() {
    for seed in 0..2_000 {
        let schedule = Schedule::new(seed);
        let (script, taken) = model(schedule.offers, schedule.asks_anyway, schedule.act());
        let (stream, _) = serve(script, None);
        let messages = (0..schedule.messages).map(|number| message(number, schedule.recipients)).collect();
        let found = sent(&mut connected(stream).await, messages).await;
        let context = format!("seed {seed}: {:?} {:?}: {found:?}", schedule.offers, schedule.acts);
        taken.check();
        for (number, found) in found.iter().enumerate() {
            let letters = found.chars().map(Some).chain(std::iter::repeat(None));
            for (rcpt, letter) in (0..schedule.recipients).zip(letters) {
                let count = taken.count(number, rcpt);
                match letter {
                    Some('A') => assert_eq!(count, 1, "{context}: {number}"),
                    Some('L') if found.ends_with('?') => assert!(count <= 1, "{context}: {number}"),
                    _ => assert_eq!(count, 0, "{context}: {number}"),
                }
            }
        }
        if schedule.acts.is_empty() {
            assert!(found.iter().all(|found| found.chars().all(|letter| letter == 'A')), "{context}");
        }
    }
}

/// The same over a pool: what the server cannot have is sent again, and nothing twice.
#[tokio::test]
async fn a_pool_sends_again_what_the_server_cannot_have() {
    for seed in 0..300 {
        let schedule = Schedule::new(seed);
        let (script, taken) = model(schedule.offers, schedule.asks_anyway, schedule.act());
        let server = Scripted::start(script).await;
        let mut limits = PoolOptions::default();
        limits.connections = 2;
        let pool = Pool::with([("127.0.0.1", server.port)], options(Tls::Off), limits, Tcp::default()).unwrap();
        let messages = (0..schedule.messages).map(|number| message(number, schedule.recipients));
        let mut batch = pool.send_all(messages);
        let mut found = vec![String::new(); schedule.messages];
        while let Some((number, delivered)) = batch.next().await {
            assert!(found[number].is_empty(), "message {number} has one outcome");
            let recipients = delivered.unwrap().recipients;
            for (rcpt, (letter, recipient)) in letters_of(&recipients).chars().zip(&recipients).enumerate() {
                let context = format!("seed {seed}: {:?} {:?} {number} {recipient:?}", schedule.offers, schedule.acts);
                let count = taken.count(number, rcpt);
                match (letter, recipient.in_doubt) {
                    ('A', _) => assert_eq!(count, 1, "{context}"),
                    ('L', true) => assert!(count <= 1, "{context}"),
                    _ => assert_eq!(count, 0, "{context}"),
                }
                found[number].push(letter);
            }
        }
        taken.check();
        assert!(found.iter().all(|found| !found.is_empty()), "seed {seed}: {found:?}");
    }
}
