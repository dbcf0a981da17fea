//! The users that may log in.

use std::{collections::HashMap, future::Future};

use posthaste_server::{
    Context, SaslError, ScramKey, ScramUser, UnknownUsers,
    session::sasl::{KeyError, prepare},
};
use thiserror::Error;

/// Knows the users that may log in. [`AccountTable`] is one; an application's own may ask a
/// database. One key serves SCRAM-SHA-256, SCRAM-SHA-256-PLUS, PLAIN and LOGIN.
///
/// The look-up is part of the server's [verdict](posthaste_server::Handler) on AUTH, and its time
/// counts there.
pub trait Accounts: Send + Sync + 'static {
    /// The key of a user. `None`: there is no such user, or it may not act as the identity that it
    /// asks for.
    ///
    /// # Errors
    /// [`SaslError::Unavailable`] when the key cannot be looked up now: 454.
    fn key(&self, cx: &Context, user: &ScramUser) -> impl Future<Output = Result<Option<ScramKey>, SaslError>> + Send;

    /// How SCRAM answers for users who do not exist: with the iterations of the keys, and a secret
    /// that outlives a restart.
    fn unknown_users(&self) -> UnknownUsers;
}

/// Names with the keys of their passwords, fixed at start; no password is kept. One key serves
/// SCRAM-SHA-256, SCRAM-SHA-256-PLUS, PLAIN and LOGIN.
///
/// Nobody can find out who has an account: a name that nobody has gets a salt too and takes as
/// long, as long as all keys have the iterations of the [`UnknownUsers`].
#[derive(Debug, Clone)]
pub struct AccountTable {
    /// By their names as SASLprep makes them.
    keys: HashMap<String, ScramKey>,
    unknown_users: UnknownUsers,
}

/// An account that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AccountError {
    /// SASLprep does not take the name.
    #[error("SASLprep does not take the name")]
    Name,
    /// There is no key for the password.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl AccountTable {
    /// Without an account yet.
    pub fn new(unknown_users: UnknownUsers) -> Self {
        Self { keys: HashMap::new(), unknown_users }
    }

    /// Adds an account by its password, whose key has the salt and the iterations that the name had
    /// before: whoever asks for it sees no difference. A name that is there already gets the new
    /// one. This takes the iterations' time.
    ///
    /// # Errors
    /// [`AccountError`].
    pub fn add(&mut self, name: &str, password: &str) -> Result<(), AccountError> {
        let name = prepare(name).map_err(|_| AccountError::Name)?;
        let before = self.unknown_users.key(&name);
        let key = ScramKey::derive(password, before.salt(), before.iterations())?;
        self.keys.insert(name.into_owned(), key);
        Ok(())
    }

    /// Adds an account by its key, such as from a [text](ScramKey::to_text). A name that is there
    /// already gets the new one.
    ///
    /// # Errors
    /// [`AccountError::Name`].
    pub fn add_key(&mut self, name: &str, key: ScramKey) -> Result<(), AccountError> {
        let name = prepare(name).map_err(|_| AccountError::Name)?;
        self.keys.insert(name.into_owned(), key);
        Ok(())
    }

    /// Returns `true` if there is no account.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of a name that SASLprep has prepared.
    pub fn key(&self, name: &str) -> Option<&ScramKey> {
        self.keys.get(name)
    }

    /// How to answer for all other names.
    pub const fn unknown_users(&self) -> &UnknownUsers {
        &self.unknown_users
    }
}

impl Accounts for AccountTable {
    async fn key(&self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // Acting as another user would need a rule that says who may.
        let itself = user.authorization_identity.is_none();
        Ok(Self::key(self, &user.authentication_identity).filter(|_| itself).cloned())
    }

    fn unknown_users(&self) -> UnknownUsers {
        self.unknown_users.clone()
    }
}

#[cfg(test)]
mod tests {
    use posthaste_server::wire::Secret;

    use super::*;

    fn accounts(secret: u8) -> AccountTable {
        AccountTable::new(UnknownUsers::new(Secret::new([secret; 32]), 5_000))
    }

    #[test]
    fn a_name_keeps_its_salt_when_it_gets_an_account() {
        let mut accounts = accounts(1);
        let before = accounts.unknown_users().key("me");
        accounts.add("me", "pencil").unwrap();
        let key = accounts.key("me").unwrap();
        assert_eq!((key.salt(), key.iterations()), (before.salt(), 5_000));
        assert!(key.verify("pencil") && !key.verify("pen") && !before.verify("pencil"));
        // Nobody else has it, on no other server.
        let others = [accounts.unknown_users().key("you"), self::accounts(2).unknown_users().key("me")];
        assert!(others.iter().all(|other| other.salt() != key.salt()));
    }

    #[test]
    fn names_and_passwords_are_prepared() {
        let mut accounts = accounts(1);
        // The Roman numeral, which SASLprep makes two letters of.
        accounts.add("\u{2168}", "\u{2168}").unwrap();
        assert!(accounts.key("IX").unwrap().verify("IX"));
        let key = ScramKey::derive("x", &[1; 16], 4_096).unwrap();
        for (name, password) in [("\u{7}", "x"), ("", "x"), ("x", "\u{7}"), ("x", "")] {
            assert!(accounts.add(name, password).is_err(), "{name:?} {password:?}");
            assert!(name == "x" || accounts.add_key(name, key.clone()) == Err(AccountError::Name));
        }
        assert_eq!(accounts.keys.len(), 1);
    }

    #[test]
    fn debug_shows_no_key_and_no_password() {
        let mut accounts = accounts(7);
        accounts.add("me", "pencil").unwrap();
        let shown = format!("{accounts:?}");
        let text = accounts.key("me").unwrap().to_text();
        let [stored, server] = text.expose().rsplit('$').next().unwrap().split(':').collect::<Vec<_>>()[..] else {
            panic!()
        };
        for secret in ["pencil", stored, server, "7, 7, 7"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        // What it does show: who may log in.
        assert!(shown.contains("\"me\""));
    }
}
