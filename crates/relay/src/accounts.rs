//! Who may log in.

use std::{collections::HashMap, fmt};

use posthaste_server::wire::Secret;
use subtle::ConstantTimeEq as _;

/// Names with their passwords, fixed at start.
#[derive(Clone, Default)]
pub struct Accounts(HashMap<String, Secret<String>>);

impl Accounts {
    /// Adds an account; a name that is there already gets the new password.
    pub fn add(&mut self, name: impl Into<String>, password: impl Into<String>) {
        self.0.insert(name.into(), Secret::new(password.into()));
    }

    /// Whether nobody may log in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is the account's password. A name that does not exist takes as long as a wrong password.
    pub fn verify(&self, name: &str, password: &str) -> bool {
        let account = self.0.get(name);
        let expected = account.map_or("", |secret| secret.expose().as_str());
        bool::from(expected.as_bytes().ct_eq(password.as_bytes())) && account.is_some()
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
