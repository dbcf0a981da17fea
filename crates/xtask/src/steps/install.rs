//! Installs the programs that the end-to-end tests talk to, on Debian and its relatives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::shell::{Failure, Outcome, Run, find_program};
use crate::steps::next_hops;
use crate::test::Context;

struct Tool {
    /// A program, or a Perl module.
    name: &'static str,
    package: &'static str,
    used_for: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { name: "smtp-source", package: "postfix", used_for: "a real client" },
    Tool { name: "smtp-sink", package: "postfix", used_for: "a real next hop" },
    Tool { name: "swaks", package: "swaks", used_for: "a real client" },
    Tool { name: "Net::SSLeay", package: "libnet-ssleay-perl", used_for: "TLS in swaks" },
    Tool { name: "msmtp", package: "msmtp", used_for: "a real client that knows SCRAM" },
    Tool { name: "gsasl", package: "gsasl", used_for: "another implementation of SCRAM with a channel binding" },
    Tool { name: "curl", package: "curl", used_for: "a real client" },
    Tool { name: "python3", package: "python3", used_for: "clients, next hops with faults, the conformance table" },
    Tool { name: "pip3", package: "python3-pip", used_for: "real next hops and a DKIM verifier from PyPI" },
    Tool { name: "opendkim", package: "opendkim", used_for: "another verifier of DKIM signatures" },
    Tool { name: "openssl", package: "openssl", used_for: "the certificates of the tests" },
    Tool { name: "initdb", package: "postgresql", used_for: "an engine of the queue on a shared database" },
    Tool { name: "make", package: "make", used_for: "the allocator of the relay program" },
    Tool { name: "g++", package: "g++", used_for: "libFuzzer, which the fuzz targets link" },
    Tool { name: "valgrind", package: "valgrind", used_for: "counting instructions" },
    Tool { name: "ps", package: "procps", used_for: "the adaptor that drives the relay from outside" },
];

impl Tool {
    fn is_there(&self) -> bool {
        if self.name.contains("::") {
            let perl = Run::new("perl").args([format!("-M{}", self.name).as_str(), "-e", "1"]).quiet();
            return perl.capture().is_ok_and(|(loaded, _, _)| loaded);
        }
        find_program(self.name).is_some() || is_of_postgresql(self.name)
    }
}

/// Debian keeps the programs of a PostgreSQL server out of the path, in a folder for each version.
fn is_of_postgresql(name: &str) -> bool {
    let mut versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin").join(name).is_file())
}

pub(crate) fn run(context: &Context) -> Outcome {
    tools()?;
    next_hops::run(context)
}

fn tools() -> Outcome {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        println!("  all {} tools are there, nothing to install", TOOLS.len());
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    for tool in &missing {
        println!("  {} is missing ({}): package {}", tool.name, tool.used_for, tool.package);
    }
    let by_hand = format!("Install the packages yourself: {}.", packages.join(" "));
    if find_program("apt-get").is_none() {
        return Err(Failure::new("Tools are missing, and this system has no apt-get.", by_hand));
    }
    let prefix = become_root(&by_hand)?;
    apt(&prefix, &["update"], &by_hand)?;
    if packages.contains(&"postfix") {
        // Only the programs are wanted: Postfix stays unconfigured, and no daemon starts.
        let answer = "echo postfix postfix/main_mailer_type select No configuration | debconf-set-selections";
        as_root(&prefix, &["sh", "-c", answer], &by_hand)?;
    }
    let guard = NoDaemons::new(&prefix)?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&packages);
    let installed = apt(&prefix, &install, &by_hand);
    drop(guard);
    installed
}

/// The words to put before a command that needs root: none when we are root already.
pub(super) fn become_root(by_hand: &str) -> Result<Vec<String>, Failure> {
    let (_, id, _) = Run::new("id").args(["-u"]).capture()?;
    if id.trim() == "0" {
        return Ok(vec![]);
    }
    if find_program("sudo").is_none() {
        return Err(Failure::new("Packages can be installed by root only, and there is no sudo.", by_hand));
    }
    println!("  sudo is used for apt-get and nothing else");
    Ok(vec!["sudo".into()])
}

pub(super) fn apt(prefix: &[String], arguments: &[&str], by_hand: &str) -> Outcome {
    let mut words = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"];
    words.extend(arguments);
    as_root(prefix, &words, by_hand)
}

fn as_root(prefix: &[String], command: &[&str], remedy: &str) -> Outcome {
    let mut words: Vec<&str> = prefix.iter().map(String::as_str).collect();
    words.extend(command);
    Run::new(words[0]).args(&words[1..]).remedy(remedy).run()
}

/// Keeps installed packages from starting daemons, by the file that Debian asks: `policy-rc.d`. One
/// that was there is put back when this is dropped, however the installation ends.
struct NoDaemons<'a> {
    prefix: &'a [String],
    had_one: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
const POLICY_ASIDE: &str = "/usr/sbin/policy-rc.d.before-xtask";

impl<'a> NoDaemons<'a> {
    fn new(prefix: &'a [String]) -> Result<Self, Failure> {
        let no_file = |error| {
            Failure::new(format!("No temporary file can be written: {error}."), "Make room for temporary files.")
        };
        let file = tempfile::NamedTempFile::new().map_err(no_file)?;
        fs::write(file.path(), "#!/bin/sh\nexit 101\n").map_err(no_file)?;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755)).map_err(no_file)?;
        let had_one = Path::new(POLICY).exists();
        if had_one {
            as_root(prefix, &["mv", POLICY, POLICY_ASIDE], REMEDY)?;
        }
        let guard = Self { prefix, had_one };
        as_root(prefix, &["cp", "--preserve=mode", &file.path().to_string_lossy(), POLICY], REMEDY)?;
        Ok(guard)
    }
}

impl Drop for NoDaemons<'_> {
    fn drop(&mut self) {
        let restore: &[&str] = if self.had_one { &["mv", POLICY_ASIDE, POLICY] } else { &["rm", "-f", POLICY] };
        // Not printed: whatever brought us here may have taken standard output with it.
        let mut words: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
        words.extend(restore);
        let restored = Run::new(words[0]).args(&words[1..]).quiet().capture();
        if !restored.is_ok_and(|(succeeded, _, _)| succeeded) {
            eprintln!("{POLICY} could not be put back as it was. {REMEDY}");
        }
    }
}

const REMEDY: &str =
    "/usr/sbin/policy-rc.d keeps daemons from starting; look at it, and at policy-rc.d.before-xtask beside it.";
