//! What XCLIENT and XFORWARD say, and how long it counts.

use bytes::BytesMut;
use posthaste_session::{
    Ask, ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict, server::ClientFacts,
};

/// A session that offers both, and accepts everything.
struct Proxied {
    session: ServerSession,
    out: BytesMut,
    /// What the questions about XCLIENT said.
    asked: Vec<ClientFacts>,
}

impl Proxied {
    fn new() -> Self {
        let mut settings = ServerSettings::new("mx.test".parse().unwrap());
        settings.offers.xclient = true;
        settings.offers.xforward = true;
        settings.limits.idle_commands = 1_000;
        let mut new = Self {
            session: ServerSession::new(settings.into(), Transport::Plain),
            out: BytesMut::new(),
            asked: Vec::new(),
        };
        new.says("");
        new
    }

    /// Says lines, and returns the code of the last reply.
    fn says(&mut self, lines: &str) -> String {
        let lines = lines.replace('\n', "\r\n");
        let mut input = lines.as_bytes();
        self.out.clear();
        loop {
            let step = self.session.handle_input(Tick::ORIGIN, input, &mut self.out).unwrap();
            let consumed = step.consumed;
            match step.next {
                ServerNext::NeedInput => break,
                ServerNext::Flush if consumed == input.len() => break,
                ServerNext::Ask(ask) => {
                    if let Ask::XClient(facts) = ask {
                        self.asked.push((*facts).clone());
                    }
                    self.session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut self.out).unwrap();
                }
                _ => {}
            }
            input = &input[consumed..];
        }
        let said = String::from_utf8(self.out.to_vec()).unwrap();
        said.lines().last().map(|line| line[..3].to_owned()).unwrap_or_default()
    }

    fn forwarded(&self) -> Option<&str> {
        self.session.forwarded().map(|facts| facts.name.as_deref().unwrap_or("?"))
    }
}

#[test]
fn every_attribute_of_xclient_is_read() {
    let mut proxied = Proxied::new();
    let line = "XCLIENT NAME=a.test PORT=65535 PROTO=esmtp HELO=[192.0.2.9] LOGIN=me+2B+C3+A9 \
                DESTADDR=IPv6:2001:db8::25 DESTPORT=025 ADDR=192.0.2.1\n";
    assert_eq!(proxied.says(line), "220");
    let mut expected = ClientFacts::default();
    expected.name = Some("a.test".to_owned());
    expected.address = Some("192.0.2.1".parse().unwrap());
    expected.port = Some(65_535);
    expected.protocol = Some("ESMTP".to_owned());
    expected.hello = Some("[192.0.2.9]".parse().unwrap());
    expected.login = Some("me+é".to_owned());
    expected.local_address = Some("2001:db8::25".parse().unwrap());
    expected.local_port = Some(25);
    assert_eq!(proxied.asked, [expected]);
}

#[test]
fn facts_of_xclient_add_up_but_for_what_a_client_says_itself() {
    let mut proxied = Proxied::new();
    let all = "XCLIENT NAME=a.test PORT=7 HELO=a.test LOGIN=me PROTO=SMTP\nXCLIENT NAME=[UNAVAILABLE]\n\
               XCLIENT LOGIN=you\nXCLIENT BAD=x NAME=lost.test\nXCLIENT ADDR=2001:db8::1\n";
    assert_eq!(proxied.says(all), "220");
    let facts = |facts: &ClientFacts| {
        let hello = facts.hello.as_ref().map(ToString::to_string);
        (facts.name.clone(), facts.port, hello, facts.login.clone(), facts.protocol.clone(), facts.address)
    };
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (text("a.test"), Some(7), text("a.test"), text("me"), text("SMTP"), None),
        (None, Some(7), None, None, None, None),
        (None, Some(7), None, text("you"), None, None),
        (None, Some(7), None, None, None, "2001:db8::1".parse().ok()),
    ];
    assert_eq!(proxied.asked.iter().map(facts).collect::<Vec<_>>(), expected);
}

/// Postfix, XCLIENT_README. Rules must not take the proxy's own address for the client's.
#[test]
fn a_client_without_a_known_address_has_the_unspecified_one() {
    for word in ["[UNAVAILABLE]", "[tempunavail]"] {
        let mut proxied = Proxied::new();
        assert_eq!(proxied.says(&format!("XCLIENT NAME=a.test ADDR={word}\n")), "220");
        assert_eq!(proxied.asked[0].address, "0.0.0.0".parse().ok());
        assert_eq!(proxied.says("XCLIENT ADDR=192.0.2.1\n"), "550");
    }
}

#[test]
fn facts_of_xforward_add_up_until_a_transaction_ends() {
    let mut proxied = Proxied::new();
    let first = "EHLO c.test\nXFORWARD NAME=a.test ADDR=192.0.2.1 HELO=b.test PROTO=UUCP\n\
                 XFORWARD IDENT=7A3B SOURCE=remote PORT=[unavailable]\n";
    proxied.says(first);
    let mut expected = ClientFacts::default();
    expected.name = Some("a.test".to_owned());
    expected.address = Some("192.0.2.1".parse().unwrap());
    expected.hello = Some("b.test".parse().unwrap());
    expected.protocol = Some("UUCP".to_owned());
    expected.ident = Some("7A3B".to_owned());
    expected.is_local = Some(false);
    assert_eq!(proxied.session.forwarded().map(|facts| &**facts), Some(&expected));

    const MAIL: &str = "MAIL FROM:<a@b>\nRCPT TO:<c@d>\n";
    for (lines, kept) in [
        ("NOOP\n", true),
        ("XYZZY\n", true),
        ("EHLO\n", true),
        ("MAIL FROM:<a@b\n", true),
        (MAIL, true),
        ("MAIL FROM:<a@b>\nXFORWARD NAME=no.test\n", true),
        // RSET, whether a transaction is open or not, and what does the same.
        ("RSET\n", false),
        ("EHLO c.test\n", false),
        (&format!("{MAIL}RSET\n"), false),
        (&format!("{MAIL}EHLO c.test\n"), false),
        ("XCLIENT NAME=x.test\n", false),
    ] {
        let mut proxied = Proxied::new();
        proxied.says("EHLO c.test\nXFORWARD NAME=a.test\n");
        proxied.says(lines);
        assert_eq!(proxied.forwarded(), kept.then_some("a.test"), "{lines:?}");
    }

    let mut proxied = Proxied::new();
    proxied.says(&format!("EHLO c.test\nXFORWARD NAME=a.test\n{MAIL}"));
    proxied.says("DATA\n");
    assert_eq!(proxied.forwarded(), Some("a.test"));
    assert_eq!(proxied.says("x\n.\n"), "250");
    assert_eq!(proxied.forwarded(), None);
    proxied.says("XFORWARD HELO=b.test\n");
    assert_eq!(proxied.forwarded(), Some("?"));
}

#[test]
fn values_are_bounded() {
    for (length, code) in [(255, "220"), (256, "501")] {
        for name in ["NAME", "LOGIN", "HELO"] {
            let mut proxied = Proxied::new();
            assert_eq!(proxied.says(&format!("XCLIENT {name}={}\n", "a".repeat(length))), code, "{name} {length}");
        }
    }
}
