//! `cargo xtask fuzz`: a fuzz target with what it finds in a folder of its own, which git ignores.

use std::fs;
use std::process::ExitCode;

use crate::shell::{Failure, Outcome, Run, workspace_root};
use crate::steps::fuzz::targets;

const HELP: &str = "\
Runs a fuzz target until it fails or is stopped.

Usage: cargo xtask fuzz TARGET [LIBFUZZER OPTION]...

Example: cargo xtask fuzz command -max_total_time=60

New inputs go to fuzz/found/TARGET, which git ignores; the committed ones in fuzz/corpus/TARGET are read.
A failing input goes to fuzz/artifacts/TARGET. It needs cargo-fuzz (`cargo install cargo-fuzz --locked`) and
no nightly toolchain: it runs without AddressSanitizer, which finds nothing in crates without `unsafe`.
";

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    match arguments {
        [] | ["--help" | "-h", ..] => {
            print!("{HELP}");
            if let Ok(targets) = targets(&workspace_root().join("fuzz")) {
                println!("\nTargets: {}", targets.join(", "));
            }
            ExitCode::SUCCESS
        }
        [target, options @ ..] => match run(target, options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                println!("{failure}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run(target: &str, options: &[&str]) -> Outcome {
    let root = workspace_root();
    let targets = targets(&root.join("fuzz"))?;
    if !targets.iter().any(|known| known == target) {
        let remedy = format!("The targets are {}.", targets.join(", "));
        return Err(Failure::new(format!("There is no fuzz target `{target}`."), remedy));
    }
    // libFuzzer writes to the first folder and only reads the others.
    let folders = [format!("fuzz/found/{target}"), format!("fuzz/corpus/{target}")];
    for folder in &folders {
        fs::create_dir_all(root.join(folder))
            .map_err(|error| Failure::new(format!("{folder} cannot be made: {error}."), "Mend its permissions."))?;
    }
    let remedy = "`cargo install cargo-fuzz --locked` if there is no `cargo fuzz`; otherwise fuzz/README.md says what to do with an input that fails.";
    Run::cargo()
        .dir(&root)
        .args(["fuzz", "run", "--sanitizer", "none", target])
        .args(&folders)
        .args(["--"])
        .args(options)
        .remedy(remedy)
        .run()
}
