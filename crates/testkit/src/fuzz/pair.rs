//! Both sessions back to back.

use std::time::Duration;

use posthaste_wire::Mechanism;

use crate::{
    choices::Choices,
    link::Fault,
    pair::{Letter, Pair, Setup, Side, Step, Way},
    wire::values::Source,
};

/// Octets that choose what both sides agree on and what happens: in what order and portions, when
/// the application answers, how time passes, and where the connection fails. [`crate::pair`] has
/// the invariants.
///
/// # Panics
/// An invariant does not hold.
pub fn pair(data: &[u8]) {
    let mut source = Source::new(data);
    let setup = Setup {
        lmtp: source.coin(),
        tls: source.coin(),
        // SCRAM costs more than everything else together. `cargo test` covers it.
        mechanism: source.maybe(|source| source.one(&[Mechanism::Plain, Mechanism::Login])),
        pipelined: source.coin(),
    };
    // Unused. The corpus was made when several questions could be open.
    source.below(4);
    let mut pair = Pair::new(setup);
    let mut choices = Choices::new(u64::from(source.octet()));
    let mut letters = 0;
    for _ in 0..data.len() {
        let step = step(&mut source, setup);
        letters += usize::from(matches!(step, Step::Submit(_)));
        if letters <= 8 || !matches!(step, Step::Submit(_)) {
            pair.step(step);
        }
    }
    pair.finish(&mut choices);
}

fn step(source: &mut Source<'_>, setup: Setup) -> Step {
    match source.below(16) {
        0..4 => Step::Act(size(source)),
        4..8 => Step::Up(size(source)),
        8..11 => Step::Down(size(source)),
        11..13 => {
            source.below(4);
            Step::Answer
        }
        13 => Step::Submit(letter(source, setup)),
        14 if source.coin() => Step::WaitFor(source.one(&[1, 50, 99, 100, 101]), source.coin()),
        14 => Step::Wait(
            Duration::from_secs(source.one(&[0, 1, 10, 59, 60, 119, 120, 179, 299, 300, 600])),
            source.coin(),
        ),
        _ if source.coin() => Step::Wake(source.coin()),
        _ => Step::Fail(
            source.one(&[Fault::End, Fault::Reset, Fault::Silence]),
            source.one(&[Side::Server, Side::Client]),
            size(source),
        ),
    }
}

fn size(source: &mut Source<'_>) -> usize {
    source.one(&[1, 2, 3, 8, 21, 64, 4_096])
}

fn letter(source: &mut Source<'_>, setup: Setup) -> Letter {
    const CODES: [u16; 6] = [250, 250, 250, 250, 450, 550];
    let recipients: Vec<u16> = (0..=source.below(4)).map(|_| source.one(&CODES)).collect();
    let way = match source.below(3) {
        0 => Way::Data,
        kind => Way::Chunks { octets: 1 + source.below(40), binary: kind == 2, end_apart: source.coin() },
    };
    let pieces: &[&[u8]] = match way {
        Way::Chunks { binary: true, .. } => &[b"text\r\n", b"\r", b"\n", b"\0", b".", b"\xff", b"BDAT 1 LAST\r\n"],
        _ => &[b"text\r\n", b".\r\n", b"..\r\n", b"\r\n", b"\xe9", b".", b"BDAT 1 LAST\r\n"],
    };
    let mut content: Vec<u8> = (0..source.below(24)).flat_map(|_| source.one(pieces).to_vec()).collect();
    if way == Way::Data && !content.is_empty() && !content.ends_with(b"\r\n") {
        content.extend_from_slice(b"\r\n");
    }
    Letter {
        mail: source.one(&CODES),
        data: source.one(&CODES),
        refused_at: source.maybe(|source| 1 + source.below(60)),
        end: (0..if setup.lmtp { 1 + source.below(3) } else { 1 }).map(|_| source.one(&CODES)).collect(),
        recipients,
        content,
        way,
    }
}
