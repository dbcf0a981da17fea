//! Values printed, compared, and refused at a limit.

use std::panic::catch_unwind;

use posthaste_wire::{Command, Mailbox, Reply, Secret};

#[test]
fn a_reply_prints_its_octets_for_programmers_and_one_line_for_people() {
    let reply = Reply::from_static("250 2.0.0 Ok\r\n");
    assert_eq!(format!("{reply:?}"), r#"Reply("250 2.0.0 Ok\r\n")"#);
    assert_eq!(format!("{:?}", reply.borrowed()), format!("{reply:?}"));
    assert_eq!((reply.to_string(), reply.borrowed().to_string()), ("250 2.0.0 Ok".into(), "250 2.0.0 Ok".into()));
}

#[test]
fn a_secret_prints_that_it_is_redacted() {
    assert_eq!(format!("{:?}", Secret::new("open sesame")), "/* REDACTED */");
}

#[test]
fn a_fixed_reply_is_printable_to_its_last_octet() {
    assert_eq!(Reply::from_static("250 \r\n").code().get(), 250);
    for line in
        ["250 ok\x07\r\n", "250 \x07k\r\n", "250 ok\x7f\r\n", "250 o\r\r\n", "250-ok\r\n", "250 ok\n", "25x ok\r\n"]
    {
        assert!(catch_unwind(|| Reply::from_static(line)).is_err(), "{line:?}");
    }
}

#[test]
fn mailboxes_compare_by_local_part_and_domain() {
    let mailbox = |text: &str| text.parse::<Mailbox>().unwrap();
    let one = mailbox("one@example.org");
    for (text, same) in [
        ("one@example.org", true),
        ("one@EXAMPLE.org", true),
        ("ONE@example.org", false),
        ("two@example.org", false),
        ("one@example.net", false),
    ] {
        assert_eq!(one == mailbox(text), same, "{text}");
    }
}

#[test]
fn a_fault_in_a_reply_has_its_own_offset_and_not_that_of_the_limit() {
    let fault = |line: &str| Command::parse(line.as_bytes()).unwrap_err();
    // A full label may end there.
    let label = "a".repeat(63);
    assert!(fault(&format!("RCPT TO:<x@{label}")).cut_off);
    assert!(!fault(&format!("RCPT TO:<x@{label}a")).cut_off);
    // A domain has at most 255 octets, but an earlier fault comes first.
    let labels = "a.".repeat(100);
    let line = format!("RCPT TO:<x@{labels}!{}>", "b".repeat(200));
    assert_eq!(fault(&line).offset, "RCPT TO:<x@".len() + labels.len());
    assert!(Command::parse(b"MAIL FROM:<> SIZE=1:").is_err(), "a colon is what would be the digit behind 9");
}
