//! Random octets: the secret in the queue's folder, and salts.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use posthaste::server::{
    ScramKey,
    session::sasl::{KeyError, SALT_LENGTH},
    wire::Secret,
};

use crate::files;

const NAME: &str = "sasl.secret";

/// The secret that answers for names without an account. It is made if it is missing, and the same
/// after every start. After its loss an onlooker can tell, once, which names have their keys in the
/// configuration.
pub(crate) fn load(queue: &Path) -> io::Result<Secret<[u8; 32]>> {
    let path = queue.join(NAME);
    let mut octets = Vec::new();
    // One octet more would not be a secret of this length.
    let read = files::open(&path).and_then(|file| file.take(33).read_to_end(&mut octets));
    match read {
        Ok(_) => {
            narrow(&path).map_err(|error| at(&path, &error))?;
            if let Ok(secret) = <[u8; 32]>::try_from(octets) {
                return Ok(Secret::new(secret));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(&path, &error)),
    }
    let secret = random()?;
    // Written whole or not at all. Only its owner may read it.
    let written = tempfile::NamedTempFile::new_in(queue).and_then(|mut file| {
        file.write_all(&secret)?;
        file.persist(&path)?;
        Ok(())
    });
    written.map_err(|error| at(&path, &error))?;
    Ok(Secret::new(secret))
}

/// Takes away the rights of other users: it may come out of a backup.
fn narrow(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// What to write for `verifier`, with a fresh salt.
pub(crate) fn verifier(password: &str, iterations: u32) -> io::Result<Result<Secret<String>, KeyError>> {
    let salt: [u8; SALT_LENGTH] = random()?;
    Ok(ScramKey::derive(password, &salt, iterations).map(|key| key.to_text()))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets)?;
    Ok(octets)
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
