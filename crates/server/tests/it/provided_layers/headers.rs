use bytes::Bytes;
use posthaste_server::{
    Accepted, Body, BodyError, Context, Envelope, Handler, Layer as _, Refusal, Service as _, layers::Headers,
};

use super::{cx, talk_with};
use crate::support::{self, Names};

/// What a handler reads of a message that arrives in pieces of this many octets.
async fn read(layer: &Headers, content: &str, piece: usize) -> Result<Vec<u8>, String> {
    let pieces: Vec<_> = content.as_bytes().chunks(piece).map(Bytes::copy_from_slice).map(Ok).collect();
    let mut envelope = Envelope::new("a@b.test", ["c@d.test"]).unwrap();
    let body = Body::new(futures_util::stream::iter(pieces));
    let mut body = layer.clone().message(&cx("192.0.2.1"), &mut envelope, body).await.unwrap();
    let mut all = Vec::new();
    loop {
        match body.next().await {
            Ok(Some(piece)) => all.extend_from_slice(&piece),
            Ok(None) => return Ok(all),
            Err(BodyError::Refused(refusal)) => {
                assert!(matches!(body.next().await, Err(BodyError::Disconnected)));
                return Err(refusal.to_string());
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn octets_and_fields_of_the_header_section_are_counted_in_any_pieces() {
    let mut layer = Headers::default();
    (layer.octets, layer.fields) = (24, 3);
    let (octets, fields) =
        ("552 5.3.4 The header section has more than 24 octets", "554 5.6.0 The header section has more than 3 fields");
    for (content, expected) in [
        ("", None),
        ("a", None),
        ("\r\n", None),
        // 24 octets with the empty line, and 25.
        ("a: 4567890\r\nb: 456\r\n\r\nbody", None),
        ("a: 4567890\r\nb: 4567890\r\n\r\n", Some(octets)),
        ("a: 45678901234567890123456", Some(octets)),
        ("a: 4567890123456789012\r\n\r\n", Some(octets)),
        ("a: 456789012345678\r\n\r\n", None),
        ("a:\r\nb:\r\nc:\r\n\r\n", None),
        ("a:\r\nb:\r\nc:\r\nd:\r\n\r\n", Some(fields)),
        ("a:\r\nb:\r\nc:\r\nd", Some(fields)),
        // Folded lines are no fields (RFC 5322 section 2.2.3).
        ("a:\r\n b\r\n\tc\r\n d\r\n\r\n", None),
        // What follows the empty line is not counted.
        ("a:\r\n\r\nb:\r\nc:\r\nd:\r\ne:\r\nf: and much more than 24 octets\r\n", None),
        ("\r\na\r\nb\r\nc\r\nd\r\ne: and much more than 24 octets\r\n", None),
        // A CR that is no line end, where the session lets it through.
        ("\ra\r\nb:\r\nc:\r\n\r\n", None),
    ] {
        for piece in [1, 2, 3, 5, 1_000] {
            let expected = expected.map_or_else(|| Ok(content.as_bytes().to_vec()), |text| Err(text.to_owned()));
            assert_eq!(read(&layer, content, piece).await, expected, "{content:?} in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn a_client_reads_the_refusal_after_the_content_and_goes_on() {
    let mut talk = talk_with(Names::default().layer(Headers::default()), "192.0.2.1", support::settings());
    talk = talk.greeted().await;
    let large = "X: 3456789\r\n".repeat(30_000);
    assert_eq!(talk.message("a@b.test", &large).await, "554 5.6.0 The header section has more than 1000 fields");
    let folded = format!("X:\r\n{}", " 345678901\r\n".repeat(30_000));
    assert_eq!(talk.message("a@b.test", &folded).await, "552 5.3.4 The header section has more than 262144 octets");
    assert!(talk.message("a@b.test", &format!("X: 1\r\n\r\n{large}")).await.starts_with("250"));
}

/// Accepts whatever happens.
#[derive(Clone)]
struct Careless;

impl Handler for Careless {
    async fn message(&mut self, _: &Context, _: Envelope, mut body: Body<'_>) -> Result<Accepted, Refusal> {
        while let Ok(Some(_)) = body.next().await {}
        Ok(Accepted::OK)
    }
}

#[tokio::test]
async fn a_handler_that_ignores_the_refusal_accepts_nothing() {
    let service = |_| async { Ok(Careless) };
    let mut layer = Headers::default();
    layer.fields = 1;
    let mut talk = talk_with(service.layer(layer), "192.0.2.1", support::settings()).greeted().await;
    assert!(talk.message("a@b.test", "a: 1\r\nb: 2\r\n\r\n").await.starts_with("451"));
    assert!(talk.message("a@b.test", "a: 1\r\n\r\n").await.starts_with("250"));
}
