//! A client against challenges that should never come.

use posthaste_session::sasl::{ClientMechanism, ClientStep, MAX_ITERATIONS, ServerFault};
use posthaste_wire::Mechanism::{self, *};
use proptest::{collection::vec, prelude::*};

use crate::sasl::support::{CLIENT_NONCE, PASSWORD, USER, client, decode, encode, scram};

const MALFORMED: ServerFault = ServerFault::Malformed;
const UNEXPECTED: ServerFault = ServerFault::UnexpectedChallenge;

/// The mechanism, the challenges, with `{c}` for the client's nonce, and the fault at the last. One
/// that begins with `raw:` comes as it is.
type Row = (Mechanism, &'static [&'static str], ServerFault);

const ROWS: &[Row] = &[
    // One challenge too many.
    (Plain, &["", ""], UNEXPECTED),
    (Login, &["Username:", "Password:", "Password:"], UNEXPECTED),
    (External, &["", "x"], UNEXPECTED),
    (Anonymous, &["", ""], UNEXPECTED),
    (CramMd5, &["<1@x>", "<2@x>"], UNEXPECTED),
    (XOauth2, &["", "{}", "{}"], UNEXPECTED),
    (OauthBearer, &["", "{}", ""], UNEXPECTED),
    // Text where there should be none, and the reverse.
    (Plain, &["x"], MALFORMED),
    (OauthBearer, &["{}"], MALFORMED),
    (ScramSha256, &["r=abc,s=c2FsdHNhbHQ=,i=4096"], MALFORMED),
    (CramMd5, &[""], MALFORMED),
    // Not base64.
    (Plain, &["raw:!"], ServerFault::Base64),
    (CramMd5, &["raw:<1@x>"], ServerFault::Base64),
    (OauthBearer, &["", "raw:{}"], ServerFault::Base64),
    (ScramSha256, &["", "raw:r=abc"], ServerFault::Base64),
    // SCRAM: the salt.
    (ScramSha256, &["", ""], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ="], MALFORMED),
    (ScramSha256, &["", "r={c}x,i=4096"], MALFORMED),
    (ScramSha256, &["", "s=c2FsdHNhbHQ=,i=4096"], MALFORMED),
    (ScramSha256, &["", "s=c2FsdHNhbHQ=,r={c}x,i=4096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,i=4096,s=c2FsdHNhbHQ="], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=,i=4096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=!,i=4096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i="], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=-4096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=+4096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=04096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=0x1000"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096,"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096,i=5000"], MALFORMED),
    (ScramSha256, &["", "r={c}\u{e9},s=c2FsdHNhbHQ=,i=4096"], MALFORMED),
    (ScramSha256, &["", "r={c}\0,s=c2FsdHNhbHQ=,i=4096"], MALFORMED),
    (ScramSha256, &["", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="], MALFORMED),
    (ScramSha256, &["", "m=x,r={c}x,s=c2FsdHNhbHQ=,i=4096"], ServerFault::Extension),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096,m=x"], ServerFault::Extension),
    (ScramSha256, &["", "r={c},s=c2FsdHNhbHQ=,i=4096"], ServerFault::Nonce),
    (ScramSha256, &["", "r=x{c},s=c2FsdHNhbHQ=,i=4096"], ServerFault::Nonce),
    (ScramSha256, &["", "r=AQEBolder,s=c2FsdHNhbHQ=,i=4096"], ServerFault::Nonce),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=1"], ServerFault::Iterations),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4095"], ServerFault::Iterations),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=1000001"], ServerFault::Iterations),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4294967295"], ServerFault::Iterations),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=99999999999999999999999"], ServerFault::Iterations),
    // SCRAM: the signature.
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", ""], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "v="], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "v=AAAA"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "x=y"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "e="], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "m=x,v=AAAA"], ServerFault::Extension),
    (
        ScramSha256,
        &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
        ServerFault::Signature,
    ),
    // The salt again, where the signature should be.
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "r={c}x,s=c2FsdHNhbHQ=,i=4096"], MALFORMED),
    (ScramSha256, &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "e=other-error", "e=other-error"], UNEXPECTED),
];

fn challenge(client: &mut ClientMechanism, text: &str) -> ClientStep {
    let text = text.replace("{c}", CLIENT_NONCE);
    let line = text.strip_prefix("raw:").map_or_else(|| encode(&text), String::from);
    client.respond(line.as_bytes())
}

#[test]
fn a_client_gives_up_at_each_hostile_challenge_and_for_good() {
    for (mechanism, challenges, fault) in ROWS {
        let mut client = client(*mechanism);
        let (last, before) = challenges.split_last().unwrap();
        for text in before {
            let step = challenge(&mut client, text);
            assert!(matches!(step, ClientStep::Respond(_)), "{mechanism} {challenges:?}: {step:?} to {text}");
        }
        match challenge(&mut client, last) {
            ClientStep::GiveUp(found) => assert_eq!(found, *fault, "{mechanism} {challenges:?}"),
            ClientStep::Respond(_) => panic!("{mechanism} {challenges:?}: it answers"),
        }
        for text in ["", "v=AAAA", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "<1@x>"] {
            assert!(matches!(challenge(&mut client, text), ClientStep::GiveUp(_)), "{mechanism} {challenges:?}");
        }
        assert_eq!(client.finish().is_err(), *mechanism == ScramSha256, "{mechanism}");
    }
}

#[test]
fn octets_that_are_no_text_are_no_scram() {
    for before in [&[""][..], &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096"]] {
        let mut client = client(ScramSha256);
        for text in before {
            assert!(matches!(challenge(&mut client, text), ClientStep::Respond(_)));
        }
        assert!(matches!(client.respond(encode(b"\xff").as_bytes()), ClientStep::GiveUp(ServerFault::Malformed)));
    }
}

#[test]
fn an_endless_challenge_is_too_long() {
    let long = "A".repeat(12_288);
    for &mechanism in Mechanism::ALL.iter().filter(|mechanism| **mechanism != Login) {
        let step = client(mechanism).respond(long.as_bytes());
        assert!(matches!(step, ClientStep::GiveUp(ServerFault::TooLong)), "{mechanism}");
    }
    let nonce = format!("r={{c}}{},s=c2FsdHNhbHQ=,i=4096", "x".repeat(256));
    let mut client = client(ScramSha256);
    assert!(matches!(challenge(&mut client, ""), ClientStep::Respond(_)));
    assert!(matches!(challenge(&mut client, &nonce), ClientStep::GiveUp(ServerFault::Malformed)));
}

#[test]
fn logins_prompts_may_say_anything() {
    let mut client = client(Login);
    for (prompt, answer) in [("raw:Username:", USER), ("Geheimnis?", PASSWORD)] {
        let ClientStep::Respond(text) = challenge(&mut client, prompt) else { panic!("{prompt}") };
        assert_eq!(decode(text.expose()), answer);
    }
}

#[test]
fn an_acceptance_without_a_proof_is_an_error() {
    // 235 at once, after the proof, and after an error.
    for challenges in
        [&[][..], &[""], &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096"], &["", "r={c}x,s=c2FsdHNhbHQ=,i=4096", "e=other-error"]]
    {
        for mechanism in [ScramSha256, ScramSha256Plus] {
            let mut client = client(mechanism);
            for text in challenges {
                assert!(matches!(challenge(&mut client, text), ClientStep::Respond(_)));
            }
            assert_eq!(client.finish(), Err(ServerFault::NotProved), "{challenges:?}");
        }
    }
}

#[test]
fn a_server_that_knows_the_key_is_believed_and_may_ask_no_more() {
    let mut client = client(ScramSha256);
    let first = decode(client.initial_response().unwrap().expose());
    let server_first = format!("r={CLIENT_NONCE}x,s=c2FsdHNhbHQ=,i=4096,x=ext");
    let ClientStep::Respond(last) = challenge(&mut client, &server_first) else { panic!() };
    let last = decode(last.expose());
    let (without_proof, proof) = last.rsplit_once(",p=").unwrap();
    let message = format!("{},{server_first},{without_proof}", first.strip_prefix("n,,").unwrap());
    let (expected, signature) = scram(PASSWORD, b"saltsalt", 4_096, &message);
    assert_eq!(proof, expected);
    let ClientStep::Respond(empty) = challenge(&mut client, &format!("v={signature},x=ext")) else { panic!() };
    assert_eq!(empty.expose(), "");
    assert_eq!(client.finish(), Ok(()));
    assert!(matches!(challenge(&mut client, ""), ClientStep::GiveUp(ServerFault::UnexpectedChallenge)));
    assert_eq!(client.finish(), Err(ServerFault::NotProved), "the server is not proved");
}

#[test]
fn the_most_iterations_exceed_what_owasp_asks_for() {
    assert!((600_000..=1_000_000).contains(&MAX_ITERATIONS));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_panics_or_proves_a_server(lines in vec((any::<bool>(), vec(any::<u8>(), 0..80)), 1..5),
        initial: bool) {
        for &mechanism in Mechanism::ALL {
            let mut client = client(mechanism);
            if initial {
                let _ = client.initial_response();
            }
            for (raw, line) in &lines {
                let _ = client.respond(&if *raw { line.clone() } else { encode(line).into_bytes() });
            }
            prop_assert!(client.finish().is_err() || !matches!(mechanism, ScramSha256 | ScramSha256Plus));
        }
    }
}
