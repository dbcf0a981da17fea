//! A next hop that takes no more mail for now is left in peace, and its mail waits without a
//! deferral.

use std::{collections::HashSet, time::Duration};

use posthaste_relay::{Cause, SiteState};
use posthaste_testkit::script::{Scripted, polite};

use crate::support::{options, start};

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// The stages at which a server throttles, and its words.
const STAGES: &[(&str, &str, Cause)] = &[
    ("<connect>", "421 4.7.0 Too many connections, try again in 1 second\r\n", Cause::TooManyConnections),
    ("EHLO", "421 4.7.0 Rate limit exceeded, try again in 1 second\r\n", Cause::RateLimited),
    ("MAIL", "421 4.7.0 Try again in 1 second\r\n", Cause::RateLimited),
    ("MAIL", "451 4.7.1 Slow down for 1s\r\n", Cause::RateLimited),
    ("RCPT", "450 4.7.1 Too many messages, retry in 1 second\r\n", Cause::RateLimited),
    ("DATA", "451 4.7.500 Server busy, try again in 1 second\r\n", Cause::RateLimited),
    ("<end>", "452 4.3.2 Too many connections, try again in 1 second\r\n", Cause::TooManyConnections),
];

#[tokio::test]
async fn a_site_that_throttles_at_any_stage_rests_and_its_mail_is_not_deferred() {
    for (stage, says, cause) in STAGES {
        let mut is_first = true;
        let hop = Scripted::start(move |_, line| {
            let throttles = line.starts_with(stage) && std::mem::replace(&mut is_first, !line.starts_with(stage));
            if throttles { (*says).to_owned() } else { polite(line, &[]) }
        })
        .await;
        let relay = start(options(&[hop.port]));
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
        let resting = loop {
            if let Some(SiteState { resting: Some(resting), due: 1, open: 0, .. }) = relay.relay.sites().pop() {
                break resting;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        assert_eq!(resting.cause, *cause, "{stage} {says}");
        assert!(
            resting.left <= Duration::from_millis(1_100) && resting.why.text.starts_with(&says[..3]),
            "{resting:?}"
        );
        relay.submit("<me@s.test>", &["<b@d.test>"], CONTENT).await;
        relay.log.wait("delivered", 2).await;
        assert_eq!(relay.log.count("deferred"), 0, "{stage} {says}");
        let state = relay.relay.sites().pop().unwrap();
        assert!(state.resting.is_none() && state.name.ends_with(&format!(":{}", hop.port)), "{state:?}");
        // One probe after the rest: the second message did not ask while the first waited.
        assert!(hop.count("<connect>") <= 3, "{stage}: {}", hop.count("<connect>"));
        relay.end().await;
    }
}

/// What the server has done for one recipient stands.
#[tokio::test]
async fn a_delivery_of_which_some_was_settled_is_written_back() {
    let mut is_first = true;
    let hop = Scripted::start(move |_, line| {
        if line.starts_with("RCPT TO:<b@") && std::mem::replace(&mut is_first, false) {
            return "450 4.7.1 rate limit, try again in 1 second\r\n".to_owned();
        }
        polite(line, &[])
    })
    .await;
    let relay = start(options(&[hop.port]));
    relay.submit("<me@s.test>", &["<a@d.test>", "<b@d.test>"], CONTENT).await;
    relay.log.wait("delivered", 2).await;
    assert_eq!(relay.log.count("deferred"), 1);
    assert_eq!(hop.count("RCPT TO:<a@"), 1);
    relay.end().await;
}

/// The connections that it takes go on.
#[tokio::test]
async fn a_site_with_too_many_connections_gets_its_mail_over_those_that_it_takes() {
    const MESSAGES: usize = 60;
    let mut taken = HashSet::new();
    let hop = Scripted::start(move |place, line| {
        match line {
            "<connect>" if taken.len() >= 2 => return "421 4.7.0 Too many connections\r\n<close>".to_owned(),
            "<connect>" => {
                taken.insert(place.connection);
            }
            "<eof>" | "QUIT" => {
                taken.remove(&place.connection);
            }
            "<end>" => return "after 20 250 ok\r\n".to_owned(),
            _ => {}
        }
        polite(line, &[])
    })
    .await;
    let relay = start(options(&[hop.port]));
    for _ in 0..MESSAGES {
        relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    }
    relay.log.wait("delivered", MESSAGES).await;
    assert_eq!(relay.log.count("deferred"), 0);
    assert_eq!(hop.count("<end>"), MESSAGES);
    let state = relay.relay.sites().pop().unwrap();
    assert!(state.window <= 3, "{state:?}");
    relay.end().await;
}

/// A message whose sender is to be told, or that has expired, does not wait with the others.
#[tokio::test]
async fn mail_expires_at_a_site_that_throttles() {
    let hop = Scripted::start(|_, line| match line.starts_with("MAIL") {
        true => "421 4.7.0 try again in 1 second\r\n".to_owned(),
        false => polite(line, &[]),
    })
    .await;
    let mut options = options(&[hop.port]);
    options.delivery.retry.expire_after = Duration::from_secs(2);
    let relay = start(options);
    relay.submit("<me@s.test>", &["<a@d.test>"], CONTENT).await;
    relay.log.wait("failed", 1).await;
    assert!(relay.log.of("failed")[0].text.contains("421 4.7.0 try again"), "{:?}", relay.log.all());
    relay.end().await;
}
