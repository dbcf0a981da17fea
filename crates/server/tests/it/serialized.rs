//! Envelopes keep every parameter through any format, and what no command could be is refused.

use posthaste_server::{
    Context, Credentials, Envelope, Peer, PeerAddress,
    test::{Client, client_fingerprint},
    wire::{Mail, Mechanism, MechanismSet, Rcpt},
};
use serde_json::{from_str, from_value, json, to_string, to_value};

use crate::support::{Names, settings};

fn envelope(mail: &str, recipients: &[&str]) -> Envelope {
    let recipients = recipients.iter().map(|text| Rcpt::parse(text).unwrap().into_owned()).collect();
    Envelope::from_commands(Mail::parse(mail).unwrap().into_owned(), recipients)
}

#[test]
fn an_envelope_is_a_map_with_the_parameters_that_it_has() {
    for (mail, recipients, expected) in [
        (
            "<>",
            &["<Postmaster>"][..],
            json!({"mail": {"reverse_path": "<>"}, "recipients": [{"forward_path": "<Postmaster>"}]}),
        ),
        (
            "<m\u{fc}@a.test> SIZE=10 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=a+2Bb AUTH=<> BY=-10;NT HOLDFOR=60 \
             MT-PRIORITY=-3 SOLICIT=org.example:ADV:ADLT X=y Z",
            &["<\"a b\"@c.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c.test RRVS=2014-04-03T23:01:00Z;C X=y"],
            json!({
                "mail": {
                    "reverse_path": "<m\u{fc}@a.test>", "size": 10, "body": "8BITMIME", "smtputf8": true,
                    "require_tls": true, "ret": "HDRS", "envid": "a+2Bb", "auth": "<>", "by": "-10;NT",
                    "hold_for": 60, "mt_priority": -3, "solicit": "org.example:ADV:ADLT", "other": ["X=y", "Z"],
                },
                "recipients": [{
                    "forward_path": "<\"a b\"@c.test>", "notify": "SUCCESS,DELAY", "orcpt": "rfc822;a+2Bb@c.test",
                    "rrvs": "2014-04-03T23:01:00Z;C", "other": ["X=y"],
                }],
            }),
        ),
        (
            "<a@b.test> HOLDUNTIL=2030-01-01T00:00:00Z",
            &["<a@c.test>", "<b@c.test> NOTIFY=NEVER"],
            json!({
                "mail": {"reverse_path": "<a@b.test>", "hold_until": "2030-01-01T00:00:00Z"},
                "recipients": [{"forward_path": "<a@c.test>"}, {"forward_path": "<b@c.test>", "notify": "NEVER"}],
            }),
        ),
    ] {
        let envelope = envelope(mail, recipients);
        assert_eq!(to_value(&envelope).unwrap(), expected, "{mail}");
        let again: Envelope = from_str(&to_string(&envelope).unwrap()).unwrap();
        assert_eq!(again, envelope, "{mail}");
    }
}

#[test]
fn what_is_no_envelope_is_refused() {
    let good = || json!({"mail": {"reverse_path": "<a@b.test>"}, "recipients": [{"forward_path": "<c@d.test>"}]});
    assert!(from_value::<Envelope>(good()).is_ok());
    for (place, field, wrong) in [
        ("mail", "reverse_path", json!("<a@b.test")),
        ("mail", "reverse_path", json!("<a@b.test> SIZE=10")),
        ("mail", "reverse_path", json!("<a@b.test>\r\nRCPT TO:<x@y.test>")),
        // It needs SMTPUTF8.
        ("mail", "reverse_path", json!("<\u{fc}@b.test>")),
        ("mail", "size", json!("10")),
        ("mail", "size", json!(-1)),
        ("mail", "body", json!("9BITMIME")),
        ("mail", "mt_priority", json!(10)),
        ("mail", "envid", json!("a b")),
        ("mail", "envid", json!("a".repeat(101))),
        ("mail", "hold_for", json!(0)),
        ("mail", "hold_for", json!(1_000_000_000)),
        ("mail", "other", json!(["SIZE=10"])),
        ("mail", "other", json!(["X=y Z"])),
        ("mail", "other", json!(["X=y\r\nRSET"])),
        ("mail", "other", json!([""])),
        ("mail", "unknown", json!(1)),
        ("rcpt", "forward_path", json!("<>")),
        ("rcpt", "notify", json!("NEVER,DELAY")),
        ("rcpt", "other", json!(["NOTIFY=NEVER"])),
        ("rcpt", "unknown", json!(1)),
    ] {
        let mut envelope = good();
        let command = if place == "mail" { &mut envelope["mail"] } else { &mut envelope["recipients"][0] };
        command[field] = wrong.clone();
        assert!(from_value::<Envelope>(envelope).is_err(), "{field}: {wrong}");
    }
    let mut both = good();
    both["mail"]["hold_for"] = json!(60);
    both["mail"]["hold_until"] = json!("2030-01-01T00:00:00Z");
    let error = from_value::<Envelope>(both).unwrap_err();
    assert!(error.to_string().contains("exclude each other"), "{error}");
}

#[test]
fn a_format_without_names_of_fields_gets_the_text_of_the_commands() {
    let mail = "<a@b.test> SIZE=10 X=y";
    let envelope = envelope(mail, &["<c@d.test> NOTIFY=NEVER"]);
    let mut octets = Vec::new();
    ciborium::into_writer(&envelope, &mut octets).unwrap();
    assert!(octets.windows(mail.len()).any(|part| part == mail.as_bytes()));
    assert_eq!(ciborium::from_reader::<Envelope, _>(&*octets).unwrap(), envelope);
    let at = octets.windows(4).position(|part| part == b"SIZE").unwrap();
    octets[at + 5] = b'x';
    assert!(ciborium::from_reader::<Envelope, _>(&*octets).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_context_shows_the_client_and_no_secret() {
    let mut settings = settings();
    settings.offers.auth = MechanismSet::of(&[Mechanism::Plain]);
    let names = Names::default();
    let mut client = Client::connect(names.clone()).settings(settings).implicit_tls().certificate().await;
    client.ehlo().await;
    client.login_by(Mechanism::Plain, Credentials::new("me", "right")).await.expect("235");
    client.send("me@a.test", ["you@b.test"], "x\r\n").await.expect("250");
    let peer = names.seen.lock().unwrap()[0].0.clone();
    let mut expected = json!({
        "address": "192.0.2.1:40000", "network": "192.0.2.1", "local": "192.0.2.25:25", "hello": "client.example.org",
        "extended": true, "tls": {
            "version": "TLSv1_3", "cipher_suite": "TLS13_AES_256_GCM_SHA384", "server_name": "mx.example.org",
            "certificate": client_fingerprint()
        },
        "identity": "me", "proxy": null,
    });
    assert_eq!(to_value(&peer).unwrap(), expected);

    let cx = Context::new(Peer::new(PeerAddress::Local, PeerAddress::Local), crate::support::settings().into());
    expected = json!({
        "connection": cx.connection, "host_name": "mx.test", "protocol": "SMTP", "envelope": null,
        "forwarded": null,
        "peer": {
            "address": "local", "network": "127.0.0.1", "local": "local", "hello": null, "extended": false, "tls": null,
            "identity": null, "proxy": null,
        },
    });
    assert_eq!(to_value(&cx).unwrap(), expected);
}
