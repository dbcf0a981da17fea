//! Who is served first at a next hop that the mail of several owners goes to.

use bytes::Bytes;
use posthaste_queue::Owner;

use crate::support::{Behavior, Hop, envelope, options, relay, run};

/// All domains go to one next hop, over one connection. The keys of "busy" sort first.
#[tokio::test]
async fn owners_take_turns_over_all_domains_of_a_next_hop_and_priorities_come_before_them() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[hop.port]);
    options.delivery.concurrency_per_site = 1;
    let (relay, log) = relay(options);
    let mut submitted = Vec::new();
    for number in 0..200 {
        submitted.push(("busy", "<busy@s.test>", format!("<a@d{number}.test>")));
    }
    submitted.push(("quiet", "<quiet@s.test>", "<a@z.test>".to_owned()));
    submitted.push(("quiet", "<quiet@s.test>", "<b@z.test>".to_owned()));
    submitted.push(("busy", "<urgent@s.test> MT-PRIORITY=4", "<a@z.test>".to_owned()));
    let count = submitted.len();
    for (owner, mail, recipient) in submitted {
        let content = Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n");
        relay.submit(Owner::new(owner).unwrap(), &envelope(mail, &[&recipient]), content).await.unwrap();
    }
    let relay = run(relay, log);
    relay.log.wait("delivered", count).await;
    let order: Vec<_> = hop.taken().iter().map(|taken| taken.envelope.mail.reverse_path.to_string()).collect();
    let expected = ["<urgent@s.test>", "<busy@s.test>", "<quiet@s.test>", "<busy@s.test>", "<quiet@s.test>"];
    assert_eq!(order[..5], expected);
    assert!(order[5..].iter().all(|sender| sender == "<busy@s.test>"));
    relay.end().await;
}
