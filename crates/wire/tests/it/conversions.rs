//! Addresses as a program writes them: the texts that each type takes, the value that each text
//! becomes, and the errors.

use std::fmt::Display;

use posthaste_wire::{AddressError, Domain, EhloName, ForwardPath, Mail, Mailbox, Rcpt, ReversePath};

/// A function that takes text, and values borrowed and owned.
fn front_door<T: Display>(value: impl TryInto<T, Error: Into<AddressError>>) -> Result<String, AddressError> {
    value.try_into().map(|value| value.to_string()).map_err(Into::into)
}

#[test]
fn each_type_takes_a_bare_address_and_one_in_brackets() {
    let mailbox = front_door::<Mailbox>;
    let reverse_path = front_door::<ReversePath>;
    let forward_path = front_door::<ForwardPath>;
    let mail = front_door::<Mail>;
    let rcpt = front_door::<Rcpt>;
    for text in ["me@example.org", "<me@example.org>", "<@relay.test:me@example.org>"] {
        assert_eq!(mailbox(text).as_deref(), Ok("me@example.org"), "{text}");
        for take in [reverse_path, forward_path, mail, rcpt] {
            assert_eq!(take(text).as_deref(), Ok("<me@example.org>"), "{text}");
        }
    }
    assert_eq!((reverse_path("<>").as_deref(), mail("<>").as_deref()), (Ok("<>"), Ok("<>")));
    assert!(mailbox("<>").is_err() && forward_path("<>").is_err() && rcpt("<>").is_err());
    // A setting that was forgotten must not make a message a report.
    assert!([mailbox, reverse_path, mail, forward_path, rcpt].iter().all(|take| take("").is_err()));
    for text in ["postmaster", "<PostMaster>"] {
        for take in [forward_path, rcpt] {
            assert_eq!(take(text).as_deref(), Ok("<Postmaster>"), "{text}");
        }
        assert!(mailbox(text).is_err() && reverse_path(text).is_err() && mail(text).is_err(), "{text}");
    }
    assert_eq!(front_door::<Domain>("[192.0.2.1]").as_deref(), Ok("[192.0.2.1]"));
    assert_eq!(front_door::<EhloName>("client.example.org").as_deref(), Ok("client.example.org"));
}

#[test]
fn a_path_in_brackets_may_have_parameters() {
    assert_eq!(front_door::<Mail>("<a@b> size=10 X=y").as_deref(), Ok("<a@b> SIZE=10 X=y"));
    assert_eq!(front_door::<Rcpt>("<a@b> NOTIFY=NEVER").as_deref(), Ok("<a@b> NOTIFY=NEVER"));
    assert!(front_door::<Mail>("a@b SIZE=10").is_err());
}

#[test]
fn a_sender_outside_ascii_asks_for_smtputf8() {
    for text in ["\u{3b4}@example.org", "<\u{3b4}@example.org>"] {
        assert_eq!(front_door::<Mail>(text).as_deref(), Ok("<\u{3b4}@example.org> SMTPUTF8"));
    }
    assert!(front_door::<Mail>("<\u{3b4}@example.org> SIZE=1").is_err(), "a text with parameters names all of them");
}

#[test]
fn a_front_door_takes_text_and_values_borrowed_and_owned() {
    let path = Ok("<c@d>");
    assert_eq!(front_door::<Rcpt>("c@d").as_deref(), path);
    assert_eq!(front_door::<Rcpt>(&"c@d").as_deref(), path);
    assert_eq!(front_door::<Rcpt>("c@d".to_owned()).as_deref(), path);
    assert_eq!(front_door::<Rcpt>(&"c@d".to_owned()).as_deref(), path);
    let borrowed = Rcpt::parse("<c@d>").expect("a path");
    let owned: Rcpt = borrowed.into();
    assert_eq!(front_door::<Rcpt>(borrowed).as_deref(), path);
    assert_eq!(front_door::<Rcpt>(&borrowed).as_deref(), path);
    assert_eq!(front_door::<Rcpt>(&owned).as_deref(), path);
    assert_eq!(front_door::<Rcpt>(owned).as_deref(), path);
    let mailbox: Mailbox = "c@d".parse().expect("a mailbox");
    assert_eq!(front_door::<Rcpt>(ForwardPath::from(mailbox.clone())).as_deref(), path);
    assert_eq!(front_door::<Mail>(ReversePath::from(mailbox.clone())).as_deref(), path);
    assert_eq!(front_door::<Rcpt>(mailbox.clone()).as_deref(), path);
    assert_eq!(front_door::<Mail>(mailbox).as_deref(), path);
}

#[test]
fn an_address_error_says_what_is_wrong_where_and_what_to_write() {
    fn said<T: Display + for<'a> TryFrom<&'a str, Error = AddressError>>(text: &str) -> String {
        front_door::<T>(text).expect_err("wrong").to_string()
    }
    for (said, expected) in [
        (said::<Rcpt>("bob"), r#"recipient "bob": it ends too early; write it as user@example.org"#),
        (said::<Rcpt>(""), r#"recipient "": it ends too early; write it as user@example.org"#),
        (
            said::<Rcpt>("Bob <bob@example.org>"),
            "recipient \"Bob <bob@example.org>\": the mailbox is malformed or too long, at octet 3 (' '); \
             write the address alone, without a display name",
        ),
        (
            said::<Mail>("me@exa mple.org"),
            "sender \"me@exa mple.org\": the domain is malformed, at octet 6 (' '); \
             write it as user@example.org, or as <> for no sender",
        ),
        (
            said::<Mail>("<me@example.org> SIZE=1x"),
            "sender \"<me@example.org> SIZE=1x\": a number within 64 bits was expected, at octet 23 ('x'); \
             correct that parameter or leave it out",
        ),
        (
            said::<Mailbox>("<a@b>\r\nDATA"),
            "mailbox \"<a@b>\\r\\nDATA\": a path in angle brackets was expected, at octet 5 ('\\r'); \
             write it as user@example.org",
        ),
        (
            said::<Domain>("a..b"),
            "domain \"a..b\": the domain is malformed, at octet 2 ('.'); \
             write it as example.org, [192.0.2.1] or [IPv6:2001:db8::1]",
        ),
        (
            said::<EhloName>("my pc"),
            "host name \"my pc\": a host name or address literal was expected, at octet 2 (' '); \
             write it as host.example.org, [192.0.2.1] or [IPv6:2001:db8::1]",
        ),
    ] {
        assert_eq!(said, expected);
    }
    let error = "a b@c".parse::<Mailbox>().expect_err("a space");
    assert_eq!((error.text(), error.syntax().offset, error.syntax().reply().code().get()), ("a b@c", 1, 501));
}

#[test]
fn an_address_error_keeps_at_most_320_octets_of_the_text() {
    for letter in ["a", "\u{e9}"] {
        let error = letter.repeat(10_000).parse::<Mailbox>().expect_err("no domain");
        assert!((318..=320).contains(&error.text().len()), "{}", error.text().len());
    }
}
