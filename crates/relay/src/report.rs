//! Delivery reports (RFC 3464 in the multipart of RFC 6522).

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use posthaste_queue::MessageId;
use posthaste_server::wire::{Domain, ForwardPath, Mailbox, Rcpt, ReversePath};

use crate::{
    Diagnostic,
    record::Outside,
    trace::{date, date_now},
};

/// A recipient that did not get the message, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) rcpt: Rcpt,
    pub(crate) diagnostic: Diagnostic,
}

/// The most octets of the original's header that a report returns: more is cut at a line.
pub(crate) const MAX_RETURNED: usize = 64 * 1_024;

/// Writes the report of these failures, to the sender of the message. `header` is the start of the message, from which
/// the header is returned.
pub(crate) fn failure(
    own_name: &Domain,
    message: MessageId,
    outside: &Outside,
    failures: &[Failure],
    header: &[u8],
) -> Bytes {
    let sender = match &outside.mail.reverse_path {
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
        ReversePath::Null => String::new(),
    };
    let boundary = format!("{message}-{:016x}", fastrand::u64(..));
    let date_now = date_now();
    let mut report = BytesMut::new();
    // Every line is bounded: addresses by their grammar, a diagnostic by `folded`.
    put(&mut report, &format!("From: Mail delivery <MAILER-DAEMON@{own_name}>"));
    put(&mut report, &format!("To: <{sender}>"));
    put(&mut report, "Subject: Undelivered mail");
    put(&mut report, &format!("Date: {date_now}"));
    put(&mut report, &format!("Message-ID: <{boundary}@{own_name}>"));
    put(&mut report, "Auto-Submitted: auto-replied");
    put(&mut report, "MIME-Version: 1.0");
    put(
        &mut report,
        &format!("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\""),
    );
    put(&mut report, "");

    put(&mut report, &format!("--{boundary}"));
    put(&mut report, "Content-Type: text/plain; charset=us-ascii\r\n");
    put(&mut report, &format!("This is {own_name}. Your message could not be delivered to:\r\n"));
    for failure in failures {
        put(&mut report, &format!("  {}", address(&failure.rcpt, own_name)));
        let said = match (&failure.diagnostic.remote, failure.diagnostic.is_reply) {
            (Some(remote), true) => format!("    {remote} said: {}", failure.diagnostic.text),
            _ => format!("    {}", failure.diagnostic.text),
        };
        put(&mut report, &folded(&said, "    "));
    }
    put(&mut report, "\r\nIt was not delivered to them and will not be tried again.");
    put(&mut report, "Recipients that are not listed are not affected.\r\n");

    put(&mut report, &format!("--{boundary}"));
    put(&mut report, "Content-Type: message/delivery-status\r\n");
    put(&mut report, &format!("Reporting-MTA: dns; {own_name}"));
    if let Some(envid) = &outside.mail.envid {
        let decoded = envid.decode();
        put(
            &mut report,
            &folded(&format!("Original-Envelope-Id: {}", ascii(&String::from_utf8_lossy(&decoded))), "\t"),
        );
    }
    put(&mut report, &format!("X-Queue-ID: {message}"));
    if let Ok(arrival) = Timestamp::from_second(outside.accepted) {
        put(&mut report, &format!("Arrival-Date: {}", date(arrival)));
    }
    for failure in failures {
        put(&mut report, "");
        if let Some(orcpt) = &failure.rcpt.orcpt {
            put(
                &mut report,
                &folded(&format!("Original-Recipient: {}; {}", orcpt.address_type(), orcpt.address()), "\t"),
            );
        }
        put(&mut report, &format!("Final-Recipient: rfc822; {}", address(&failure.rcpt, own_name)));
        put(&mut report, "Action: failed");
        put(&mut report, &format!("Status: {}", failure.diagnostic.status));
        if let Some(remote) = &failure.diagnostic.remote {
            put(&mut report, &format!("Remote-MTA: dns; {}", ascii(remote)));
        }
        let kind = if failure.diagnostic.is_reply { "smtp" } else { "x-posthaste" };
        put(&mut report, &folded(&format!("Diagnostic-Code: {kind}; {}", ascii(&failure.diagnostic.text)), "\t"));
    }
    put(&mut report, "");

    put(&mut report, &format!("--{boundary}"));
    put(&mut report, "Content-Type: text/rfc822-headers\r\n");
    report.put_slice(returned_header(header));
    put(&mut report, &format!("\r\n--{boundary}--"));
    report.freeze()
}

fn put(report: &mut BytesMut, line: &str) {
    report.put_slice(line.as_bytes());
    report.put_slice(b"\r\n");
}

/// The header at the start of a message, up to and without the empty line; whole lines only.
fn returned_header(start: &[u8]) -> &[u8] {
    let end = start.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 2);
    let cut = || start.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
    start.get(..end.unwrap_or_else(cut)).unwrap_or_default()
}

fn address(rcpt: &Rcpt, own_name: &Domain) -> String {
    match &rcpt.forward_path {
        ForwardPath::Mailbox(mailbox) => Mailbox::to_string(mailbox),
        ForwardPath::Postmaster => format!("postmaster@{own_name}"),
    }
}

/// A report's parts are ASCII; what a host said in anything else is shown as question marks.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect()
}

/// Breaks a long line at spaces, or where it has to be, well below the 998 octets of RFC 5322 section 2.1.1.
fn folded(line: &str, indent: &str) -> String {
    const WIDTH: usize = 120;
    let mut out = String::with_capacity(line.len());
    let mut width = 0;
    for character in line.chars() {
        if (width > WIDTH && character == ' ') || width > 4 * WIDTH {
            out.push_str("\r\n");
            out.push_str(indent);
            width = 0;
            if character == ' ' && !indent.is_empty() {
                continue;
            }
        }
        out.push(if character.is_ascii() { character } else { '?' });
        width += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthaste_server::wire::{Command, Reply};

    #[test]
    fn a_report_has_short_lines_and_the_exact_words() {
        let Ok(Command::Mail(mail)) = Command::parse(b"MAIL FROM:<me@sender.test> ENVID=a+2Bb") else { panic!() };
        let Ok(Command::Rcpt(rcpt)) = Command::parse(b"RCPT TO:<you@dest.test>") else { panic!() };
        let reply = Reply::from_static("550 5.1.1 No such user here\r\n");
        let outside = Outside { accepted: 1_767_607_200, mail: mail.into_owned() };
        let long = Diagnostic { text: "x".repeat(3_000), ..Diagnostic::reply("mx.dest.test", &reply) };
        let failures = [
            Failure { rcpt: rcpt.into_owned(), diagnostic: Diagnostic::reply("mx.dest.test", &reply) },
            Failure { rcpt: rcpt.into_owned(), diagnostic: long },
        ];
        let header = b"Subject: x\r\nX-Y: z\r\n\r\nbody\r\n";
        let report = failure(&"relay.test".parse().unwrap(), MessageId::from_u64(7), &outside, &failures, header);
        let text = std::str::from_utf8(&report).unwrap();
        for line in [
            "To: <me@sender.test>\r\n",
            "Reporting-MTA: dns; relay.test\r\n",
            "Original-Envelope-Id: a+b\r\n",
            "Arrival-Date: Mon, 5 Jan 2026 10:00:00 +0000\r\n",
            "Final-Recipient: rfc822; you@dest.test\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            "Remote-MTA: dns; mx.dest.test\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 No such user here\r\n",
            "\r\n\r\nSubject: x\r\nX-Y: z\r\n\r\n--",
        ] {
            assert!(text.contains(line), "{line:?} is missing in {text}");
        }
        assert!(text.split("\r\n").all(|line| line.len() < 998 && !line.contains(['\r', '\n'])));
        assert!(!text.contains("body"));
    }
}
