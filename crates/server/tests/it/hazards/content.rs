//! Where content ends: `end_of_data.txt` of wire.

use posthaste_testkit::wire::end_of_data::{Row, rows};

use super::{PIECES, Pair, WAYS, pki};
use crate::support::settings;

#[tokio::test]
async fn no_sequence_but_the_true_end_ends_content() {
    let pki = pki();
    let rows = rows(include_str!("../../../../wire/tests/end_of_data.txt"));
    assert!(rows.len() >= 40, "{} rows", rows.len());
    for Row { name, before, octets, receiving, .. } in rows {
        for (way, piece) in WAYS.into_iter().flat_map(|way| PIECES.map(|piece| (way, piece))) {
            let mut pair = Pair::connect(&name, way, piece, &pki, settings(), true, |_| {}).await;
            pair.say(b"").await;
            for line in ["EHLO c.test\r\n", "MAIL FROM:<a@a.test>\r\n", "RCPT TO:<b@b.test>\r\n", "DATA\r\n"] {
                pair.say(line.as_bytes()).await;
            }
            // Where the sequence ends the content, the rest is lines that are no commands.
            pair.say(&[before, &octets, b"line2\r\n.\r\nMAIL FROM:<evil@a.test>\r\n"].concat()).await;
            let messages = pair.end().await;
            assert_eq!(messages.len(), usize::from(receiving.fault.is_none()), "{name}");
            if let Some(becomes) = &receiving.becomes {
                assert_eq!(messages, [[before, becomes, b"line2\r\n"].concat()], "{name}");
            }
        }
    }
}
