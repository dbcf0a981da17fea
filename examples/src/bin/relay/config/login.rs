//! Who the relay logs in as at the hosts of a route. The password is read at the start and at
//! SIGHUP.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use posthaste::client::{Credentials, Login};
use posthaste::server::wire::Secret;
use tracing::{error, info};

use super::{
    findings::{At, Findings},
    keys::remedy,
    lists,
    table::{Read, Table},
    values,
};

/// Octets of a file with a password. The longest tokens of providers have a few hundred.
const LONGEST: u64 = 1_024;

/// A name with its password, and the file that has the password. Clones share the password.
#[derive(Debug, Clone)]
pub(crate) struct RouteLogin {
    user: String,
    pub(super) file: At<PathBuf>,
    password: Arc<Mutex<Secret<String>>>,
}

impl RouteLogin {
    /// Reads the table and the password. `None`: one of them has a mistake, which is now a finding.
    pub(super) fn read(mut table: Table<'_>, folder: &Path, findings: &mut Findings) -> Option<Self> {
        let user = table.need("user", findings, values::account_name);
        let file = table.need("password_file", findings, values::path);
        table.end(findings);
        let file = file.map(|file| At { value: folder.join(&file.value), place: file.place })?;
        match password(&file.value) {
            Ok(password) => Some(Self { user: user?.value, file, password: Arc::new(Mutex::new(password)) }),
            Err(problem) => {
                findings.error(file.place, format_args!("{problem}; {}", remedy("login", "password_file")));
                None
            }
        }
    }

    /// What a route takes. Each connection logs in with the password that counts by then.
    pub(super) fn login(&self) -> Login {
        let this = self.clone();
        Login::asked(move || {
            let password = this.password.lock().unwrap_or_else(PoisonError::into_inner).expose().clone();
            let credentials = Credentials::new(this.user.clone(), password).into();
            async { Ok(credentials) }
        })
    }

    /// Reads the password again. The one in use stays if the file has a mistake. The log says
    /// which. Blocks.
    pub(crate) fn renew(&self) {
        match password(&self.file.value) {
            Ok(password) => {
                *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
                info!(file = %self.file.value.display(), user = self.user, "password read again");
            }
            Err(problem) => {
                error!(
                    "password not exchanged, the one in use stays: {problem}; write it there, then send SIGHUP again"
                );
            }
        }
    }
}

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
