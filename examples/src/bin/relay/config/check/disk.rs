//! Files and folders: who may read secrets, and whether the queue can be where it is to be.

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::{Access, access};

use crate::config::{
    Facts,
    file::File,
    findings::{Findings, Place},
    route,
    source::Source,
};

/// The longest name of a socket, without its end.
const LONGEST_SOCKET: usize = 107;

pub(super) fn check(file: &File, facts: &Facts<'_>, findings: &mut Findings) {
    let password = file.accounts.iter().find_map(|account| account.password.as_ref());
    if let (Some(path), Some(password)) = (facts.path, password) {
        let remedy = "take that away with `chmod o=`, or write what `relay verifier` prints as `verifier`";
        readable_by_all(path, password.place, "a password", remedy, findings);
    }
    for key in file.tls.iter().filter_map(|tls| tls.key.as_ref()) {
        readable_by_all(
            &facts.folder.join(&key.value),
            key.place,
            "the private key",
            "take that away with `chmod o=`",
            findings,
        );
    }
    let keys = file.dkim.iter().filter_map(|dkim| dkim.key.as_ref());
    for key in keys.chain(file.sources.iter().filter_map(Source::key)) {
        let remedy = "take that away with `chmod o=`";
        readable_by_all(&facts.folder.join(&key.value), key.place, "the private key", remedy, findings);
    }
    for login in route::logins(file) {
        let remedy = "take that away with `chmod o=`";
        readable_by_all(&login.file.value, login.file.place, "a password", remedy, findings);
    }
    for secret in file.routes.iter().filter_map(|route| route.secret.as_ref()) {
        let remedy = "take that away with `chmod o=`";
        if let Some(file) = &secret.value {
            readable_by_all(&file.path, secret.place, "a secret", remedy, findings);
        }
    }
    let place = file.queue.as_ref().map_or(Place::absent("queue"), |queue| queue.place);
    queue(&facts.queue, place, findings);
}

fn readable_by_all(path: &Path, place: Place, what: &str, remedy: &str, findings: &mut Findings) {
    let Ok(found) = std::fs::metadata(path) else { return };
    // Those of the group may be meant to. What is no file was found before.
    if found.is_file() && found.permissions().mode() & 0o006 != 0 {
        let text = format!("every user of this host may read or change {}, with {what} in it", path.display());
        findings.warn(place, format_args!("{text}; {remedy}"));
    }
}

/// The folder has to be there, or to be one that can be made.
fn queue(path: &Path, place: Place, findings: &mut Findings) {
    let name = path.display();
    let mut there = path;
    let found = loop {
        match std::fs::metadata(there) {
            Ok(found) => break found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                findings.error(place, format_args!("the queue cannot be in {name}: {error}; write another folder"));
                return;
            }
        }
        // A link that leads nowhere is there, and is no folder.
        if std::fs::symlink_metadata(there).is_ok() {
            let text = format!("the queue cannot be in {name}, since {} leads nowhere", there.display());
            findings.error(place, format_args!("{text}; write another folder"));
            return;
        }
        there = match there.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return,
        };
    };
    if !found.is_dir() {
        let text = format!("the queue cannot be in {name}, since {} is no folder", there.display());
        findings.error(place, format_args!("{text}; write the name of a folder"));
    } else if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let text = format!("the queue cannot be in {name}, since this user may not write in {}", there.display());
        findings.error(place, format_args!("{text}; write another folder, or run the relay as a user that may"));
    } else if there == path && is_open(&found) {
        let text = format!("every user of this host may write in {name}, and remove mail");
        findings.error(place, format_args!("{text}; take that away with `chmod o-w {name}`"));
    } else if there == path && is_of_others(path) && path.join("log").is_dir() {
        let marker = path.join("posthaste-queue");
        let marker = marker.display();
        let text = format!("{marker} is missing, and should mark the folder as a queue");
        let remedy = format!(
            "if that is a queue of this program, leave its files there and say printf 'posthaste-queue 1\\n' > {marker}"
        );
        findings.error(place, format_args!("{text}; {remedy}; otherwise write the name of an empty folder"));
    } else if there == path && is_of_others(path) {
        let text = format!("there are files in {name} that do not belong to a queue");
        findings.error(place, format_args!("{text}; write the name of an empty folder, or of one that is not there"));
    }
    let socket = path.join("control.sock");
    if socket.as_os_str().len() > LONGEST_SOCKET {
        let text = format!("{} is too long for a socket, and `relay status` cannot work", socket.display());
        findings.warn(place, format_args!("{text}; write a folder with a shorter name"));
    }
}

/// Returns `true` if there is something in the folder, and no queue.
fn is_of_others(path: &Path) -> bool {
    let is_queue = path.join("posthaste-queue").exists();
    !is_queue && std::fs::read_dir(path).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()))
}

fn is_open(folder: &Metadata) -> bool {
    folder.mode() & 0o002 != 0
}
