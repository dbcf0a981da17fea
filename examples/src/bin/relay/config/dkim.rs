//! The keys that sign mail: from files to a ring. They are read at the start.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use posthaste::auth::dkim::{Algorithm, KeyError, KeyFault, KeyRing, SigningKey};

use super::{
    findings::{At, Findings, Place},
    table::Table,
    values,
};

/// A table of a key as it was written.
#[derive(Debug)]
pub(super) struct DkimKey {
    place: Place,
    pub(super) domain: Option<At<String>>,
    selector: Option<At<String>>,
    pub(super) key: Option<At<PathBuf>>,
    begins: Option<At<Timestamp>>,
    ends: Option<At<Timestamp>>,
    subdomains: Option<At<bool>>,
}

/// The keys of the configuration.
#[derive(Debug)]
pub(super) struct DkimKeys {
    pub(super) ring: KeyRing,
    /// What to publish, a line of a zone file for each.
    pub(super) records: Vec<String>,
}

/// Octets of one string of a TXT record (RFC 1035 section 3.3).
const STRING: usize = 255;

impl DkimKey {
    pub(super) fn read(mut table: Table<'_>, findings: &mut Findings) -> Self {
        let own = |value: &toml::de::DeValue<'_>| values::text(value).map(str::to_owned);
        let read = Self {
            place: table.place(),
            domain: table.need("domain", findings, own),
            selector: table.need("selector", findings, own),
            key: table.need("key", findings, values::path),
            begins: table.take("begins", findings, values::time),
            ends: table.take("ends", findings, values::time),
            subdomains: table.take("subdomains", findings, values::flag),
        };
        table.end(findings);
        read
    }

    /// `None`: it has a mistake, which is now a finding.
    fn open(&self, folder: &Path, findings: &mut Findings) -> Option<SigningKey> {
        let (domain, selector, file) = (self.domain.as_ref()?, self.selector.as_ref()?, self.key.as_ref()?);
        let opened = SigningKey::file(&domain.value, &selector.value, folder.join(&file.value));
        let mut key = opened.map_err(|error| self.tell(&error, findings)).ok()?;
        let time = |at: &Option<At<Timestamp>>| at.as_ref().map(|at| SystemTime::from(at.value));
        (key.begins, key.ends) = (time(&self.begins), time(&self.ends));
        key.covers_subdomains = self.subdomains.as_ref().is_some_and(|flag| flag.value);
        if let Some(ends) = self.ends.as_ref().filter(|ends| ends.value <= Timestamp::now()) {
            let text = "this time is over, and the key signs no more";
            findings.warn(ends.place, format_args!("{text}; make another key, or take it out"));
        }
        Some(key)
    }

    /// Names the key to which a mistake belongs.
    fn tell(&self, error: &KeyError, findings: &mut Findings) {
        fn place<T>(at: &Option<At<T>>) -> Option<Place> {
            at.as_ref().map(|at| at.place)
        }
        let fault = &error.fault;
        let blamed = match fault {
            KeyFault::Domain => place(&self.domain),
            KeyFault::Selector | KeyFault::RecordName { .. } | KeyFault::Twice => place(&self.selector),
            KeyFault::Window => place(&self.ends),
            _ => place(&self.key),
        };
        let blamed = blamed.unwrap_or(self.place);
        match (&error.file, fault) {
            (Some(file), KeyFault::File(error)) => {
                let remedy = "write the name of a file with the private key that this program may read";
                findings.error(blamed, format_args!("cannot read {}: {error}; {remedy}", file.display()));
            }
            (Some(file), fault) if blamed.key == "key" => {
                findings.error(blamed, format_args!("{}: {fault}", file.display()));
            }
            (_, fault) => findings.error(blamed, fault),
        }
    }
}

/// Reads the keys. `None`: there are none, or one has a mistake, which is now a finding.
pub(super) fn read(written: &[DkimKey], folder: &Path, findings: &mut Findings) -> Option<DkimKeys> {
    let (mut ring, mut records, mut algorithms) = (KeyRing::new(), Vec::new(), Vec::new());
    for table in written {
        let Some(key) = table.open(folder, findings) else { continue };
        let record = zone_line(&key.record_name(), &key.record_text());
        let algorithm = (key.domain().to_owned(), key.algorithm());
        match ring.add(key) {
            Ok(()) => {
                records.push(record);
                algorithms.push((algorithm, table));
            }
            Err(error) => table.tell(&error, findings),
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for ((domain, _), table) in &algorithms {
        let is_first = !seen.contains(&domain.as_str());
        seen.push(domain);
        let has_rsa = algorithms.iter().any(|(key, _)| *key == (domain.clone(), Algorithm::RsaSha256));
        if is_first && !has_rsa {
            let place = table.key.as_ref().map_or(table.place, |key| key.place);
            let text = format!("{domain} has no RSA key, and many hosts cannot check Ed25519 yet");
            findings.warn(place, format_args!("{text}; write another [[dkim]] with a selector of its own"));
        }
    }
    (!written.is_empty() && records.len() == written.len()).then_some(DkimKeys { ring, records })
}

/// A TXT record as zone files have it (RFC 1035 section 5.1). A long text becomes several strings,
/// which readers join.
fn zone_line(name: &str, text: &str) -> String {
    let mut line = format!("{name}. IN TXT");
    let mut rest = text;
    while !rest.is_empty() {
        let (string, after) = rest.split_at_checked(STRING).unwrap_or((rest, ""));
        line.push_str(&format!(" \"{string}\""));
        rest = after;
    }
    line
}
