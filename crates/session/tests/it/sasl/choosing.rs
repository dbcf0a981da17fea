//! The mechanism that a client chooses.

use posthaste_session::sasl::{ChooseError, ClientCredentials, ClientMechanism, Credentials, Protection, Strength};
use posthaste_wire::{
    Mechanism::{self, *},
    MechanismSet, Secret,
};

use crate::sasl::support::{PASSWORD, TOKEN, USER, binding, client_context, password, token};

type Choice = Result<Mechanism, ChooseError>;

/// Offered mechanisms, credentials, a channel binding, the protection, the least protection for
/// secrets, the least strength.
type Row = (&'static [Mechanism], fn() -> ClientCredentials, bool, Protection, Protection, Strength, Choice);

fn user() -> ClientCredentials {
    password(USER, PASSWORD).into()
}

fn bearer() -> ClientCredentials {
    token(Some(USER)).into()
}

fn nameless() -> ClientCredentials {
    token(None).into()
}

const EVERYTHING: &[Mechanism] = Mechanism::ALL;
const NONE: Protection = Protection::None;
const UNVERIFIED: Protection = Protection::Unverified;
const VERIFIED: Protection = Protection::Verified;
const ANY: Strength = Strength::Secret;

const ROWS: &[Row] = &[
    (EVERYTHING, user, true, VERIFIED, VERIFIED, ANY, Ok(ScramSha256Plus)),
    (EVERYTHING, user, false, VERIFIED, VERIFIED, ANY, Ok(ScramSha256)),
    (&[Plain, Login, CramMd5], user, true, VERIFIED, VERIFIED, ANY, Ok(CramMd5)),
    (&[Plain, Login], user, true, VERIFIED, VERIFIED, ANY, Ok(Plain)),
    (&[Login], user, true, VERIFIED, VERIFIED, ANY, Ok(Login)),
    (EVERYTHING, bearer, true, VERIFIED, VERIFIED, ANY, Ok(OauthBearer)),
    (&[Plain, XOauth2], bearer, true, VERIFIED, VERIFIED, ANY, Ok(XOauth2)),
    (&[XOauth2], nameless, true, VERIFIED, VERIFIED, ANY, Err(ChooseError::NoMechanism)),
    (EVERYTHING, || ClientCredentials::External(None), true, NONE, VERIFIED, ANY, Ok(External)),
    (EVERYTHING, || ClientCredentials::Anonymous("x".into()), true, NONE, VERIFIED, ANY, Ok(Anonymous)),
    // No mechanism fits.
    (&[], user, true, VERIFIED, VERIFIED, ANY, Err(ChooseError::NoMechanism)),
    (&[External, Anonymous, XOauth2, OauthBearer], user, true, VERIFIED, VERIFIED, ANY, Err(ChooseError::NoMechanism)),
    (&[Plain], bearer, true, VERIFIED, VERIFIED, ANY, Err(ChooseError::NoMechanism)),
    (&[ScramSha256Plus], user, false, VERIFIED, VERIFIED, ANY, Err(ChooseError::NoMechanism)),
    // A shortened list.
    (&[Plain, Login, CramMd5], user, true, VERIFIED, VERIFIED, Strength::Mutual, Err(ChooseError::TooWeak)),
    (&[Plain, Login], user, true, VERIFIED, VERIFIED, Strength::Hashed, Err(ChooseError::TooWeak)),
    (&[Plain, ScramSha256], user, true, VERIFIED, VERIFIED, Strength::Mutual, Ok(ScramSha256)),
    (&[Plain, ScramSha256], user, true, VERIFIED, VERIFIED, Strength::Bound, Err(ChooseError::TooWeak)),
    (EVERYTHING, user, true, VERIFIED, VERIFIED, Strength::Bound, Ok(ScramSha256Plus)),
    (EVERYTHING, bearer, true, VERIFIED, VERIFIED, Strength::Mutual, Err(ChooseError::TooWeak)),
    // Without enough TLS.
    (&[Plain, Login], user, true, NONE, VERIFIED, ANY, Err(ChooseError::Unprotected)),
    (&[Plain, Login], user, true, UNVERIFIED, VERIFIED, ANY, Err(ChooseError::Unprotected)),
    (&[Plain, Login], user, true, UNVERIFIED, UNVERIFIED, ANY, Ok(Plain)),
    (&[Login], user, true, NONE, UNVERIFIED, ANY, Err(ChooseError::Unprotected)),
    (&[Plain, Login], user, true, NONE, NONE, ANY, Ok(Plain)),
    (EVERYTHING, bearer, true, NONE, VERIFIED, ANY, Err(ChooseError::Unprotected)),
    (EVERYTHING, bearer, true, NONE, NONE, ANY, Ok(OauthBearer)),
    (EVERYTHING, user, false, NONE, VERIFIED, ANY, Ok(ScramSha256)),
];

#[test]
fn the_strongest_allowed_mechanism_is_chosen() {
    for (index, &(offered, credentials, bound, protection, secrets_need, minimum, ref choice)) in
        ROWS.iter().enumerate()
    {
        let mut context = client_context(Plain);
        context.channel_binding = bound.then(binding);
        (context.protection, context.secrets_need, context.minimum) = (protection, secrets_need, minimum);
        let chosen = ClientMechanism::choose(offered.iter().copied().collect(), credentials(), context);
        assert_eq!(chosen.map(|exchange| exchange.mechanism()), *choice, "row {index}");
    }
}

#[test]
fn credentials_that_a_mechanism_cannot_carry_are_refused_before_anything_is_sent() {
    let acting = || Credentials { authorization_identity: Some("other".into()), ..password(USER, PASSWORD) };
    let odd = |token_text: &str, user: Option<&str>, host: Option<&str>| {
        let mut odd = token(user);
        odd.token = Secret::new(token_text.into());
        odd.host = host.map(Into::into);
        ClientCredentials::Token(odd)
    };
    let rows: &[(Mechanism, ClientCredentials)] = &[
        (Plain, password("", PASSWORD).into()),
        (Plain, password(USER, "").into()),
        (Plain, password("a\0b", PASSWORD).into()),
        (Plain, password(USER, "a\0b").into()),
        (Plain, Credentials { authorization_identity: Some("a\0b".into()), ..password(USER, PASSWORD) }.into()),
        (Plain, password(USER, &"x".repeat(10_000)).into()),
        (Login, acting().into()),
        (Login, password(USER, "").into()),
        (Login, password(USER, &"x".repeat(10_000)).into()),
        (CramMd5, acting().into()),
        (CramMd5, password("", PASSWORD).into()),
        (CramMd5, password(&"x".repeat(10_000), PASSWORD).into()),
        (ScramSha256, password("", PASSWORD).into()),
        (ScramSha256, password("\u{7}", PASSWORD).into()),
        (ScramSha256, password(USER, "\u{1f600}").into()),
        (ScramSha256, password(&"x".repeat(10_000), PASSWORD).into()),
        (ScramSha256, Credentials { authorization_identity: Some("x".repeat(5_000)), ..acting() }.into()),
        (ScramSha256, Credentials { authorization_identity: Some(String::new()), ..acting() }.into()),
        (XOauth2, odd(TOKEN, Some("a\x01b"), None)),
        (XOauth2, odd("", Some(USER), None)),
        (OauthBearer, odd("a b", None, None)),
        (OauthBearer, odd("a\x01auth=Bearer b", None, None)),
        (OauthBearer, odd(TOKEN, Some(""), None)),
        (OauthBearer, odd(TOKEN, None, Some("h\x01port=1"))),
        (OauthBearer, odd(&"x".repeat(10_000), None, None)),
        (External, ClientCredentials::External(Some("a\0b".into()))),
        (Anonymous, ClientCredentials::Anonymous("a\r\nb".into())),
        (Anonymous, ClientCredentials::Anonymous("x".repeat(256))),
    ];
    for (index, (mechanism, credentials)) in rows.iter().enumerate() {
        let offered = MechanismSet::of(&[*mechanism]);
        let chosen = ClientMechanism::choose(offered, credentials.clone(), client_context(*mechanism));
        assert_eq!(chosen.err(), Some(ChooseError::Credentials), "row {index}");
    }
}

#[test]
fn an_empty_message_is_an_equals_sign_with_auth_and_an_empty_line_later() {
    let none = || ClientCredentials::External(None);
    let mut client = ClientMechanism::choose(MechanismSet::of(&[External]), none(), client_context(External)).unwrap();
    assert_eq!(client.initial_response().unwrap().expose(), "=");
    assert!(client.initial_response().is_none(), "it comes once");
    let mut client = ClientMechanism::choose(MechanismSet::of(&[External]), none(), client_context(External)).unwrap();
    let posthaste_session::sasl::ClientStep::Respond(text) = client.respond(b"") else { panic!() };
    assert_eq!(text.expose(), "");
}
