//! Every mechanism that has both roles, against itself.

use posthaste_session::sasl::{
    ChannelBinding, ClientCredentials, ClientMechanism, Credentials, Nonce, SaslError, ServerMechanism, prepare,
};
use posthaste_testkit::{
    choices::Choices,
    pair::{Pair, Setup},
};
use posthaste_wire::{Mechanism, MechanismSet, Secret};
use proptest::prelude::*;

use crate::sasl::support::{
    Application, Failure, PASSWORD, USER, binding, client, client_context, converse, credentials, server,
    server_context, token,
};

const ALL: &[Mechanism] = &[
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::External,
    Mechanism::Anonymous,
    Mechanism::XOauth2,
    Mechanism::OauthBearer,
    Mechanism::ScramSha256,
    Mechanism::ScramSha256Plus,
];

/// A name that SASLprep takes, of many scripts. PLAIN and LOGIN carry it too.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{1,30}",
        "[ -~\u{a0}-\u{17f}\u{391}-\u{3c9}\u{430}-\u{44f}\u{2160}-\u{216f}\u{4e00}-\u{4eff}]{1,30}",
        "[\u{5d0}-\u{5ea}]{1,30}",
        any::<String>(),
    ]
    .prop_filter("SASLprep takes it", |text| prepare(text).is_ok() && !text.contains('\0'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_right_password_logs_in_and_another_does_not(name in word(), password in word(), typed in word(),
        acts_as in proptest::option::of(word()), which in 0..4_usize, initial: bool, nonces: [[u8; 18]; 2]) {
        let mechanism =
            [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256, Mechanism::ScramSha256Plus][which];
        let is_scram = which > 1;
        let known = if is_scram { prepare(&name).unwrap().into_owned() } else { name.clone() };
        let acts_as = acts_as.filter(|other| mechanism != Mechanism::Login && *other != known && *other != name);
        let mut application = Application::new(&known, &password);
        for typed in [&password, &typed] {
            let who = Credentials {
                authorization_identity: acts_as.clone(),
                authentication_identity: name.clone(),
                password: Secret::new(typed.clone()),
            };
            let mut context = client_context(mechanism);
            context.nonce = Nonce::from_random(nonces[0]);
            let mut client = ClientMechanism::choose(MechanismSet::of(&[mechanism]), who.into(), context).unwrap();
            let mut context = server_context(mechanism);
            context.nonce = Nonce::from_random(nonces[1]);
            let mut server = ServerMechanism::new(mechanism, context).unwrap();
            let is_right = match is_scram {
                true => prepare(typed).unwrap() == prepare(&password).unwrap(),
                false => *typed == password,
            };
            let said = converse(&mut client, &mut server, &mut application, initial);
            if is_right {
                prop_assert_eq!(said, Ok(acts_as.clone().unwrap_or_else(|| known.clone())));
            } else {
                prop_assert_eq!(said, Err(Failure::Refused(SaslError::Credentials)));
            }
        }
    }
}

#[test]
fn every_mechanism_logs_in_with_an_initial_response_and_without() {
    for &mechanism in ALL {
        let who = match mechanism {
            Mechanism::External => "CN=user",
            Mechanism::Anonymous => "trace@example.org",
            _ => USER,
        };
        for initial in [true, false] {
            let (mut client, mut server) = (client(mechanism), server(mechanism));
            let said = converse(&mut client, &mut server, &mut Application::new(USER, PASSWORD), initial);
            assert_eq!(said, Ok(who.into()), "{mechanism}, {initial}");
            // The exchange is over for both.
            assert!(server.respond(b"").is_err(), "{mechanism}");
            assert!(server.decide(Ok("root".into())).is_err(), "{mechanism}");
        }
    }
}

#[test]
fn wrong_credentials_are_refused_by_every_mechanism_that_has_any() {
    for &mechanism in ALL {
        let wrong: ClientCredentials = match credentials(mechanism) {
            ClientCredentials::Password(who) => Credentials { password: Secret::new("other".into()), ..who }.into(),
            ClientCredentials::Token(mut wrong) => {
                wrong.token = Secret::new("stolen".into());
                wrong.into()
            }
            _ => continue,
        };
        for initial in [true, false] {
            let offered = MechanismSet::of(&[mechanism]);
            let mut client = ClientMechanism::choose(offered, wrong.clone(), client_context(mechanism)).unwrap();
            let said = converse(&mut client, &mut server(mechanism), &mut Application::new(USER, PASSWORD), initial);
            assert_eq!(said, Err(Failure::Refused(SaslError::Credentials)), "{mechanism}");
            let json = String::from_utf8_lossy(client.token_refusal().unwrap_or_default()).into_owned();
            assert_eq!(json.starts_with('{'), matches!(wrong, ClientCredentials::Token(_)), "{mechanism}");
        }
    }
}

#[test]
fn a_channel_binding_has_to_be_the_same_on_both_sides() {
    let end_point = ChannelBinding::tls_server_end_point(&[6; 32]);
    let good = Ok(String::from(USER));
    let bad = Err(Failure::Refused(SaslError::Credentials));
    for (clients, servers, result) in [
        (binding(), vec![binding()], &good),
        (binding(), vec![end_point.clone(), binding()], &good),
        (end_point.clone(), vec![binding(), end_point.clone()], &good),
        (ChannelBinding::tls_exporter([4; 32]), vec![binding()], &bad),
        (ChannelBinding::tls_server_end_point(&[5; 32]), vec![end_point.clone()], &bad),
        (end_point, vec![binding()], &bad),
    ] {
        let mechanism = Mechanism::ScramSha256Plus;
        let mut context = client_context(mechanism);
        context.channel_binding = Some(clients);
        let offered = MechanismSet::of(&[mechanism]);
        let mut client = ClientMechanism::choose(offered, credentials(mechanism), context).unwrap();
        let mut context = server_context(mechanism);
        context.channel_bindings = servers;
        let mut server = ServerMechanism::new(Mechanism::ScramSha256Plus, context).unwrap();
        let said = converse(&mut client, &mut server, &mut Application::new(USER, PASSWORD), true);
        assert_eq!(&said, result);
    }
}

#[test]
fn a_list_without_plus_is_detected_if_both_sides_have_plus() {
    // An attacker has shortened the server's list to this.
    let offered = MechanismSet::of(&[Mechanism::ScramSha256]);
    for (clients, servers, result) in [
        (true, true, Err(Failure::Refused(SaslError::TooWeak))),
        (true, false, Ok(USER.into())),
        (false, true, Ok(USER.into())),
        (false, false, Ok(USER.into())),
    ] {
        let mut context = client_context(Mechanism::ScramSha256);
        context.channel_binding = clients.then(binding);
        let mut client = ClientMechanism::choose(offered, credentials(Mechanism::ScramSha256), context).unwrap();
        let mut context = server_context(Mechanism::ScramSha256);
        context.channel_bindings.extend(servers.then(binding));
        let mut server = ServerMechanism::new(Mechanism::ScramSha256, context).unwrap();
        let said = converse(&mut client, &mut server, &mut Application::new(USER, PASSWORD), true);
        assert_eq!(said, result, "{clients} {servers}");
    }
}

#[test]
fn a_long_token_waits_for_the_empty_challenge() {
    let mut long = token(Some(USER));
    for (octets, initial) in [(300, true), (2_000, false), (8_000, false)] {
        long.token = Secret::new("a".repeat(octets));
        for mechanism in [Mechanism::XOauth2, Mechanism::OauthBearer] {
            let offered = MechanismSet::of(&[mechanism]);
            let mut client = ClientMechanism::choose(offered, long.clone().into(), client_context(mechanism)).unwrap();
            let response = client.initial_response();
            assert_eq!(response.is_some(), initial, "{octets}");
            let length = response.map_or(0, |text| text.expose().len());
            assert!("AUTH ".len() + mechanism.as_str().len() + 1 + length + 2 <= 512);
            let mut server = server(mechanism);
            if !initial {
                let said = converse(&mut client, &mut server, &mut Application::new(USER, PASSWORD), true);
                assert_eq!(said, Err(Failure::Refused(SaslError::Credentials)));
            }
        }
    }
}

#[test]
fn two_sessions_carry_every_exchange_however_the_octets_arrive() {
    for seed in 0..12 {
        for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256] {
            let setup = Setup { lmtp: false, tls: true, mechanism: Some(mechanism), pipelined: true };
            let mut pair = Pair::new(setup);
            pair.finish(&mut Choices::new(seed));
            assert!(pair.server.session.is_authenticated());
        }
    }
}
