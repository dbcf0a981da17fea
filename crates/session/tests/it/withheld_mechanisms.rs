//! A mechanism that a connection cannot support is neither offered nor taken on it.

use std::sync::Arc;

use bytes::BytesMut;
use posthaste_session::{ServerNext, ServerSession, ServerSettings, Tick, Transport, Verdict};
use posthaste_wire::{Mechanism, MechanismSet};

/// Says a line, accepts what is asked, and returns the replies.
fn ask(session: &mut ServerSession, line: &str) -> String {
    let (mut input, mut out, mut said) = (line.as_bytes(), BytesMut::new(), String::new());
    loop {
        let step = session.handle_input(Tick::ORIGIN, input, &mut out).unwrap();
        input = &input[step.consumed..];
        said.push_str(std::str::from_utf8(&out.split()).unwrap());
        match step.next {
            ServerNext::Ask(_) => session.answer(Tick::ORIGIN, Verdict::Accept(None), &mut out).unwrap(),
            ServerNext::Flush | ServerNext::Refused => {}
            ServerNext::NeedInput => return said,
            ServerNext::StartTls => {
                session.tls_established().unwrap();
                return said;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn session(auth: &[Mechanism], transport: Transport) -> ServerSession {
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.offers.auth = MechanismSet::of(auth);
    let mut session = ServerSession::new(Arc::new(settings), transport);
    ask(&mut session, "");
    session
}

#[test]
fn a_withheld_mechanism_is_neither_offered_nor_taken() {
    let mut session = session(&[Mechanism::Plain, Mechanism::External], Transport::Tls);
    session.withhold(Mechanism::External);
    assert!(ask(&mut session, "EHLO c.test\r\n").contains("AUTH PLAIN\r\n"));
    assert!(ask(&mut session, "AUTH EXTERNAL =\r\n").starts_with("504 5.5.4"));
    assert!(ask(&mut session, "AUTH PLAIN AGEAYg==\r\n").starts_with("235"));
}

#[test]
fn withholding_the_last_mechanism_withdraws_auth() {
    let mut session = session(&[Mechanism::External], Transport::Tls);
    session.withhold(Mechanism::External);
    assert!(!ask(&mut session, "EHLO c.test\r\n").contains("AUTH"));
    assert!(ask(&mut session, "AUTH EXTERNAL =\r\n").starts_with("504 5.5.4"));
}

#[test]
fn starttls_forgets_what_was_withheld() {
    let mut session = session(&[Mechanism::External], Transport::StartTls);
    session.withhold(Mechanism::External);
    ask(&mut session, "EHLO c.test\r\n");
    assert!(ask(&mut session, "AUTH EXTERNAL =\r\n").starts_with("538 5.7.11"));
    ask(&mut session, "STARTTLS\r\n");
    assert!(ask(&mut session, "EHLO c.test\r\n").contains("AUTH EXTERNAL\r\n"));
    assert!(ask(&mut session, "AUTH EXTERNAL =\r\n").starts_with("235"));
}
