//! The fuzz bodies over inputs made of the pieces that matter, so that `cargo test` looks beyond the corpora.

use posthaste_testkit::fuzz;
use proptest::{collection::vec, prelude::*, sample::select};

const CLIENT: &[&str] = &[
    "EHLO c\r\n",
    "HELO c\r\n",
    "MAIL FROM:<a@b>\r\n",
    "MAIL FROM:<> SIZE=10\r\n",
    "MAIL FROM:<a@b> SIZE=99999999\r\n",
    "RCPT TO:<c@d>\r\n",
    "RCPT TO:<\u{e9}@d>\r\n",
    "RCPT TO:<bad\r\n",
    "DATA\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN\r\n",
    "AUTH LOGIN\r\n",
    "AUTH PLAIN AHRlc3RlcgBzM2NyZXQ=\r\n",
    "*\r\n",
    "AHRlc3RlcgBzM2NyZXQ=\r\n",
    "BDAT 5\r\n",
    "BDAT 3 LAST\r\n",
    "BDAT 99999999999999999999\r\n",
    "12345",
    ".\r\n",
    "\r\n.\r\n",
    "..x\r\n",
    "text\r\n",
    "\n",
    "\r",
    "\0",
    ".",
    "GET / HTTP/1.1\r\n",
    "XYZ\r\n",
];

const SERVER: &[&str] = &[
    "220 s ESMTP\r\n",
    "250-s\r\n",
    "250-PIPELINING\r\n",
    "250-STARTTLS\r\n",
    "250-AUTH PLAIN LOGIN\r\n",
    "250 SIZE 9\r\n",
    "250 ok\r\n",
    "354 go\r\n",
    "334 \r\n",
    "334 VXNlcm5hbWU6\r\n",
    "235 2.7.0 ok\r\n",
    "421 bye\r\n",
    "550 no\r\n",
    "451 later\r\n",
    "221 bye\r\n",
    "250\r\n",
    "554-x\r\n",
    "220 go\r\n",
    "\r\n",
    "x",
];

fn joined(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    vec(select(pieces), 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

fn started(start: &'static str, rest: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    rest.prop_map(move |rest| [start.as_bytes(), &rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn servers(octets in joined(CLIENT)) {
        fuzz::server_session(&octets);
    }

    #[test]
    fn servers_within_a_transaction(octets in started("EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", joined(CLIENT))) {
        fuzz::server_session(&octets);
    }

    #[test]
    fn clients(octets in joined(SERVER)) {
        fuzz::client_session(&octets);
    }

    #[test]
    fn clients_behind_a_greeting(octets in started("220 s\r\n250-s\r\n250-PIPELINING\r\n250 DSN\r\n", joined(SERVER))) {
        fuzz::client_session(&octets);
    }

    #[test]
    fn content(octets in vec(select(&b"\r\n.\0a"[..]), 0..200)) {
        fuzz::framer(&octets);
    }

    #[test]
    fn replies(octets in joined(SERVER)) {
        fuzz::reply(&octets);
    }

    #[test]
    fn logins(mechanism in 0..9_u8, messages in vec(select(&["n,,n=user,r=", "p=tls-exporter,,n=user,r=", "abc", "\n", "\0",
        "\u{1}", "user=user", "n,,", "auth=Bearer ", "c=biws,", "r=AQEBAQEBAQEBAQEBAQEBAQEBx", ",s=c2FsdHNhbHQ=", ",i=4096",
        ",p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ",m=x", "e=x",
        "\u{e9}"][..]), 0..12)) {
        fuzz::sasl(format!("{mechanism}{}", messages.concat()).as_bytes());
    }

    #[test]
    fn addresses(text in "[a<>@\"\\\\. :\\[\\]\r\n\u{e9}-]{0,24}") {
        fuzz::address(text.as_bytes());
    }

    #[test]
    fn commands(verb in select(&["MAIL FROM:", "RCPT TO:", "AUTH ", "BDAT ", "EHLO ", ""][..]), rest in "\\PC{0,40}") {
        fuzz::command(format!("{verb}{rest}").as_bytes());
    }

    #[test]
    fn mail(path in "<[a-c@.]{0,6}>", parameters in vec(select(&[" SIZE=1", " BODY=7BIT", " body=8bitmime", " SMTPUTF8",
        " RET=FULL", " ENVID=a+2B", " AUTH=<>", " NOTIFY=NEVER", " ORCPT=rfc822;a@b", " X=y", "  Z", "\t"][..]), 0..6)) {
        for verb in ["MAIL FROM:", "RCPT TO:"] {
            fuzz::command(format!("{verb}{path}{}", parameters.concat()).as_bytes());
        }
    }
}
