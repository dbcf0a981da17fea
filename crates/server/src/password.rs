//! PLAIN and LOGIN, checked against the keys that SCRAM has.

use std::{
    sync::{LazyLock, OnceLock},
    thread::available_parallelism,
};

use posthaste_tokio::{
    session::sasl::{Credentials, MIN_ITERATIONS, SaslError, ScramUser, UnknownUsers, prepare},
    wire::Secret,
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::debug;

use crate::{Authentication, Context, Handler};

/// Checks a password against the key of its user, and against a made-up one for a user who does not
/// exist: both take the same time.
pub(crate) async fn check<H: Handler + ?Sized>(handler: &mut H, cx: &Context, who: Credentials) -> Authentication {
    let Credentials { authorization_identity, authentication_identity, password } = who;
    // No user has a name that SASLprep does not take (RFC 4616 section 2).
    let (user, found) = match prepare(&authentication_identity) {
        Ok(name) => {
            let name = name.into_owned();
            let authorization_identity = authorization_identity.filter(|identity| *identity != name);
            let user = ScramUser { authentication_identity: name, authorization_identity };
            let found = handler.scram_key(cx, &user).await;
            (user, found)
        }
        Err(_) => (ScramUser { authentication_identity, authorization_identity }, Ok(None)),
    };
    let key = match (found, unknown_users(handler)) {
        (Ok(Some(key)), _) => key,
        (Ok(None), Ok(unknown_users)) => unknown_users.key(&user.authentication_identity),
        (Err(error), _) | (_, Err(error)) => return error.into(),
    };
    // The semaphore is never closed.
    let Ok(turn) = TURNS.acquire().await else { return Authentication::Unavailable };
    let verified = spawn_blocking(move || {
        // The turn ends with the work, also when the caller stops waiting for it.
        let _turn = turn;
        key.verify(password.expose())
    });
    match verified.await {
        Ok(true) => Authentication::Granted(user.authorization_identity.unwrap_or(user.authentication_identity)),
        Ok(false) => Authentication::Denied,
        Err(error) => {
            debug!(%error, "password check failed");
            Authentication::Unavailable
        }
    }
}

/// Passwords that are checked at a time in this process: as many as there are processors. The
/// others wait in their order, so that guessing leaves threads for everything else.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, Into::into)));

/// How to answer for users who do not exist.
pub(crate) fn unknown_users<H: Handler + ?Sized>(handler: &H) -> Result<UnknownUsers, SaslError> {
    match handler.unknown_users() {
        Some(unknown_users) => Ok(unknown_users),
        None => Ok(UnknownUsers::new(Secret::new(process_secret()?), MIN_ITERATIONS)),
    }
}

/// The same for as long as this process lives.
fn process_secret() -> Result<[u8; 32], SaslError> {
    static SECRET: OnceLock<[u8; 32]> = OnceLock::new();
    match SECRET.get() {
        Some(secret) => Ok(*secret),
        None => random().map(|fresh| *SECRET.get_or_init(|| fresh)),
    }
}

/// Octets from the system's secure generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SaslError> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(|error| {
        debug!(%error, "random generator failed");
        SaslError::Unavailable
    })?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use posthaste_tokio::{
        session::ServerSettings,
        wire::{Accepted, Refusal, refusal},
    };
    use tokio::time::timeout;

    use super::*;
    use crate::{Body, Envelope, Peer, PeerAddress};

    struct NoAccounts;

    impl Handler for NoAccounts {
        async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
            Err(refusal!("550 5.7.1 No"))
        }
    }

    #[tokio::test]
    async fn a_check_waits_for_its_turn() {
        let peer = Peer::new(PeerAddress::Local, PeerAddress::Local);
        let cx = Context::new(peer, Arc::new(ServerSettings::new("mx.test".parse().unwrap())));
        let who = || Credentials {
            authorization_identity: None,
            authentication_identity: "me".to_owned(),
            password: Secret::new("pencil".to_owned()),
        };
        let all = TURNS.available_permits();
        assert!(all > 0);
        let taken = TURNS.acquire_many(u32::try_from(all).unwrap()).await.unwrap();
        assert!(timeout(Duration::from_millis(200), check(&mut NoAccounts, &cx, who())).await.is_err());
        drop(taken);
        assert_eq!(check(&mut NoAccounts, &cx, who()).await, Authentication::Denied);
        assert_eq!(TURNS.available_permits(), all);
    }
}
