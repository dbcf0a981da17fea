//! Next hops that are no hosts: sockets of LMTP servers, maildirs and webhooks. From the file to
//! what the relay takes, and whether they can be what it says.

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use posthaste::relay::{
    self,
    agent::{Maildir, Webhook},
};
use posthaste::server::{rustls::ClientConfig, wire::Secret};
use rustix::fs::{Access, access};

use super::{
    file::File,
    findings::{At, Findings, Place},
    keys::remedy,
    lists,
    next_hop::To,
    route::Route,
    table::{Read, Table},
    tls, values,
};

/// A next hop that is no host.
#[derive(Debug, Clone)]
pub(super) enum Hop {
    /// LMTP over the Unix socket with this path.
    Socket(String),
    /// As the file has it, and the maildirs.
    Maildir(String, Maildir),
    /// A URL.
    Webhook(String),
}

/// The secret of a webhook, and the file that has it.
#[derive(Debug)]
pub(super) struct SecretFile {
    pub(super) path: PathBuf,
    secret: Secret<String>,
}

/// Octets of a file with a secret.
const LONGEST: u64 = 1_024;
/// The fewest octets of a secret.
const LEAST: usize = 16;

impl Hop {
    /// `None`: it is no text of such a next hop.
    pub(super) fn read(text: &str) -> Option<Read<Self>> {
        let wrong = |error: &dyn std::fmt::Display| format!("`{text}`: {error}");
        if let Some(path) = text.strip_prefix("lmtp:unix:") {
            let is_path = path.starts_with('/') && !path.contains(char::is_control);
            return Some(
                is_path
                    .then(|| Self::Socket(path.to_owned()))
                    .ok_or_else(|| wrong(&"the path of a socket begins with /")),
            );
        }
        if let Some(path) = text.strip_prefix("maildir:") {
            let maildir = Maildir::new(path).map_err(|error| wrong(&error));
            return Some(maildir.map(|maildir| Self::Maildir(text.to_owned(), maildir)));
        }
        if text.starts_with("https:") || text.starts_with("http:") {
            // The secret and the authorities come later. Neither has a part in what is wrong here.
            let config = tls::any().map_err(|error| wrong(&error));
            let made = config
                .and_then(|config| Webhook::with_config(text, [0; LEAST], &config).map_err(|error| wrong(&error)));
            return Some(made.map(|_| Self::Webhook(text.to_owned())));
        }
        None
    }

    /// What the relay takes. `None`: the webhook has no secret or no authorities, an error that was
    /// found before.
    pub(super) fn route(
        &self,
        secret: Option<&SecretFile>,
        config: Option<&Arc<ClientConfig>>,
    ) -> Option<relay::Route> {
        Some(match self {
            Self::Socket(path) => relay::Route::lmtp_unix(path),
            Self::Maildir(text, maildir) => relay::Route::agent(text, maildir.clone()),
            Self::Webhook(url) => {
                let webhook = Webhook::with_config(url, secret?.secret.expose(), config?).ok()?;
                relay::Route::agent(url, webhook)
            }
        })
    }

    /// As the file has it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Socket(path) => format!("lmtp:unix:{path}"),
            Self::Maildir(text, _) | Self::Webhook(text) => text.clone(),
        }
    }

    /// Returns `true` if it is reached over TLS that proves its name.
    pub(super) fn is_https(&self) -> bool {
        matches!(self, Self::Webhook(url) if url.starts_with("https:"))
    }
}

impl SecretFile {
    /// Takes the key with the file's name, and reads the file. `None` inside: it has a mistake,
    /// which is now a finding.
    pub(super) fn read(table: &mut Table<'_>, folder: &Path, findings: &mut Findings) -> Option<At<Option<Self>>> {
        let name = table.take("secret_file", findings, values::path)?;
        let path = folder.join(&name.value);
        let place = name.place;
        match secret(&path) {
            Ok(secret) => Some(At { value: Some(Self { path, secret }), place }),
            Err(problem) => {
                findings.error(place, format_args!("{problem}; {}", remedy("route", "secret_file")));
                Some(At { value: None, place })
            }
        }
    }
}

/// The text of a file without the end of its last line. No error shows it.
fn secret(file: &Path) -> Read<Secret<String>> {
    let name = file.display();
    let text = lists::text(file, LONGEST)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains(['\r', '\n']) {
        return Err(format!("{name} has more than one line"));
    }
    match line.len() {
        octets if octets < LEAST => Err(format!("{name} has a secret of {octets} octets, at least {LEAST} are needed")),
        _ => Ok(Secret::new(line.to_owned())),
    }
}

/// Looks whether the next hops are there, and have what they need.
pub(super) fn check(file: &File, findings: &mut Findings) {
    for route in &file.routes {
        let Some(to) = &route.to else { continue };
        let hop = if let To::Hop(hop) = &to.value { Some(hop) } else { None };
        secrets(route, hop, to.place, findings);
        let Some(hop) = hop else { continue };
        match hop {
            Hop::Webhook(_) => {}
            Hop::Socket(path) => socket(path, to.place, findings),
            Hop::Maildir(_, maildir) => root(maildir.root(), to.place, findings),
        }
        without_effect(route, findings);
    }
}

fn secrets(route: &Route, hop: Option<&Hop>, to: Place, findings: &mut Findings) {
    match (&route.secret, hop) {
        (None, Some(Hop::Webhook(_))) => {
            let place = Place { key: "secret_file", ..to };
            findings.error(place, format_args!("it is missing; {}", remedy("route", "secret_file")));
        }
        (Some(_), Some(Hop::Webhook(_))) | (None, _) => {}
        (Some(secret), _) => {
            findings.warn(secret.place, "only requests to a URL are signed, and it has no effect; take it out");
        }
    }
}

fn socket(path: &str, place: Place, findings: &mut Findings) {
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if access(path, Access::WRITE_OK).is_err() {
                let text = format!("this user may not connect to {path}, and mail would wait");
                findings.warn(place, format_args!("{text}; run the relay as a user that may, or change its group"));
            }
        }
        Ok(_) => findings.error(place, format_args!("{path} is no socket; write the path of the LMTP server's socket")),
        Err(error) => {
            let text = format!("there is no server at {path} now ({error}), and mail would wait");
            findings.warn(place, format_args!("{text}; start the LMTP server, or write the path of its socket"));
        }
    }
}

/// The folder of all maildirs. Those below it are made.
fn root(root: &Path, place: Place, findings: &mut Findings) {
    let name = root.display();
    match std::fs::metadata(root) {
        Ok(found) if !found.is_dir() => {
            findings.error(place, format_args!("{name} is no folder; write the folder of the maildirs"));
        }
        Ok(_) if access(root, Access::WRITE_OK | Access::EXEC_OK).is_err() => {
            let text = format!("this user may not write in {name}, and mail would wait");
            findings.warn(place, format_args!("{text}; run the relay as a user that may, or change its owner"));
        }
        Ok(_) => {}
        Err(error) => {
            let text = format!("the folder {name} is not usable ({error}), and mail would wait");
            findings.warn(place, format_args!("{text}; make it, or write the folder of the maildirs"));
        }
    }
}

/// Keys for hosts on a route without one.
fn without_effect(route: &Route, findings: &mut Findings) {
    let places = [
        route.tls.as_ref().map(|tls| tls.place),
        route.login.as_ref().map(|login| login.place),
        route.chunking.as_ref().map(|chunking| chunking.place),
    ];
    for place in places.into_iter().flatten() {
        findings.warn(place, "it is for hosts, and this route has none; take it out");
    }
}

#[cfg(test)]
mod tests {
    use super::secret;

    /// What verifies the signatures takes the line end off as well.
    #[test]
    fn the_line_end_of_a_secret_file_is_no_part_of_the_secret() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for (text, read) in [
            ("0123456789abcdef", Some("0123456789abcdef")),
            ("0123456789abcdef\n", Some("0123456789abcdef")),
            ("0123456789abcdef\r\n", Some("0123456789abcdef")),
            (" 0123456789abcdef \n", Some(" 0123456789abcdef ")),
            ("0123456789abcdef\n\n", None),
            ("0123456789abcde\n", None),
        ] {
            std::fs::write(file.path(), text).expect("the file is ours");
            assert_eq!(secret(file.path()).ok().as_ref().map(|secret| secret.expose().as_str()), read, "{text:?}");
        }
    }
}
