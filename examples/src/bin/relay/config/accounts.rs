//! Who may log in: from the file to keys.

use posthaste::relay::{AccountError, AccountTable};
use posthaste::server::{ScramKey, UnknownUsers, session::sasl::MIN_ITERATIONS, wire::Secret};

use super::file::Account;

/// The accounts as they were written.
#[derive(Debug)]
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

    /// Derives the keys that are not written down, and forgets the passwords. Names that nobody has are answered for by the
    /// secret, and look like the first account that has its key written down: keys that were all made alike tell nobody
    /// who exists. Without one, 4,096 iterations do: who gets at the keys gets at the passwords beside them too.
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
