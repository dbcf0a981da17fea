//! SASL exchanges against any peer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use posthaste_session::sasl::{
    BearerToken, ChannelBinding, ClientContext, ClientCredentials, ClientMechanism, ClientStep, Credentials, Nonce,
    Protection, SaslError, ScramKey, ServerContext, ServerMechanism, ServerStep, Strength, UnknownUsers,
};
use posthaste_wire::{Mechanism, MechanismSet, Secret};

/// A digit for the mechanism, in the order of [`Mechanism::ALL`], and the peer's messages, one a
/// line. No client logs in without its secret, no server is trusted without a proof, challenges fit
/// a reply line, and an exchange that is over stays over.
///
/// # Panics
/// An invariant does not hold.
pub fn sasl(data: &[u8]) {
    let Some((digit, rest)) = data.split_first() else { return };
    let Some(&mechanism) = Mechanism::ALL.get(usize::from(digit.wrapping_sub(b'0'))) else { return };
    let lines: Vec<&[u8]> = rest.split(|octet| *octet == b'\n').take(8).collect();
    server(mechanism, &lines);
    client(mechanism, &lines);
}

fn server(mechanism: Mechanism, lines: &[&[u8]]) {
    let mut context = ServerContext::new(Nonce::from_random([2; 18]), UnknownUsers::new(Secret::new([3; 32]), 4_096));
    context.channel_bindings.extend((mechanism == Mechanism::ScramSha256Plus).then(binding));
    context.external_identity = Some("CN=x".into());
    let Ok(mut exchange) = ServerMechanism::new(mechanism, context) else { return };
    let mut over = false;
    for line in lines {
        let mut step = exchange.respond(STANDARD.encode(line).as_bytes());
        step = match step {
            Ok(ServerStep::Password(_) | ServerStep::Token(_)) => exchange.decide(Err(SaslError::Credentials)),
            Ok(ServerStep::External(who)) => exchange.decide(Ok(who.identity)),
            Ok(ServerStep::Anonymous(trace)) => {
                assert!(trace.chars().count() <= 255 && !trace.contains(char::is_control));
                exchange.decide(Ok(trace))
            }
            // The key of no password.
            Ok(ServerStep::ScramKey(_)) => {
                let key = ScramKey::from_parts(&[1; 16], 4_096, Secret::new([1; 32]), Secret::new([1; 32]));
                exchange.found(Ok(key.ok()))
            }
            step => step,
        };
        match step {
            Ok(ServerStep::Challenge(text)) => assert!(!over && text.len() <= 379),
            Ok(ServerStep::Done(_)) => {
                assert!(!over && Strength::of(mechanism).is_none(), "{mechanism}");
                over = true;
            }
            Ok(step) => panic!("{step:?} after an answer"),
            Err(_) => over = true,
        }
    }
}

fn client(mechanism: Mechanism, lines: &[&[u8]]) {
    let user = || Some("user".into());
    let token = Secret::new("token".into());
    let credentials = match mechanism {
        Mechanism::OauthBearer | Mechanism::XOauth2 => {
            BearerToken { authorization_identity: user(), token, host: None, port: None }.into()
        }
        Mechanism::External => ClientCredentials::External(None),
        Mechanism::Anonymous => ClientCredentials::Anonymous(String::new()),
        _ => {
            Credentials { authorization_identity: None, authentication_identity: "user".into(), password: token }.into()
        }
    };
    let mut context = ClientContext::new(Nonce::from_random([1; 18]));
    context.protection = Protection::Verified;
    context.channel_binding = (mechanism == Mechanism::ScramSha256Plus).then(binding);
    let Ok(mut exchange) = ClientMechanism::choose(MechanismSet::of(&[mechanism]), credentials, context) else {
        return;
    };
    let (mut first, mut over) = (exchange.initial_response().is_some(), false);
    for line in lines {
        // More iterations test no more, and take time.
        if line.windows(3).position(|three| three == b",i=").is_some_and(|at| line.len() > at + ",i=4096".len()) {
            continue;
        }
        match exchange.respond(STANDARD.encode(line).as_bytes()) {
            ClientStep::Respond(text) => {
                assert!(!over && text.expose().len() + 2 <= 12_288, "{mechanism}");
                assert!(!std::mem::take(&mut first) || mechanism != Mechanism::Plain, "PLAIN has one message");
            }
            ClientStep::GiveUp(_) => over = true,
        }
    }
    assert!(exchange.finish().is_err() || Strength::of(mechanism) < Some(Strength::Mutual), "{mechanism}");
}

fn binding() -> ChannelBinding {
    ChannelBinding::tls_exporter([5; 32])
}
