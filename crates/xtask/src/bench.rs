//! `cargo xtask bench`: the layers by criterion, or the whole relay beside Postfix.

use std::path::PathBuf;
use std::process::ExitCode;

use cargo_metadata::MetadataCommand;

use crate::shell::{Failure, Outcome, Run, find_program, workspace_root};

const HELP: &str = "\
How fast it is, beside others in the same run.

Usage: cargo xtask bench [CRITERION-ARGUMENT]...
       cargo xtask bench relay [OPTION]...

Without `relay`: the benchmarks of each layer. A word picks those whose name has it in it, `--save-baseline NAME` and
`--baseline NAME` compare two runs, `--test` runs everything once without measuring.

With `relay`: messages through the whole relay, and through Debian's Postfix, to a next hop that counts them. It wants
root, the `postfix` package and Python 3; `cargo xtask bench relay --help` lists its options. RELAY_BIN names a relay
that is built already.
";

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let outcome = match arguments {
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["relay", options @ ..] => relay(options),
        options => layers(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn layers(options: &[&str]) -> Outcome {
    let command = ["bench", "--package", "posthaste-benches", "--"];
    Run::cargo().dir(&workspace_root()).args(command).args(options).run()
}

fn relay(options: &[&str]) -> Outcome {
    let python = find_program("python3")
        .ok_or_else(|| Failure::new("python3 was not found.", "Install it: `apt-get install python3`."))?;
    let script = workspace_root().join("benches/relay/bench.py");
    let relay = match std::env::var_os("RELAY_BIN") {
        Some(relay) => PathBuf::from(relay),
        // Nobody should have to wait for a build to read the options.
        None if options.iter().any(|option| matches!(*option, "--help" | "-h")) => PathBuf::new(),
        None => build()?,
    };
    Run::new(python).args([script.as_path(), "--relay".as_ref(), &relay]).args(options).run()
}

/// The relay program, optimised, with the features that users get.
fn build() -> Result<PathBuf, Failure> {
    let root = workspace_root();
    let metadata =
        MetadataCommand::new().current_dir(&root).no_deps().exec().map_err(|error| {
            Failure::new(format!("cargo metadata failed: {error}"), "Mend the manifest that it names.")
        })?;
    Run::cargo().dir(&root).args(["build", "--release", "--package", "posthaste-examples", "--bin", "relay"]).run()?;
    Ok(metadata.target_directory.into_std_path_buf().join("release/relay"))
}
