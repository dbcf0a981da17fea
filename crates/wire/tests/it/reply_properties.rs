//! Properties of any reply and any capability.

use posthaste_testkit::wire::replies;
use posthaste_wire::{
    Capabilities, Capability, EnhancedCode, Mechanism, Reply, ReplyCode, ReplyRef,
    capability::{Keyword, Limits, Words},
    reply::ParseReplyError,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

/// Octets that often look like a reply.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let word = select(&["250", "550", "421", "-", " ", "\r\n", "\r", "\n", "\0", "5.1.1", "2.0.0 ", "x", "\u{fc}"][..]);
    let reply = select(&["250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 no\r\n", "354\r\n"][..]);
    let piece = prop_oneof![word, reply].prop_map(|text| text.as_bytes().to_vec());
    vec(prop_oneof![8 => piece, 1 => vec(any::<u8>(), 0..4)], 0..24).prop_map(|pieces| pieces.concat())
}

/// A code and an enhanced code of its class.
fn codes() -> impl Strategy<Value = (ReplyCode, Option<EnhancedCode>)> {
    (200_u16..600, any::<bool>(), 0_u16..1000, 0_u16..1000).prop_map(|(code, with, subject, detail)| {
        let enhanced = EnhancedCode::new(code / 100, subject, detail).filter(|_| with);
        (ReplyCode::new(code).expect("a code in range"), enhanced)
    })
}

fn word() -> impl Strategy<Value = String> {
    "[!-~]{1,12}"
}

/// The line of any capability that a server can build.
fn line() -> impl Strategy<Value = String> {
    let limit = || option::of(any::<core::num::NonZeroU32>());
    let words = || vec(word(), 0..4).prop_map(|words| words.join(" "));
    prop_oneof![
        select(Keyword::ALL).prop_map(|keyword| keyword.to_string()),
        any::<u64>().prop_map(|limit| Capability::Size(limit).to_string()),
        subsequence(Mechanism::ALL.to_vec(), 0..9)
            .prop_map(
                |set| Capability::Auth(set.into_iter().collect::<posthaste_wire::MechanismSet>().into()).to_string()
            ),
        option::of(any::<u32>()).prop_map(|seconds| Capability::DeliverBy(seconds).to_string()),
        (any::<u32>(), word()).prop_map(|(max_interval, date)| {
            Capability::FutureRelease { max_interval, max_date_time: &date }.to_string()
        }),
        option::of(word()).prop_map(|profile| Capability::MtPriority(profile.as_deref()).to_string()),
        (limit(), limit(), limit()).prop_map(|(mail_max, rcpt_max, rcpt_domain_max)| {
            let mut limits = Limits::default();
            (limits.mail_max, limits.rcpt_max, limits.rcpt_domain_max) = (mail_max, rcpt_max, rcpt_domain_max);
            Capability::Limits(limits.into()).to_string()
        }),
        words().prop_map(|words| Capability::Burl(Words::new(&words)).to_string()),
        words().prop_map(|words| Capability::NoSoliciting(Words::new(&words)).to_string()),
        words().prop_map(|words| Capability::XClient(Words::new(&words)).to_string()),
        words().prop_map(|words| Capability::XForward(Words::new(&words)).to_string()),
        (word(), words()).prop_map(|(keyword, words)| format!("{keyword} {words}").trim_end().to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Replies are the same in every chunking, and emitted as they came.
    #[test]
    fn any_stream_of_replies_is_the_same_in_every_chunking(octets in stream()) {
        replies::reply(&octets);
    }

    #[test]
    fn whole_unfinished_and_malformed_replies_are_told_apart(octets in stream()) {
        match ReplyRef::parse(&octets) {
            Ok(reply) => {
                prop_assert_eq!(reply.as_bytes(), &octets);
                let trailing = [&octets[..], b"2"].concat();
                prop_assert_eq!(ReplyRef::parse(&trailing), Err(ParseReplyError::TrailingOctets { offset: octets.len() }));
                for end in 0..octets.len() {
                    prop_assert_eq!(ReplyRef::parse(&octets[..end]), Err(ParseReplyError::Incomplete));
                }
            }
            Err(ParseReplyError::TrailingOctets { offset }) => prop_assert!(ReplyRef::parse(&octets[..offset]).is_ok()),
            Err(ParseReplyError::Malformed(error)) => {
                prop_assert!(error.offset < octets.len());
                prop_assert_eq!(octets[..error.offset].iter().filter(|octet| **octet == b'\n').count(), error.line);
                let longer = [&octets[..], b"\r\n250 ok\r\n"].concat();
                prop_assert_eq!(ReplyRef::parse(&longer), Err(error.into()));
            }
            Err(ParseReplyError::Incomplete) => {}
        }
    }

    #[test]
    fn a_built_reply_parses_to_the_same((code, enhanced) in codes(), lines in vec("[ -~]{0,40}|[a-z\u{fc}\u{20ac}]{1,20}", 1..6)) {
        // Text that starts as an enhanced code does would count as one.
        let lines: Vec<_> = lines.iter().map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit())).collect();
        let reply = Reply::new(code, enhanced, &lines.join("\n"));
        replies::reply(reply.as_bytes());
        let parsed = ReplyRef::parse(reply.as_bytes()).unwrap();
        prop_assert_eq!((parsed.code(), parsed.enhanced()), (code, enhanced));
        let text = parsed.lines().map(|line| match enhanced {
            Some(_) => EnhancedCode::split(line).unwrap().1,
            None => line,
        });
        prop_assert!(text.eq(lines.iter().map(|line| line.as_bytes())));
        prop_assert_eq!(parsed.into_owned(), reply);
    }

    #[test]
    fn an_emitted_capability_parses_and_is_emitted_as_the_same(line in line()) {
        let capability = Capability::parse(line.as_bytes()).unwrap();
        let emitted = capability.to_string();
        let again = Capability::parse(emitted.as_bytes()).unwrap();
        prop_assert_eq!((again, again.to_string()), (capability, emitted.clone()));
    }

    #[test]
    fn a_reply_of_capabilities_comes_back(lines in vec(line(), 1..20)) {
        let reply = Reply::new(ReplyCode::OK, None, &format!("mx.example\n{}", lines.join("\n")));
        let reply = ReplyRef::parse(reply.as_bytes()).unwrap();
        let offered = Capabilities::from_reply(&reply).into_owned();
        prop_assert!(offered.iter().eq(lines.iter().map(|line| Capability::parse(line.as_bytes()).unwrap())));
        for capability in offered.iter() {
            if let Some(keyword) = capability.keyword() {
                prop_assert_eq!(offered.get(keyword).and_then(|first| first.keyword()), Some(keyword));
            }
        }
    }

    #[test]
    fn any_text_makes_one_reply(text in "\\PC{0,600}|([a\n\r\0]{0,80})") {
        let reply = Reply::new(ReplyCode::TRANSACTION_FAILED, None, &text);
        replies::reply(reply.as_bytes());
        prop_assert_eq!(ReplyRef::parse(reply.as_bytes()).unwrap().code(), ReplyCode::TRANSACTION_FAILED);
    }
}
