//! The fuzz bodies over inputs made of the pieces that matter, so that `cargo test` looks beyond
//! the corpora.

use posthaste_testkit::fuzz;
use proptest::{collection::vec, prelude::*, sample::select};

const CLIENT: &[&[u8]] = &[
    b"EHLO c\r\n",
    b"HELO c\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"MAIL FROM:<> SIZE=10\r\n",
    b"MAIL FROM:<a@b> SIZE=99999999\r\n",
    b"RCPT TO:<c@d>\r\n",
    b"RCPT TO:<\xc3\xa9@d>\r\n",
    b"RCPT TO:<bad\r\n",
    b"DATA\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"QUIT\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH PLAIN AHRlc3RlcgBzM2NyZXQ=\r\n",
    b"*\r\n",
    b"AHRlc3RlcgBzM2NyZXQ=\r\n",
    b"BDAT 5\r\n",
    b"BDAT 3 LAST\r\n",
    b"BDAT 99999999999999999999\r\n",
    b"12345",
    b".\r\n",
    b"\r\n.\r\n",
    b"..x\r\n",
    b"text\r\n",
    b"\n",
    b"\r",
    b"\0",
    b".",
    b"GET / HTTP/1.1\r\n",
    b"XYZ\r\n",
    // Time, questions that stay open, and answers to them.
    b"\xff\x03",
    b"\xff\x0b",
    b"\xff\x0c",
    b"\xff\x21",
    b"\xff\x40",
    b"\xff\x42",
    b"\xff\x46",
    b"\xff\x80",
    b"\xff\xa0",
];

const SERVER: &[&[u8]] = &[
    b"220 s ESMTP\r\n",
    b"250-s\r\n",
    b"250-PIPELINING\r\n",
    b"250-STARTTLS\r\n",
    b"250-AUTH PLAIN LOGIN\r\n",
    b"250 SIZE 9\r\n",
    b"250 ok\r\n",
    b"354 go\r\n",
    b"334 \r\n",
    b"334 VXNlcm5hbWU6\r\n",
    b"235 2.7.0 ok\r\n",
    b"421 bye\r\n",
    b"550 no\r\n",
    b"451 later\r\n",
    b"221 bye\r\n",
    b"250\r\n",
    b"554-x\r\n",
    b"220 go\r\n",
    b"\r\n",
    b"x",
    b"\xff\x0b",
    b"\xff\x0c",
];

fn joined(pieces: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    vec(select(pieces), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn server_sessions_hold_for_any_client(settings: [u8; 3], octets in joined(CLIENT)) {
        fuzz::server_session(&[&settings[..], &octets].concat());
    }

    #[test]
    fn server_sessions_hold_within_a_transaction(settings: [u8; 3], octets in joined(CLIENT)) {
        let start = if settings[0] & 128 == 0 { "EHLO c\r\n" } else { "LHLO c\r\n" }.as_bytes();
        fuzz::server_session(&[&settings[..], start, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", &octets].concat());
    }

    #[test]
    fn client_sessions_hold_for_any_server(settings: [u8; 2], octets in joined(SERVER)) {
        fuzz::client_session(&[&settings[..], &octets].concat());
    }

    #[test]
    fn client_sessions_hold_after_a_greeting(settings: [u8; 2], octets in joined(SERVER)) {
        let start = b"220 s\r\n250-s\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n";
        fuzz::client_session(&[&settings[..], start, &octets].concat());
    }

    #[test]
    fn pairs_hold_for_any_steps(choices in vec(any::<u8>(), 0..300)) {
        fuzz::pair(&choices);
    }

    #[test]
    fn content_is_framed_as_the_reference_does(octets in vec(select(&b"\r\n.\0a"[..]), 0..200)) {
        fuzz::framer(&octets);
    }

    #[test]
    fn damaged_queues_open_or_report(choices in vec(any::<u8>(), 0..100)) {
        fuzz::queue(&choices);
    }

    #[test]
    fn replies_parse_or_fail(octets in joined(SERVER)) {
        fuzz::reply(&octets);
    }

    #[test]
    fn logins_need_their_proof(mechanism in 0..9_u8, messages in vec(select(&["n,,n=user,r=", "p=tls-exporter,,n=user,r=", "abc", "\n", "\0",
        "\u{1}", "user=user", "n,,", "auth=Bearer ", "c=biws,", "r=AQEBAQEBAQEBAQEBAQEBAQEBx", ",s=c2FsdHNhbHQ=", ",i=4096",
        ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ",m=x", "e=x",
        "\u{e9}"][..]), 0..12)) {
        fuzz::sasl(format!("{mechanism}{}", messages.concat()).as_bytes());
    }

    #[test]
    fn addresses_parse_or_fail(text in "[a<>@\"\\\\. :\\[\\]\r\n\u{e9}-]{0,24}") {
        fuzz::address(text.as_bytes());
    }

    #[test]
    fn commands_parse_or_fail(verb in select(&["MAIL FROM:", "RCPT TO:", "AUTH ", "BDAT ", "EHLO ", ""][..]), rest in "\\PC{0,40}") {
        fuzz::command(format!("{verb}{rest}").as_bytes());
    }

    #[test]
    fn lines_are_tolerated_as_they_are_meant(verb in select(&["MAIL FROM", "RCPT TO", "mail\tfrom ", "MAIL", "EHLO", "HELO "][..]), rest in vec(select(&[":",
        ":", "<", "<", ">", ">", " ", "\t", "a@b", "a@b.", "a..b@c_d", "root", "postmaster", "\"a b\"@c", "\"", "@", "=", " SIZE=1", " NOTIFY=NEVER", "  X", "\r",
        "\n", "\0", "\u{85}", "\u{e9}", "[192.0.2.1]", ".", ",", "%"][..]), 0..9)) {
        fuzz::tolerance(format!("{verb}{}", rest.concat()).as_bytes());
        fuzz::tolerance(format!("{verb}:{}", rest.concat()).as_bytes());
    }

    #[test]
    fn mail_and_rcpt_parse_or_fail(path in "<[a-c@.]{0,6}>", parameters in vec(select(&[" SIZE=1", " BODY=7BIT", " body=8bitmime", " SMTPUTF8",
        " RET=FULL", " ENVID=a+2B", " AUTH=<>", " NOTIFY=NEVER", " ORCPT=rfc822;a@b", " X=y", "  Z", "\t"][..]), 0..6)) {
        for verb in ["MAIL FROM:", "RCPT TO:"] {
            fuzz::command(format!("{verb}{path}{}", parameters.concat()).as_bytes());
        }
    }
}

#[cfg(feature = "auth")]
mod dkim {
    use super::*;

    /// Pieces of messages, mostly of such as are signed.
    const MESSAGE: &[&[u8]] = &[
        b"From: a@dkim.test\r\n",
        b"From:\r\n\t\"x\" <a@dkim.test> \r\n",
        b"Subject:  x \t y \r\n",
        b"SUBJECT : z\r\n",
        b"To: b@c,\r\n d@e\r\n \t \r\n f\r\n",
        b"List-Id: <x>\r\n",
        b"X-Other: y\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b" \r\n",
        b"word",
        b"a b\r\n",
        b"\xff\x01",
        b"\n",
        b"\r",
        b"\0",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn signatures_verify_in_every_cut(settings: [u8; 3], octets in joined(MESSAGE)) {
            fuzz::dkim(&[&settings[..], b"From: a@dkim.test\r\n", &octets].concat());
        }

        #[test]
        fn messages_are_signed_or_refused(settings: [u8; 3], octets in joined(MESSAGE)) {
            fuzz::dkim(&[&settings[..], &octets].concat());
        }

        #[test]
        fn bodies_are_signed_as_the_rfc_words_it(settings: [u8; 3], body in vec(select(&b"a \t\r\n"[..]), 0..40)) {
            // Line ends are whole, or nearly all would be refused.
            let body: Vec<u8> = body.iter().flat_map(|octet| match octet {
                b'\r' | b'\n' => &b"\r\n"[..],
                octet => std::slice::from_ref(octet),
            }).copied().collect();
            fuzz::dkim(&[&settings[..], b"From: a@dkim.test\r\n\r\n", &body].concat());
        }
    }
}
