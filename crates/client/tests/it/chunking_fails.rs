//! CHUNKING that is offered and does not work.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use crate::support::{self, letters, options, send};
use bytes::Bytes;
use posthaste_client::{
    Client, Protocol, Sent, Tls,
    wire::{Mail, Rcpt},
};
use posthaste_testkit::script::{Heard, polite, serve, verb};

const CONTENT: Bytes = Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n");

async fn exchange(said: &'static str, chunking: bool, protocol: Protocol) -> (Sent, Heard) {
    let script = move |_, line: &str| match verb(line) {
        "BDAT" => said.to_owned(),
        "<end>" if protocol == Protocol::Lmtp => "250 ok\r\n".repeat(2),
        _ => polite(line, &["PIPELINING", "CHUNKING"]),
    };
    let (stream, heard) = serve(script, None);
    let mut options = options(Tls::Off);
    options.session.chunking = chunking;
    options.protocol = protocol;
    let mut client = Client::start(stream, "mx.test", &options).await.unwrap();
    (send(&mut client, 2, CONTENT).await, heard)
}

#[tokio::test(start_paused = true)]
async fn bdat_that_is_not_known_fails_for_now_and_says_so() {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        for (said, outcome, failed, in_doubt) in [
            ("500 5.5.1 What\r\n", "BB", true, false),
            ("501 5.5.4 What\r\n", "BB", true, false),
            ("502 5.5.1 Not implemented\r\n", "BB", true, false),
            ("503 5.5.1 Bad sequence\r\n", "BB", true, false),
            ("504 5.5.4 Not implemented\r\n", "BB", true, false),
            ("502 no\n", "BB", true, false),
            ("354 go\r\n", "LL", true, true),
            ("nonsense\r\n", "LL", true, true),
            ("close", "LL", true, true),
            // Silence.
            ("", "LL", true, true),
            // What is not about BDAT.
            (
                "421 4.3.2 Going away\r\n",
                if protocol == Protocol::Smtp { "CC" } else { "CL" },
                false,
                protocol == Protocol::Lmtp,
            ),
        ] {
            let (sent, heard) = exchange(said, true, protocol).await;
            let context = format!("{protocol:?} {said:?}: {:?}", sent.broken);
            assert_eq!(letters(&sent), outcome, "{context}");
            assert_eq!((sent.chunking_failed, sent.in_doubt), (failed, in_doubt), "{context}");
            assert!(!sent.recipients.iter().any(|recipient| recipient.outcome.is_permanent()), "{context}");
            assert!(sent.broken.is_some(), "{context}");
            assert!(heard.of(&["DATA"]).is_empty(), "{context}");
            // The attempt after it.
            let (sent, heard) = exchange(said, false, protocol).await;
            assert_eq!((letters(&sent).as_str(), sent.chunking_failed), ("AA", false), "{context}");
            assert!(heard.of(&["BDAT"]).is_empty(), "{context}");
        }
    }
}

#[tokio::test]
async fn a_message_that_is_refused_by_bdat_is_refused() {
    for (said, outcome, for_good) in [
        ("554 5.7.1 Spam\r\n", "CC", true),
        ("552 5.3.4 Too large\r\n", "CC", true),
        ("451 4.3.0 Later\r\n", "CC", false),
        ("250 ok\r\n", "AA", false),
    ] {
        let (sent, _) = exchange(said, true, Protocol::Smtp).await;
        assert_eq!((letters(&sent).as_str(), sent.chunking_failed), (outcome, false), "{said}");
        assert_eq!(sent.recipients.iter().all(|recipient| recipient.outcome.is_permanent()), for_good, "{said}");
        assert!(sent.broken.is_none(), "{said}");
    }
}

/// Chunks of unknown number: the first is refused.
#[tokio::test]
async fn content_of_unknown_length_stops_at_a_bdat_that_is_not_known() {
    struct Unknown(Vec<Bytes>);
    impl posthaste_client::Content for Unknown {
        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
            Poll::Ready(self.0.pop().map(Ok))
        }
    }
    for (offers, said) in [(&["CHUNKING"][..], "502 no\r\n"), (&["PIPELINING", "CHUNKING"], "503 no\r\n")] {
        let script = move |_, line: &str| if verb(line) == "BDAT" { said.to_owned() } else { polite(line, offers) };
        let (stream, _) = serve(script, None);
        let mut client = support::connected(stream).await;
        let (mail, rcpt) = (Mail::parse("<>").unwrap(), Rcpt::parse("<u0@d.test>").unwrap());
        let chunk = Bytes::from(b"0123456789abcd\r\n".repeat(5_000));
        let content = Unknown(vec![chunk.clone(), chunk]);
        let sent = client.transact(mail, &[rcpt], content).await;
        assert_eq!((letters(&sent).as_str(), sent.chunking_failed), ("B", true), "{said}");
        assert!(!sent.recipients[0].outcome.is_permanent());
    }
}
