//! Dialogues in which the connection fails at every octet of either direction, in every way.

use posthaste_testkit::{
    choices::Choices,
    link::Fault,
    pair::{Letter, Pair, Setup, Side, Step, Way},
};
use posthaste_wire::Mechanism;

const PLAIN: Setup = Setup { lmtp: false, tls: false, mechanism: None, pipelined: true };
const IN_CHUNKS: Way = Way::Chunks { octets: 9, binary: false, end_apart: false };

/// Runs a dialogue without a fault, and then with every fault at every octet.
fn try_all(setup: Setup, letters: &[Letter]) {
    let mut runs = 0;
    let mut in_doubt = 0;
    for seed in 0..2 {
        let run = |fault: Option<(Fault, Side, usize)>| {
            let mut pair = Pair::new(setup);
            for letter in letters {
                pair.step(Step::Submit(letter.clone()));
            }
            if let Some((fault, side, octet)) = fault {
                pair.step(Step::Fail(fault, side, octet));
            }
            pair.finish(&mut Choices::new(seed));
            pair
        };
        let whole = run(None);
        for (side, octets) in [(Side::Server, whole.link.up.written()), (Side::Client, whole.link.down.written())] {
            for fault in [Fault::End, Fault::Reset, Fault::Silence] {
                for octet in 0..=octets {
                    let pair = run(Some((fault, side, octet)));
                    runs += 1;
                    in_doubt += u32::from(pair.client.session.message_in_doubt());
                }
            }
        }
    }
    println!("{runs} runs, in {in_doubt} of them a message was in doubt");
    assert!(in_doubt > 0, "no fault hit the end of a message");
}

#[test]
fn two_messages_by_data_survive_a_fault_at_every_octet() {
    let second = Letter { recipients: vec![250, 550, 250], ..Letter::new(3, b"..second\r\n", Way::Data) };
    for pipelined in [true, false] {
        try_all(Setup { pipelined, ..PLAIN }, &[Letter::new(1, b"first\r\n", Way::Data), second.clone()]);
    }
}

#[test]
fn messages_in_chunks_survive_a_fault_at_every_octet() {
    let binary = Way::Chunks { octets: 7, binary: true, end_apart: true };
    let letters = [Letter::new(2, b"three chunks of it\r\n", IN_CHUNKS), Letter::new(1, b"\r\n.\r\n\0\n\r", binary)];
    try_all(PLAIN, &letters);
}

#[test]
fn lmtp_with_a_verdict_for_each_recipient_survives_a_fault_at_every_octet() {
    let letter = |way| Letter { end: vec![250, 450, 250], ..Letter::new(3, b"text\r\n", way) };
    try_all(Setup { lmtp: true, ..PLAIN }, &[letter(Way::Data), letter(IN_CHUNKS)]);
}

#[test]
fn starttls_and_auth_survive_a_fault_at_every_octet() {
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        let setup = Setup { tls: true, mechanism: Some(mechanism), ..PLAIN };
        try_all(setup, &[Letter::new(1, b"text\r\n", Way::Data)]);
    }
}

#[test]
fn refusals_survive_a_fault_at_every_octet() {
    let text: &[u8] = b"refused\r\n";
    let letters = [
        Letter { mail: 550, ..Letter::new(1, text, Way::Data) },
        Letter { data: 450, ..Letter::new(1, text, Way::Data) },
        Letter { end: vec![550], ..Letter::new(1, text, Way::Data) },
        Letter {
            refused_at: Some(3),
            ..Letter::new(1, text, Way::Chunks { octets: 4, binary: false, end_apart: false })
        },
        Letter::new(1, b"taken\r\n", Way::Data),
    ];
    try_all(PLAIN, &letters);
}
