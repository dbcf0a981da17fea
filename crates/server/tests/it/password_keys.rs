//! A handler that knows only SCRAM keys: PLAIN, LOGIN and SCRAM agree about every user.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use posthaste_server::{
    Accepted, Body, Context, Envelope, Handler, Peer, PeerAddress, Refusal, SaslError, ScramKey, ScramUser, Service,
    Tls, UnknownUsers, accepted, converse,
    session::ServerSettings,
    wire::{Mechanism, MechanismSet, Secret},
};
use posthaste_testkit::talk::Talk;

const ITERATIONS: u32 = 4_096;

#[derive(Debug, Clone)]
struct Keys(ScramKey);

impl Service for Keys {
    type Handler = Self;

    async fn connect(&self, _: &Context) -> Result<Self, Refusal> {
        Ok(self.clone())
    }
}

impl Handler for Keys {
    async fn scram_key(&mut self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        match (user.authentication_identity.as_str(), user.authorization_identity.as_deref()) {
            ("me" | "IX", None | Some("my list")) => Ok(Some(self.0.clone())),
            ("broken", _) => Err(SaslError::Unavailable),
            _ => Ok(None),
        }
    }

    fn unknown_users(&self) -> Option<UnknownUsers> {
        Some(UnknownUsers::new(Secret::new([5; 32]), ITERATIONS))
    }

    async fn message(&mut self, cx: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        body.collect(1_000).await?;
        Ok(accepted!("250 {}", cx.peer.identity.as_deref().unwrap_or("unknown")))
    }
}

fn keys() -> Keys {
    Keys(ScramKey::derive("right", &[7; 16], ITERATIONS).unwrap())
}

/// A session over a pipe.
async fn talk(keys: Keys) -> Talk<tokio::io::DuplexStream> {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256]);
    settings.offers.auth_in_clear = true;
    let (ours, theirs) = tokio::io::duplex(4_096);
    tokio::spawn(async move {
        let peer = Peer::new(PeerAddress::Local, PeerAddress::Local);
        converse(theirs, peer, &keys, Arc::new(settings), Tls::Off, std::future::pending()).await
    });
    Talk::new(ours).greeted().await
}

#[tokio::test]
async fn passwords_are_checked_against_keys() {
    let keys = keys();
    for (lines, code, identity) in [
        // `\0me\0right`, and with another password and another name.
        (&["AUTH PLAIN AG1lAHJpZ2h0"][..], "235", "me"),
        (&["AUTH PLAIN AG1lAHdyb25n"], "535 5.7.8", "unknown"),
        (&["AUTH PLAIN AHlvdQByaWdodA=="], "535 5.7.8", "unknown"),
        (&["AUTH LOGIN", "bWU=", "cmlnaHQ="], "235", "me"),
        (&["AUTH LOGIN", "bWU=", "d3Jvbmc="], "535 5.7.8", "unknown"),
        // `my list\0me\0right` and `boss\0me\0right`.
        (&["AUTH PLAIN bXkgbGlzdABtZQByaWdodA=="], "235", "my list"),
        (&["AUTH PLAIN Ym9zcwBtZQByaWdodA=="], "535 5.7.8", "unknown"),
        // U+2168 is the Roman numeral that SASLprep makes two letters of.
        (&["AUTH PLAIN AOKFqAByaWdodA=="], "235", "IX"),
        // `\0m\x07e\0right` and `\0me\0ri\x07ght`: SASLprep takes neither.
        (&["AUTH PLAIN AG0HZQByaWdodA=="], "535 5.7.8", "unknown"),
        (&["AUTH PLAIN AG1lAHJpB2dodA=="], "535 5.7.8", "unknown"),
        // `\0broken\0right`
        (&["AUTH PLAIN AGJyb2tlbgByaWdodA=="], "454 4.7.0", "unknown"),
    ] {
        let mut talk = talk(keys.clone()).await;
        let mut said = String::new();
        for line in lines {
            said = talk.ask(line).await;
        }
        assert!(said.starts_with(code), "{lines:?}: {said}");
        assert_eq!(talk.message("a@b.test", "x").await, format!("250 {identity}"), "{lines:?}");
    }
}

/// Counts the turns of other tasks during a check, on a runtime with one thread.
#[tokio::test]
async fn a_check_of_a_password_delays_no_other_task() {
    let turns = Arc::new(AtomicUsize::new(0));
    let others = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    // A check takes as long as thousands of turns. On this thread it would leave few.
    let keys = Keys(ScramKey::derive("right", &[7; 16], 20 * ITERATIONS).unwrap());
    let mut talk = talk(keys).await;
    let before = turns.load(SeqCst);
    talk.expect("AUTH PLAIN AG1lAHJpZ2h0", "235").await;
    let during = turns.load(SeqCst) - before;
    others.abort();
    assert!(during > 100, "{during}");
}

#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_known_one() {
    let keys = keys();
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..5 {
        for (fastest, line) in fastest.iter_mut().zip(["AUTH PLAIN AG1lAHdyb25n", "AUTH PLAIN AHlvdQB3cm9uZw=="]) {
            let mut talk = talk(keys.clone()).await;
            let begun = std::time::Instant::now();
            talk.expect(line, "535").await;
            *fastest = begun.elapsed().min(*fastest);
        }
    }
    // The key derivation is some hundred times the rest.
    let [exists, does_not] = fastest;
    assert!(exists < does_not * 3 && does_not < exists * 3, "{fastest:?}");
}
