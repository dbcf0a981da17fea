//! Events of a session, written between the octets that arrive: an octet of 255 and one that names
//! the event.
//!
//! | second octet | event |
//! |---|---|
//! | 0 to 31 | time passes |
//! | 32 to 63 | the next n questions stay open |
//! | 64 to 127 | the open question is answered, in one of sixteen ways |
//! | 128 to 159 | the content is refused |
//! | 160 to 191 | shutdown |
//! | 192 to 223 | the peer closes its side |
//! | 224 to 255 | none: the octet itself arrives |

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incident<'a> {
    Octets(&'a [u8]),
    Wait(Duration),
    Hold(usize),
    Answer(usize),
    Refuse(u16),
    Shutdown,
    End,
}

pub(super) fn incidents(mut stream: &[u8]) -> Vec<Incident<'_>> {
    let mut incidents = Vec::new();
    while let Some(mark) = stream.iter().position(|octet| *octet == 255) {
        let (octets, rest) = stream.split_at(mark);
        incidents.push(Incident::Octets(octets));
        let Some((kind, rest)) = rest[1..].split_first() else { return incidents };
        stream = rest;
        let argument = usize::from(kind % 32);
        incidents.push(match kind {
            0..32 => Incident::Wait(TIMES[argument % TIMES.len()]),
            32..64 => Incident::Hold(argument),
            64..128 => Incident::Answer(argument % 16),
            128..160 => Incident::Refuse([452, 554, 421, 550][argument % 4]),
            160..192 => Incident::Shutdown,
            192..224 => Incident::End,
            224.. => Incident::Octets(std::slice::from_ref(kind)),
        });
    }
    incidents.push(Incident::Octets(stream));
    incidents
}

/// Times around the default deadlines.
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
