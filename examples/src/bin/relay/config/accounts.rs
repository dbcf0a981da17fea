//! Who may log in: from the file to keys.

use posthaste::relay::{AccountError, AccountTable};
use posthaste::server::{ScramKey, UnknownUsers, session::sasl::MIN_ITERATIONS, wire::Secret};

use super::file::Account;

/// The accounts as they were written.
#[derive(Debug, Default)]
pub(crate) struct AccountsConfig(Vec<(String, Proof)>);

#[derive(Debug)]
enum Proof {
    Password(Secret<String>),
    Verifier(ScramKey),
}

impl AccountsConfig {
    /// Takes accounts that were checked: each has a name, and a password or a verifier.
    pub(super) fn new(accounts: Vec<Account>) -> Self {
        let read = accounts.into_iter().filter_map(|account| {
            let password = account.password.map(|password| Proof::Password(password.value));
            let proof = password.or_else(|| account.verifier.map(|verifier| Proof::Verifier(verifier.value)));
            Some((account.name?.value, proof?))
        });
        Self(read.collect())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Derives the keys that are not in the file, and forgets the passwords.
    ///
    /// The secret answers for names without an account. It uses the iterations of the first account
    /// that has its key in the file, so that a client cannot tell which names exist if all keys
    /// were made alike. Without such an account 4,096 iterations are enough: an attacker who can
    /// read the file has the passwords themselves.
    pub(crate) fn keys(self, secret: Secret<[u8; 32]>) -> Result<AccountTable, AccountError> {
        let iterations = self.0.iter().find_map(|(_, proof)| match proof {
            Proof::Verifier(key) => Some(key.iterations()),
            Proof::Password(_) => None,
        });
        let mut accounts = AccountTable::new(UnknownUsers::new(secret, iterations.unwrap_or(MIN_ITERATIONS)));
        for (name, proof) in self.0 {
            match proof {
                Proof::Password(password) => accounts.add(&name, password.expose())?,
                Proof::Verifier(key) => accounts.add_key(&name, key)?,
            }
        }
        Ok(accounts)
    }
}
