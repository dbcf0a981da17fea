//! What a handler gets of lines that are tolerated.

use posthaste_server::{ServerOptions, Tls, session::server::Tolerance};
use posthaste_testkit::talk::Talk;

use crate::support::{settings, start};

#[tokio::test]
async fn a_handler_decides_about_the_addresses_that_are_meant() {
    let mut settings = settings();
    settings.tolerance = Tolerance::SUBMISSION;
    let running = start(settings, Tls::Off, ServerOptions::default()).await;
    let mut talk = Talk::connect(running.address).await;
    talk.reply().await;
    for (line, code) in [
        ("EHLO my pc", "250"),
        ("MAIL FROM:refuse-mail@b.test", "550"),
        ("MAIL FROM: scanner@b.test. SIZE=5", "250"),
        ("RCPT TO:refuse-rcpt@c.test", "550"),
        ("RCPT TO:<amy>", "250"),
        ("RCPT TO:jo@c.test>", "501"),
        ("DATA ", "354"),
        ("hello\r\n.", "250"),
        ("QUIT ", "221"),
    ] {
        talk.expect(line, code).await;
    }
    let names = running.names;
    let asked = ["hello my?pc", "mail <refuse-mail@b.test>", "mail <scanner@b.test>", "rcpt <refuse-rcpt@c.test>"];
    assert_eq!(names.log.lock().unwrap()[..4], asked);
    let seen = names.seen.lock().unwrap();
    let (_, envelope, octets) = &seen[0];
    assert_eq!((envelope.mail.to_string(), *octets), ("<scanner@b.test> SIZE=5".to_owned(), 7));
    assert_eq!(envelope.recipients.iter().map(ToString::to_string).collect::<Vec<_>>(), ["<amy@mx.test>"]);
}
