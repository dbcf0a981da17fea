//! Content from texts, readers and streams: the server gets the same octets, by DATA and by BDAT.

use std::{io, pin::Pin, sync::Arc};

use crate::support::{connected, letters};
use bytes::Bytes;
use posthaste_client::{
    ClientError, Content, Once, Reader, Source as _, Streamed, Text,
    wire::{Mail, Rcpt},
};
use posthaste_testkit::script::{Heard, polite, serve};

const TEXT: &str = "Subject: x\r\n\r\n.body\r\n";
const BY_DATA: &[&str] = &["PIPELINING"];
const BY_BDAT: &[&str] = &["PIPELINING", "CHUNKING"];

/// Sends it to one recipient, whose outcome's letter comes back with what stopped the conversation.
/// It is in no doubt.
async fn send(offers: &'static [&'static str], content: impl Content) -> (String, Option<Arc<ClientError>>, Heard) {
    let (stream, heard) = serve(move |_, line| polite(line, offers), None);
    let mut client = connected(stream).await;
    let (mail, rcpt) = (Mail::parse("<>").unwrap(), Rcpt::parse("<u0@d.test>").unwrap());
    let sent = client.transact(mail, &[rcpt], content).await;
    assert!(!sent.in_doubt);
    (letters(&sent), sent.broken, heard)
}

/// Everything that holds TEXT. The flag: its length is known.
fn contents() -> Vec<(bool, Pin<Box<dyn Content>>)> {
    let pieces = |step: usize| {
        let pieces = TEXT.as_bytes().chunks(step).flat_map(|piece| [&b""[..], piece]);
        futures_util::stream::iter(
            pieces.map(|piece| Ok::<_, io::Error>(Bytes::from_static(piece))).collect::<Vec<_>>(),
        )
    };
    let length = TEXT.len() as u64;
    let boxed: Box<dyn Content + Unpin> = Box::new(TEXT);
    vec![
        (true, Box::pin(TEXT)),
        (true, Box::pin(TEXT.as_bytes())),
        (true, Box::pin(TEXT.to_owned())),
        (true, Box::pin(TEXT.as_bytes().to_vec())),
        (true, Box::pin(Bytes::from_static(TEXT.as_bytes()))),
        (true, Box::pin(boxed)),
        (false, Box::pin(Reader::new(TEXT.as_bytes()))),
        (true, Box::pin(Reader::new(TEXT.as_bytes()).with_length(length))),
        (false, Box::pin(Streamed::new(pieces(1)))),
        (false, Box::pin(Streamed::new(pieces(7)))),
        (true, Box::pin(Streamed::new(pieces(7)).with_length(length))),
        // Another error and other octets than our own.
        (false, Box::pin(Streamed::new(futures_util::stream::iter([Ok::<_, std::fmt::Error>(TEXT.to_owned())])))),
    ]
}

#[tokio::test]
async fn every_kind_of_content_arrives_the_same() {
    for (index, (is_known, content)) in contents().into_iter().enumerate() {
        assert_eq!(content.length(), is_known.then_some(TEXT.len() as u64), "{index}");
        let (outcome, broken, heard) = send(BY_DATA, content).await;
        assert_eq!((outcome.as_str(), broken.is_none()), ("A", true), "{index}: {broken:?}");
        let lines: String = heard.lines(&["<octets>"]).iter().map(|line| &line["<octets> ".len()..]).collect();
        assert_eq!(lines, TEXT.replace("\r\n.", "\r\n.."), "{index}");
    }
    for (index, (_, content)) in contents().into_iter().enumerate() {
        let (outcome, broken, heard) = send(BY_BDAT, content).await;
        assert_eq!((outcome.as_str(), broken.is_none()), ("A", true), "{index}: {broken:?}");
        let length = TEXT.len();
        assert_eq!(
            heard.lines(&["BDAT", "<octets>"]),
            [format!("<octets> {TEXT}"), format!("BDAT {length} LAST")],
            "{index}"
        );
    }
}

#[tokio::test]
async fn empty_content_is_an_empty_message() {
    for offers in [BY_DATA, BY_BDAT] {
        for content in [Box::pin("") as Pin<Box<dyn Content>>, Box::pin(Reader::new(tokio::io::empty()))] {
            let (outcome, broken, heard) = send(offers, content).await;
            assert_eq!((outcome.as_str(), broken.is_none()), ("A", true), "{offers:?}: {broken:?}");
            assert_eq!(heard.of(&["<end>", "BDAT"]).len(), 1);
        }
    }
}

#[tokio::test]
async fn content_of_another_length_than_it_said_is_not_sent() {
    for length in [0, 1, TEXT.len() as u64 - 1, TEXT.len() as u64 + 1, u64::MAX] {
        let (outcome, broken, heard) = send(BY_BDAT, Reader::new(TEXT.as_bytes()).with_length(length)).await;
        assert_eq!(outcome, "L", "{length}");
        assert!(length > 0 || heard.of(&["BDAT"]).is_empty(), "a chunk without octets is a whole message");
        assert!(matches!(broken.as_deref(), Some(ClientError::Content(_))), "{length}: {broken:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_source_is_told() {
    for offers in [BY_DATA, BY_BDAT] {
        let pieces = [Ok(Bytes::from_static(b"half\r\n")), Err("the disk is gone")];
        let (outcome, broken, heard) = send(offers, Streamed::new(futures_util::stream::iter(pieces))).await;
        assert_eq!(outcome, "L");
        let broken = broken.unwrap().to_string();
        assert!(broken.contains("the content could not be read: the disk is gone"), "{broken}");
        assert!(heard.of(&["<end>"]).is_empty());
    }
}

/// Lines in memory that end in LF: their length with CRLF is known, also behind what wraps them.
#[tokio::test]
async fn the_size_of_a_text_in_memory_is_said() {
    let lines = TEXT.replace("\r\n", "\n");
    let contents: [Pin<Box<dyn Content>>; 5] = [
        Box::pin(Text::new(lines.clone())),
        Box::pin(Text::new(TEXT)),
        Box::pin(Text::new(Box::pin(Bytes::from(lines.clone())))),
        Box::pin(Text::new(Once::new(lines.clone())).open().await.unwrap()),
        Box::pin(Text::new(lines.as_str()).open().await.unwrap()),
    ];
    for (index, content) in contents.into_iter().enumerate() {
        let (stream, heard) = serve(|_, line| polite(line, &["SIZE", "CHUNKING"]), None);
        let sent = connected(stream).await.send("me@s.test", ["you@d.test"], content).await.unwrap();
        assert!(sent.is_complete(), "{index}: {sent:?}");
        let said = heard.lines(&["MAIL", "BDAT"]);
        let size = TEXT.len();
        assert_eq!(said, [format!("MAIL FROM:<me@s.test> SIZE={size}"), format!("BDAT {size} LAST")], "{index}");
    }
    let lines = lines.into_bytes();
    let unknown = Text::new(Reader::new(&*lines).with_length(lines.len() as u64));
    assert_eq!(unknown.length(), None);
}
