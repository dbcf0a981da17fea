//! Client output for a server, with events in it.

use std::time::Duration;

use posthaste_session::{
    ApiMisuse, Ask, ServerSettings, Transport, Verdict,
    server::{CloseReason, Protocol, Tolerance},
};
use posthaste_wire::{Mechanism, MechanismSet};

use super::incidents::{Incident, incidents};
use crate::{
    choices::{Choices, Chunking},
    policy::{accept, decision, refusal, refuse},
    server::{self, ServerHarness, Stop},
};

/// Three octets of settings, then the client's output with events in it: time passes, questions
/// stay open, verdicts of every kind, a shutdown, the end of the stream. The harness checks the
/// contract. This checks that every chunking gives the same replies and the same events.
///
/// # Panics
/// The session breaks its contract.
pub fn server_session(data: &[u8]) {
    let Some((header, stream)) = data.split_first_chunk::<3>() else { return };
    let incidents = incidents(stream);
    let mut settings = settings(*header);
    let random = Chunking::Random(Choices::new(stream.len() as u64));
    serve(&settings, *header, &incidents, random.clone());
    // Octets after DATA before 354, or after STARTTLS before the handshake, depend on when they
    // come.
    settings.limits.forbid_unauthorized_pipelining = false;
    let whole = serve(&settings, *header, &incidents, Chunking::Whole);
    for chunking in [Chunking::Single, Chunking::At(stream.len() / 2), random] {
        let found = serve(&settings, *header, &incidents, chunking.clone());
        if !whole.depends_on_chunking && !found.depends_on_chunking {
            assert_eq!((&found.events, &found.said), (&whole.events, &whole.said), "{chunking:?}");
        }
    }
}

fn settings([offers, more, limits]: [u8; 3]) -> ServerSettings {
    let is = |octet: u8, bit: u8| octet & 1 << bit != 0;
    let mut settings = ServerSettings::new("mx.test".parse().expect("a domain"));
    settings.protocol = if is(offers, 7) { Protocol::Lmtp } else { Protocol::Smtp };
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain, Mechanism::Login]);
    settings.offers.auth_in_clear = is(offers, 0);
    settings.offers.smtputf8 = is(offers, 1);
    settings.offers.dsn = is(offers, 2);
    settings.offers.chunking = is(offers, 3);
    settings.offers.binary_mime = is(offers, 4);
    settings.offers.other_commands = is(offers, 5);
    settings.offers.deliver_by = is(offers, 6).then_some(60);
    settings.offers.mt_priority = is(offers, 6).then(String::new);
    settings.offers.rrvs = is(offers, 6);
    settings.offers.demand_tls = is(more, 1);
    settings.offers.demand_auth = is(more, 2);
    settings.offers.require_tls = is(more, 3);
    settings.offers.no_soliciting = is(more, 3).then(String::new);
    settings.offers.future_release = is(more, 4).then_some(86_400);
    settings.offers.limits = is(more, 5);
    settings.offers.xclient = is(more, 5);
    settings.offers.xforward = is(more, 5);
    settings.tolerance = match (is(more, 7), is(more, 6)) {
        (true, _) => Tolerance::SUBMISSION,
        (false, true) => Tolerance::STRICT,
        (false, false) => Tolerance::MX,
    };
    if is(limits, 0) {
        settings.timeouts.greeting_delay = Duration::from_secs(5);
    }
    settings.limits.forbid_early_talking = is(limits, 1);
    settings.timeouts.minimum_rate = if is(limits, 2) { 100 } else { 0 };
    if is(limits, 3) {
        settings.limits.text_line = 10;
    }
    if is(limits, 4) {
        settings.limits.message_size = 30;
        settings.limits.discarded_content = 20;
    }
    if is(limits, 5) {
        settings.limits.discarded_line = 20;
    }
    if is(limits, 6) {
        settings.limits.recipients = 2;
    }
    if is(limits, 7) {
        settings.limits.errors = 2;
        settings.limits.idle_commands = 3;
        settings.limits.auth_failures = 1;
    }
    settings
}

#[derive(Debug)]
struct Run {
    events: Vec<server::Event>,
    said: Vec<u8>,
    depends_on_chunking: bool,
}

fn serve(settings: &ServerSettings, [_, more, _]: [u8; 3], incidents: &[Incident<'_>], mut chunking: Chunking) -> Run {
    let transport = if more & 1 == 1 { Transport::Tls } else { Transport::StartTls };
    let mut harness = ServerHarness::new(settings.clone(), transport);
    let mut position = 0;
    let mut said_start_tls = false;
    harness.run();
    for incident in incidents {
        if harness.closed.is_some() {
            break;
        }
        match *incident {
            Incident::Octets(mut octets) => {
                while !octets.is_empty() && harness.closed.is_none() {
                    let (piece, rest) = octets.split_at(chunking.next(position, octets.len()));
                    octets = rest;
                    position += piece.len();
                    said_start_tls |= go_on(&mut harness, piece);
                }
            }
            Incident::Wait(time) => {
                let due = harness.session.poll_timeout();
                harness.wait(time);
                assert!(due.is_none_or(|due| due > harness.clock.now()) || harness.session.poll_timeout() != due);
                said_start_tls |= go_on(&mut harness, b"");
            }
            Incident::Hold(questions) => harness.policy.hold(questions),
            Incident::Answer(verdict) => {
                answer(&mut harness, verdict);
                said_start_tls |= go_on(&mut harness, b"");
            }
            Incident::Refuse(code) => harness.session.refuse_content(refusal(&format!("{code} no"))),
            Incident::Shutdown => harness.shutdown(),
            Incident::End => {
                harness.end_of_input();
            }
        }
    }
    // The last question is accepted in the end.
    while harness.closed.is_none() && harness.held.is_some() {
        let answered = harness.events.len();
        answer(&mut harness, 0);
        said_start_tls |= go_on(&mut harness, b"");
        assert!(harness.closed.is_some() || harness.held.is_none() || harness.events.len() > answered);
    }
    let by_chunking = [CloseReason::ResidueBeforeTls, CloseReason::TooSlow];
    Run {
        depends_on_chunking: said_start_tls || harness.closed.is_some_and(|reason| by_chunking.contains(&reason)),
        events: harness.events,
        said: harness.said,
    }
}

/// Feeds octets, and does the handshakes that are due. Returns `true` if there was one.
fn go_on(harness: &mut ServerHarness, octets: &[u8]) -> bool {
    let mut stop = harness.feed(octets);
    let said_start_tls = stop == Stop::Tls;
    while stop == Stop::Tls {
        harness.establish_tls();
        stop = harness.run();
    }
    said_start_tls
}

/// Answers the question that was left open. A verdict that does not fit leaves it open.
fn answer(harness: &mut ServerHarness, verdict: usize) {
    let Some(ask) = &harness.held else { return };
    let recipients = if let Ask::Message { recipients } = ask { *recipients } else { 0 };
    let verdict = match verdict {
        0 => Verdict::Accept(None),
        1 => accept(&format!("250 {}", "long ".repeat(100))),
        2 => refuse("450 4.0.0 later"),
        3 => refuse("550 5.0.0 no"),
        4 => refuse("421 4.3.2 enough"),
        5 => Verdict::Challenge(b"who?".to_vec()),
        6 => Verdict::Each((0..recipients).map(|place| decision(["250 ok", "450 no", "550 no"][place % 3])).collect()),
        7 => Verdict::Each(vec![decision("550 no"); recipients]),
        8 => Verdict::Each(vec![decision("250 ok"); recipients + 1]),
        9 => Verdict::Each(Vec::new()),
        _ => Verdict::Challenge(Vec::new()),
    };
    if let Err(error) = harness.answer(verdict) {
        assert_eq!(error, ApiMisuse::Verdict);
    }
}
