//! What `Debug` shows.

use posthaste_session::sasl::{ClientStep, ScramKey, ServerStep};
use posthaste_wire::Mechanism;

use crate::sasl::support::{
    Application, PASSWORD, TOKEN, USER, binding, client, client_context, credentials, encode, server, server_context,
    unknown_users,
};

/// Octets as `Debug` shows a list of them.
fn list(octets: &[u8]) -> String {
    let text = format!("{octets:?}");
    text.trim_matches(['[', ']']).to_owned()
}

#[test]
fn no_value_shows_a_secret() {
    let key = ScramKey::derive(PASSWORD, &[7; 16], 4_096).unwrap();
    let stored = key.to_text();
    let keys = stored.expose().rsplit('$').next().unwrap();
    let mut shown = format!("{key:?} {stored:?} {:?} {:?}", unknown_users(), binding());
    for &mechanism in Mechanism::ALL {
        shown += &format!("{:?} {:?}", credentials(mechanism), client_context(mechanism));
        let mut client = client(mechanism);
        shown += &format!("{client:?}");
        if mechanism == Mechanism::CramMd5 {
            shown += &format!("{:?} {client:?}", client.respond(encode("<1@x>").as_bytes()));
            continue;
        }
        shown += &format!("{:?}", server_context(mechanism));
        let (mut server, mut application) = (server(mechanism), Application::new(USER, PASSWORD));
        let mut step = server.start(client.initial_response().as_ref().map(|text| text.expose().as_str())).unwrap();
        loop {
            shown += &format!("{step:?} {server:?} {client:?}");
            step = application.answer(&mut server, step).unwrap();
            shown += &format!("{step:?} {server:?} {client:?}");
            let ServerStep::Challenge(challenge) = &step else { break };
            let response = client.respond(encode(challenge).as_bytes());
            shown += &format!("{response:?} {client:?}");
            let ClientStep::Respond(text) = response else { panic!("{response:?}") };
            step = server.respond(text.expose().as_bytes()).unwrap();
        }
    }
    let octets = [[5_u8; 32].as_slice(), &[9; 32], PASSWORD.as_bytes(), TOKEN.as_bytes()].map(list);
    let encoded = [encode(PASSWORD), encode([5; 32])];
    let texts = [PASSWORD, TOKEN].into_iter().chain(keys.split(':'));
    for secret in texts.map(String::from).chain(octets).chain(encoded) {
        assert!(!shown.contains(&secret), "{secret} is shown");
    }
}
