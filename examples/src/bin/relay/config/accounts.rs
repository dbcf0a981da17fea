//! Who may log in: from the file to keys.

use posthaste_relay::{AccountError, Accounts};
use posthaste_server::{ScramKey, UnknownUsers, session::sasl::MIN_ITERATIONS, wire::Secret};

use super::{
    ConfigError,
    error::Source,
    file::{Account, AccountName},
};

/// The accounts as they were written.
#[derive(Debug)]
pub(crate) struct AccountsConfig(Vec<(String, Proof)>);

#[derive(Debug)]
enum Proof {
    Password(Secret<String>),
    Verifier(ScramKey),
}

impl AccountsConfig {
    pub(super) fn read(accounts: Vec<Account>, source: &Source) -> Result<Self, ConfigError> {
        let mut read = Vec::new();
        for Account { name, password, verifier } in accounts {
            let proof = match (password, verifier) {
                (Some(password), None) => Proof::Password(password),
                (None, Some(key)) => Proof::Verifier(key),
                (password, _) => {
                    let found = if password.is_some() { "both" } else { "neither" };
                    let problem =
                        format!("{found} of `password` and `verifier` stand with this name; write one of them");
                    return Err(source.mistake(name.span(), &problem));
                }
            };
            let AccountName(name) = name.into_inner();
            read.push((name, proof));
        }
        Ok(Self(read))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Derives the keys that are not written down, and forgets the passwords. Names that nobody has are answered for by the
    /// secret, and look like the first account that has its key written down: keys that were all made alike tell nobody
    /// who exists. Without one, 4,096 iterations do: who gets at the keys gets at the passwords beside them too.
    pub(crate) fn keys(self, secret: Secret<[u8; 32]>) -> Result<Accounts, AccountError> {
        let iterations = self.0.iter().find_map(|(_, proof)| match proof {
            Proof::Verifier(key) => Some(key.iterations()),
            Proof::Password(_) => None,
        });
        let mut accounts = Accounts::new(UnknownUsers::new(secret, iterations.unwrap_or(MIN_ITERATIONS)));
        for (name, proof) in self.0 {
            match proof {
                Proof::Password(password) => accounts.add(&name, password.expose())?,
                Proof::Verifier(key) => accounts.add_key(&name, key)?,
            }
        }
        Ok(accounts)
    }
}
