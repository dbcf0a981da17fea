//! Mail for the relay's own name, which has no mailboxes: it goes to the mailbox in the options, or
//! is refused.

use crate::support::{Behavior, Client, Hop, options, start};
use posthaste_relay::{RelayOptions, queue::Queue as _};
use posthaste_server::refusal;

/// The relay takes none of it, so that no report goes to a forged sender.
#[tokio::test]
async fn mail_for_a_name_without_mailboxes_reaches_no_forged_sender() {
    let mut client = Client::of(RelayOptions::new("relay.test".parse().unwrap())).await;
    client.talk(&["EHLO c.test\r\n"]).await;
    for sender in ["<victim@elsewhere.test> RET=FULL", "<>"] {
        client.talk(&[&format!("MAIL FROM:{sender}\r\n")]).await;
        for recipient in ["<anything@relay.test>", "<Postmaster>", "<postmaster@RELAY.TEST>"] {
            let said = client.talk(&[&format!("RCPT TO:{recipient}\r\n")]).await;
            assert!(said.starts_with("550 5.1.1"), "{recipient}: {said}");
        }
        assert!(client.talk(&["DATA\r\n"]).await.starts_with('5'));
        client.talk(&["RSET\r\n"]).await;
    }
    assert_eq!(client.relay.queue().stats().await.messages, 0);
}

#[tokio::test]
async fn mail_for_postmaster_arrives_at_the_mailbox_in_the_options() {
    let hop = Hop::start(Behavior::default()).await;
    let mut options = options(&[hop.port]);
    options.postmaster = Some("admin@example.org".parse().unwrap());
    let mut client = Client::of(options).await;
    let drain = tokio_util::sync::CancellationToken::new();
    let delivering = tokio::spawn(client.relay.deliver(drain.clone().cancelled_owned()));
    client.talk(&["EHLO c.test\r\n"]).await;
    for recipient in ["<Postmaster>", "<POSTmaster@relay.test>"] {
        let rcpt = format!("RCPT TO:{recipient}\r\n");
        let said = client.talk(&["MAIL FROM:<>\r\n", &rcpt, "DATA\r\n", "Subject: x\r\n\r\nhelp\r\n.\r\n"]).await;
        assert!(said.starts_with("250 2.0.0"), "{said}");
    }
    client.log.wait("delivered", 2).await;
    for taken in hop.taken() {
        let [rcpt] = &taken.envelope.recipients[..] else { panic!("{taken:?}") };
        assert_eq!(rcpt.forward_path.to_string(), "<admin@example.org>");
        assert!(taken.text().contains("\r\n\r\nhelp\r\n"));
    }
    drain.cancel();
    delivering.await.unwrap().unwrap();
}

/// Mail from the application, and reports of mail from the postmaster, go to the same mailbox.
#[tokio::test]
async fn reports_for_postmaster_arrive_at_the_mailbox_in_the_options() {
    let rcpt = Box::new(|path: &str| match path.contains("@gone.test") {
        true => Err(refusal!("550 5.1.1 unknown")),
        false => Ok(()),
    });
    let hop = Hop::start(Behavior { rcpt, ..Behavior::default() }).await;
    let mut options = options(&[hop.port]);
    options.postmaster = Some("admin@example.org".parse().unwrap());
    let relay = start(options);
    relay.submit("<postmaster@relay.test>", &["<a@gone.test>"], b"Subject: x\r\n\r\nx\r\n").await;
    relay.submit("<a@s.test>", &["<Postmaster>"], b"Subject: y\r\n\r\ny\r\n").await;
    relay.log.wait("delivered", 2).await;
    let recipients: Vec<_> = hop.taken().iter().flat_map(|taken| taken.rcpts()).collect();
    assert!(recipients.iter().all(|rcpt| rcpt.contains("<admin@example.org>")), "{recipients:?}");
    relay.end().await;
}
