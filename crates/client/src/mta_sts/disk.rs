//! Policies on the disk, one file for each domain.
//!
//! ```text
//! posthaste MTA-STS policy 1
//! domain: example.org
//! id: 20160831085700Z
//! fetched: 1472634000
//! sha256: 64 digits, of everything but this line
//!
//! version: STSv1
//! ..
//! ```
//!
//! A file is written under another name, synced, and renamed. A file that is cut, altered or for
//! another domain fails its checksum and is removed.

use std::{
    fs::{self, DirEntry, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::{
    MAX_POLICY, Policy, PolicyId,
    cache::{DOMAINS, Kept},
};

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Disk(PathBuf);

/// A domain with its policy.
type Loaded = (String, Kept);

const HEAD: &str = "posthaste MTA-STS policy 1";
/// What the names of files begin with: of policies, and of those that are being written. Names of
/// domains alone could be names of devices.
const POLICY: &str = "policy-";
const DRAFT: &str = "draft-";
/// The most bytes of a file. A policy may be longer here than it came.
const MAX_FILE: u64 = 2 * MAX_POLICY as u64;

impl Disk {
    /// Opens the folder, which is made if it is not there, and reads its policies: as many as are
    /// remembered at most. Blocks.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Loaded>)> {
        fs::create_dir_all(path)?;
        let (disk, mut loaded) = (Self(path.to_owned()), Vec::new());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(DRAFT) {
                disk.delete(&entry.path());
            }
            let Some(domain) = name.strip_prefix(POLICY) else { continue };
            // What cannot be read now may be a good policy: it stays, and its reader hears of it.
            let text = text(&entry)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", entry.path().display())))?;
            match text.and_then(|text| read(&text, domain)) {
                Ok(Some(kept)) if loaded.len() < DOMAINS => loaded.push((domain.to_owned(), kept)),
                // It does not count any more, or there are too many.
                Ok(_) => disk.delete(&entry.path()),
                Err(error) => {
                    warn!(file = %entry.path().display(), %error, "MTA-STS policy file damaged, removed");
                    disk.delete(&entry.path());
                }
            }
        }
        Ok((disk, loaded))
    }

    /// Writes a policy that was just fetched. Blocks. A failure is a warning: the policy still
    /// counts until the program ends.
    pub(super) fn save(&self, domain: &str, id: &PolicyId, policy: &Policy) {
        let draft = self.0.join(format!("{DRAFT}{:016x}", fastrand::u64(..)));
        let fetched = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (head, body) = (head(domain, id.as_str(), &fetched.to_string()), policy.to_string());
        let write = || {
            let mut file = File::create_new(&draft)?;
            write!(file, "{head}sha256: {}\n\n{body}", checksum(&head, &body))?;
            file.sync_all()?;
            fs::rename(&draft, self.file(domain))
        };
        if let Err(error) = write() {
            warn!(domain, %error, "MTA-STS policy not written");
            self.delete(&draft);
        }
    }

    /// Removes the policies of domains. Blocks.
    pub(super) fn remove(&self, domains: &[Box<str>]) {
        domains.iter().for_each(|domain| self.delete(&self.file(domain)));
    }

    fn file(&self, domain: &str) -> PathBuf {
        self.0.join(format!("{POLICY}{domain}"))
    }

    fn delete(&self, file: &Path) {
        match fs::remove_file(file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(file = %file.display(), %error, "MTA-STS policy file not removed"),
        }
    }
}

/// The text of a file. The inner error: it is damaged.
fn text(entry: &DirEntry) -> io::Result<Result<String, String>> {
    if !entry.file_type()?.is_file() {
        return Ok(Err("it is no regular file".to_owned()));
    }
    let mut octets = Vec::new();
    File::open(entry.path())?.take(MAX_FILE).read_to_end(&mut octets)?;
    Ok(String::from_utf8(octets).map_err(|_| "it is no text".to_owned()))
}

/// Reads the text of a file. `None`: the policy does not count any more.
fn read(text: &str, domain: &str) -> Result<Option<Kept>, String> {
    let lines = text.split_once("\n\n").and_then(|(head, body)| {
        let [first, named, id, fetched, sum] = head.split('\n').collect::<Vec<_>>()[..] else { return None };
        let named = named.strip_prefix("domain: ")?;
        let id = id.strip_prefix("id: ")?;
        let fetched = fetched.strip_prefix("fetched: ")?;
        let sum = sum.strip_prefix("sha256: ")?;
        (first == HEAD && named == domain).then_some((id, fetched, sum, body))
    });
    let (id, fetched, sum, body) = lines.ok_or("it does not begin as one of this domain")?;
    if checksum(&head(domain, id, fetched), body) != sum {
        return Err("its checksum is wrong".to_owned());
    }
    let id = PolicyId::parse(id).map_err(|error| error.to_string())?;
    let fetched = fetched.parse().map_err(|_| "its time is no number")?;
    let policy = Policy::parse_lines(body.as_bytes()).map_err(|error| error.to_string())?;
    // A clock that went back makes a policy young: it counts for its age at most from now on.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Kept::new(policy, id, now.saturating_sub(Duration::from_secs(fetched))))
}

fn head(domain: &str, id: &str, fetched: &str) -> String {
    format!("{HEAD}\ndomain: {domain}\nid: {id}\nfetched: {fetched}\n")
}

fn checksum(head: &str, body: &str) -> String {
    let digest = Sha256::new().chain_update(head).chain_update(body).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
