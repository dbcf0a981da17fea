use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use posthaste_server::{
    Body, BodyError, Envelope, Layer as _, ReceivedField, Service, accepted, handlers,
    layers::{Headers, Received},
    refusal,
    session::ServerSettings,
    test::Client,
};

use super::cx;

/// Messages, each with the SIZE of its envelope.
type Kept = Mutex<Vec<(Option<u64>, String)>>;

/// Collects up to 300 octets, and keeps each message.
fn service(kept: &Arc<Kept>) -> impl Service + use<> {
    let kept = Arc::clone(kept);
    handlers::message(move |_, envelope, body| {
        let kept = Arc::clone(&kept);
        async move {
            let content = body.collect(300).await?;
            kept.lock().unwrap().push((envelope.mail.size, String::from_utf8(content.to_vec()).unwrap()));
            Ok(accepted!("250 2.0.0 Kept"))
        }
    })
}

/// The message without the date in its first field.
fn without_date(message: &str) -> String {
    let (field, rest) = message.split_once(";\r\n\t").unwrap();
    let (date, content) = rest.split_once("\r\n").unwrap();
    assert!(date.ends_with(" +0000") && (29..=31).contains(&date.len()), "{date}");
    format!("{field};\r\n{content}")
}

#[tokio::test(start_paused = true)]
async fn each_message_has_the_field_of_its_client_which_limits_within_count_and_those_around_do_not() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let mut headers = Headers::default();
    headers.octets = 40;
    let mut settings = ServerSettings::new("mx.test".parse().unwrap());
    settings.limits.message_size = 100;
    let service = service(&kept).layer(Received::default()).layer(headers);
    let mut client = Client::connect(service).settings(settings).peer("2001:db8::1").starttls().await;
    let content = "Subject: x\r\n\r\nHello\r\n";
    let field =
        |from: &str, with: &str| format!("Received: from {from} ([IPv6:2001:db8::1])\r\n\tby mx.test with {with};\r\n");
    client.says("EHLO a)(b;").await.expect("250");
    client.send("a@b.test", ["c@d.test"], content).await.expect("250 2.0.0 Kept");
    client.starttls().await;
    client.says("EHLO c.test").await.expect("250");
    // The session's limit is full, and only the client's header counts.
    let most = format!("Subject: {}\r\n\r\n{}\r\n", "x".repeat(27), "y".repeat(58));
    assert_eq!((most.len(), most.find("\r\n\r\n")), (100, Some(36)));
    client.says("MAIL FROM:<a@b.test> SIZE=100").await.expect("250");
    client.says("RCPT TO:<c@d.test>").await.expect("250");
    client.says("DATA").await.expect("354");
    client.write(format!("{most}.\r\n")).await;
    client.reply().await.expect("250 2.0.0 Kept");
    // Content that would go on in the field, and none at all.
    client.send("a@b.test", ["c@d.test"], "\tby c.test\r\nHello\r\n").await.expect("250 2.0.0 Kept");
    client.send("a@b.test", ["c@d.test"], "").await.expect("250 2.0.0 Kept");

    let kept = std::mem::take(&mut *kept.lock().unwrap());
    let messages: Vec<_> = kept.iter().map(|(_, message)| without_date(message)).collect();
    let clear = field("[IPv6:2001:db8::1]", "ESMTP");
    let tls = field("c.test", "ESMTPS");
    assert_eq!(
        messages,
        [
            format!("{clear}{content}"),
            format!("{tls}{most}"),
            format!("{tls}\r\n\tby c.test\r\nHello\r\n"),
            tls.clone(),
        ]
    );
    let sizes: Vec<_> = kept.iter().map(|(size, _)| *size).collect();
    assert_eq!(sizes, [None, Some(kept[1].1.len() as u64), None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_limit_counts_the_field() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let mut client = Client::connect(service(&kept).layer(Received::default())).await;
    client.ehlo().await;
    let content = format!("{}\r\n", "x".repeat(298));
    client.send("a@b.test", ["c@d.test"], &content).await.expect("552 5.3.4");
    let mut without = Client::connect(service(&kept)).await;
    without.ehlo().await;
    without.send("a@b.test", ["c@d.test"], &content).await.expect("250 2.0.0 Kept");
}

#[tokio::test(start_paused = true)]
async fn lmtp_has_the_field_in_its_own_words_with_the_recipient_if_that_is_wanted() {
    for (wants, recipient) in [(false, ""), (true, "\r\n\tfor <c@d.test>")] {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut layer = Received::default();
        layer.recipient = wants;
        let settings = ServerSettings::lmtp("mx.test".parse().unwrap());
        let mut client = Client::connect(service(&kept).layer(layer)).settings(settings).peer("local").await;
        client.says("LHLO c.test").await.expect("250");
        client.send("a@b.test", ["c@d.test"], "X: y\r\n").await.expect("250 2.0.0 Kept");
        let message = without_date(&kept.lock().unwrap()[0].1);
        let expected = format!("Received: from c.test ([127.0.0.1])\r\n\tby mx.test with LMTP{recipient};\r\nX: y\r\n");
        assert_eq!(message, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_field_comes_with_the_content_and_not_before_it() {
    let (pieces, content) = tokio::sync::mpsc::unbounded_channel();
    let content = futures_util::stream::unfold(content, |mut content| async {
        let piece: Result<Bytes, BodyError> = content.recv().await?;
        Some((piece, content))
    });
    let mut envelope = Envelope::new("a@b.test", ["c@d.test"]).unwrap();
    let mut body =
        Received::default().message(&cx("192.0.2.1"), &mut envelope, Body::new(Box::pin(content))).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), body.next()).await.is_err());
    pieces.send(Ok("X: y\r\n".into())).unwrap();
    assert!(body.next().await.unwrap().unwrap().starts_with(b"Received: from "));
    assert_eq!(body.next().await.unwrap().unwrap(), "X: y\r\n");
    pieces.send(Err(BodyError::Disconnected)).unwrap();
    assert!(matches!(body.next().await, Err(BodyError::Disconnected)));
    drop(pieces);
    assert!(body.next().await.unwrap().is_none());
}

#[tokio::test]
async fn content_that_is_refused_has_no_field() {
    let refused = [Err(BodyError::Refused(refusal!("552 5.3.4 Too large")))];
    let (cx, envelope) = (cx("192.0.2.1"), Envelope::new("a@b.test", ["c@d.test"]).unwrap());
    let mut body = ReceivedField::of(&cx, &envelope).before(Body::new(futures_util::stream::iter(refused)));
    assert!(matches!(body.next().await, Err(BodyError::Refused(_))));
}
