//! `cargo xtask test`: the steps, one after the other; the first failure ends the run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cargo_metadata::{Metadata, MetadataCommand};

use crate::shell::{Failure, Outcome, workspace_root};
use crate::steps;

/// What every step may use.
#[derive(Debug)]
pub(crate) struct Context {
    /// The folder of the workspace.
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    /// The workspace as cargo sees it, dependencies included.
    pub(crate) metadata: Metadata,
}

impl Context {
    pub(crate) fn new() -> Result<Self, Failure> {
        let root = workspace_root();
        let metadata = MetadataCommand::new().current_dir(&root).exec().map_err(|error| {
            Failure::new(format!("cargo metadata failed: {error}"), "Mend the manifest that it names.")
        })?;
        let target = metadata.target_directory.clone().into_std_path_buf();
        Ok(Self { root, target, metadata })
    }

    /// The crates that go to crates.io.
    pub(crate) fn published(&self) -> impl Iterator<Item = &cargo_metadata::Package> {
        // `publish = false` is an empty list of registries.
        self.metadata.workspace_packages().into_iter().filter(|p| p.publish.as_ref().is_none_or(|p| !p.is_empty()))
    }
}

struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Outcome,
}

/// In the order of cost: what fails fast stands first. `install` precedes all that needs what it
/// installs.
const STEPS: &[Step] = &[
    Step {
        name: "install",
        about: "Debian packages that the tests use (root or sudo, only when one is missing)",
        run: steps::install::run,
    },
    Step { name: "format", about: "cargo fmt --check", run: steps::cargo::format },
    Step {
        name: "prose",
        about: "width, words and sentences of comments and Markdown, where crates/xtask/prose.txt says so",
        run: crate::prose::run,
    },
    Step {
        name: "licenses",
        about: "licenses, duplicate versions and sources of every dependency",
        run: crate::licenses::run,
    },
    Step { name: "lint", about: "clippy over every target and feature, warnings are errors", run: steps::cargo::lint },
    Step { name: "test", about: "unit, integration and doc tests of the libraries", run: steps::cargo::test },
    Step {
        name: "exhaustive",
        about: "every short content and every short sequence of commands, optimized, against their references",
        run: steps::cargo::exhaustive,
    },
    Step { name: "benches", about: "every benchmark once, without measuring", run: steps::cargo::benches },
    Step {
        name: "instructions",
        about: "instruction counts of the parsers, and that they grow no faster than the input",
        run: crate::instructions::run,
    },
    Step { name: "docs", about: "rustdoc, warnings are errors", run: steps::cargo::docs },
    Step { name: "api", about: "the public API of each crate is as its public-api.txt says", run: crate::api::run },
    Step { name: "semver", about: "versions hold against the last tag, once there is one", run: steps::semver::run },
    Step {
        name: "features",
        about: "every library without features and with each feature alone",
        run: steps::features::run,
    },
    Step { name: "no-std", about: "wire and session link into a program that has no std", run: steps::no_std::run },
    Step { name: "fuzz", about: "build the fuzz targets, replay the committed corpora", run: steps::fuzz::run },
    Step {
        name: "package",
        about: "package the crates, run their README examples outside the workspace",
        run: steps::package::run,
    },
    Step {
        name: "end-to-end",
        about: "the relay program, optimized, against real clients and servers",
        run: steps::cargo::end_to_end,
    },
];

const HELP: &str = "\
Everything that has to hold before a change goes in. Continuous integration runs exactly this.

Usage: cargo xtask test [--only STEP]... [--skip STEP]... [--list] [--help]

  --list         print the steps and what each does
  --only STEP    run this step alone; may be given several times
  --skip STEP    leave this step out; may be given several times

The steps run in order and the first failure ends the run with what to do about it. Every command line is
printed before it runs. The last line is `N passed, N failed`, counting steps. Only `install` wants root,
and only when a package is missing; everything else listens on loopback and writes under the target folder
and the folder for temporary files.
";

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let selected = match select(arguments) {
        Ok(Some(selected)) => selected,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask test: {problem}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let mut passed = 0;
    let mut failure = None;
    match Context::new() {
        Err(reason) => failure = Some(("metadata", reason)),
        Ok(context) => {
            for (index, step) in selected.iter().enumerate() {
                println!("\n== {} ({} of {}): {}", step.name, index + 1, selected.len(), step.about);
                let step_started = Instant::now();
                let outcome = (step.run)(&context);
                let took = step_started.elapsed().as_secs_f32();
                match outcome {
                    Ok(()) => {
                        passed += 1;
                        println!("== {}: passed in {took:.1} s", step.name);
                    }
                    Err(reason) => {
                        println!("== {}: FAILED after {took:.1} s", step.name);
                        failure = Some((step.name, reason));
                        break;
                    }
                }
            }
        }
    }
    println!();
    if let Some((name, reason)) = &failure {
        println!("{name}: {reason}");
        println!("  After that: `cargo xtask test --only {name}`, and once more without --only.");
        println!("{} steps were not run.", selected.len().saturating_sub(passed + 1));
    }
    println!("{:.0} s in all", started.elapsed().as_secs_f32());
    println!("{passed} passed, {} failed", u8::from(failure.is_some()));
    if failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The steps to run, `None` when the question has been answered already, or what is wrong with the
/// arguments.
fn select(arguments: &[&str]) -> Result<Option<Vec<&'static Step>>, String> {
    let mut only = Vec::new();
    let mut skip = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(&argument) = arguments.next() {
        match argument {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--list" => {
                for step in STEPS {
                    println!("{:12} {}", step.name, step.about);
                }
                return Ok(None);
            }
            "--only" | "--skip" => {
                let name = arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs the name of a step; --list prints them"))?;
                let step = STEPS.iter().find(|step| step.name == *name);
                let step =
                    step.ok_or_else(|| format!("there is no step `{name}`; --list prints the {}", STEPS.len()))?;
                if argument == "--only" { only.push(step.name) } else { skip.push(step.name) }
            }
            other => {
                return Err(format!("`{other}` is not understood; --help explains the arguments"));
            }
        }
    }
    let chosen = |step: &&Step| (only.is_empty() || only.contains(&step.name)) && !skip.contains(&step.name);
    Ok(Some(STEPS.iter().filter(chosen).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
        select(arguments).map(|steps| steps.unwrap_or_default().iter().map(|step| step.name).collect())
    }

    #[test]
    fn all_steps_run_unless_some_are_named() {
        assert_eq!(names(&[]).map(|names| names.len()), Ok(STEPS.len()));
        assert_eq!(names(&["--only", "docs", "--only", "lint"]), Ok(vec!["lint", "docs"]));
        assert_eq!(names(&["--only", "docs", "--skip", "docs"]), Ok(vec![]));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(names(&["--only"]).is_err());
        assert!(names(&["--only", "everything"]).is_err());
        assert!(names(&["--fast"]).is_err());
    }
}
