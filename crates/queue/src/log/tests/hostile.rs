//! Records with right checksums and wrong contents.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use super::{block_on, claim, message, open, options, put};
use crate::index::{Altered, End, Next};
use crate::log::format::frame::{FRAME, Frame, Kind, SEGMENT_HEADER, SegmentHeader};
use crate::log::format::record::{self, Image, Now, OutcomeRecord, Record};
use crate::log::format::record::{encode_altered, encode_image, encode_outcome};
use crate::{ManualClock, MessageId, Queue, RoutingKey};

const NOW: Now = Now { moment: 5_000_000, wall: 1_700_000_000_000 };
const KINDS: [Kind; 6] = [Kind::Message, Kind::Outcome, Kind::Altered, Kind::Removed, Kind::Ids, Kind::Closed];

fn image(id: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    let message = crate::index::Message::new(message("key", b"state"), NOW.moment, 4, ());
    encode_image(&mut payload, NOW, MessageId::from_u64(id), &message, crc32fast::hash(b"body"), false);
    payload.extend_from_slice(b"body");
    payload
}

fn outcome() -> Vec<u8> {
    let next = |attempts, state| {
        let state = Bytes::from_static(state);
        Some(Next { attempts, due: NOW.moment + 1_000_000, delay: Duration::from_secs(1), state })
    };
    let ends = vec![
        End { delivery: 0, generation: 99, next: next(3, b"later") },
        End { delivery: 5, generation: 98, next: None },
        End { delivery: 2, generation: 97, next: next(1, b"") },
    ];
    let record = OutcomeRecord { id: MessageId::from_u64(7), born: 0, ends, derived: Vec::new() };
    let mut payload = Vec::new();
    encode_outcome(&mut payload, NOW, &record, &[image(8), image(9)]);
    payload
}

fn altered(which: usize) -> Altered {
    let key = |text| RoutingKey::new(text).unwrap();
    let (due, delay) = (NOW.moment + 2_000_000, Duration::from_secs(2));
    match which % 5 {
        0 => Altered::Held(true),
        1 => Altered::Due { key: None, due, delay },
        2 => Altered::Due { key: Some(key("")), due, delay },
        3 => Altered::Key { from: Some(key("key")), to: key("elsewhere") },
        _ => Altered::Key { from: None, to: key("") },
    }
}

#[test]
fn a_record_is_decoded_as_it_was_encoded() {
    let Ok(Record::Message(Image { id, message })) = record::decode(Kind::Message, &image(7), NOW.wall, NOW) else {
        panic!("a message")
    };
    assert_eq!((id.as_u64(), message.born, message.body_len, message.held), (7, NOW.moment, 4, false));
    let inline = message.stored.inline.unwrap();
    assert_eq!(&image(7)[inline..], b"body");
    assert_eq!((&message.deliveries[0].state[..], message.deliveries[0].due), (&b"state"[..], NOW.moment));

    let Ok(Record::Outcome(found)) = record::decode(Kind::Outcome, &outcome(), NOW.wall, NOW) else {
        panic!("an outcome")
    };
    let read = |end: End| {
        let next = end.next.map(|next| (next.attempts, next.due, next.state.to_vec()));
        (end.delivery, end.generation, next)
    };
    let due = NOW.moment + 1_000_000;
    assert_eq!(
        found.ends.into_iter().map(read).collect::<Vec<_>>(),
        [(0, 99, Some((3, due, b"later".to_vec()))), (5, 98, None), (2, 97, Some((1, due, Vec::new())))]
    );
    for which in 0..5 {
        let payload = encode_altered(NOW, MessageId::from_u64(7), &altered(which));
        let Ok(Record::Altered(id, found)) = record::decode(Kind::Altered, &payload, NOW.wall, NOW) else {
            panic!("an alteration")
        };
        assert_eq!((id.as_u64(), found), (7, altered(which)));
    }
    assert_eq!(found.derived.len(), 2);
    for image in found.derived {
        assert_eq!(&outcome()[image.message.stored.inline.unwrap()..][..4], b"body");
    }
}

#[test]
fn any_bytes_are_decoded_without_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut understood = 0;
    for _ in 0..200_000 {
        let mut payload = match random.u8(0..4) {
            0 => image(7),
            1 => outcome(),
            2 => encode_altered(NOW, MessageId::from_u64(7), &altered(random.usize(..))),
            _ => (0..random.usize(0..90)).map(|_| random.u8(..)).collect(),
        };
        for _ in 0..random.usize(0..4) {
            let Some(at) = payload.len().checked_sub(1).map(|last| random.usize(0..=last)) else { break };
            match random.u8(0..4) {
                0 => payload.truncate(at),
                1 => payload[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(0..5)],
                2 => payload.iter_mut().skip(at).take(8).for_each(|octet| *octet = 0xff),
                _ => payload.insert(at, random.u8(..)),
            }
        }
        let wall = [0, NOW.wall, u64::MAX][random.usize(0..3)];
        understood += u64::from(record::decode(random.choice(KINDS).unwrap(), &payload, wall, NOW).is_ok());
        understood += u64::from(Frame::decode(random.u64(..), &payload).is_ok());
        understood += u64::from(SegmentHeader::decode(&payload).is_ok());
    }
    assert!(understood > 1000, "{understood}");
}

/// Logs of such records open, and the queue goes on.
#[test]
fn a_log_of_any_records_opens() {
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (disk, options) = (Disk::new(), options(&ManualClock::default()));
        drop(open(&disk, &options).unwrap());
        let tag = random.u64(..);
        let mut log = SegmentHeader { sequence: 1, tag, id_ceiling: random.u64(0..1 << 63) }.encode();
        for _ in 0..random.usize(0..12) {
            let mut payload = match random.u8(0..6) {
                0 => outcome(),
                2 => encode_altered(NOW, MessageId::from_u64(random.u64(5..9)), &altered(random.usize(..))),
                1 => (0..random.usize(0..90)).map(|_| random.u8(..)).collect(),
                _ => image(random.u64(5..9)),
            };
            if random.bool()
                && let Some(last) = payload.len().checked_sub(1)
            {
                let at = random.usize(0..=last);
                payload[at] = random.u8(..);
            }
            let frame = Frame {
                len: u32::try_from(payload.len()).unwrap(),
                base: u32::try_from(if random.bool() { SEGMENT_HEADER } else { log.len() }).unwrap(),
                kind: random.choice(KINDS).unwrap(),
                crc: crc32fast::hash(&payload),
                wall: random.u64(..),
            };
            frame.encode(tag, &mut log);
            log.extend_from_slice(&payload);
        }
        if random.bool() {
            log.truncate(log.len() - random.usize(0..FRAME).min(log.len() - SEGMENT_HEADER));
        }
        disk.set_contents(Path::new("/queue/log/0000000000000001.seg"), log);
        let queue = open(&disk, &options).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        block_on(async {
            put(&queue, message("a", b""), b"x").await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for claimed in claim(&queue, 99).await {
                queue.finish(claimed.lease, crate::Outcome::Done, Vec::new()).await.unwrap();
            }
        });
    }
}
