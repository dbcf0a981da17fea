//! Licenses, duplicate versions and sources of every dependency, read from `cargo metadata`.
//!
//! cargo-deny does this and more. It is not used because building it takes about four minutes on
//! two cores, for three questions that a page answers. Its fourth question, known vulnerabilities,
//! needs a database from the network that changes by the hour. That belongs in a scheduled job: the
//! answer of this command is the same tomorrow.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};

use crate::shell::{Failure, Outcome, Run};
use crate::test::Context;

/// Licenses that ask for no more than their text being passed on.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    // A list of root certificates, under a license for data.
    "CDLA-Permissive-2.0",
];

/// Crates that may be there in several versions on the platform that builds this, with the reason.
const DUPLICATES: &[(&str, &str)] = &[
    ("base64", "rcgen's pem and lettre's builder use a newer one; tests and an example alone use them"),
    ("fallible-iterator", "SQLite's bindings use a newer one than PostgreSQL's; benches and tests alone use them"),
    ("getrandom", "ring uses an earlier one; it is built only where the feature `ring` is on"),
    ("idna", "smtp-message uses an earlier one; the benches alone build it"),
    ("nom", "smtp-codec and smtp-message use an earlier one; the benches alone build it"),
    ("regex-automata", "smtp-message uses an earlier one; the benches alone build it"),
    ("regex-syntax", "smtp-message uses an earlier one; the benches alone build it"),
    ("untrusted", "aws-lc-rs uses an earlier one than webpki where hickory validates DNSSEC with it"),
    ("syn", "half, which criterion uses, derives with version 2, smtp-message with 1; the benches alone build them"),
    ("thiserror", "tokio-socks uses an earlier one; it is built only where the feature `socks5` is on"),
    ("thiserror-impl", "tokio-socks uses an earlier one; it is built only where the feature `socks5` is on"),
];

pub(crate) fn run(context: &Context) -> Outcome {
    let mut problems = Vec::new();
    let all = all_dependencies(context)?;
    let mut counted = 0;
    for package in all.packages.iter().filter(|package| !all.workspace_members.contains(&package.id)) {
        counted += 1;
        let name = format!("{} {}", package.name, package.version);
        match &package.license {
            Some(license) if is_allowed(license) => {}
            Some(license) => problems.push(format!("{name} is under `{license}`, which is not on the list.")),
            None => problems.push(format!("{name} names no license.")),
        }
        match &package.source {
            Some(source) if source.is_crates_io() => {}
            Some(source) => problems.push(format!("{name} comes from {source} and not from crates.io.")),
            None => problems.push(format!("{name} comes from a path outside the workspace.")),
        }
    }

    let versions = versions_built_here(context)?;
    for (name, found) in &versions {
        let excused = DUPLICATES.iter().any(|(allowed, _)| allowed == name);
        if found.len() > 1 && !excused {
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            problems.push(format!("{name} is there in {} versions: {}.", found.len(), found.join(", ")));
        }
    }
    for (name, reason) in DUPLICATES {
        if versions.get(*name).is_none_or(|found| found.len() < 2) {
            problems.push(format!("{name} is excused ({reason}) and is no duplicate any more."));
        }
    }

    if problems.is_empty() {
        println!("  {counted} dependencies: licenses, sources and versions are as agreed");
        return Ok(());
    }
    let remedy = "Choose another dependency, or extend the lists in crates/xtask/src/licenses.rs with a reason.";
    Err(Failure::new(problems.join("\n"), remedy))
}

/// Every dependency on any platform, with every feature.
fn all_dependencies(context: &Context) -> Result<Metadata, Failure> {
    let mut command = MetadataCommand::new();
    command.current_dir(&context.root).features(CargoOpt::AllFeatures);
    command
        .exec()
        .map_err(|error| Failure::new(format!("cargo metadata failed: {error}"), "Mend the manifest that it names."))
}

/// The versions of each crate that are compiled on this platform. `cargo metadata` names more: it
/// does not know which optional dependencies stay off.
fn versions_built_here(context: &Context) -> Result<BTreeMap<String, BTreeSet<String>>, Failure> {
    let command = ["tree", "--workspace", "--all-features", "--prefix", "none", "--format", "{p}"];
    let (succeeded, lines, errors) = Run::cargo().dir(&context.root).args(command).capture()?;
    if !succeeded {
        return Err(Failure::new(errors, "Mend what cargo names."));
    }
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines.lines() {
        if let [name, version, ..] = line.split(' ').collect::<Vec<_>>()[..] {
            versions.entry(name.into()).or_default().insert(version.into());
        }
    }
    Ok(versions)
}

/// Returns `true` if allowed licenses alone satisfy an SPDX expression.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

// Each of these reads its part of the expression; `None` says that it is none.

fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut allowed = all_of(words)?;
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        allowed |= all_of(words)?;
    }
    Some(allowed)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(words)?;
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        allowed &= one(words)?;
    }
    Some(allowed)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let allowed = any_of(words)?;
            let [")", rest @ ..] = *words else {
                return None;
            };
            *words = rest;
            Some(allowed)
        }
        [license, "WITH", exception, rest @ ..] => {
            *words = rest;
            Some(ALLOWED.contains(&format!("{license} WITH {exception}").as_str()))
        }
        [license, rest @ ..] => {
            *words = rest;
            Some(ALLOWED.contains(license))
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn expressions_are_read_as_spdx_says() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-2.0/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "ISC AND (Apache-2.0 OR ISC) AND OpenSSL",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MPL-2.0", "(MIT", "MIT OR", "", "MIT Apache-2.0"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
