//! The codecs for tokio-util: the same items for every chunking, and a conversation over a stream.

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use posthaste_testkit::choices::Chunking;
use posthaste_wire::{
    Command, EncodeError, Reply, ReplyCode,
    codec::{ClientCodec, CodecError, Outgoing, Received, ServerCodec},
    frame::{ContentFault, FaultKind, LineFault},
    reply::{ReplyError, ReplyErrorKind},
};
use tokio_util::codec::{Decoder, Encoder, Framed};

/// The items of a codec for a stream that comes in pieces. Adjacent pieces of content are joined.
fn decode<C: Decoder<Error = CodecError>>(
    mut codec: C,
    stream: &[u8],
    mut chunking: Chunking,
    mut each: impl FnMut(&mut C, C::Item),
) -> Result<(), CodecError> {
    let (mut buffer, mut position) = (BytesMut::new(), 0);
    loop {
        while let Some(item) = codec.decode(&mut buffer)? {
            each(&mut codec, item);
        }
        if position == stream.len() {
            return codec.decode_eof(&mut buffer).map(|_| ());
        }
        let size = chunking.next(position, stream.len() - position);
        buffer.extend_from_slice(&stream[position..position + size]);
        position += size;
    }
}

#[test]
fn a_server_codec_yields_the_same_in_every_chunking() {
    let stream = b"NOOP\r\nDATA\r\n..a\r\nb\r\n.\r\nDATA\r\na\nb\r\n.\r\nCLEAN\r\n.\r\n\
        BDAT 5\r\n.\r\n.\nBDAT 0\r\nNOOP\nRSET\r\nQUIT\r\n";
    let expected = [
        "NOOP",
        "DATA",
        "= .a\r\nb\r\n",
        "end",
        "DATA",
        "= a\nb\r\n",
        "end: bare LF",
        "CLEAN",
        "end",
        "BDAT 5",
        "= .\r\n.\n",
        "end",
        "BDAT 0",
        "end",
        "no CR",
        "QUIT",
    ];
    for chunking in Chunking::all(stream.len()) {
        let mut items: Vec<String> = Vec::new();
        let each = |codec: &mut ServerCodec, item| match item {
            Received::Line(line) => {
                match &line[..] {
                    b"DATA" => codec.expect_content(998),
                    b"CLEAN" => codec.expect_clean_content(),
                    b"BDAT 5" => codec.expect_chunk(5),
                    b"BDAT 0" => codec.expect_chunk(0),
                    _ => {}
                }
                items.push(String::from_utf8(line.to_vec()).unwrap());
            }
            Received::BadLine(fault) => {
                assert_eq!(fault, LineFault::BareLf);
                items.push("no CR".to_owned());
            }
            Received::Content(octets) => {
                let octets = std::str::from_utf8(&octets).unwrap();
                match items.last_mut() {
                    Some(last) if last.starts_with("= ") => last.push_str(octets),
                    _ => items.push(format!("= {octets}")),
                }
            }
            Received::End { fault: None } => items.push("end".to_owned()),
            Received::End { fault: Some(fault) } => items.push(format!("end: {}", fault.kind.message())),
        };
        decode(ServerCodec::new(), stream, chunking.clone(), each).unwrap();
        assert_eq!(items, expected, "{chunking:?}");
    }
}

#[test]
fn an_endless_line_is_a_codec_error() {
    let stream = b"x".repeat(70_000);
    for chunking in [Chunking::Whole, Chunking::Single] {
        let found = decode(ServerCodec::new(), &stream, chunking, |_, item| panic!("{item:?}"));
        assert!(matches!(found, Err(CodecError::EndlessLine)));
    }
    // A shorter one is refused when it ends.
    let (mut stream, mut items) = (b"x".repeat(60_000), Vec::new());
    stream.extend_from_slice(b"\r\nNOOP\r\n");
    decode(ServerCodec::new(), &stream, Chunking::Single, |_, item| items.push(item)).unwrap();
    let too_long = Received::BadLine(LineFault::TooLong { octets: 60_002 });
    assert_eq!(items, [too_long, Received::Line(b"NOOP"[..].into())]);
}

#[test]
fn a_server_codec_takes_longer_lines_after_set_max_line() {
    let mut codec = ServerCodec::default();
    codec.set_max_line(5_000);
    let stream = [&b"x".repeat(4_998)[..], b"\r\n"].concat();
    decode(codec, &stream, Chunking::Single, |_, item| assert!(matches!(item, Received::Line(_)))).unwrap();
}

#[test]
fn a_client_codec_yields_the_same_replies_in_every_chunking() {
    let stream = b"220 mx.test\r\n250-mx.test\r\n250-SIZE\r\n250 DSN\r\n354\r\n550 5.1.1 No\r\n";
    for chunking in Chunking::all(stream.len()) {
        let mut octets = Vec::new();
        let mut codes = Vec::new();
        let each = |_: &mut ClientCodec, reply: Reply| {
            octets.extend_from_slice(reply.as_bytes());
            codes.push(reply.code().get());
        };
        decode(ClientCodec::new(), stream, chunking, each).unwrap();
        assert_eq!((octets.as_slice(), codes.as_slice()), (&stream[..], &[220, 250, 354, 550][..]));
    }
}

#[test]
fn malformed_and_unfinished_replies_are_codec_errors() {
    let nothing = |_: &mut ClientCodec, reply| panic!("{reply:?}");
    let found = decode(ClientCodec::default(), b"hello\r\n", Chunking::Single, nothing);
    assert!(matches!(found, Err(CodecError::Reply(ReplyError { kind: ReplyErrorKind::Code, .. }))));
    let found = decode(ClientCodec::new(), b"250-mx\r\n250 ", Chunking::Single, nothing);
    assert!(matches!(found, Err(CodecError::Io(_))));
}

#[test]
fn unfinished_content_and_chunks_are_codec_errors() {
    type Expect = fn(&mut ServerCodec);
    let expects: [(Expect, bool); 6] = [
        (|_| {}, true),
        (|codec| codec.expect_content(998), false),
        (|codec| codec.expect_clean_content(), false),
        (|codec| codec.expect_chunk(0), true),
        (|codec| codec.expect_chunk(9), true),
        (|codec| codec.expect_chunk(10), false),
    ];
    for (expect, is_whole) in expects {
        let mut codec = ServerCodec::new();
        expect(&mut codec);
        let found = decode(codec, b"NOOP 12\r\n", Chunking::Whole, |_, _| {});
        assert_eq!(found.is_ok(), is_whole, "{found:?}");
    }
    // The buffer has no octet of an overlong line.
    let found = decode(ServerCodec::new(), &b"x".repeat(5_000), Chunking::Whole, |_, item| panic!("{item:?}"));
    assert!(matches!(found, Err(CodecError::Io(_))), "{found:?}");
}

fn encode(codec: &mut ClientCodec, item: Outgoing<'_>) -> Result<Vec<u8>, CodecError> {
    let mut out = BytesMut::from(&b"before"[..]);
    let result = codec.encode(item, &mut out);
    let new = out.strip_prefix(b"before").expect("what was there stays").to_vec();
    assert!(result.is_ok() || new.is_empty(), "nothing is left of what failed");
    result.map(|()| new)
}

#[test]
fn a_client_codec_stuffs_content_in_every_chunking() {
    let content = [&b".a\r\n..b\r\n"[..], &b".\r\n".repeat(100), b"c"].concat();
    let wire = [&b"..a\r\n...b\r\n"[..], &b"..\r\n".repeat(100), b"c\r\n.\r\n"].concat();
    for at in 0..=content.len() {
        let mut codec = ClientCodec::new();
        let (one, two) = content.split_at(at);
        let pieces = [Outgoing::Content(one), Outgoing::Content(two), Outgoing::EndOfContent];
        let found: Vec<u8> = pieces.into_iter().flat_map(|piece| encode(&mut codec, piece).unwrap()).collect();
        assert_eq!(found, wire);
        assert_eq!(encode(&mut codec, Outgoing::EndOfContent).unwrap(), b".\r\n", "the next message is empty");
    }
}

#[test]
fn a_client_codec_sends_chunks_unchanged() {
    let octets = b".\r\n.\n\0\r";
    assert_eq!(encode(&mut ClientCodec::new(), Outgoing::Chunk(octets)).unwrap(), octets);
}

#[test]
fn a_command_or_content_that_must_not_leave_is_a_codec_error() {
    let mut codec = ClientCodec::new();
    let found = encode(&mut codec, Command::Noop("a\r\nQUIT").into());
    assert!(matches!(found, Err(CodecError::Encode(EncodeError::ControlCharacter))));
    // More segments than one list has precede the fault.
    let content = [&b".\r\n".repeat(100)[..], b"\n.\n"].concat();
    let found = encode(&mut codec, Outgoing::Content(&content));
    let expected = ContentFault { kind: FaultKind::BareLf, offset: 300 };
    assert!(matches!(found, Err(CodecError::Content(fault)) if fault == expected));
    let mut codec = ClientCodec::new();
    encode(&mut codec, Outgoing::Content(b"a\r")).unwrap();
    assert!(matches!(encode(&mut codec, Outgoing::EndOfContent), Err(CodecError::Content(_))));
}

/// Faulty content is not sent, so the stuffer no longer knows the line starts of the sent octets.
#[test]
fn a_client_codec_sends_no_content_after_a_fault() {
    let mut codec = ClientCodec::new();
    assert_eq!(encode(&mut codec, Outgoing::Content(b"a\r")).unwrap(), b"a\r");
    let fault = ContentFault { kind: FaultKind::BareCr, offset: 1 };
    for item in [
        Outgoing::Content(b"b"),
        Outgoing::Content(b"\n"),
        Outgoing::Content(b".\r\nMAIL FROM:<>\r\n"),
        Outgoing::EndOfContent,
        Outgoing::EndOfContent,
    ] {
        let found = encode(&mut codec, item.clone());
        assert!(matches!(found, Err(CodecError::Content(found)) if found == fault), "{item:?}: {found:?}");
    }
}

#[test]
fn a_codec_takes_content_for_clean_for_one_message_only() {
    let mut codec = ClientCodec::new();
    codec.expect_clean_content();
    assert_eq!(encode(&mut codec, Outgoing::Content(b".a\nb")).unwrap(), b"..a\nb");
    encode(&mut codec, Outgoing::EndOfContent).unwrap();
    assert!(encode(&mut codec, Outgoing::Content(b".a\nb")).is_err());
}

#[tokio::test]
async fn a_conversation_over_a_narrow_stream() {
    let (client, server) = tokio::io::duplex(7);
    let serve = async {
        let mut server = Framed::new(server, ServerCodec::new());
        server.send(Reply::from_static("220 mx.test\r\n")).await.unwrap();
        let mut content = Vec::new();
        while let Some(received) = server.next().await {
            let reply = match received.unwrap() {
                Received::Content(octets) => {
                    content.extend_from_slice(&octets);
                    continue;
                }
                Received::End { fault: None } => Reply::from_static("250 2.0.0 Ok\r\n"),
                Received::Line(line) => match Command::parse(&line).unwrap() {
                    Command::Data => {
                        server.codec_mut().expect_content(998);
                        Reply::from_static("354 Go ahead\r\n")
                    }
                    Command::Bdat { size, .. } => {
                        server.codec_mut().expect_chunk(size);
                        continue;
                    }
                    _ => Reply::from_static("221 2.0.0 Bye\r\n"),
                },
                other => panic!("{other:?}"),
            };
            server.send(reply).await.unwrap();
        }
        content
    };
    let talk = async {
        let mut client = Framed::new(client, ClientCodec::new());
        let mut codes = vec![client.next().await.unwrap().unwrap().code()];
        client.send(Command::Data.into()).await.unwrap();
        codes.push(client.next().await.unwrap().unwrap().code());
        client.feed(Outgoing::Content(b"a\r\n.b\r\n")).await.unwrap();
        client.send(Outgoing::EndOfContent).await.unwrap();
        codes.push(client.next().await.unwrap().unwrap().code());
        client.feed(Command::Bdat { size: 4, last: true }.into()).await.unwrap();
        client.feed(Outgoing::Chunk(b".\r\nc")).await.unwrap();
        client.send(Command::Quit.into()).await.unwrap();
        codes.push(client.next().await.unwrap().unwrap().code());
        codes.push(client.next().await.unwrap().unwrap().code());
        codes
    };
    let (content, codes) = tokio::join!(serve, talk);
    assert_eq!(content, b"a\r\n.b\r\n.\r\nc");
    assert_eq!(codes.into_iter().map(ReplyCode::get).collect::<Vec<_>>(), [220, 354, 250, 250, 221]);
}
