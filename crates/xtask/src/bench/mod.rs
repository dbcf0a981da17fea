//! `cargo xtask bench`: the layers by criterion, or the whole relay beside Postfix.

mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use cargo_metadata::MetadataCommand;

use crate::shell::{Failure, Outcome, Run, find_program, workspace_root};

const HELP: &str = "\
Measures speed, beside other implementations in the same run.

Usage: cargo xtask bench [wire|session|queue|dkim] [CRITERION-ARGUMENT]...
       cargo xtask bench durability [--rounds NUMBER] [--seconds NUMBER] [--load TEXT] [--candidate TEXT]
       cargo xtask bench relay [OPTION]...

Without `relay`: the benchmarks of one layer or of all, and a table of what they found. A word picks those whose name
contains it, `--save-baseline NAME` and `--baseline NAME` compare two runs, `--test` runs everything once without
measuring. The first build takes minutes: it optimizes across crates.

With `durability`: what it costs that a message is on stable storage before it is accepted, beside an ideal log, plain
appends, a file for each message, and SQLite. It takes about four minutes, and meanwhile some gigabytes of the disk with
the target folder. A text picks the loads or candidates whose name contains it.

With `relay`: messages through the whole relay, and through Debian's Postfix, to a next hop that counts them. It needs
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
        ["durability", options @ ..] => durability(options),
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
    let (layers, options) = match options {
        [layer, options @ ..] if LAYERS.contains(layer) => (vec![*layer], options),
        options => (LAYERS.to_vec(), options),
    };
    let started = SystemTime::now();
    bench(&layers, options)?;
    table::print(&target_directory()?.join("criterion"), started)
}

/// Prints its own table: criterion has no word for writers, rounds in turn, and what they wait for.
fn durability(options: &[&str]) -> Outcome {
    bench(&["durability"], options)
}

fn bench(names: &[&str], options: &[&str]) -> Outcome {
    let command = ["bench", "--package", "posthaste-benches"];
    let names = names.iter().flat_map(|name| ["--bench", name]);
    Run::cargo().dir(&workspace_root()).args(command).args(names).args(["--"]).args(options).run()
}

fn relay(options: &[&str]) -> Outcome {
    let python = find_program("python3")
        .ok_or_else(|| Failure::new("python3 was not found.", "Install it: `apt-get install python3`."))?;
    let script = workspace_root().join("benches/relay/bench.py");
    let relay = match std::env::var_os("RELAY_BIN") {
        Some(relay) => PathBuf::from(relay),
        // To read the options takes no build.
        None if options.iter().any(|option| matches!(*option, "--help" | "-h")) => PathBuf::new(),
        None => build()?,
    };
    Run::new(python).args([script.as_path(), "--relay".as_ref(), &relay]).args(options).run()
}

/// The relay program, optimized, with the features that users get.
fn build() -> Result<PathBuf, Failure> {
    let command = ["build", "--release", "--package", "posthaste-examples", "--bin", "relay"];
    Run::cargo().dir(&workspace_root()).args(command).run()?;
    Ok(target_directory()?.join("release/relay"))
}

fn target_directory() -> Result<PathBuf, Failure> {
    let metadata = MetadataCommand::new().current_dir(workspace_root()).no_deps().exec();
    let metadata = metadata
        .map_err(|error| Failure::new(format!("cargo metadata failed: {error}"), "Mend the manifest that it names."))?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// The benchmarks that criterion runs.
const LAYERS: [&str; 4] = ["wire", "session", "queue", "dkim"];
