//! Whole conversations.

use posthaste_session::{ClientSettings, ServerSettings, server::Protocol, table::Phase};
use posthaste_wire::{Command, Mechanism, MechanismSet, capability::Keyword};

use crate::{
    choices::{Choices, Chunking},
    client::{ClientHarness, Event},
    server::{self, ServerHarness, Stop},
};

/// What a client sends. The harness checks the contract; here: every chunking gives the same replies and the same events.
///
/// The input decides by its length which offers the server makes, so that a corpus reaches all of them.
///
/// # Panics
/// When the session breaks its contract.
pub fn server_session(octets: &[u8]) {
    let mut settings = ServerSettings::new("mx.test");
    settings.offers.starttls = true;
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.offers.auth_in_clear = octets.len() & 1 == 0;
    settings.offers.smtputf8 = octets.len() & 2 == 0;
    settings.offers.dsn = octets.len() & 4 == 0;
    settings.offers.chunking = octets.len() & 16 == 0;
    settings.offers.binary_mime = octets.len() & 32 == 0;
    settings.offers.other_commands = octets.len() & 64 == 0;
    settings.offers.deliver_by = Some(60);
    settings.offers.mt_priority = Some(String::new());
    settings.offers.rrvs = true;
    if octets.len() % 5 == 4 {
        settings.protocol = Protocol::Lmtp;
    }
    settings.limits.message = 100_000;
    settings.limits.text_line = 200;
    settings.limits.open_recipients = if octets.len() & 8 == 0 { 1 } else { 4 };
    for refuse_early in [true, false] {
        // What comes behind DATA before 354, or behind STARTTLS before the handshake, depends on when it comes.
        settings.limits.forbid_unauthorised_pipelining = refuse_early;
        let whole = serve(&settings, octets, Chunking::Whole);
        let random = Chunking::Random(Choices::new(octets.len() as u64));
        for chunking in [Chunking::Single, Chunking::At(octets.len() / 2), Chunking::At(octets.len() / 3), random] {
            let found = serve(&settings, octets, chunking.clone());
            if !refuse_early && !whole.2 && !found.2 {
                assert_eq!(found, whole, "{chunking:?}");
            }
        }
    }
}

/// Events, replies, and whether STARTTLS was in it.
fn serve(settings: &ServerSettings, octets: &[u8], mut chunking: Chunking) -> (Vec<server::Event>, Vec<u8>, bool) {
    let mut harness = ServerHarness::new(settings.clone(), false);
    let mut position = 0;
    let mut said_start_tls = false;
    harness.run();
    while position < octets.len() && harness.closed.is_none() {
        let size = chunking.next(position, octets.len() - position);
        let mut stop = harness.feed(&octets[position..position + size]);
        position += size;
        while stop == Stop::Tls {
            said_start_tls = true;
            harness.establish_tls();
            stop = harness.run();
        }
    }
    said_start_tls |= harness
        .events
        .iter()
        .any(|event| matches!(event, server::Event::Closed(posthaste_session::server::CloseReason::ResidueBeforeTls)));
    (std::mem::take(&mut harness.events), std::mem::take(&mut harness.said), said_start_tls)
}

/// What a server sends, to a client that sends one message as far as it gets. The harness checks the contract; here:
/// no ticket is answered twice, and replies come in order.
///
/// # Panics
/// When the session breaks its contract.
pub fn client_session(octets: &[u8]) {
    let random = Chunking::Random(Choices::new(octets.len() as u64));
    for chunking in [Chunking::Whole, Chunking::Single, Chunking::At(octets.len() / 2), random] {
        talk(octets, chunking);
    }
}

fn talk(octets: &[u8], mut chunking: Chunking) {
    let mut harness = ClientHarness::new(ClientSettings::default());
    let mut position = 0;
    let mut seen = 0;
    while position < octets.len() && !harness.closed {
        let size = chunking.next(position, octets.len() - position);
        harness.feed(&octets[position..position + size]);
        position += size;
        if harness.closed {
            break;
        }
        let events = harness.events.get(seen..).unwrap_or_default().to_vec();
        seen = harness.events.len();
        for event in &events {
            match event {
                Event::Challenge(_) => {
                    let _ = harness.respond(Some("dGVzdA=="));
                }
                Event::SendBody(_) => {
                    let content: &[u8] = if harness.session.accepted_recipients() > 0 { b".hi\r\nthere" } else { b"" };
                    let _ = harness.send_content(content, 3);
                }
                Event::StartTls => harness.establish_tls(),
                _ => {}
            }
        }
        next_commands(&mut harness);
    }
    let tickets = harness.events.iter().filter_map(|event| match event {
        Event::Reply(ticket, ..) => Some(*ticket),
        _ => None,
    });
    let tickets: Vec<_> = tickets.collect();
    assert!(tickets.is_sorted_by(|one, two| one < two), "replies in order, each once: {tickets:?}");
    let unanswered = harness.session.unanswered();
    let eof = harness.end_of_input();
    assert!(eof.unanswered <= unanswered);
}

/// Sends what comes next in a plain conversation; whatever is out of order is refused without harm.
fn next_commands(harness: &mut ClientHarness) {
    let lines: &[&str] = match harness.session.phase() {
        Phase::Greeted => &["EHLO client.test"],
        Phase::Ready if harness.session.capabilities().offers(Keyword::StartTls) => &["STARTTLS"],
        Phase::Ready if !harness.session.capabilities().auth().is_empty() && harness.events.len() < 8 => {
            &["AUTH LOGIN"]
        }
        Phase::Ready => &["MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA"],
        Phase::Mail => &["RCPT TO:<c@d>", "RSET"],
        Phase::Rcpt => &["DATA"],
        _ => &[],
    };
    for line in lines {
        let command = Command::parse(line.as_bytes()).expect("a command");
        let before = harness.session.unanswered();
        let sent = harness.send(&command);
        assert_eq!(harness.session.unanswered(), before + usize::from(sent.is_ok()));
    }
}
