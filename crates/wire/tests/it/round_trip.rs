//! Emitted values parse to the same, parsed values are emitted in one form, and a fault has its
//! offset. `posthaste_testkit::wire::values` builds the values from octets; proptest chooses and
//! shrinks the octets.

use std::fmt::{Debug, Display};

use bytes::BytesMut;
use posthaste_testkit::wire::{
    lines,
    values::{self, Source},
};
use posthaste_wire::{
    Command, Domain, EhloName, ForwardPath, Mail, Mailbox, OriginalRecipient, Parameters, Rcpt, ReversePath,
    SyntaxErrorKind, Utf8Xtext, Xtext,
    command::Attributes,
    parameter::{DateTime, DeliverBy, Priority, Solicitation},
};
use proptest::{collection::vec, prelude::*, sample::select};

/// Enough octets to choose every part of the largest command.
fn choices() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..160)
}

/// A well-formed command line in its canonical form, without its CRLF.
fn line(octets: &[u8]) -> Vec<u8> {
    values::with_command(&mut Source::new(octets), |command| {
        let mut out = BytesMut::new();
        command.encode(&mut out).expect("a line within its limit");
        out.strip_suffix(b"\r\n").expect("CRLF at the end").to_vec()
    })
}

/// The `Display` of a value parses to the same value, which has the same `Display`.
fn comes_back<T: Display + Debug + PartialEq, E: Display>(value: &T, parse: impl Fn(&str) -> Result<T, E>) {
    let text = value.to_string();
    let again = parse(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!((&again, again.to_string()), (value, text));
}

/// Checks that each constructor refuses a text.
fn everything_refuses(text: &str) {
    let refusals = [
        ("Mailbox", Mailbox::parse(text).is_err()),
        ("Domain", Domain::parse(text).is_err()),
        ("EhloName", EhloName::parse(text).is_err()),
        ("ReversePath", text.parse::<ReversePath>().is_err()),
        ("ForwardPath", text.parse::<ForwardPath>().is_err()),
        ("Xtext", Xtext::parse(text).is_err() && Xtext::encode(text.as_bytes()).is_err()),
        ("Utf8Xtext", Utf8Xtext::parse(text).is_err() && Utf8Xtext::encode(text).is_err()),
        ("OriginalRecipient", OriginalRecipient::parse(text).is_err()),
        ("DateTime", DateTime::parse(text).is_err()),
        ("DeliverBy", text.parse::<DeliverBy>().is_err()),
        ("Priority", text.parse::<Priority>().is_err()),
        ("Solicitation", Solicitation::parse(text).is_err()),
        ("Parameters", Parameters::parse(text).is_err()),
        ("Attributes", Attributes::parse(text).is_err()),
        ("Mail", text.parse::<Mail>().is_err()),
        ("Rcpt", text.parse::<Rcpt>().is_err()),
        ("Command", Command::parse(text.as_bytes()).is_err()),
    ];
    for (constructor, refused) in refusals {
        assert!(refused, "{constructor} takes {text:?}");
    }
    // These have plain text. `encode` checks the finished line.
    let mut out = BytesMut::new();
    for command in [
        Command::Noop(text),
        Command::Vrfy(text),
        Command::Expn(text),
        Command::Help(text),
        Command::Burl { url: text, last: false },
        Command::Etrn(posthaste_wire::command::Node::Queue(text)),
        Command::Other { verb: text, argument: "" },
        Command::Other { verb: "X", argument: text },
    ] {
        assert!(command.encode(&mut out).is_err(), "{command:?}");
    }
    assert!(out.is_empty());
}

/// The start of an address is an error that is cut off at its end. An octet that an address never
/// has is an error at its offset.
fn faults_are_told_where_they_stand(text: &str) {
    let parse = |text: &str| Mailbox::parse(text).map(|_| ());
    for (at, character) in text.char_indices() {
        let cut = &text[..at];
        if let Err(error) = parse(cut) {
            assert_eq!((error.offset, error.cut_off), (at, true), "{cut:?}");
        }
        // A label with a hyphen at its end is wrong from its start.
        if at > 0 && text.as_bytes()[at - 1] == b'-' && at > text.rfind('@').unwrap_or_default() {
            continue;
        }
        let wrong = format!("{cut}\x01{}", &text[at + character.len_utf8()..]);
        let error = parse(&wrong).expect_err("a control character stands nowhere");
        assert_eq!((error.offset, error.cut_off), (at, false), "{wrong:?}");
    }
}

/// A letter in a number is an error at its offset, a missing number an error that is cut off.
fn a_number_is_told_where_it_stands(before: &str, digits: &str, behind: &str) {
    for at in 0..digits.len() {
        let line = format!("{before}{}x{}{behind}", &digits[..at], &digits[at + 1..]);
        let error = Command::parse(line.as_bytes()).expect_err("x is no digit");
        assert_eq!((error.offset, error.cut_off), (before.len() + at, false), "{line}");
    }
    let error = Command::parse(before.as_bytes()).expect_err("no digits are no number");
    assert_eq!((error.offset, error.cut_off), (before.trim_end().len(), true), "{before}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_type_comes_back(octets in choices()) {
        let source = &mut Source::new(&octets);
        comes_back(&values::mailbox(source), str::parse);
        comes_back(&Domain::parse(&values::domain_text(source)).unwrap().into_owned(), str::parse);
        comes_back(&values::hello_name(source), str::parse);
        comes_back(&values::xtext(source), str::parse);
        comes_back(&values::utf8_xtext(source), |text| Utf8Xtext::parse(text).map(Utf8Xtext::into_owned));
        comes_back(&values::original_recipient(source), str::parse);
        comes_back(&values::date_time(source), |text| DateTime::parse(text).map(DateTime::into_owned));
        comes_back(&values::solicitation(source), |text| Solicitation::parse(text).map(Solicitation::into_owned));
        let mail = values::mail(source);
        comes_back(&mail.reverse_path, str::parse);
        if let Some(by) = mail.by {
            comes_back(&by, str::parse);
        }
        if let Some(priority) = mail.mt_priority {
            comes_back(&priority, str::parse);
        }
        comes_back(&values::rcpt(source).forward_path, str::parse);
    }

    #[test]
    fn every_command_comes_back(octets in choices()) {
        lines::round_trip(&octets);
    }

    /// Xtext of any octets without control characters, and the address of any text without them.
    #[test]
    fn encoded_text_is_decoded_to_itself(text in "\\PC{0,24}") {
        let encoded = Xtext::encode(text.as_bytes()).unwrap();
        prop_assert_eq!(&*encoded.decode(), text.as_bytes());
        let encoded = Utf8Xtext::encode(&text).unwrap();
        prop_assert!(encoded.as_str().is_ascii());
        prop_assert_eq!(encoded.decode(), text);
    }

    #[test]
    fn any_octets_hold_as_a_command_and_an_address(octets in vec(any::<u8>(), 0..80)) {
        lines::command(&octets);
        lines::address(&octets);
    }

    /// Well-formed lines with one other octet, without some octets, or with letters in another
    /// case.
    #[test]
    fn nearly_well_formed_lines_hold_as_commands(octets in choices(), at: usize, octet: u8, out in 0_usize..4) {
        let mut line = line(&octets);
        let at = at % (line.len() + 1);
        line.splice(at..(at + out).min(line.len()), [octet]);
        lines::command(&line);
        line.make_ascii_lowercase();
        lines::command(&line);
        lines::address(&line);
    }

    #[test]
    fn no_constructor_lets_a_line_break_through(octets in choices(), at: usize,
        wrong in select(&["\r", "\n", "\0", "\r\n", "\r\nQUIT\r\n"][..])) {
        let source = &mut Source::new(&octets);
        let mail = values::mail(source);
        for text in [
            mail.reverse_path.to_string(),
            mail.to_string(),
            values::rcpt(source).to_string(),
            values::mailbox_text(source),
            values::domain_text(source),
            values::hello_name(source).to_string(),
            values::xtext(source).to_string(),
            values::original_recipient(source).to_string(),
            values::date_time(source).to_string(),
            values::solicitation(source).to_string(),
            "X=1".to_owned(),
            "-9".to_owned(),
            "9;RT".to_owned(),
            String::from_utf8(line(&octets)).unwrap(),
        ] {
            let positions: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let at = positions[at % positions.len()];
            everything_refuses(&format!("{}{wrong}{}", &text[..at], &text[at..]));
        }
    }

    /// Each start of a well-formed line is well formed or cut off at its end. The exceptions: half
    /// a character, an internationalized path before its SMTPUTF8, and the start of a utf-8-address
    /// that could also be malformed.
    #[test]
    fn the_start_of_a_well_formed_line_is_an_error_that_is_cut_off(octets in choices()) {
        let line = line(&octets);
        let is_utf8_address = str::from_utf8(&line).is_ok_and(|text| text.contains("ORCPT=UTF-8;b\u{fc}cher+"));
        for end in 0..line.len() {
            let start = &line[..end];
            let Err(error) = Command::parse(start) else { continue };
            match error.kind {
                SyntaxErrorKind::ControlCharacter => prop_assert!(str::from_utf8(start).is_err()),
                SyntaxErrorKind::ReversePathNotAscii => {}
                _ if is_utf8_address => {}
                _ => {
                    let found = (error.offset, error.cut_off);
                    prop_assert_eq!(found, (start.trim_ascii_end().len(), true), "{}", start.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn a_fault_in_an_address_has_its_offset(octets in choices()) {
        let text = values::mailbox_text(&mut Source::new(&octets));
        faults_are_told_where_they_stand(&text);
    }

    #[test]
    fn a_fault_in_a_number_has_its_offset(number in 1_u64..1_000_000_000) {
        let digits = number.to_string();
        for (before, behind) in [
            ("MAIL FROM:<> SIZE=", " BODY=7BIT"),
            ("MAIL FROM:<> HOLDFOR=", ""),
            ("MAIL FROM:<> BY=", ";R"),
            ("MAIL FROM:<> BY=-", ";N"),
            ("BDAT ", " LAST"),
        ] {
            a_number_is_told_where_it_stands(before, &digits, behind);
        }
    }
}
