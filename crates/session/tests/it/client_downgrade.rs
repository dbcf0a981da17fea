//! Each rule of the table of downgrades, with the extension and without.

use posthaste_session::client::downgrade::{self, NextHop, RULES, Undeliverable};
use posthaste_wire::{Capabilities, Command, Mail, Rcpt, ReplyRef};

fn offered(lines: &[&str]) -> Capabilities {
    let lines: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
    let reply = format!("250-s\r\n{lines}250 HELP\r\n");
    Capabilities::from_reply(&ReplyRef::parse(reply.as_bytes()).expect("a reply")).into_owned()
}

fn next_hop(capabilities: &Capabilities, tls_is_verified: bool) -> NextHop<'_> {
    NextHop { capabilities, tls_is_verified }
}

fn parsed(line: &str) -> Command<'_> {
    Command::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The line as the server gets it.
fn lowered(line: &str, lines: &[&str], tls: bool) -> Result<String, Undeliverable> {
    let offered = offered(lines);
    match parsed(line) {
        Command::Mail(mail) => downgrade::mail(mail, next_hop(&offered, tls)).map(|mail| format!("MAIL FROM:{mail}")),
        Command::Rcpt(rcpt) => downgrade::rcpt(rcpt, next_hop(&offered, tls)).map(|rcpt| format!("RCPT TO:{rcpt}")),
        other => panic!("{other:?}"),
    }
}

const MAIL: &str = "MAIL FROM:<a@b>";
const RCPT: &str = "RCPT TO:<c@d>";

/// A parameter for each row, and the lines that offer its extension.
const EXAMPLES: &[(&str, &str, &str, &[&str])] = &[
    ("SIZE", MAIL, "SIZE=1000", &["SIZE 1000"]),
    ("BODY=7BIT", MAIL, "BODY=7BIT", &["8BITMIME"]),
    ("BODY=8BITMIME", MAIL, "BODY=8BITMIME", &["8BITMIME"]),
    ("BODY=BINARYMIME", MAIL, "BODY=BINARYMIME", &["BINARYMIME", "CHUNKING"]),
    ("SMTPUTF8", MAIL, "SMTPUTF8", &["SMTPUTF8"]),
    ("REQUIRETLS", MAIL, "REQUIRETLS", &["REQUIRETLS"]),
    ("RET", MAIL, "RET=HDRS", &["DSN"]),
    ("ENVID", MAIL, "ENVID=x+2By", &["DSN"]),
    ("AUTH", MAIL, "AUTH=e+3Dmc2@example.com", &["AUTH GSSAPI"]),
    ("BY=…;R", MAIL, "BY=120;R", &["DELIVERBY"]),
    ("BY=…;N", MAIL, "BY=120;NT", &["DELIVERBY"]),
    ("HOLDFOR", MAIL, "HOLDFOR=60", &["FUTURERELEASE 60 2030-01-01T00:00:00Z"]),
    ("HOLDUNTIL", MAIL, "HOLDUNTIL=2030-01-01T00:00:00Z", &["FUTURERELEASE 60 2030-01-01T00:00:00Z"]),
    ("MT-PRIORITY", MAIL, "MT-PRIORITY=-3", &["MT-PRIORITY MIXER"]),
    ("SOLICIT", MAIL, "SOLICIT=org.example:ADV", &["NO-SOLICITING net.example:ADV"]),
    ("NOTIFY", RCPT, "NOTIFY=SUCCESS,DELAY", &["DSN"]),
    ("ORCPT", RCPT, "ORCPT=rfc822;c@d", &["DSN"]),
    ("RRVS=…;R", RCPT, "RRVS=2014-04-03T23:01:00Z;R", &["RRVS"]),
    ("RRVS=…;C", RCPT, "RRVS=2014-04-03T23:01:00Z;C", &["RRVS"]),
];

#[test]
fn every_rule_holds_with_its_extension_and_without() {
    assert_eq!(RULES.len(), EXAMPLES.len());
    for (rule, (name, command, parameter, lines)) in RULES.iter().zip(EXAMPLES) {
        assert_eq!(rule.parameter, *name);
        let line = format!("{command} {parameter}");
        assert_eq!(lowered(&line, lines, true), Ok(line.clone()));
        // Without all of the lines, and without each of them.
        let mut without = vec![Vec::new()];
        without.extend(lines.iter().map(|gone| lines.iter().copied().filter(|line| line != gone).collect()));
        for lines in without {
            let expected = rule.without.map_or(Ok((*command).to_owned()), Err);
            assert_eq!(lowered(&line, &lines, true), expected, "{line} {lines:?}");
        }
    }
}

#[test]
fn the_table_in_the_documentation_is_the_table() {
    let documented = include_str!("../../src/client/downgrade.rs");
    for rule in RULES {
        let needs: Vec<_> = rule.needs.iter().map(|keyword| keyword.as_str()).collect();
        let without = match rule.without {
            Some(why) => format!("undeliverable, {}", why.enhanced().expect("every reason has a code")),
            None => "left out".to_owned(),
        };
        let row = format!("//! | `{}` | {} | {without} |\n", rule.parameter, needs.join(", "));
        assert!(documented.contains(&row), "{row}");
    }
}

#[test]
fn limits_of_offered_extensions_are_kept() {
    use Undeliverable::{DeliverBy, Hold, Solicitation, TooLarge, Unverified};
    const FUTURE: &str = "FUTURERELEASE 60 2030-01-01T00:00:00Z";
    for (parameter, line, tls, expected) in [
        ("SIZE=1001", "SIZE 1000", true, Some(TooLarge)),
        ("SIZE=1001", "SIZE 0", true, None),
        ("SIZE=1001", "SIZE", true, None),
        ("REQUIRETLS", "REQUIRETLS", false, Some(Unverified)),
        ("BY=100;R", "DELIVERBY 100", true, None),
        ("BY=99;R", "DELIVERBY 100", true, Some(DeliverBy)),
        ("BY=99;N", "DELIVERBY 100", true, None),
        ("BY=-99;N", "DELIVERBY 100", true, None),
        ("HOLDFOR=61", FUTURE, true, Some(Hold)),
        ("HOLDUNTIL=2030-01-01T00:00:01Z", FUTURE, true, Some(Hold)),
        ("HOLDUNTIL=2030-01-01T02:00:00+02:00", FUTURE, true, None),
        ("HOLDUNTIL=2030-01-01T02:00:00+02:00", "FUTURERELEASE 60 whenever", true, None),
        ("SOLICIT=net.example:X,org.example:ADV", "NO-SOLICITING org.example:adv", true, Some(Solicitation)),
        ("SOLICIT=org.example:ADV", "NO-SOLICITING", true, None),
    ] {
        let text = format!("{MAIL} {parameter}");
        let kept = lowered(&text, &[line], tls).map(|kept| kept == text);
        assert_eq!(kept, expected.map_or(Ok(true), Err), "{parameter} {line}");
    }
    // A relay that subtracts the elapsed time may have none left.
    let mut late = Mail::parse("<a@b> BY=5;R").expect("a sender");
    late.by = late.by.map(|by| posthaste_wire::parameter::DeliverBy { seconds: -1, ..by });
    assert_eq!(downgrade::mail(late, next_hop(&offered(&["DELIVERBY"]), true)), Err(DeliverBy));
}

#[test]
fn parameters_of_unknown_extensions_are_left_out() {
    for (line, without) in [("MAIL FROM:<a@b> X-OWN=1 SIZE=5", "MAIL FROM:<a@b> SIZE=5"), ("RCPT TO:<c@d> X-OWN", RCPT)]
    {
        assert_eq!(lowered(line, &["SIZE", "X-OWN"], true), Ok(without.to_owned()));
    }
}

#[test]
fn addresses_outside_ascii_need_smtputf8() {
    let line = "RCPT TO:<ü@d> ORCPT=utf-8;ü@d";
    assert_eq!(lowered(line, &["DSN", "SMTPUTF8"], true), Ok(line.to_owned()));
    assert_eq!(lowered(line, &["DSN"], true), Err(Undeliverable::Utf8));
    assert_eq!(lowered("RCPT TO:<c@d> ORCPT=utf-8;ü@d", &["DSN"], true), Ok(RCPT.to_owned()));
    // Such a sender has said SMTPUTF8. Without the parameter the address still cannot go to this
    // server.
    assert_eq!(lowered("MAIL FROM:<ü@d> SMTPUTF8", &[], true), Err(Undeliverable::Utf8));
    let unannounced = Mail { smtputf8: false, ..Mail::parse("<ü@d> SMTPUTF8").expect("a sender") };
    let lowered_to = |lines: &[&str]| downgrade::mail(unannounced, next_hop(&offered(lines), true)).map(drop);
    assert_eq!((lowered_to(&[]), lowered_to(&["SMTPUTF8"])), (Err(Undeliverable::Utf8), Ok(())));
    let encoded = "RCPT TO:<c@d> ORCPT=utf-8;\\x{FC}@d";
    assert_eq!(lowered(encoded, &["DSN"], true), Ok(encoded.to_owned()));
}

#[test]
fn services_that_end_here_are_reported() {
    for (from, to, lines, owed) in [
        ("", "NOTIFY=SUCCESS", &[][..], true),
        ("", "NOTIFY=SUCCESS", &["DSN"], false),
        ("", "NOTIFY=FAILURE", &[], false),
        ("", "", &[], false),
        ("BY=9;N", "", &[], true),
        ("BY=9;N", "NOTIFY=NEVER", &[], false),
        ("BY=9;N", "NOTIFY=FAILURE", &["DSN"], true),
        ("BY=9;N", "", &["DELIVERBY"], false),
        ("BY=0;N", "", &[], false),
        ("BY=9;NT", "", &["DELIVERBY"], true),
        ("BY=9;RT", "NOTIFY=FAILURE", &["DELIVERBY", "DSN"], true),
        ("BY=9;RT", "NOTIFY=NEVER", &["DELIVERBY"], false),
    ] {
        let (from, to) = (format!("<a@b> {from}"), format!("<c@d> {to}"));
        let mail = Mail::parse(from.trim_end()).expect("a sender");
        let rcpt = Rcpt::parse(to.trim_end()).expect("a recipient");
        assert_eq!(downgrade::owes_relayed_report(&mail, &rcpt, &offered(lines)), owed, "{from} {to} {lines:?}");
    }
}
