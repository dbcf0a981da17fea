use posthaste_server::wire::{EnhancedCode, Reply, ReplyCode};

use super::*;

/// 2026-01-05 10:00:00 UTC.
const ACCEPTED: i64 = 1_767_607_200;

fn outside(mail: &str) -> Outside {
    let received_from = Some("client.test ([192.0.2.1])".to_owned());
    Outside { accepted: ACCEPTED, received_from, ..Outside::of(mail.parse().unwrap()) }
}

fn entry(action: Action, rcpt: &str, diagnostic: Diagnostic) -> Entry {
    Entry { rcpt: rcpt.parse().unwrap(), action, diagnostic, attempted: Some(ACCEPTED + 60) }
}

fn said(reply: &str) -> Diagnostic {
    let (code, text) = reply.split_once(' ').unwrap();
    let code = ReplyCode::new(code.parse().unwrap()).unwrap();
    Diagnostic::reply("mx.dest.test", &Reply::new(code, None, text))
}

fn refused() -> Diagnostic {
    said("550 5.1.1 No such user here")
}

const MESSAGE: &[u8] = b"Subject: x\r\nX-Y: z\r\n\r\nthe body\r\n";

fn header_of(message: &[u8]) -> Original {
    Original { octets: message.to_vec(), whole: false, of: message.len() as u64 }
}

fn written(mail: &str, entries: &[Entry], original: &Original) -> Report {
    let outside = outside(mail);
    let own_name = "relay.test".parse().unwrap();
    let about = About {
        own_name: &own_name,
        words: &ReportWords::default(),
        message: MessageId::from_u64(7),
        outside: &outside,
        will_retry_until: ACCEPTED + 86_400,
        now: Timestamp::from_second(ACCEPTED + 3_600).unwrap(),
    };
    let sender = outside.mail.reverse_path.mailbox().unwrap();
    let report = write(&about, sender, entries, original, usize::MAX);
    assert_is_mail(&report);
    report
}

/// The properties of every report.
fn assert_is_mail(report: &Report) {
    let body = &report.body;
    assert!(mime::is_clean(body), "{}", String::from_utf8_lossy(body));
    assert_eq!(report.mail.size, Some(body.len() as u64));
    assert_eq!(report.mail.body == Some(BodyType::EightBitMime), !body.is_ascii());
    assert_eq!(report.mail.reverse_path, ReversePath::Null);
    let mail = &report.mail;
    // A report must not ask for a report about itself (RFC 3461 section 6.1).
    assert!(mail.ret.is_none() && mail.envid.is_none() && mail.by.is_none() && mail.hold.is_none());
}

/// A header or a block of fields: names in lower case, values unfolded, in order.
type Block = Vec<(String, String)>;

fn block(text: &str) -> Block {
    let unfolded = text.replace("\r\n\t", " ").replace("\r\n ", " ");
    let field = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    unfolded.split("\r\n").filter(|line| !line.is_empty()).map(field).collect()
}

fn all<'b>(block: &'b Block, name: &str) -> Vec<&'b str> {
    block.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
}

fn one<'b>(block: &'b Block, name: &str) -> &'b str {
    match all(block, name)[..] {
        [value] => value,
        ref other => panic!("{name} stands {} times in {block:?}", other.len()),
    }
}

/// A report, taken apart as by a reader.
struct Read {
    header: Block,
    /// Content type, encoding, content.
    parts: Vec<(String, String, String)>,
    message: Block,
    recipients: Vec<Block>,
}

fn read(report: &Report) -> Read {
    let text = String::from_utf8(report.body.to_vec()).unwrap();
    let (header, rest) = text.split_once("\r\n\r\n").unwrap();
    let header = block(header);
    let kind = one(&header, "content-type");
    assert!(kind.starts_with("multipart/report; report-type=delivery-status;"), "{kind}");
    let boundary = kind.split('"').nth(1).unwrap();
    let rest = format!("\r\n{rest}");
    let (parts, end) = rest.split_once(&format!("\r\n--{boundary}--")).unwrap();
    assert_eq!(end, "\r\n");
    let between = format!("\r\n--{boundary}\r\n");
    let parts = parts.split(&between).skip(1).map(|part| {
        let (header, content) = part.split_once("\r\n\r\n").unwrap();
        let header = block(header);
        let encoding = all(&header, "content-transfer-encoding").first().copied().unwrap_or("7bit");
        (one(&header, "content-type").to_owned(), encoding.to_owned(), content.to_owned())
    });
    let parts: Vec<_> = parts.collect();
    let mut blocks = parts[1].2.split("\r\n\r\n").map(block).filter(|block| !block.is_empty());
    let message = blocks.next().unwrap();
    Read { header, message, recipients: blocks.collect(), parts }
}

/// RFC 3464 section 2, RFC 6522 section 3, RFC 3834 section 5, RFC 5322 section 3.6.
#[test]
fn a_report_has_every_field_once() {
    let report =
        written("<me@sender.test>", &[entry(Action::Failed, "<you@dest.test>", refused())], &header_of(MESSAGE));
    let read = read(&report);
    for name in ["from", "to", "subject", "date", "message-id", "mime-version", "auto-submitted"] {
        one(&read.header, name);
    }
    assert_eq!(one(&read.header, "to"), "<me@sender.test>");
    assert!(one(&read.header, "auto-submitted").starts_with("auto-"));
    let types: Vec<_> = read.parts.iter().map(|(kind, encoding, _)| (kind.as_str(), encoding.as_str())).collect();
    let expected = ["text/plain; charset=us-ascii", "message/delivery-status", "text/rfc822-headers"];
    assert_eq!(types, expected.map(|kind| (kind, "7bit")));
    assert_eq!(read.parts[2].2, "Subject: x\r\nX-Y: z\r\n");
    assert_eq!(
        read.message,
        block(
            "Reporting-MTA: dns; relay.test\r\nReceived-From-MTA: dns; client.test ([192.0.2.1])\r\n\
             Arrival-Date: Mon, 5 Jan 2026 10:00:00 +0000\r\nX-Queue-ID: 0000000000007\r\n"
        )
    );
    assert_eq!(
        read.recipients,
        [block(
            "Final-Recipient: rfc822; you@dest.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\
             Remote-MTA: dns; mx.dest.test\r\nDiagnostic-Code: smtp; 550 5.1.1 No such user here\r\n\
             Last-Attempt-Date: Mon, 5 Jan 2026 10:01:00 +0000\r\n"
        )]
    );
}

#[test]
fn a_report_repeats_envid_by_and_hold_of_the_message() {
    for (mail, name, value) in [
        ("<me@s> ENVID=a+2Bb", "original-envelope-id", Some("a+b")),
        ("<me@s>", "original-envelope-id", None),
        ("<me@s> BY=60;R", "deliver-by-date", Some("Mon, 5 Jan 2026 10:01:00 +0000")),
        ("<me@s> BY=-60;N", "deliver-by-date", Some("Mon, 5 Jan 2026 09:59:00 +0000")),
        ("<me@s>", "deliver-by-date", None),
        ("<me@s> HOLDFOR=86400", "future-release-request", Some("for;86400")),
        ("<me@s> HOLDUNTIL=2026-01-06T00:00:00Z", "future-release-request", Some("until;2026-01-06T00:00:00Z")),
        ("<me@s>", "future-release-request", None),
    ] {
        let read = read(&written(mail, &[entry(Action::Failed, "<you@d>", refused())], &header_of(MESSAGE)));
        assert_eq!(all(&read.message, name), value.as_slice(), "{mail}");
    }
}

/// RFC 3461 section 6.3 (d) and (e), RFC 6533 section 3.
#[test]
fn recipients_are_named_in_a_charset_that_the_sender_reads() {
    for (sender, rcpt, original, last) in [
        ("me@s", "<you@d.test>", None, "rfc822; you@d.test"),
        ("me@s", "<Postmaster>", None, "rfc822; postmaster@relay.test"),
        ("me@s", "<\"a b\"@d.test>", None, "rfc822; \"a b\"@d.test"),
        ("me@s", "<you@d> ORCPT=rfc822;O+2Bx@e", Some("rfc822; O+x@e"), "rfc822; you@d"),
        ("me@s", "<you@d> ORCPT=x400;/c+3Dde/", Some("x400; /c=de/"), "rfc822; you@d"),
        ("me@s", "<you@d> ORCPT=utf-8;b\\x{FC}@e", Some("utf-8; b\\x{FC}@e"), "rfc822; you@d"),
        ("me@s", "<b\u{fc}@d>", None, "utf-8; b\\x{FC}@d"),
        ("m\u{e9}@s", "<b\u{fc}@d> ORCPT=utf-8;b\\x{FC}@e", Some("utf-8; b\u{fc}@e"), "utf-8; b\u{fc}@d"),
        ("m\u{e9}@s", "<you@d>", None, "rfc822; you@d"),
    ] {
        let mail = format!("<{sender}> SMTPUTF8");
        let read = read(&written(&mail, &[entry(Action::Failed, rcpt, refused())], &header_of(MESSAGE)));
        let fields = &read.recipients[0];
        assert_eq!(all(fields, "original-recipient"), original.as_slice(), "{rcpt}");
        assert_eq!(one(fields, "final-recipient"), last, "{rcpt}");
    }
}

#[test]
fn each_recipient_has_its_own_action_and_diagnostic() {
    let own = Diagnostic::own(EnhancedCode::new(5, 4, 4), "there is no route");
    let entries = [
        entry(Action::Failed, "<a@d>", refused()),
        entry(Action::Delayed, "<b@d>", said("450 4.2.1 Busy")),
        entry(Action::Relayed, "<c@d>", said("250 Thanks")),
        Entry { attempted: None, ..entry(Action::Failed, "<e@d>", own) },
    ];
    let read = read(&written("<me@s>", &entries, &header_of(MESSAGE)));
    let row =
        |fields: &Block| ["action", "status", "diagnostic-code"].map(|name| one(fields, name).to_owned()).join(" | ");
    let rows: Vec<_> = read.recipients.iter().map(row).collect();
    assert_eq!(
        rows,
        [
            "failed | 5.1.1 | smtp; 550 5.1.1 No such user here",
            "delayed | 4.2.1 | smtp; 450 4.2.1 Busy",
            "relayed | 2.0.0 | smtp; 250 Thanks",
            "failed | 5.4.4 | x-posthaste; there is no route",
        ]
    );
    // RFC 3464 section 2.3.9: only in the block of a delayed recipient.
    let until: Vec<_> = read.recipients.iter().map(|fields| all(fields, "will-retry-until").len()).collect();
    assert_eq!(until, [0, 1, 0, 0]);
    assert_eq!(one(&read.recipients[1], "will-retry-until"), "Tue, 6 Jan 2026 10:00:00 +0000");
    let tried: Vec<_> = read.recipients.iter().map(|fields| all(fields, "last-attempt-date").len()).collect();
    assert_eq!(tried, [1, 1, 1, 0]);
    assert!(all(&read.recipients[3], "remote-mta").is_empty());
    let text = &read.parts[0].2;
    for words in ["could not be delivered to", "has not been delivered yet", "was handed on", "until Tue, 6 Jan 2026"] {
        assert!(text.contains(words), "{words:?} is missing in {text}");
    }
}

#[test]
fn the_subject_names_the_worst_action() {
    let failed = entry(Action::Failed, "<a@d>", refused());
    let delayed = entry(Action::Delayed, "<b@d>", said("450 Busy"));
    let relayed = entry(Action::Relayed, "<c@d>", said("250 Thanks"));
    for (entries, subject) in [
        (vec![relayed.clone(), delayed.clone(), failed], "Undelivered mail"),
        (vec![relayed.clone(), delayed], "Delayed mail"),
        (vec![relayed], "Relayed mail"),
    ] {
        let read = read(&written("<me@s>", &entries, &header_of(MESSAGE)));
        assert_eq!(one(&read.header, "subject"), subject);
    }
}

/// RFC 3461 sections 5.2.2, 5.2.5 and 5.2.6.
#[test]
fn notify_decides_which_actions_are_reported() {
    for (notify, failed, delayed, relayed) in [
        (None, true, true, true),
        (Some("NEVER"), false, false, false),
        (Some("SUCCESS"), false, false, true),
        (Some("FAILURE"), true, false, true),
        (Some("DELAY"), false, true, true),
        (Some("SUCCESS,FAILURE,DELAY"), true, true, true),
    ] {
        let parsed = notify.map(|words| words.parse().unwrap());
        let wanted = [Action::Failed, Action::Delayed, Action::Relayed].map(|action| action.is_wanted(parsed));
        assert_eq!(wanted, [failed, delayed, relayed], "{notify:?}");
    }
}

/// RFC 3461 sections 4.3 and 6.2, RFC 8689 section 5.
#[test]
fn the_whole_message_is_returned_only_if_asked_for_and_permitted() {
    for (mail, action, whole) in [
        ("<me@s> RET=FULL", Action::Failed, true),
        ("<me@s> RET=HDRS", Action::Failed, false),
        ("<me@s>", Action::Failed, false),
        ("<me@s> RET=FULL", Action::Delayed, false),
        ("<me@s> RET=FULL", Action::Relayed, false),
        ("<me@s> RET=FULL REQUIRETLS", Action::Failed, false),
        ("<me@s> RET=FULL BODY=BINARYMIME", Action::Failed, false),
    ] {
        let entry = entry(action, "<a@d>", refused());
        assert_eq!(returns_whole(&outside(mail), std::slice::from_ref(&entry)), whole, "{mail} {action:?}");
        let stranger = Outside { trusted: false, ..outside(mail) };
        assert!(!returns_whole(&stranger, &[entry]), "{mail} {action:?}");
    }
}

/// The returned part, for a sender that reads ASCII and for one that reads UTF-8: type, encoding,
/// content.
#[test]
fn the_returned_part_has_the_type_that_fits() {
    const UTF8: &str = "Subject: \u{e9}\r\n\r\n\u{e9}\r\n";
    const BODY8: &str = "Subject: e\r\n\r\n\u{e9}\r\n";
    let ascii = std::str::from_utf8(MESSAGE).unwrap();
    for (mail, message, whole, kind, encoding, content) in [
        ("<me@s>", ascii, true, "message/rfc822", "7bit", ascii),
        ("<me@s>", BODY8, true, "message/rfc822", "8bit", BODY8),
        ("<me@s>", BODY8, false, "text/rfc822-headers", "7bit", "Subject: e\r\n"),
        ("<me@s>", UTF8, false, "text/rfc822-headers", "quoted-printable", "Subject: =C3=A9\r\n"),
        ("<me@s> SMTPUTF8", ascii, true, "message/rfc822", "7bit", ascii),
        ("<me@s> SMTPUTF8", UTF8, true, "message/global", "quoted-printable", "Subject: =C3=A9\r\n\r\n=C3=A9\r\n"),
        ("<me@s> SMTPUTF8", UTF8, false, "message/global-headers", "quoted-printable", "Subject: =C3=A9\r\n"),
        ("<m\u{e9}@s> SMTPUTF8", UTF8, true, "message/global", "8bit", UTF8),
        ("<m\u{e9}@s> SMTPUTF8", UTF8, false, "message/global-headers", "8bit", "Subject: \u{e9}\r\n"),
        // Cannot be returned whole without encoding.
        ("<me@s>", "A: b\r\n\r\nbare\nlf\r\n", true, "text/rfc822-headers", "7bit", "A: b\r\n"),
        ("<me@s>", "A: b\0\r\n\r\nbody\r\n", true, "text/rfc822-headers", "quoted-printable", "A: b=00\r\n"),
    ] {
        let original = Original { octets: message.into(), whole, of: message.len() as u64 };
        let report = written(mail, &[entry(Action::Failed, "<a@d>", refused())], &original);
        let read = read(&report);
        let (found_kind, found_encoding, found) = &read.parts[2];
        assert_eq!((&**found_kind, &**found_encoding, &**found), (kind, encoding, content), "{mail} {message:?}");
    }
}

/// RFC 6533 section 4: a sender outside ASCII reads UTF-8. The report for any other sender can go
/// to every host.
#[test]
fn only_a_report_in_utf_8_needs_smtputf8() {
    let words = said("550 5.1.1 Niemand namens b\u{fc}");
    for (mail, smtputf8, kind, diagnostic) in [
        ("<me@s> SMTPUTF8", false, "message/delivery-status", "smtp; 550 5.1.1 Niemand namens b?"),
        ("<m\u{e9}@s> SMTPUTF8", true, "message/global-delivery-status", "smtp; 550 5.1.1 Niemand namens b\u{fc}"),
    ] {
        let report = written(mail, &[entry(Action::Failed, "<b\u{fc}@d>", words.clone())], &header_of(MESSAGE));
        assert_eq!((report.mail.smtputf8, !report.body.is_ascii()), (smtputf8, smtputf8), "{mail}");
        let read = read(&report);
        assert_eq!(read.parts[1].0, kind);
        assert_eq!(one(&read.recipients[0], "diagnostic-code"), diagnostic);
        assert_eq!(read.parts[0].0, "text/plain; charset=utf-8");
    }
}

/// RFC 8689 section 5, RFC 6710 section 4.6.
#[test]
fn a_report_has_the_requiretls_and_priority_of_its_message() {
    let failed = [entry(Action::Failed, "<a@d>", refused())];
    let mail = written("<me@s> REQUIRETLS MT-PRIORITY=4", &failed, &header_of(MESSAGE)).mail;
    assert!(mail.require_tls && mail.mt_priority.is_some_and(|priority| priority.get() == 4));
    let mail = written("<me@s>", &failed, &header_of(MESSAGE)).mail;
    assert!(!mail.require_tls && mail.mt_priority.is_none());
}

#[test]
fn report_lines_stay_short_and_fields_whole_whatever_hosts_reply() {
    let long = |text: &str| Diagnostic { text: text.repeat(3_000), ..refused() };
    let envid = format!("<me@s> ENVID={}", "x".repeat(100));
    for text in ["x", "\u{20ac}", "a ", "\r\nAction: relayed\r\n"] {
        for mail in [&*envid, "<m\u{e9}@s> SMTPUTF8"] {
            let entries = [entry(Action::Failed, "<a@d>", long(text)), entry(Action::Failed, "<b@d>", refused())];
            let read = read(&written(mail, &entries, &header_of(MESSAGE)));
            let actions: Vec<_> = read.recipients.iter().map(|fields| one(fields, "action")).collect();
            assert_eq!(actions, ["failed", "failed"], "{text:?}");
        }
    }
    // A thousand recipients are all in the fields, and some are in the text.
    let many: Vec<_> = (0..1_000).map(|n| entry(Action::Failed, &format!("<u{n}@d>"), refused())).collect();
    let read = read(&written("<me@s>", &many, &header_of(MESSAGE)));
    assert_eq!(read.recipients.len(), 1_000);
    assert!(read.parts[0].2.contains("and 900 more"));
}

/// Whatever hosts reply, and however many recipients there are, the report is the longest within
/// the bound.
#[test]
fn a_report_says_as_much_as_fits() {
    let long = Diagnostic { text: format!("550 5.1.1 {}", "\u{20ac}".repeat(330)), ..refused() };
    let many: Vec<_> = (0..2_000)
        .map(|n| entry(Action::Failed, &format!("<u{n}@d{n}.test> ORCPT=rfc822;{}", "o".repeat(400)), long.clone()))
        .collect();
    let large = Original { octets: [MESSAGE, "\u{e9}\r\n".repeat(1 << 18).as_bytes()].concat(), whole: true, of: 0 };
    let sender: Mailbox = Mailbox::parse("me@s").unwrap().into_owned();
    let outside = outside("<me@s> SMTPUTF8 RET=FULL");
    let own_name = "relay.test".parse().unwrap();
    let now = Timestamp::from_second(ACCEPTED).unwrap();
    let words = ReportWords::default();
    let about = About {
        own_name: &own_name,
        words: &words,
        message: MessageId::from_u64(7),
        outside: &outside,
        will_retry_until: 0,
        now,
    };
    for (count, most, named, said) in [
        (1, 4 << 20, 1, &["message/global", "Original-Recipient"][..]),
        (1, 1 << 20, 1, &["text/rfc822-headers", "X-Y: z", "Original-Recipient"]),
        (2_000, 8 << 20, 2_000, &["message/global", "Original-Recipient", "and 1900 more, see the next part"]),
        (2_000, 2 << 20, 2_000, &["X-Y: z", "Original-Recipient", "Diagnostic-Code"]),
        (2_000, 400_000, 2_000, &["Status: 5.1.1", "and 1999 more, see the next part"]),
        (2_000, 100_000, 1_000, &["Status: 5.1.1", "and 1999 more, see the next part\r\n"]),
        (2_000, 2_048, 15, &["Status: 5.1.1", "and 1999 more, see the next part\r\n"]),
        // No report is shorter than this.
        (2_000, 0, 1, &["Status: 5.1.1", "and 1999 more, see the next part\r\n"]),
    ] {
        let report = write(&about, &sender, &many[..count], &large, most);
        let text = String::from_utf8_lossy(&report.body);
        assert!(report.body.len() <= most.max(2_048), "{count} {most}: {}", report.body.len());
        assert_eq!(text.matches("Action: failed\r\n").count(), named, "{count} {most}");
        for words in said {
            assert!(text.contains(words), "{count} {most}: {words}");
        }
        assert_eq!(report.returns_whole, most >= 4 << 20, "{most}");
        assert_is_mail(&report);
    }
}

#[test]
fn a_shortened_report_names_the_worst_recipients() {
    let mut entries: Vec<_> = (0..60).map(|n| entry(Action::Relayed, &format!("<t{n}@d>"), said("250 Ok"))).collect();
    entries.push(entry(Action::Failed, "<gone@d>", refused()));
    let outside = outside("<me@s>");
    let own_name = "relay.test".parse().unwrap();
    let now = Timestamp::from_second(ACCEPTED).unwrap();
    let words = ReportWords::default();
    let about = About {
        own_name: &own_name,
        words: &words,
        message: MessageId::from_u64(7),
        outside: &outside,
        will_retry_until: 0,
        now,
    };
    let sender = outside.mail.reverse_path.mailbox().unwrap();
    let report = write(&about, sender, &entries, &header_of(MESSAGE), 2_048);
    assert_eq!(one(&read(&report).recipients[0], "final-recipient"), "rfc822; gone@d");
}

/// RFC 6531 section 3.2: a domain has a form that every host takes, a local part has none.
#[test]
fn a_sender_whose_domain_alone_is_not_ascii_gets_a_report_that_goes_anywhere() {
    for (sender, to, smtputf8) in [
        ("me@b\u{fc}cher.test", "me@xn--bcher-kva.test", false),
        ("m\u{e9}@b\u{fc}cher.test", "m\u{e9}@b\u{fc}cher.test", true),
        ("me@s", "me@s", false),
    ] {
        let mail = format!("<{sender}> SMTPUTF8");
        let report = written(&mail, &[entry(Action::Failed, "<b\u{fc}@d>", refused())], &header_of(MESSAGE));
        assert_eq!((&*report.to.to_string(), report.mail.smtputf8), (to, smtputf8), "{sender}");
        assert_eq!(one(&read(&report).header, "to"), format!("<{to}>"));
        assert_eq!(report.body.is_ascii(), !smtputf8);
    }
}

/// If a host refuses a report with the message, the report goes without it.
#[test]
fn a_report_without_the_message_has_its_header() {
    for (mail, message, header, encoding) in [
        ("<me@s>", &b"Subject: x\r\nX-Y: z\r\n\r\nthe body\r\n"[..], "Subject: x\r\nX-Y: z\r\n", "7bit"),
        ("<me@s>", b"Subject: x\r\n\r\n\xc3\xa9\r\n", "Subject: x\r\n", "7bit"),
        ("<me@s>", b"Subject: \xc3\xa9\r\n\r\n\xc3\xa9\r\n", "Subject: =C3=A9\r\n", "quoted-printable"),
        ("<me@s> SMTPUTF8", "Subject: \u{e9}\r\n\r\n\u{e9}\r\n".as_bytes(), "Subject: =C3=A9\r\n", "quoted-printable"),
        // This looks like the end of a part, but lacks the boundary.
        ("<me@s>", b"A: b\r\n\r\n--x\r\n\r\n--x--\r\n", "A: b\r\n", "7bit"),
    ] {
        let original = Original { octets: message.to_vec(), whole: true, of: message.len() as u64 };
        let whole = written(mail, &[entry(Action::Failed, "<a@d>", refused())], &original);
        assert!(whole.returns_whole);
        let body = without_content(&whole.body).unwrap();
        assert!(body.is_ascii() && mime::is_clean(&body));
        let plain = Report { body, ..whole };
        let (plain, before) = (read(&plain), read(&whole_again(mail, &original)));
        assert_eq!(plain.recipients, before.recipients);
        let (kind, found, content) = &plain.parts[2];
        assert_eq!((&**kind, &**found, &**content), ("text/rfc822-headers", encoding, header), "{mail}");
    }
    for junk in [&b""[..], b"Subject: x\r\n\r\nbody\r\n", b"boundary=\"x\"\r\n\r\n\r\n--x\r\n\r\n--x\r\n"] {
        assert!(without_content(junk).is_none());
    }
}

fn whole_again(mail: &str, original: &Original) -> Report {
    written(mail, &[entry(Action::Failed, "<a@d>", refused())], original)
}

/// A report in words of the operator, in at most `most` octets.
fn in_words(sender: &str, words: &ReportWords, entries: &[Entry], most: usize) -> String {
    let outside = outside(sender);
    let own_name = "relay.test".parse().unwrap();
    let about = About {
        own_name: &own_name,
        words,
        message: MessageId::from_u64(7),
        outside: &outside,
        will_retry_until: ACCEPTED + 86_400,
        now: Timestamp::from_second(ACCEPTED).unwrap(),
    };
    let report = write(&about, outside.mail.reverse_path.mailbox().unwrap(), entries, &header_of(MESSAGE), most);
    assert_is_mail(&report);
    assert_eq!(one(&read(&report).recipients[0], "status"), "5.1.1");
    String::from_utf8(report.body.to_vec()).unwrap()
}

/// The same about what a host has said.
fn of_host(sender: &str, words: &ReportWords, diagnostic: &str) -> String {
    let diagnostic = Diagnostic { text: diagnostic.to_owned(), ..refused() };
    in_words(sender, words, &[entry(Action::Failed, "<you@d.test>", diagnostic)], usize::MAX)
}

#[test]
fn a_report_has_the_words_of_the_operator() {
    let mut words = ReportWords::default();
    words.set_subject(ReportKind::Failed, "Unzustellbar f\u{fc}r {host_name} ({message})").unwrap();
    words.set_opening("Hier ist {host_name}.").unwrap();
    words.set_section(ReportKind::Failed, "Nicht m\u{f6}glich f\u{fc}r:\n{recipients}\nEnde.").unwrap();
    words.set_closing("").unwrap();
    words.set_sender_name("Postamt, {host_name}").unwrap();
    words.set_said("{remote} sagt: {words}").unwrap();
    // A sender whose host may not take UTF-8, and one whose host has to.
    let report = of_host("<me@s>", &words, "550 No");
    assert!(report.is_ascii());
    assert!(report.contains("Subject: =?utf-8?q?Unzustellbar_f=C3=BCr_relay=2Etest_=28"), "{report}");
    let text = "\r\n\r\nHier ist relay.test.\r\n\r\nNicht m=C3=B6glich f=C3=BCr:\r\n  you@d.test\r\n    \
                mx.dest.test sagt: 550 No\r\nEnde.\r\n";
    assert!(report.contains(text), "{report}");
    assert!(report.starts_with("From: \"Postamt, relay.test\" <MAILER-DAEMON@relay.test>\r\n"), "{report}");
    words.set_sender_name("Postamt f\u{fc}r Unzustellbares auf {host_name}").unwrap();
    let report = of_host("<m\u{e9}@s> SMTPUTF8", &words, "550 No");
    let from = "From: =?utf-8?q?Postamt_f=C3=BCr_Unzustellbares_auf_relay=2Etest?=\r\n <MAILER-DAEMON@relay.test>\r\n";
    assert!(report.contains(from), "{report}");
    assert!(report.contains("Nicht m\u{f6}glich f\u{fc}r:\r\n  you@d.test\r\n"), "{report}");
}

/// Of what the relay has words for, none are English then.
#[test]
fn a_report_that_is_shortened_has_the_words_of_the_operator_too() {
    let mut words = ReportWords::default();
    words.set_opening("").unwrap();
    words.set_section(ReportKind::Failed, "An:\n{recipients}").unwrap();
    words.set_more("und {count} andere").unwrap();
    words.set_shortened("Gek\u{fc}rzt von {host_name}.").unwrap();
    let entries: Vec<_> =
        (0..200).map(|number| entry(Action::Failed, &format!("<to{number}@d.test>"), refused())).collect();
    for (most, text) in [
        (usize::MAX, "und 100 andere\r\n\r\nRecipients that"),
        (0, "An:\r\n  to0@d.test\r\n  und 199 andere\r\n\r\nGek=C3=BCrzt von relay.test.\r\n"),
    ] {
        let report = in_words("<me@s>", &words, &entries, most);
        assert!(report.contains(text), "{report}");
    }
}

/// A host can say what it likes.
#[test]
fn words_of_a_host_stay_in_their_place() {
    let mut words = ReportWords::default();
    words.set_section(ReportKind::Failed, "An:\n{recipients}\nEnde.").unwrap();
    for (said, quoted) in [
        ("550 {host_name} {recipients} {{", "said: 550 {host_name} {recipients} {{\r\nEnde."),
        ("550 a\r\nBcc: you@d.test\r\n\r\nb", "said: 550 a??Bcc: you@d.test????b\r\nEnde."),
        ("550 \u{1b}[31m\0\u{7f}\u{85}", "said: 550 ?[31m???\r\nEnde."),
    ] {
        let report = of_host("<me@s>", &words, said);
        assert!(report.contains(quoted), "{said:?}: {report}");
    }
    // Characters that turn the text around them.
    let report = of_host("<m\u{e9}@s> SMTPUTF8", &words, "550 \u{202e}gro\u{2066}\u{2028}x \u{5d0}");
    assert!(report.contains("said: 550 ?gro??x \u{5d0}\r\nEnde."), "{report}");
    assert!(report.contains("Diagnostic-Code: smtp; 550 ?gro??x \u{5d0}\r\n"), "{report}");
    let report = of_host("<me@s>", &words, &format!("550 {}", "x".repeat(50_000)));
    assert!(report.len() < 200_000 && report.contains("Ende."));
}
