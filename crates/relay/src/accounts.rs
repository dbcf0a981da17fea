//! The users that may log in.

use std::{collections::HashMap, future::Future};

use posthaste_server::{
    Context, SaslError, ScramKey, ScramUser, UnknownUsers,
    session::sasl::{KeyError, prepare},
};
use thiserror::Error;

/// Looks up the keys of users that want to log in. [`AccountTable`] does so in memory; an
/// application's own implementation may ask a database. One key serves SCRAM-SHA-256,
/// SCRAM-SHA-256-PLUS, PLAIN and LOGIN.
///
/// The look-up is part of the server's [verdict](posthaste_server::Handler) on AUTH, and its time
/// counts toward the verdict's timeout. A panic is logged, and refuses AUTH with 454.
pub trait Accounts: Send + Sync + 'static {
    /// The key of a user. `None`: there is no such user, or it may not act as the identity that it
    /// asks for.
    ///
    /// # Errors
    /// [`SaslError::Unavailable`] when the key cannot be looked up now: 454.
    fn key(&self, cx: &Context, user: &ScramUser) -> impl Future<Output = Result<Option<ScramKey>, SaslError>> + Send;

    /// How SCRAM answers for unknown users: with the iterations of the keys, and with a secret that
    /// stays the same after a restart.
    fn unknown_users(&self) -> UnknownUsers;
}

/// User names with the keys of their passwords, fixed at start. It keeps no password. One key
/// serves SCRAM-SHA-256, SCRAM-SHA-256-PLUS, PLAIN and LOGIN.
///
/// Clients cannot find out which users exist: an unknown user gets a salt too, and its check takes
/// as long. This holds while all keys have the iterations of the [`UnknownUsers`].
#[derive(Debug, Clone)]
pub struct AccountTable {
    /// By user name, after SASLprep.
    keys: HashMap<String, ScramKey>,
    unknown_users: UnknownUsers,
}

/// Why an account cannot be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AccountError {
    /// SASLprep refuses the user name.
    #[error("SASLprep refuses the user name")]
    Name,
    /// No key can be derived from the password.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl AccountTable {
    /// Makes a table without an account.
    pub fn new(unknown_users: UnknownUsers) -> Self {
        Self { keys: HashMap::new(), unknown_users }
    }

    /// Adds an account by its password. Its key has the salt and the iterations that the name had
    /// as an unknown user, so that clients see no difference. It replaces an account of the same
    /// name. This call takes the time of the iterations.
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

    /// Adds an account by its key, such as one from a [text](ScramKey::to_text). It replaces an
    /// account of the same name.
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

    /// The key of a user name that SASLprep has prepared. `None`: there is no such account.
    pub fn key(&self, name: &str) -> Option<&ScramKey> {
        self.keys.get(name)
    }

    /// How SCRAM answers for all other names.
    pub const fn unknown_users(&self) -> &UnknownUsers {
        &self.unknown_users
    }
}

impl Accounts for AccountTable {
    async fn key(&self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // Acting as another user would need a rule that permits it.
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
        // Another user, or the same user on another server, has another salt.
        let others = [accounts.unknown_users().key("you"), self::accounts(2).unknown_users().key("me")];
        assert!(others.iter().all(|other| other.salt() != key.salt()));
    }

    #[test]
    fn saslprep_prepares_names_and_passwords() {
        let mut accounts = accounts(1);
        // SASLprep turns the Roman numeral into two letters.
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
        // It does show the user names.
        assert!(shown.contains("\"me\""));
    }
}
