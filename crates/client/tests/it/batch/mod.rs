//! Messages that leave before the replies to those in front of them.

mod broken_writes;
mod by_domain;
mod confusion;
mod model;
mod outcomes;
mod over_a_pool;
mod schedules;

use bytes::Bytes;
use posthaste_client::{Client, Message, RecipientOutcome};
use tokio::io::DuplexStream;

use crate::support::letters_of;

/// The ways of the content.
const OFFERS: &[&[&str]] = &[&[], &["PIPELINING"], &["CHUNKING"], &["PIPELINING", "CHUNKING"]];

/// A message from `m0@s.test` to this number of recipients, and its content names it as well.
fn message(number: usize, recipients: usize) -> Message<Bytes> {
    let to = (0..recipients).map(|rcpt| format!("m{number}r{rcpt}@d.test"));
    let content = Bytes::from(format!("Subject: m{number}\r\n\r\n.body\r\n"));
    Message::new(format!("m{number}@s.test").as_str(), to.collect::<Vec<_>>().iter().map(String::as_str), content)
        .unwrap()
}

/// The outcomes of a message: its letters, with `?` if it is in doubt. Empty: it was not begun.
async fn sent(client: &mut Client<DuplexStream>, messages: Vec<Message<Bytes>>) -> Vec<String> {
    let mut found = vec![String::new(); messages.len()];
    let mut batch = client.send_all(messages);
    while let Some((number, sent)) = batch.next().await {
        assert!(found[number].is_empty(), "message {number} has one outcome");
        let doubt = if sent.in_doubt { "?" } else { "" };
        let lost = |outcome: &RecipientOutcome| matches!(outcome, RecipientOutcome::Lost);
        assert!(!sent.in_doubt || sent.recipients.iter().any(|recipient| lost(&recipient.outcome)));
        found[number] = format!("{}{doubt}", letters_of(&sent.recipients));
    }
    found
}
