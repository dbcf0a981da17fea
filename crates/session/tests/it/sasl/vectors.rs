//! The RFCs' examples. `C:` and `S:` are messages, `c:` and `s:` the same in base64 as they travel.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_session::sasl::{
    BearerToken, ClientContext, ClientCredentials, ClientMechanism, ClientStep, Credentials, KeyError, Protection,
    SaslError, ScramKey, ServerContext, ServerMechanism, ServerStep, prepare,
};
use posthaste_wire::{Mechanism, MechanismSet, Secret};

use crate::sasl::support::{decode, encode, password, unknown_users};

struct Vector {
    source: &'static str,
    mechanism: Mechanism,
    credentials: fn() -> ClientCredentials,
    /// The client's and the server's, and the salt in base64.
    scram: [&'static str; 3],
    /// With it the server refuses.
    refusal: Option<SaslError>,
    lines: &'static [&'static str],
}

const NO_SCRAM: [&str; 3] = ["x", "y", "W22ZaJ0SNY7soEsUEjb6gQ=="];

const VECTORS: &[Vector] = &[
    Vector {
        source: "RFC 4616 section 4, first",
        mechanism: Mechanism::Plain,
        credentials: || password("tim", "tanstaaftanstaaf").into(),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["C:\0tim\0tanstaaftanstaaf"],
    },
    Vector {
        source: "RFC 4616 section 4, second",
        mechanism: Mechanism::Plain,
        credentials: || {
            let who = password("Kurt", "xipj3plmq");
            Credentials { authorization_identity: Some("Ursel".into()), ..who }.into()
        },
        scram: NO_SCRAM,
        refusal: Some(SaslError::Credentials),
        lines: &["C:Ursel\0Kurt\0xipj3plmq"],
    },
    Vector {
        source: "RFC 4954 section 4.1: PLAIN",
        mechanism: Mechanism::Plain,
        credentials: || Credentials { authorization_identity: Some("test".into()), ..password("test", "1234") }.into(),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["c:dGVzdAB0ZXN0ADEyMzQ="],
    },
    Vector {
        source: "draft-murchison-sasl-login",
        mechanism: Mechanism::Login,
        credentials: || password("tim", "tanstaaftanstaaf").into(),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["s:VXNlcm5hbWU6", "C:tim", "s:UGFzc3dvcmQ6", "C:tanstaaftanstaaf"],
    },
    Vector {
        source: "RFC 2195 section 2",
        mechanism: Mechanism::CramMd5,
        credentials: || password("tim", "tanstaaftanstaaf").into(),
        scram: NO_SCRAM,
        refusal: None,
        lines: &[
            "s:PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+",
            "c:dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw",
        ],
    },
    Vector {
        source: "RFC 4505 section 4",
        mechanism: Mechanism::Anonymous,
        credentials: || ClientCredentials::Anonymous("sirhc".into()),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["c:c2lyaGM="],
    },
    Vector {
        source: "RFC 4422 appendix A.2",
        mechanism: Mechanism::External,
        credentials: || ClientCredentials::External(Some("fred@example.com".into())),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["C:fred@example.com"],
    },
    Vector {
        source: "RFC 4422 appendix A.1",
        mechanism: Mechanism::External,
        credentials: || ClientCredentials::External(None),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["C:"],
    },
    Vector {
        source: "RFC 7628 section 4.1",
        mechanism: Mechanism::OauthBearer,
        credentials: || bearer("user@example.com", Some(("server.example.com", 587))),
        scram: NO_SCRAM,
        refusal: None,
        lines: &["C:n,a=user@example.com,\x01host=server.example.com\x01port=587\x01\
             auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"],
    },
    Vector {
        source: "RFC 7628 section 4.1, in base64",
        mechanism: Mechanism::OauthBearer,
        credentials: || bearer("user@example.com", Some(("server.example.com", 143))),
        scram: NO_SCRAM,
        refusal: None,
        lines: &[
            "c:bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRj\
             Mk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB",
        ],
    },
    Vector {
        source: "RFC 7628 section 4.3",
        mechanism: Mechanism::OauthBearer,
        credentials: || bearer("expired@example.com", None),
        scram: NO_SCRAM,
        refusal: Some(SaslError::Credentials),
        lines: &[
            "C:n,a=expired@example.com,\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
            r#"S:{"status":"invalid_token"}"#,
            "c:AQ==",
        ],
    },
    Vector {
        source: "Google's XOAUTH2",
        mechanism: Mechanism::XOauth2,
        credentials: || {
            let token = Secret::new("ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg".into());
            let user = Some("someuser@example.com".into());
            BearerToken { authorization_identity: user, token, host: None, port: None }.into()
        },
        scram: NO_SCRAM,
        refusal: None,
        lines: &[
            "c:dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZ\
             Mjl0Q2cBAQ==",
        ],
    },
    Vector {
        source: "Google's XOAUTH2, refused",
        mechanism: Mechanism::XOauth2,
        credentials: || bearer("expired@example.com", None),
        scram: NO_SCRAM,
        refusal: Some(SaslError::Credentials),
        lines: &[
            "C:user=expired@example.com\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
            r#"S:{"status":"401","schemes":"bearer"}"#,
            "C:",
        ],
    },
    Vector {
        source: "RFC 7677 section 3",
        mechanism: Mechanism::ScramSha256,
        credentials: || password("user", "pencil").into(),
        scram: ["rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ=="],
        refusal: None,
        lines: &[
            "C:n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "S:r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "C:c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "S:v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            "C:",
        ],
    },
    Vector {
        // The messages up to the proof, which has SHA-1 there.
        source: "RFC 5802 section 5",
        mechanism: Mechanism::ScramSha256,
        credentials: || password("user", "pencil").into(),
        scram: ["fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92"],
        refusal: None,
        lines: &[
            "C:n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "S:r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        ],
    },
];

fn bearer(user: &str, site: Option<(&str, u16)>) -> ClientCredentials {
    BearerToken {
        authorization_identity: Some(user.into()),
        token: Secret::new("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==".into()),
        host: site.map(|(host, _)| host.into()),
        port: site.map(|(_, port)| port),
    }
    .into()
}

/// A message, from either form.
fn message(line: &str) -> String {
    let (kind, text) = line.split_at(2);
    if matches!(kind, "c:" | "s:") { decode(text) } else { text.into() }
}

#[test]
fn clients_say_what_the_rfcs_say() {
    for vector in VECTORS {
        let mut context = ClientContext::new(vector.scram[0].parse().unwrap());
        context.protection = Protection::Verified;
        let mut client =
            ClientMechanism::choose(MechanismSet::of(&[vector.mechanism]), (vector.credentials)(), context).unwrap();
        let mut said = client.initial_response();
        for line in vector.lines {
            if line.starts_with(['S', 's']) {
                let ClientStep::Respond(response) = client.respond(encode(message(line)).as_bytes()) else {
                    panic!("{}: {line}", vector.source)
                };
                said = Some(response);
            } else {
                let text = said.take().unwrap();
                let text = text.expose().strip_prefix('=').unwrap_or(text.expose());
                assert_eq!(decode(text), message(line), "{}", vector.source);
            }
        }
        let whole = vector.source != "RFC 5802 section 5";
        assert_eq!(client.finish().is_ok(), whole, "{}", vector.source);
    }
}

#[test]
fn servers_say_what_the_rfcs_say() {
    for vector in VECTORS.iter().filter(|vector| vector.mechanism != Mechanism::CramMd5) {
        let mut context = ServerContext::new(vector.scram[1].parse().unwrap(), unknown_users());
        context.external_identity = Some("CN=fred".into());
        let mut server = ServerMechanism::new(vector.mechanism, context).unwrap();
        let salt = STANDARD.decode(vector.scram[2]).unwrap();
        // The server begins where it has the first line.
        let mut step = vector.lines[0].starts_with(['S', 's']).then(|| server.start(None));
        for line in vector.lines {
            if line.starts_with(['C', 'c']) {
                let next = server.respond(encode(message(line)).as_bytes());
                step = Some(next.and_then(|step| decide(&mut server, step, &salt, vector.refusal)));
            } else {
                match step.take() {
                    Some(Ok(ServerStep::Challenge(text))) => assert_eq!(text, message(line).as_bytes()),
                    step => panic!("{}: {step:?} and not {line}", vector.source),
                }
            }
        }
        match (step, vector.refusal) {
            (Some(Ok(ServerStep::Done(_))), None) => {}
            (Some(Err(error)), Some(refusal)) => assert_eq!(error, refusal, "{}", vector.source),
            (None, None) if vector.source == "RFC 5802 section 5" => {}
            (step, _) => panic!("{}: {step:?}", vector.source),
        }
    }
}

fn decide(
    server: &mut ServerMechanism,
    step: ServerStep,
    salt: &[u8],
    refusal: Option<SaslError>,
) -> Result<ServerStep, SaslError> {
    match step {
        step @ (ServerStep::Challenge(_) | ServerStep::Done(_)) => Ok(step),
        ServerStep::ScramKey(user) => {
            assert_eq!(user.authentication_identity, "user");
            server.found(Ok(Some(ScramKey::derive("pencil", salt, 4_096).unwrap())))
        }
        _ => server.decide(refusal.map_or_else(|| Ok("somebody".into()), Err)),
    }
}

#[test]
fn saslprep_does_what_rfc_4013_says() {
    for (text, prepared) in [
        // Section 3.
        ("I\u{ad}X", Some("IX")),
        ("user", Some("user")),
        ("USER", Some("USER")),
        ("\u{aa}", Some("a")),
        ("\u{2168}", Some("IX")),
        ("\u{7}", None),
        ("\u{627}\u{31}", None),
        // Section 2: spaces, nothing left, private and unassigned code points.
        ("a\u{a0}b\u{3000}c", Some("a b c")),
        ("", None),
        ("\u{ad}\u{200d}", None),
        ("\u{e000}", None),
        ("\u{221}", None),
        ("\u{1f600}", None),
        ("\u{627}a\u{628}", None),
        ("\u{627}1\u{628}", Some("\u{627}1\u{628}")),
        ("e\u{301}", Some("\u{e9}")),
    ] {
        assert_eq!(prepare(text).ok().as_deref(), prepared, "{text:?}");
    }
}

#[test]
fn a_stored_key_is_text_that_postgresql_reads_too() {
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let derived = ScramKey::derive("pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4_096).unwrap();
    assert_eq!(derived.to_text().expose(), text);
    let read: ScramKey = text.parse().unwrap();
    assert!(read.verify("pencil") && !read.verify("Pencil") && !read.verify("") && !read.verify("\u{7}"));
    assert_eq!((read.salt().len(), read.iterations()), (16, 4_096));
    for (text, error) in [
        ("", KeyError::Text),
        (&text.replace("256", "1"), KeyError::Text),
        (&text.replace("4096", "x"), KeyError::Text),
        (&text.replace("4096", "4095"), KeyError::Iterations),
        (&text.replace("4096", "1000001"), KeyError::Iterations),
        (&text.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "AAAA"), KeyError::Salt),
        (&text.replace("WG5d8", "WG5d"), KeyError::Text),
        (&text.replace("WG5d8oPm", ""), KeyError::Text),
        (&format!("{text}$"), KeyError::Text),
    ] {
        assert_eq!(text.parse::<ScramKey>().err(), Some(error), "{text}");
    }
    assert_eq!(ScramKey::derive("\u{7}", &[0; 16], 4_096).err(), Some(KeyError::Password));
    assert_eq!(ScramKey::derive("x", &[0; 7], 4_096).err(), Some(KeyError::Salt));
    assert_eq!(ScramKey::derive("x", &[0; 65], 4_096).err(), Some(KeyError::Salt));
}
