//! What holds for any content and any reply.

use posthaste_testkit::{
    choices::{Choices, Chunking},
    fuzz, reference,
};
use posthaste_wire::{Reply, ReplyCode, ReplyRef};
use proptest::{collection::vec, prelude::*};

/// Lines without CR, LF and NUL, each with its CRLF.
fn canonical_content() -> impl Strategy<Value = Vec<u8>> {
    let line = vec(prop_oneof![4 => Just(b'.'), 8 => 1_u8..=255], 0..12)
        .prop_map(|line| line.into_iter().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect::<Vec<u8>>());
    vec(line, 0..40).prop_map(|lines| {
        let mut content = lines.join(&b"\r\n"[..]);
        if !lines.is_empty() {
            content.extend_from_slice(b"\r\n");
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stuffed_comes_back(content in canonical_content(), seed: u64) {
        let wire = fuzz::stuff(&content, Chunking::Random(Choices::new(seed))).unwrap();
        let expected = reference::Content { octets: content, fault: None, end: Some(wire.len()) };
        fuzz::compare(&wire, &expected, Chunking::Random(Choices::new(seed ^ 1)));
    }

    #[test]
    fn several_messages_stay_several(contents in vec(canonical_content(), 1..5)) {
        let wires: Vec<_> = contents.iter().map(|content| fuzz::stuff(content, Chunking::Whole).unwrap()).collect();
        let stream = wires.concat();
        let mut rest = stream.as_slice();
        for content in &contents {
            let found = reference::content(rest);
            prop_assert_eq!(&found.octets, content);
            fuzz::compare(rest, &found, Chunking::Single);
            rest = &rest[found.end.unwrap()..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn any_octets(octets in vec(any::<u8>(), 0..80)) {
        fuzz::reply(&octets);
        fuzz::framer(&octets);
    }

    #[test]
    fn any_text_makes_one_reply(text in "\\PC{0,600}|([a\n\r\0]{0,80})") {
        let reply = Reply::new(ReplyCode::TRANSACTION_FAILED, None, &text);
        fuzz::reply(reply.as_ref().as_bytes());
        prop_assert_eq!(ReplyRef::parse(reply.as_ref().as_bytes()).unwrap().code(), ReplyCode::TRANSACTION_FAILED);
    }
}
