use std::time::Duration;

use bytes::Bytes;
use posthaste_server::wire::{Command, EnhancedCode, parameter::DeliverBy};

use super::*;
use crate::{Diagnostic, report::Action};

fn recipients() -> Vec<Recipient> {
    let status = EnhancedCode::new(4, 2, 1).unwrap();
    let said = Diagnostic { remote: Some("mx.test".into()), status, text: "450 4.2.1 busy".into(), is_reply: true };
    let found = Diagnostic { remote: None, is_reply: false, ..said.clone() };
    let recipient = |rcpt: &str, told, news, last| Recipient { rcpt: rcpt.parse().unwrap(), told, news, last };
    let told = |delay, deadline| Told { delay, deadline };
    vec![
        recipient("<\"a b\"@c.test>", told(false, false), None, None),
        recipient("<Postmaster>", told(true, false), None, Some(Last { at: Some(-7), why: said.clone() })),
        recipient("<x@y.test>", told(true, true), None, Some(Last { at: None, why: found.clone() })),
        recipient("<f@y.test>", told(true, true), Some(Action::Failed), Some(Last { at: Some(1), why: found })),
        recipient("<d@y.test>", told(true, false), Some(Action::Delayed), None),
        recipient(
            "<r@y.test>",
            told(false, false),
            Some(Action::Relayed),
            Some(Last { at: Some(1), why: said.clone() }),
        ),
        recipient("<t@y.test>", told(false, false), Some(Action::Delivered), Some(Last { at: Some(1), why: said })),
    ]
}

#[test]
fn by_loses_the_time_that_has_passed_and_stays_valid() {
    let mode = posthaste_server::wire::parameter::DeliverByMode::Notify;
    for (seconds, passed, left) in
        [(100, 40, 60), (100, 100, 0), (10, 40, -30), (-10, u64::MAX, -999_999_999), (999_999_999, 0, 999_999_999)]
    {
        let by = by_after(DeliverBy { seconds, mode, trace: true }, Duration::from_secs(passed));
        assert_eq!((by.seconds, by.mode, by.trace), (left, mode, true), "{seconds} {passed}");
        let line = format!("MAIL FROM:<a@b> BY={};NT", by.seconds);
        assert!(Command::parse(line.as_bytes()).is_ok(), "{line}");
    }
    // A second that has begun does not count.
    let by = by_after(DeliverBy { seconds: 5, mode, trace: false }, Duration::from_millis(1_999));
    assert_eq!(by.seconds, 4);
}

#[test]
fn records_are_read_back_as_written() {
    for mail in [
        "<>",
        "<a@b.test> SIZE=10 BODY=8BITMIME RET=FULL ENVID=a+2Bb BY=-10;NT HOLDFOR=60 MT-PRIORITY=-3",
        "<\u{e4}@b.test> SMTPUTF8 REQUIRETLS AUTH=<>",
    ] {
        for (all_ascii, client) in [(true, None), (false, Some("client.test ([192.0.2.1])".to_owned()))] {
            let (trusted, returns_whole, tls_not_required, room) = (all_ascii, !all_ascii, all_ascii, 300);
            let (accepted, ascii_fields) = (1_700_000_000, !all_ascii);
            let front = if all_ascii { Bytes::from_static(b"A: b\r\n\tc\r\n") } else { Bytes::new() };
            let mail = mail.parse().unwrap();
            let outside = Outside {
                accepted,
                all_ascii,
                ascii_fields,
                trusted,
                returns_whole,
                tls_not_required,
                room,
                received_from: client,
                mail,
                front,
            };
            let read = Outside::decode(&outside.encode().unwrap()).unwrap();
            assert_eq!((read.accepted, read.all_ascii, read.room), (outside.accepted, outside.all_ascii, 300));
            assert_eq!((read.ascii_fields, read.trusted, read.returns_whole), (ascii_fields, trusted, returns_whole));
            assert_eq!(read.tls_not_required, tls_not_required);
            assert_eq!(read.received_from, outside.received_from);
            assert_eq!(read.mail.to_string(), outside.mail.to_string());
            assert_eq!(read.front, outside.front);
        }
    }
    assert_eq!(decode_recipients(&encode_recipients(&recipients(), MAX_ROOM).unwrap()).unwrap(), recipients());
}

#[test]
fn a_record_that_is_cut_or_too_long_is_damaged() {
    let record = encode_recipients(&recipients(), MAX_ROOM).unwrap();
    for end in 0..record.len() {
        assert_eq!(decode_recipients(&record[..end]), Err(RecordError::Damaged));
    }
    assert_eq!(decode_recipients(&[&record[..], b"x"].concat()), Err(RecordError::Damaged));
    assert_eq!(decode_recipients(&[4]), Err(RecordError::Version(4)));
    assert_eq!(decode_recipients(&[0]), Err(RecordError::Version(0)));
    assert_eq!(decode_recipients(&[2, 0xff, 0xff, 0xff, 0xff]), Err(RecordError::Damaged));
    let outside = Outside { received_from: Some("x".into()), ..Outside::of("<>".parse().unwrap()) };
    let with_front = Outside { front: "A: b\r\n".into(), ..outside.clone() };
    let with_ascii_fields = Outside { ascii_fields: true, ..outside.clone() };
    for (outside, unknown_flag) in [(outside, 16), (with_front, 16), (with_ascii_fields, 32)] {
        let record = outside.encode().unwrap();
        for end in 0..record.len() {
            assert_eq!(Outside::decode(&record[..end]), Err(RecordError::Damaged));
        }
        assert_eq!(Outside::decode(&[&record[..], b"x"].concat()), Err(RecordError::Damaged));
        // An unknown flag.
        let mut unknown = record.to_vec();
        unknown[9] = unknown_flag;
        assert_eq!(Outside::decode(&unknown), Err(RecordError::Damaged));
    }
    assert_eq!(Outside::decode(&[6]), Err(RecordError::Version(6)));
}

#[test]
fn a_front_is_whole_lines_of_a_bounded_length() {
    for (front, is_good) in [
        ("A: b\r\n".to_owned(), true),
        ("A: b".to_owned(), false),
        (format!("{}\r\n", "x".repeat(MAX_FRONT - 2)), true),
        (format!("{}\r\n", "x".repeat(MAX_FRONT - 1)), false),
    ] {
        let outside = Outside { front: front.into(), ..Outside::of("<>".parse().unwrap()) };
        assert_eq!(Outside::decode(&outside.encode().unwrap()).is_ok(), is_good, "{}", outside.front.len());
    }
}

/// Octets as each version writes them. The version is the lowest that can say it, so that older
/// programs read most records.
#[test]
fn the_version_of_an_envelope_says_what_it_has() {
    let outside = Outside { accepted: 1_700_000_000, ..Outside::of("<a@b>".parse().unwrap()) };
    let record = b"\0\0\0\0\x65\x53\xf1\0\x02\x03\xe8\0\0\0\0\0\0\0\x0fMAIL FROM:<a@b>";
    assert_eq!(outside.encode().unwrap(), [b"\x03", &record[..]].concat());
    assert_eq!(Outside::decode(&[b"\x03", &record[..]].concat()), Ok(outside.clone()));
    let with_front = Outside { front: "A: b\r\n".into(), ..outside.clone() };
    let with_front_record = [b"\x04", &record[..], b"\0\0\0\x06A: b\r\n"].concat();
    assert_eq!(with_front.encode().unwrap(), with_front_record);
    assert_eq!(Outside::decode(&with_front_record), Ok(with_front.clone()));
    let mut flagged = record.to_vec();
    flagged[8] |= 16;
    for (outside, front) in [(outside, &b"\0\0\0\0"[..]), (with_front, b"\0\0\0\x06A: b\r\n")] {
        let outside = Outside { ascii_fields: true, ..outside };
        let record = [b"\x05", &flagged[..], front].concat();
        assert_eq!(outside.encode().unwrap(), record);
        assert_eq!(Outside::decode(&record), Ok(outside));
    }
}

/// Octets as version 1 wrote them.
#[test]
fn records_of_version_1_are_read() {
    let outside = b"\x01\0\0\0\0\x65\x53\xf1\0\0\0\0\x17MAIL FROM:<a@b> SIZE=10";
    let read = Outside::decode(outside).unwrap();
    assert_eq!((read.accepted, read.all_ascii, read.received_from), (1_700_000_000, false, None));
    assert_eq!(read.mail.to_string(), "<a@b> SIZE=10");
    let state = b"\x01\0\0\0\x02\0\0\0\x0dRCPT TO:<a@b>\0\
        \0\0\0\x0dRCPT TO:<c@d>\x01\0\x04\0\x02\0\x01\x01\0\0\0\x02mx\0\0\0\x03450";
    let read = decode_recipients(state).unwrap();
    assert_eq!((read[0].told, read[0].last.clone()), (Told::default(), None));
    let status = EnhancedCode::new(4, 2, 1).unwrap();
    let why = Diagnostic { remote: Some("mx".into()), status, text: "450".into(), is_reply: true };
    assert_eq!(read[1].last, Some(Last { at: None, why }));
}

#[test]
fn the_hold_of_a_message_counts_from_its_acceptance() {
    for (mail, seconds) in [
        ("<>", 0),
        ("<> HOLDFOR=60", 60),
        ("<> HOLDUNTIL=2023-11-14T22:13:30Z", 10),
        ("<> HOLDUNTIL=2023-11-14T22:13:10Z", 0),
    ] {
        let outside = Outside { accepted: 1_700_000_000, ..Outside::of(mail.parse().unwrap()) };
        assert_eq!(outside.held(), Duration::from_secs(seconds), "{mail}");
    }
}

/// Octets as version 2 wrote them.
#[test]
fn records_of_version_2_are_read() {
    let outside = b"\x02\0\0\0\0\x65\x53\xf1\0\x01\0\0\0\x01c\0\0\0\x17MAIL FROM:<a@b> SIZE=10";
    let read = Outside::decode(outside).unwrap();
    assert_eq!((read.all_ascii, read.received_from.as_deref(), read.room), (true, Some("c"), MIN_ROOM));
    assert!(!read.trusted && !read.returns_whole, "version 2 did not record trust");
    let state = b"\x02\0\0\0\x01\0\0\0\x0dRCPT TO:<c@d>\x01\x01\0\0\0\0\0\0\0\x07\0\x04\0\x02\0\x01\x01\0\0\0\x02mx\0\0\0\x03450";
    let read = decode_recipients(state).unwrap();
    assert_eq!((read.len(), read[0].told, read[0].news), (1, Told { delay: true, deadline: false }, None));
    assert_eq!(read[0].last.as_ref().and_then(|last| last.at), Some(7));
}

/// The queue gathers states by these octets.
#[test]
fn a_state_begins_with_what_remains_to_be_done() {
    let recipients = recipients();
    for (some, remaining) in [
        (&recipients[..3], Remaining::Waits),
        (&recipients[3..4], Remaining::Ended),
        (&recipients[4..5], Remaining::Both),
        (&recipients[2..4], Remaining::Both),
        (&recipients[..], Remaining::Both),
        (&[], Remaining::Waits),
    ] {
        let state = encode_recipients(some, MAX_ROOM).unwrap();
        assert!(state.starts_with(&remaining.mark()), "{remaining:?}");
    }
}

#[test]
fn a_recipient_with_two_actions_to_report_is_damaged() {
    let state = |flags| [&b"\x03\x01\0\0\0\x01\0\0\0\x0dRCPT TO:<a@b>"[..], &[flags, 0]].concat();
    for (flags, is_good) in [(0, true), (4, true), (8 | 3, true), (16, true), (32, true), (4 | 8, false), (64, false)] {
        assert_eq!(decode_recipients(&state(flags)).is_ok(), is_good, "{flags}");
    }
}

#[test]
fn diagnostic_text_is_cut_to_the_room() {
    let said = Diagnostic { text: "x".repeat(5_000), remote: Some("h".repeat(300)), ..Diagnostic::own(None, "") };
    let Recipient { rcpt, .. } = recipients().remove(0);
    let recipient = Recipient { last: Some(Last { at: Some(1), why: said }), ..Recipient::new(rcpt) };
    for room in [0, 1, MIN_ROOM, MAX_ROOM] {
        let state = encode_recipients(std::slice::from_ref(&recipient), room).unwrap();
        let bare = encode_recipients(&[Recipient { last: None, ..recipient.clone() }], room).unwrap();
        assert!(state.len() <= bare.len() + AROUND + usize::from(room), "{room}");
        let kept = decode_recipients(&state).unwrap().remove(0).last.unwrap().why.text;
        assert_eq!(kept, format!("{}...", "x".repeat(room.into())));
    }
}
