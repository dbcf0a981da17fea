//! What befalls a session between the octets that arrive, written among them: an octet of 255 and one that says what.
//!
//! | second octet | event |
//! |---|---|
//! | 0 to 31 | time goes by |
//! | 32 to 63 | the next n questions stay open |
//! | 64 to 127 | the open question is answered, in one of sixteen ways |
//! | 128 to 159 | content is refused |
//! | 160 to 191 | shutdown |
//! | 192 to 223 | the peer closes its side |
//! | 224 to 255 | none: the octet itself arrives |

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Octets(&'a [u8]),
    Wait(Duration),
    Hold(usize),
    Answer(usize),
    Refuse(u16),
    Shutdown,
    End,
}

pub(super) fn events(mut stream: &[u8]) -> Vec<Event<'_>> {
    let mut events = Vec::new();
    while let Some(mark) = stream.iter().position(|octet| *octet == 255) {
        let (octets, rest) = stream.split_at(mark);
        events.push(Event::Octets(octets));
        let Some((kind, rest)) = rest[1..].split_first() else { return events };
        stream = rest;
        let argument = usize::from(kind % 32);
        events.push(match kind {
            0..32 => Event::Wait(TIMES[argument % TIMES.len()]),
            32..64 => Event::Hold(argument),
            64..128 => Event::Answer(argument % 16),
            128..160 => Event::Refuse([452, 554, 421, 550][argument % 4]),
            160..192 => Event::Shutdown,
            192..224 => Event::End,
            224.. => Event::Octets(std::slice::from_ref(kind)),
        });
    }
    events.push(Event::Octets(stream));
    events
}

/// Around the deadlines that are set by default.
const TIMES: [Duration; 16] = [
    Duration::from_millis(1),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(59),
    Duration::from_secs(60),
    Duration::from_secs(61),
    Duration::from_secs(119),
    Duration::from_secs(120),
    Duration::from_secs(179),
    Duration::from_secs(180),
    Duration::from_secs(299),
    Duration::from_secs(300),
    Duration::from_secs(600),
    Duration::from_secs(3_600),
    Duration::MAX,
];
