//! What holds for any input.

mod support;

use bytes::BytesMut;
use posthaste_wire::{
    Command, Domain, EhloName, Mailbox, Reply, ReplyCode, ReplyRef, ReversePath, Xtext, parameter::Parameters,
};
use proptest::{collection::vec, prelude::*, sample::select};
use support::syntax;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets(octets in vec(any::<u8>(), 0..80)) {
        syntax::command(&octets);
        syntax::reply(&octets);
        syntax::address(&octets);
    }

    #[test]
    fn no_constructor_lets_a_line_break_through(before in "[a-z@<>.:\"]{0,6}", octet in select(&["\r", "\n", "\0", "\r\n"][..]),
        after in "[a-z@<>.:\"]{0,6}") {
        let text = format!("{before}{octet}{after}");
        assert!(Mailbox::parse(&text).is_err());
        assert!(Mailbox::parse(&format!("\"{text}\"@d")).is_err());
        assert!(Mailbox::parse(&format!("a@{text}")).is_err());
        assert!(Domain::parse(&text).is_err());
        assert!(Domain::parse(&format!("[x:{text}]")).is_err());
        assert!(EhloName::parse(&text).is_err());
        assert!(Xtext::parse(&text).is_err());
        assert!(Xtext::encode(text.as_bytes()).is_err());
        assert!(Parameters::parse(&format!(" {text}")).is_err() || Parameters::parse(&format!(" {text}")).unwrap()
            .iter().all(|parameter| !parameter.keyword.contains(['\r', '\n', '\0'])));
        if let Ok((path, _)) = ReversePath::parse_prefix(&format!("<{text}>")) {
            assert!(!path.to_string().contains(['\r', '\n', '\0']));
        }
        // Text has no type of its own in these; the finished line is checked.
        let mut out = BytesMut::new();
        for command in [Command::Noop(&text), Command::Vrfy(&text), Command::Help(&text), Command::Other { verb: &text, argument: "" }] {
            assert!(command.encode(&mut out).is_err());
        }
        assert!(out.is_empty());
        let reply = Reply::new(ReplyCode::OK, None, &text);
        assert!(ReplyRef::parse(reply.as_ref().as_bytes()).is_ok());
    }

    #[test]
    fn any_text_makes_one_reply(text in "\\PC{0,600}|([a\n\r\0]{0,80})") {
        let reply = Reply::new(ReplyCode::TRANSACTION_FAILED, None, &text);
        syntax::reply(reply.as_ref().as_bytes());
        prop_assert_eq!(ReplyRef::parse(reply.as_ref().as_bytes()).unwrap().code(), ReplyCode::TRANSACTION_FAILED);
    }
}
