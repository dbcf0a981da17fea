//! What is wrong gets the right reply, and the session goes on.

mod support;

use support::client::Smtp;
use support::relay::{Config, Relay};
use support::sink::Sink;
use support::token;

fn relay() -> (Sink, Relay) {
    let sink = Sink::start();
    let relay = Relay::start(&Config { next_hops: vec![sink.port], relay_from: "[]", tls: true, ..Config::default() });
    (sink, relay)
}

#[test]
fn each_mistake_gets_its_reply() {
    let (_sink, relay) = relay();
    let from = "MAIL FROM:<a@sender.test>";
    let to = "RCPT TO:<b@dest.test>";
    let long = format!("NOOP {}", "x".repeat(5000));
    let cases: &[(&str, &[&str], &str, u16)] = &[
        ("an unknown verb", &[], "XYZZY", 500),
        ("a line that is too long", &[], &long, 500),
        ("an empty line", &[], "", 500),
        ("RCPT before MAIL", &[], to, 503),
        ("DATA before MAIL", &[], "DATA", 503),
        ("DATA before RCPT", &[from], "DATA", 503),
        ("MAIL inside a transaction", &[from], from, 503),
        ("an argument that is no path", &[], "MAIL FROM:nobody at all", 501),
        ("an unknown parameter", &[], "MAIL FROM:<a@sender.test> COLOR=blue", 555),
        ("a size beyond the limit", &[], "MAIL FROM:<a@sender.test> SIZE=999999999", 552),
        ("STARTTLS with an argument", &[], "STARTTLS now", 501),
        ("RSET with an argument", &[], "RSET now", 501),
        ("a NUL in a command", &[], "NOOP a\0b", 501),
        ("a recipient elsewhere", &[from], "RCPT TO:<b@elsewhere.test>", 550),
    ];
    for (name, before, line, code) in cases {
        let mut client = Smtp::ehlo(relay.port);
        for line in *before {
            client.expect(line, 250);
        }
        let reply = client.command(line);
        // A NUL may be a syntax error of the line or of the argument.
        let right = reply.code == *code || (line.contains('\0') && reply.code == 500);
        assert!(right, "{name}: {} and not {code}\n{}", reply.code, client.log());
        client.expect("NOOP", 250);
        client.expect("QUIT", 221);
    }
}

#[test]
fn mail_before_ehlo_is_out_of_order() {
    let (_sink, relay) = relay();
    let mut client = Smtp::connect(relay.port);
    client.expect("MAIL FROM:<a@sender.test>", 503);
    client.expect("EHLO client.test", 250);
    client.expect("MAIL FROM:<a@sender.test>", 250);
}

#[test]
fn a_body_with_a_bare_line_end_is_refused_after_its_true_end() {
    let (mut sink, relay) = relay();
    for (name, smuggled) in [
        ("LF.LF", "\n.\n"),
        ("LF.CRLF", "\n.\r\n"),
        ("CRLF.LF", "\r\n.\n"),
        ("CR.CR", "\r.\r"),
        ("CR.LF", "\r.\n"),
        ("LF.CR", "\n.\r"),
        ("CR.CRLF", "\r.\r\n"),
        ("CRLF.CR", "\r\n.\r"),
        ("CRLF NUL.CRLF", "\r\n\0.\r\n"),
        ("CRLF.NUL CRLF", "\r\n.\0\r\n"),
        ("CRLF.CRCRLF", "\r\n.\r\r\n"),
        ("LFCR.LFCR", "\n\r.\n\r"),
        ("LF", "\n"),
        ("CR", "\r"),
        ("NUL", "\0"),
    ] {
        let token = token();
        let mut client = Smtp::ehlo(relay.port);
        client.open(&format!("snd-{token}@sender.test"), &format!("rcp-{token}@dest.test"));
        let body = format!(
            "Subject: {token}\r\n\r\nline{smuggled}MAIL FROM:<evil-{token}@sender.test>\r\nRCPT TO:<evil@dest.test>\r\nDATA\r\nx\r\n.\r\n"
        );
        client.send(body);
        let reply = client.reply();
        assert_eq!(reply.code, 550, "{name}\n{}", client.log());
        assert!(
            reply.text.contains("5.5.2") || smuggled.contains('\0') && reply.text.contains("5.6"),
            "{name}: {}",
            reply.text
        );
        // Exactly one reply for all of it, and the session goes on.
        client.expect("NOOP", 250);
        let reply = client.transact(&format!("{token}-after"));
        assert_eq!(reply.code, 250, "{name}\n{}", client.log());
        let taken = sink.wait(&format!("{token}-after"), 1);
        assert_eq!(taken.len(), 1, "{name}");
        let taken = sink.wait(&token, 1);
        assert_eq!(taken.len(), 1, "{name}: only the message after it may arrive");
    }
}

#[test]
fn commands_behind_starttls_are_refused_with_it() {
    let (_sink, relay) = relay();
    for (name, octets) in [
        ("NOOP in the same segment", "STARTTLS\r\nNOOP\r\n"),
        ("a transaction in the same segment", "STARTTLS\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@dest.test>\r\n"),
        ("half a command", "STARTTLS\r\nNO"),
        ("one octet", "STARTTLS\r\nX"),
    ] {
        let mut client = Smtp::ehlo(relay.port);
        client.send(octets);
        if let Some(reply) = client.try_reply() {
            assert!(reply.code >= 500, "{name}: no handshake may follow\n{}", client.log());
        }
        // Either the relay has closed, or it has refused STARTTLS and answers in clear what came
        // after.
        support::client::submit(relay.port, &token());
    }
}

#[test]
fn a_client_without_permission_cannot_relay() {
    let (_sink, relay) = relay();
    let long_way = "@dest.test,@relay.test:victim@foreign.test";
    let forms = [
        "victim@foreign.test",
        "victim@FOREIGN.TEST",
        "victim@sub.dest.test.foreign.test",
        "victim@foreign.test.",
        "victim@dest.test.",
        "@dest.test:victim@foreign.test",
        "@relay.test:victim@foreign.test",
        long_way,
        "victim@foreign.test@dest.test",
        "victim@foreign.test@relay.test",
        "dest.test!victim@foreign.test",
        "victim@[127.0.0.1]",
        "victim@[192.0.2.1]",
        "victim@[IPv6:::1]",
        "victim@foreign.test,dest.test",
        "victim@dest.test foreign.test",
        "victim",
        "\"victim@foreign.test\"",
        "foreign.test!victim",
        "victim%foreign.test",
        "victim@destXtest",
        "victim@notdest.test",
        "victim@dest.test.example",
        "victim@xn--dest-test",
        "victim@\u{ff44}est.test",
    ];
    for sender in ["someone@foreign.test", "someone@dest.test", "someone@relay.test", ""] {
        for form in forms {
            let mut client = Smtp::ehlo(relay.port);
            client.expect(&format!("MAIL FROM:<{sender}>"), 250);
            let reply = client.command(&format!("RCPT TO:<{form}>"));
            assert!((500..600).contains(&reply.code), "<{form}> from <{sender}>: {} {}", reply.code, reply.text);
        }
    }
    // Neither a failed login nor a reset gives leave.
    let mut client = Smtp::ehlo(relay.port);
    client.command("AUTH PLAIN AHRlc3RlcgB3cm9uZw==");
    client.expect("RSET", 250);
    client.expect("MAIL FROM:<someone@dest.test>", 250);
    assert!(client.command("RCPT TO:<victim@foreign.test>").code >= 500);
    // The domains that it serves it serves.
    client.expect("RCPT TO:<someone@dest.test>", 250);
    client.expect("RCPT TO:<someone@DEST.Test>", 250);
    client.expect("RCPT TO:<postmaster@relay.test>", 250);
}

#[test]
fn a_local_part_that_looks_like_a_route_leads_nowhere_else() {
    let (mut sink, relay) = relay();
    for form in [
        "victim%foreign.test@relay.test",
        "victim%foreign.test@dest.test",
        "\"victim@foreign.test\"@relay.test",
        "\"victim@foreign.test\"@dest.test",
        "\"victim%foreign.test\"@dest.test",
        "foreign.test!victim@relay.test",
        "foreign.test!victim@dest.test",
    ] {
        let token = token();
        let mut client = Smtp::ehlo(relay.port);
        client.expect(&format!("MAIL FROM:<snd-{token}@sender.test>"), 250);
        // It may be refused. If it is not, only the domain behind the last @ counts, and the local
        // part stays what it is.
        if client.command(&format!("RCPT TO:<{form}>")).code != 250 {
            continue;
        }
        client.expect("DATA", 354);
        client.send(support::data(&token));
        assert_eq!(client.reply().code, 250, "{form}\n{}", client.log());
        assert_eq!(sink.one(&token).recipients[0].0, form);
    }
}

#[test]
fn a_client_of_another_protocol_is_sent_away() {
    let (_sink, relay) = relay();
    for first in [
        "GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n",
        "POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nEHLO a\r\nMAIL FROM:<a@dest.test>\r\n",
    ] {
        let mut client = Smtp::connect(relay.port);
        client.send(first);
        // Whatever it says, it takes no transaction from there.
        while let Some(reply) = client.try_reply() {
            assert!(reply.code >= 400 || reply.code == 221, "{}", client.log());
            if reply.code == 421 || reply.code == 221 || reply.code == 554 {
                break;
            }
            client.send("QUIT\r\n");
        }
        support::client::submit(relay.port, &token());
    }
}
