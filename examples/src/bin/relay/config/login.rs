//! Who the relay logs in as at the hosts of a route.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use posthaste::client::{Credentials, Login};
use posthaste::server::wire::Secret;

use super::{
    findings::{At, Findings},
    keys::remedy,
    lists,
    table::{Read, Table},
    values,
};

/// Octets of a file with a password. The longest tokens of providers have a few hundred.
const LONGEST: u64 = 1_024;

/// A login, and the file that has its password.
#[derive(Debug, Clone)]
pub(crate) struct RouteLogin {
    pub(super) file: At<PathBuf>,
    login: Login,
}

impl RouteLogin {
    /// Reads the table and the password. `None`: one of them has a mistake, which is now a finding.
    pub(super) fn read(mut table: Table<'_>, folder: &Path, findings: &mut Findings) -> Option<Self> {
        let user = table.need("user", findings, values::account_name);
        let file = table.need("password_file", findings, values::path);
        table.end(findings);
        let file = file.map(|file| At { value: folder.join(&file.value), place: file.place })?;
        match password(&file.value) {
            Ok(password) => Some(Self { file, login: known(user?.value, password) }),
            Err(problem) => {
                findings.error(file.place, format_args!("{problem}; {}", remedy("login", "password_file")));
                None
            }
        }
    }

    /// What a route takes.
    pub(super) fn login(&self) -> Login {
        self.login.clone()
    }
}

/// The login with this name and password: the same one as before, so that a route that has not
/// changed is equal to what it was.
fn known(user: String, password: Secret<String>) -> Login {
    static KNOWN: Mutex<Vec<(String, Secret<String>, Login)>> = Mutex::new(Vec::new());
    let mut logins = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_same =
        |(name, secret, _): &&(String, Secret<String>, Login)| *name == user && secret.expose() == password.expose();
    if let Some((_, _, login)) = logins.iter().find(is_same) {
        return login.clone();
    }
    if logins.len() >= MOST_LOGINS {
        logins.clear();
    }
    let login = Login::from(Credentials::new(user.clone(), password.expose().clone()));
    logins.push((user, password, login.clone()));
    login
}

/// Logins that are remembered. Beyond it all are forgotten, and routes with a login begin again at
/// the next reading.
const MOST_LOGINS: usize = 256;

/// The one line of a file. No error shows it.
fn password(file: &Path) -> Read<Secret<String>> {
    let name = file.display();
    let text = lists::text(file, LONGEST)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\r', '\n']) {
        return Err(format!("{name} has more than one line"));
    }
    values::prepared(line).map(Secret::new).map_err(|problem| format!("{name}: {problem}"))
}
