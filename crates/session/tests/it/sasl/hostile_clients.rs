//! A server against messages that should never come.

use posthaste_session::sasl::{SaslError, ScramKey, ServerMechanism, ServerStep};
use posthaste_wire::Mechanism::{self, *};
use proptest::{collection::vec, prelude::*};

use crate::sasl::support::{
    Application, CLIENT_NONCE, PASSWORD, SALT, SERVER_NONCE, USER, encode, scram, server, server_context, unknown_users,
};

const MALFORMED: SaslError = SaslError::Malformed;
const WRONG: SaslError = SaslError::Credentials;

/// The mechanism, the client's messages, and the error at the last. A line that begins with `raw:`
/// is sent as it is.
type Row = (Mechanism, &'static [&'static [u8]], SaslError);

const ROWS: &[Row] = &[
    // PLAIN
    (Plain, &[b"raw:!!!"], SaslError::Base64),
    (Plain, &[b"raw:AHRpbQB4"], SaslError::Credentials),
    (Plain, &[b"raw:AHRpbQB4AA="], SaslError::Base64),
    (Plain, &[b"raw:AHRpbQB4\r"], SaslError::Base64),
    (Plain, &[b"raw:AHRp bQB4"], SaslError::Base64),
    (Plain, &[b"raw:="], SaslError::Base64),
    (Plain, &[b"raw:AB=="], SaslError::Base64),
    (Plain, &[b""], MALFORMED),
    (Plain, &[b"user"], MALFORMED),
    (Plain, &[b"\0user"], MALFORMED),
    (Plain, &[b"\0\0pencil"], MALFORMED),
    (Plain, &[b"\0user\0"], MALFORMED),
    (Plain, &[b"\0user\0pencil\0"], MALFORMED),
    (Plain, &[b"\0user\0pen\0cil"], MALFORMED),
    (Plain, &[b"\0user\0\xff"], MALFORMED),
    (Plain, &[b"\xc0\x80user\0pencil"], MALFORMED),
    // LOGIN
    (Login, &[b""], MALFORMED),
    (Login, &[b"user", b""], MALFORMED),
    (Login, &[b"us\0er"], MALFORMED),
    (Login, &[b"user", b"pen\0cil"], MALFORMED),
    (Login, &[b"\xff"], MALFORMED),
    (Login, &[b"user", b"raw:!"], SaslError::Base64),
    (Login, &[b"user", b"pencils"], WRONG),
    // EXTERNAL, ANONYMOUS
    (External, &[b"a\0b"], MALFORMED),
    (External, &[b"\xff"], MALFORMED),
    (Anonymous, &[b"a\r\nb"], MALFORMED),
    (Anonymous, &[b"a\x1b[2Jb"], MALFORMED),
    (Anonymous, &[b"\xe2\x80\xa8"], MALFORMED),
    (Anonymous, &[b"\xe2\x80\xaemoc.elpmaxe@"], MALFORMED),
    (Anonymous, &[&[b'x'; 256]], MALFORMED),
    (Anonymous, &[b"\xff"], MALFORMED),
    // XOAUTH2
    (XOauth2, &[b""], MALFORMED),
    (XOauth2, &[b"\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer t\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer t"], MALFORMED),
    (XOauth2, &[b"user=\x01auth=Bearer t\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Basic t\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer  t\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer \x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer t t\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer t\x01\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\r\n\x01auth=Bearer t\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer \xff\x01\x01"], MALFORMED),
    (XOauth2, &[b"user=u\x01auth=Bearer t\x01\x01", b"user=u\x01auth=Bearer good\x01\x01"], WRONG),
    (XOauth2, &[b"user=u\x01auth=\x01\x01", b""], WRONG),
    // OAUTHBEARER
    (OauthBearer, &[b""], MALFORMED),
    (OauthBearer, &[b"\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01auth=Bearer t\x01"], MALFORMED),
    (OauthBearer, &[b"n,,auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01auth=Bearer t\x01\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01auth=Bearer t\x01auth=Bearer s\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01host=a\x01host=b\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01port=0\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01port=025\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01port=65536\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01port=+25\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01k3y=v\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01=v\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01key\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01host=\0\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01host=\xc3\xa9\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"p=tls-exporter,,\x01auth=Bearer t\x01\x01"], MALFORMED),
    // RFC 7628 section 4.4 has this one, although its own ABNF does not.
    (OauthBearer, &[b"n,user=someuser@example.com,\x01auth=Bearer t\x01\x01"], MALFORMED),
    (OauthBearer, &[b"n,,\x01auth=Bearer bad\x01\x01", b"\x01"], WRONG),
    (OauthBearer, &[b"n,,\x01auth=Bearer bad\x01\x01", b"raw:!!!"], WRONG),
    (OauthBearer, &[b"n,,\x01auth=\x01\x01", b"\x01"], WRONG),
    // SCRAM's first message
    (ScramSha256, &[b""], MALFORMED),
    (ScramSha256, &[b"n=user,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=user"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r="], MALFORMED),
    (ScramSha256, &[b"n,,n=,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,r=abc,n=user"], MALFORMED),
    (ScramSha256, &[b"n,,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,m=x,n=user,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc,m=x"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc,n=other"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc,"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc,x"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc,xy=z"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc,x=\0"], MALFORMED),
    (ScramSha256, &[b"n,,n=us=er,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=us=2cer,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=us\0er,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=\x07,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=\xff,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=a c"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=\xc3\xa9"], MALFORMED),
    (ScramSha256, &[b"n,a=,n=user,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,b=x,n=user,r=abc"], MALFORMED),
    (ScramSha256, &[b"q,,n=user,r=abc"], MALFORMED),
    (ScramSha256, &[b"p=tls-exporter,,n=user,r=abc"], MALFORMED),
    (ScramSha256Plus, &[b"n,,n=user,r=abc"], MALFORMED),
    (ScramSha256Plus, &[b"y,,n=user,r=abc"], MALFORMED),
    (ScramSha256Plus, &[b"p=,,n=user,r=abc"], MALFORMED),
    (ScramSha256Plus, &[b"p=tls-unique,,n=user,r=abc"], WRONG),
    (ScramSha256Plus, &[b"p=TLS-EXPORTER,,n=user,r=abc"], WRONG),
    // SCRAM's last message
    (ScramSha256, &[b"n,,n=user,r=abc", b""], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,r=abc"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,r=abc,p="], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,r=abc,p=AAAA"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"r=abc,c=biws,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,r=abc,m=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,x=y"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=!,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"\xff"], MALFORMED),
    (ScramSha256, &[b"n,,n=user,r=abc", b"c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], WRONG),
];

/// Says these messages, and returns the result of the last.
fn say(server: &mut ServerMechanism, lines: &[&[u8]]) -> Result<ServerStep, SaslError> {
    let mut application = Application::new(USER, PASSWORD);
    let mut result = Ok(ServerStep::Challenge(Vec::new()));
    for line in lines {
        assert!(matches!(result, Ok(ServerStep::Challenge(_))), "{result:?} before {line:?}");
        let text = line.strip_prefix(b"raw:").map_or_else(|| encode(line).into_bytes(), <[u8]>::to_vec);
        result = server.respond(&text).and_then(|step| application.answer(server, step));
    }
    result
}

#[test]
fn each_hostile_message_is_refused_and_ends_the_exchange() {
    for (mechanism, lines, error) in ROWS {
        let shown = || format!("{mechanism} {:?}", lines.iter().map(|line| line.escape_ascii().to_string()));
        let mut server = server(*mechanism);
        let said = say(&mut server, lines);
        assert_eq!(said.err(), Some(*error), "{}", shown());
        assert!(server.respond(b"AHVzZXIAcGVuY2ls").is_err(), "{}", shown());
        assert!(server.decide(Ok("root".into())).is_err(), "{}", shown());
        assert!(server.found(Ok(None)).is_err(), "{}", shown());
    }
}

#[test]
fn an_endless_line_is_too_long_for_every_mechanism() {
    let text = "A".repeat(12_288);
    for &mechanism in Mechanism::ALL.iter().filter(|mechanism| **mechanism != CramMd5) {
        assert_eq!(server(mechanism).respond(text.as_bytes()).err(), Some(SaslError::TooLong));
        assert_eq!(server(mechanism).start(Some(&text)).err(), Some(SaslError::TooLong));
    }
}

#[test]
fn mechanisms_without_a_servers_side_are_unknown() {
    for mechanism in [CramMd5, ScramSha256Plus] {
        let begun = ServerMechanism::new(mechanism, server_context(Plain));
        assert_eq!(begun.err(), Some(SaslError::UnknownMechanism), "{mechanism}");
    }
    let mut context = server_context(External);
    context.external_identity = None;
    let mut server = ServerMechanism::new(External, context).unwrap();
    assert_eq!(server.start(Some("=")).err(), Some(WRONG));
}

#[test]
fn errors_have_the_replies_of_rfc_4954() {
    for (error, reply) in [
        (SaslError::UnknownMechanism, "504 5.5.4"),
        (SaslError::Base64, "501 5.5.2"),
        (SaslError::Malformed, "501 5.5.2"),
        (SaslError::TooLong, "500 5.5.6"),
        (SaslError::Credentials, "535 5.7.8"),
        (SaslError::TooWeak, "534 5.7.9"),
        (SaslError::Transition, "432 4.7.12"),
        (SaslError::Unavailable, "454 4.7.0"),
    ] {
        assert!(error.refusal().reply().as_bytes().starts_with(reply.as_bytes()), "{error}");
    }
}

/// A hand-made client that proves whatever it says with the right password.
fn proved(first: &str, claimed: &str, nonce: &str, suffix: &str) -> Result<ServerStep, SaslError> {
    let mut server = server(ScramSha256);
    let Ok(ServerStep::Challenge(challenge)) = say(&mut server, &[first.as_bytes()]) else { panic!("{first}") };
    let server_first = String::from_utf8(challenge).unwrap();
    let bare = first.splitn(3, ',').nth(2).unwrap();
    let without_proof = format!("c={},r={nonce}{suffix}", encode(claimed));
    let (proof, _) = scram(PASSWORD, &SALT, 4_096, &format!("{bare},{server_first},{without_proof}"));
    say(&mut server, &[format!("{without_proof},p={proof}").as_bytes()])
}

#[test]
fn a_right_proof_of_something_else_is_no_proof() {
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    let nonce = format!("{CLIENT_NONCE}{SERVER_NONCE}");
    assert!(matches!(proved(&first, "n,,", &nonce, ""), Ok(ServerStep::Challenge(_))), "the one that is right");
    assert!(matches!(proved(&first, "n,,", &nonce, ",x=ext"), Ok(ServerStep::Challenge(_))), "and with an extension");
    assert!(matches!(proved(&format!("{first},x=y"), "n,,", &nonce, ""), Ok(ServerStep::Challenge(_))));
    for (claimed, nonce, error) in [
        ("y,,", nonce.as_str(), WRONG),
        ("n,a=root,", &nonce, WRONG),
        ("n,,x", &nonce, WRONG),
        ("", &nonce, MALFORMED),
        // A nonce of another exchange, the client's alone, and one with a suffix.
        ("n,,", "AQEBAQEBAQEBAQEBAQEBAQEBolder", WRONG),
        ("n,,", CLIENT_NONCE, WRONG),
        ("n,,", &format!("{nonce}x"), WRONG),
    ] {
        assert_eq!(proved(&first, claimed, nonce, "").err(), Some(error), "{claimed} {nonce}");
    }
}

#[test]
fn an_exchange_that_is_replayed_meets_another_nonce() {
    let mut heard = Vec::new();
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    for server_nonce in [[2; 18], [3; 18]] {
        let mut context = server_context(ScramSha256);
        context.nonce = posthaste_session::sasl::Nonce::from_random(server_nonce);
        let mut server = ServerMechanism::new(ScramSha256, context).unwrap();
        let Ok(ServerStep::Challenge(challenge)) = say(&mut server, &[first.as_bytes()]) else { panic!() };
        if heard.is_empty() {
            let server_first = String::from_utf8(challenge).unwrap();
            let without_proof = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE}");
            let bare = &first["n,,".len()..];
            let (proof, _) = scram(PASSWORD, &SALT, 4_096, &format!("{bare},{server_first},{without_proof}"));
            heard = format!("{without_proof},p={proof}").into_bytes();
            assert!(matches!(say(&mut server, &[&heard]), Ok(ServerStep::Challenge(_))));
        } else {
            assert_eq!(say(&mut server, &[&heard]).err(), Some(WRONG));
        }
    }
}

#[test]
fn only_an_empty_line_acknowledges_the_servers_signature() {
    let mut server = server(ScramSha256);
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    let Ok(ServerStep::Challenge(challenge)) = say(&mut server, &[first.as_bytes()]) else { panic!() };
    let server_first = String::from_utf8(challenge).unwrap();
    let without_proof = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE}");
    let message = format!("{},{server_first},{without_proof}", &first["n,,".len()..]);
    let (proof, signature) = scram(PASSWORD, &SALT, 4_096, &message);
    match say(&mut server, &[format!("{without_proof},p={proof}").as_bytes()]) {
        Ok(ServerStep::Challenge(text)) => assert_eq!(String::from_utf8(text).unwrap(), format!("v={signature}")),
        step => panic!("{step:?}"),
    }
    assert_eq!(say(&mut server, &[b"x"]).err(), Some(MALFORMED));
}

#[test]
fn a_client_cannot_tell_which_users_exist() {
    let challenge = |name: &str| {
        let first = format!("n,,n={name},r=abc");
        match say(&mut server(ScramSha256), &[first.as_bytes()]) {
            Ok(ServerStep::Challenge(text)) => String::from_utf8(text).unwrap(),
            step => panic!("{step:?}"),
        }
    };
    let known = challenge(USER);
    let unknown = challenge("nobody");
    assert_eq!(unknown, challenge("nobody"), "stable");
    assert_ne!(unknown, challenge("nobody2"), "another name, another salt");
    // The same form: nonce, a salt of 16 octets, the iterations.
    let form = |text: &str| text.split(',').map(|part| (part[..2].to_owned(), part.len())).collect::<Vec<_>>();
    assert_eq!(form(&known), form(&unknown));
    assert!(unknown.ends_with(",i=4096"));

    // The made-up key belongs to no user, even for an attacker who knows its secret.
    let key = unknown_users().key("nobody");
    assert!(!key.verify(PASSWORD) && !key.verify(""));
    let copy: ScramKey = key.to_text().expose().parse().unwrap();
    assert_eq!(copy.salt(), key.salt());
}

#[test]
fn a_failed_look_up_or_a_step_out_of_turn_is_no_login() {
    let mut scram = server(ScramSha256);
    let first = encode("n,,n=user,r=abc");
    assert!(matches!(scram.start(Some(&first)), Ok(ServerStep::ScramKey(_))));
    assert_eq!(scram.found(Err(SaslError::Unavailable)).err(), Some(SaslError::Unavailable));
    assert!(scram.found(Ok(None)).is_err());

    // Decided although a key was asked for, and before any question.
    let mut scram = server(ScramSha256);
    assert!(scram.start(Some(&first)).is_ok());
    assert_eq!(scram.decide(Ok("root".into())).err(), Some(SaslError::Unavailable));
    let mut plain = server(Plain);
    assert_eq!(plain.decide(Ok("root".into())).err(), Some(SaslError::Unavailable));
    assert!(server(Plain).found(Ok(None)).is_err());

    // Started again, in the middle and at the end.
    let mut plain = server(Plain);
    assert!(matches!(plain.start(Some("AHVzZXIAeA==")), Ok(ServerStep::Password(_))));
    assert!(plain.start(None).is_err());
    assert!(matches!(plain.decide(Ok(USER.into())), Ok(ServerStep::Done(_))));
    assert!(plain.start(None).is_err() && plain.start(Some("AHVzZXIAeA==")).is_err());

    // A response in place of a decision.
    let mut plain = server(Plain);
    assert!(matches!(plain.start(Some("AHVzZXIAeA==")), Ok(ServerStep::Password(_))));
    assert_eq!(plain.respond(b"AHVzZXIAeA==").err(), Some(SaslError::Unavailable));
    assert!(plain.decide(Ok("root".into())).is_err());

    // A failure that is not the token's has no reasons in JSON.
    let mut token = server(OauthBearer);
    assert!(matches!(token.start(Some(&encode("n,,\x01auth=Bearer t\x01\x01"))), Ok(ServerStep::Token(_))));
    assert_eq!(token.decide(Err(SaslError::Unavailable)).err(), Some(SaslError::Unavailable));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_panics_or_logs_in(lines in vec((any::<bool>(), vec(any::<u8>(), 0..80)), 1..5)) {
        for &mechanism in &[Plain, Login, XOauth2, OauthBearer, ScramSha256, ScramSha256Plus] {
            let mut server = server(mechanism);
            let mut application = Application::new(USER, PASSWORD);
            for (raw, line) in &lines {
                let text = if *raw { line.clone() } else { encode(line).into_bytes() };
                let step = server.respond(&text).and_then(|step| application.answer(&mut server, step));
                prop_assert!(!matches!(step, Ok(ServerStep::Done(_))));
            }
        }
    }

    #[test]
    fn messages_that_are_almost_right_neither_panic_nor_log_in(
        pieces in vec(prop_oneof![
            Just("n,,"), Just("y,,"), Just("p=tls-exporter,,"), Just("n=user,"), Just("r="), Just("abc"), Just(","),
            Just("c=biws,"), Just(",p="), Just("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), Just("m=x,"), Just("="),
            Just("a=x"), Just("\x01"), Just("auth="), Just("Bearer "), Just("user="), Just("\0"), Just("user"),
        ], 0..12),
        more in "[a-z=,\u{1}\u{0}]{0,12}",
    ) {
        let text = format!("{}{more}", pieces.concat());
        for &mechanism in &[Plain, XOauth2, OauthBearer, ScramSha256, ScramSha256Plus] {
            let mut server = server(mechanism);
            let mut application = Application::new(USER, PASSWORD);
            for _ in 0..3 {
                let step = server.respond(encode(&text).as_bytes())
                    .and_then(|step| application.answer(&mut server, step));
                prop_assert!(!matches!(step, Ok(ServerStep::Done(_))));
            }
        }
    }
}
