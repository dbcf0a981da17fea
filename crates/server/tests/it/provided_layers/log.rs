use posthaste_server::{Service as _, layers::Log, session::server::Protocol};
use tracing::Level;

use super::talk_with;
use crate::support::{self, Names, log::Log as Written};

/// The lines of the layer without time and level.
fn lines(written: &Written) -> Vec<String> {
    let of_layer = |line: &String| line.contains("posthaste_server::layers::log");
    let lines = written.lines("connection{").into_iter().filter(of_layer);
    lines
        .map(|line| {
            // The spans say whose it is.
            let (spans, fields) = line.split_once(" posthaste_server::layers::log: ").unwrap();
            assert!(spans.contains("address=192.0.2.1:4000"));
            assert!(spans.contains("sender=") || !fields.starts_with("message"), "{line}");
            fields.to_owned()
        })
        .collect()
}

#[tokio::test]
async fn each_decision_is_a_line() {
    for (level, expected) in [
        (
            Level::DEBUG,
            &[
                "client connected tls=false",
                "command accepted identity=\"\" asked=Hello about=\"c.test\"",
                "command refused identity=\"\" asked=Mail about=\"<refuse-mail@b.test>\" reply=550 5.7.1 No",
                "command accepted identity=\"\" asked=Mail about=\"<a@b.test>\"",
                "command accepted identity=\"\" asked=Rcpt about=\"<a@d.test>\"",
                "command accepted identity=\"\" asked=Data about=\"<a@b.test>\"",
                "message accepted identity=\"\" recipients=1 octets=7",
                "command accepted identity=\"\" asked=Mail about=\"<refuse-end@b.test>\"",
                "command accepted identity=\"\" asked=Rcpt about=\"<a@d.test>\"",
                "command accepted identity=\"\" asked=Data about=\"<refuse-end@b.test>\"",
                "message refused identity=\"\" recipients=1 octets=3 reply=550 5.7.1 No",
            ][..],
        ),
        (Level::INFO, &["message accepted identity=\"\" recipients=1 octets=7"]),
    ] {
        let written = Written::default();
        let listening = written.listen(level);
        let mut talk = talk_with(Names::default().layer(Log::default()), "192.0.2.1", support::settings());
        talk = talk.greeted().await;
        talk.expect("MAIL FROM:<refuse-mail@b.test>", "550").await;
        assert!(talk.message("a@b.test", "hello").await.starts_with("250"));
        assert!(talk.message("refuse-end@b.test", "x").await.starts_with("550"));
        drop(listening);
        assert_eq!(lines(&written), expected);
    }
}

#[tokio::test]
async fn under_lmtp_each_recipient_is_a_line() {
    let written = Written::default();
    let listening = written.listen(Level::INFO);
    let mut settings = support::settings();
    settings.protocol = Protocol::Lmtp;
    let mut talk = talk_with(Names::default().layer(Log::default()), "192.0.2.1", settings);
    talk.reply().await;
    for (line, code) in [
        ("LHLO c.test", "250"),
        ("MAIL FROM:<a@b.test>", "250"),
        ("RCPT TO:<a@d.test>", "250"),
        ("RCPT TO:<b@d.test>", "250"),
        ("DATA", "354"),
        ("x\r\n.", "250"),
    ] {
        talk.expect(line, code).await;
    }
    assert!(talk.reply().await.starts_with("250"));
    drop(listening);
    assert_eq!(lines(&written).len(), 2);
}
