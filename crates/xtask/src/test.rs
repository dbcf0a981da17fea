//! `cargo xtask test` and `cargo xtask check`: steps, one after the other; the first failure ends
//! the run.

use std::path::{Path, PathBuf};
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

#[derive(Debug)]
struct Step {
    name: &'static str,
    about: &'static str,
    /// Estimate: seconds on two idle cores, with everything to build.
    seconds: u32,
    run: fn(&Context) -> Outcome,
}

const fn step(name: &'static str, seconds: u32, about: &'static str, run: fn(&Context) -> Outcome) -> Step {
    Step { name, about, seconds, run }
}

const INSTALL: Step = step(
    "install",
    30,
    "packages and mail servers that the tests use (root or sudo, only when one is missing)",
    steps::install::run,
);
const FORMAT: Step = step("format", 2, "cargo fmt --check", steps::cargo::format);
const PROSE: Step = step(
    "prose",
    1,
    "width, words and sentences of comments and Markdown, where crates/xtask/prose.txt says so",
    crate::prose::run,
);
const LICENSES: Step =
    step("licenses", 1, "licenses, duplicate versions and sources of every dependency", crate::licenses::run);
const LINT: Step = step("lint", 290, "clippy over every target and feature, warnings are errors", steps::cargo::lint);

/// In the order of cost: what fails fast stands first. `install` precedes all that needs what it
/// installs, and steps that share a build stand together.
const TEST: Command = Command {
    name: "test",
    help: TEST_HELP,
    steps: &[
        INSTALL,
        FORMAT,
        PROSE,
        LICENSES,
        LINT,
        step("docs", 30, "rustdoc, warnings are errors", steps::cargo::docs),
        step("api", 10, "the public API of each crate is as its public-api.txt says", crate::api::run),
        step("semver", 1, "versions hold against the last tag, once there is one", steps::semver::run),
        step("test", 710, "unit, integration and doc tests of the libraries", steps::cargo::test),
        step("benches", 16, "every benchmark once, without measuring", steps::cargo::benches),
        step("features", 170, "every library without features and with each feature alone", steps::features::run),
        step("no-std", 8, "wire and session link into a program that has no std", steps::no_std::run),
        step("fuzz", 52, "build the fuzz targets, replay the committed corpora", steps::fuzz::run),
        step(
            "package",
            180,
            "package the crates, run their README examples outside the workspace",
            steps::package::run,
        ),
        step(
            "instructions",
            43,
            "instruction counts of the parsers, and that they grow no faster than the input",
            crate::instructions::run,
        ),
        step(
            "exhaustive",
            165,
            "every short content and every short sequence of commands, optimized, against their references",
            steps::cargo::exhaustive,
        ),
        step(
            "end-to-end",
            390,
            "the relay program, optimized, against real clients and servers",
            steps::cargo::end_to_end,
        ),
    ],
};

/// What most mistakes fail at.
const CHECK: Command = Command {
    name: "check",
    help: CHECK_HELP,
    steps: &[
        FORMAT,
        PROSE,
        LICENSES,
        LINT,
        step("quick", 60, "unit and integration tests of wire and session", steps::cargo::quick),
    ],
};

#[derive(Debug)]
struct Command {
    name: &'static str,
    help: &'static str,
    steps: &'static [Step],
}

const TEST_HELP: &str = "\
Everything that has to hold before a change goes in. Continuous integration runs exactly this.

Usage: cargo xtask test [--only STEP]... [--skip STEP]... [--list] [--help]

  --list         print the steps, what each does and how long it takes
  --only STEP    run this step alone; may be given several times
  --skip STEP    leave this step out; may be given several times

The steps run in order and the first failure ends the run with what to do about it. Every command line is
printed before it runs. The last line is `N passed, N failed`, counting steps. Only `install` wants root,
and only when a package is missing; everything else listens on loopback and writes under the target folder
and the folder for temporary files. Times are those of two idle cores when everything has to be built.

`cargo xtask check` is the quick half.
";

const CHECK_HELP: &str = "\
What most mistakes fail at, in about six minutes on two idle cores when everything has to be built.

Usage: cargo xtask check [--only STEP]... [--skip STEP]... [--list] [--help]

It covers: formatting; the rules for prose; licenses; clippy over every crate, target and feature, so that
everything compiles; the unit and integration tests of wire and session.
It leaves out: the tests of tokio, client, server, relay and queue, documentation, the public API, features,
no-std, fuzz corpora, packages, instruction counts, exhaustive and end-to-end tests. `cargo xtask test` has them all.
";

pub(crate) fn test(arguments: &[&str]) -> ExitCode {
    TEST.main(arguments)
}

pub(crate) fn check(arguments: &[&str]) -> ExitCode {
    CHECK.main(arguments)
}

impl Command {
    fn main(&self, arguments: &[&str]) -> ExitCode {
        let selected = match self.select(arguments) {
            Ok(Some(selected)) => selected,
            Ok(None) => return ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("xtask {}: {problem}", self.name);
                return ExitCode::from(2);
            }
        };
        let started = Instant::now();
        let (passed, failure) = match Context::new() {
            Err(reason) => (0, Some(("metadata", reason))),
            Ok(context) => run(&context, &selected),
        };
        println!();
        if let Some((name, reason)) = &failure {
            println!("{name}: {reason}");
            println!("  After that: `cargo xtask {0} --only {name}`, and once more without --only.", self.name);
            println!("{} steps were not run.", selected.len().saturating_sub(passed + 1));
        }
        println!("{} in all", minutes(started.elapsed().as_secs()));
        println!("{passed} passed, {} failed", u8::from(failure.is_some()));
        if failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// The steps to run, `None` when the question has been answered already, or what is wrong with
    /// the arguments.
    fn select(&self, arguments: &[&str]) -> Result<Option<Vec<&'static Step>>, String> {
        let mut only = Vec::new();
        let mut skip = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            match argument {
                "--help" | "-h" => {
                    print!("{}", self.help);
                    return Ok(None);
                }
                "--list" => {
                    for step in self.steps {
                        println!("{:12} {:>6}  {}", step.name, minutes(step.seconds.into()), step.about);
                    }
                    return Ok(None);
                }
                "--only" | "--skip" => {
                    let name = arguments
                        .next()
                        .ok_or_else(|| format!("{argument} needs the name of a step; --list prints them"))?;
                    let step = self.steps.iter().find(|step| step.name == *name);
                    let step = step
                        .ok_or_else(|| format!("there is no step `{name}`; --list prints the {}", self.steps.len()))?;
                    if argument == "--only" { only.push(step.name) } else { skip.push(step.name) }
                }
                other => {
                    return Err(format!("`{other}` is not understood; --help explains the arguments"));
                }
            }
        }
        let chosen = |step: &&Step| (only.is_empty() || only.contains(&step.name)) && !skip.contains(&step.name);
        Ok(Some(self.steps.iter().filter(chosen).collect()))
    }
}

/// How many steps passed, and the one that failed.
fn run(context: &Context, steps: &[&'static Step]) -> (usize, Option<(&'static str, Failure)>) {
    let total = |steps: &[&Step]| steps.iter().map(|step| u64::from(step.seconds)).sum();
    let estimate = minutes(total(steps));
    println!("{} steps: about {estimate} on two idle cores when everything has to be built", steps.len());
    for (index, step) in steps.iter().enumerate() {
        let left = minutes(total(&steps[index..]));
        println!("\n== {} ({} of {}): {}", step.name, index + 1, steps.len(), step.about);
        println!("   about {} for this step, {left} for all that are left", minutes(step.seconds.into()));
        let started = Instant::now();
        let cpu_before = cpu_seconds();
        let outcome = (step.run)(context);
        let took = started.elapsed().as_secs_f32();
        let cpu = cpu_seconds() - cpu_before;
        let size = megabytes(&context.target);
        let used = format!("{took:.1} s ({cpu:.0} s of processors; target has {size} MB)");
        if let Err(reason) = outcome {
            println!("== {}: FAILED after {used}", step.name);
            return (index, Some((step.name, reason)));
        }
        println!("== {}: passed in {used}", step.name);
    }
    (steps.len(), None)
}

/// `2:05 min`.
fn minutes(seconds: u64) -> String {
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

/// Seconds of processors that programs which have ended took, theirs and the system's; 0 if this
/// system does not tell.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses. The two are fields 16 and 17, in hundredths.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(13).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// What the folder takes on the disk, each file once.
fn megabytes(folder: &Path) -> String {
    let output = std::process::Command::new("du").args(["--summarize", "--block-size=1M"]).arg(folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
        TEST.select(arguments).map(|steps| steps.unwrap_or_default().iter().map(|step| step.name).collect())
    }

    #[test]
    fn all_steps_run_unless_some_are_named() {
        assert_eq!(names(&[]).map(|names| names.len()), Ok(TEST.steps.len()));
        assert_eq!(names(&["--only", "docs", "--only", "lint"]), Ok(vec!["lint", "docs"]));
        assert_eq!(names(&["--only", "docs", "--skip", "docs"]), Ok(vec![]));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(names(&["--only"]).is_err());
        assert!(names(&["--only", "everything"]).is_err());
        assert!(names(&["--fast"]).is_err());
    }

    #[test]
    fn the_estimates_keep_the_promise() {
        let seconds = |command: &Command| command.steps.iter().map(|step| step.seconds).sum::<u32>();
        assert!(seconds(&TEST) <= 35 * 60, "{}", seconds(&TEST));
        assert!(seconds(&CHECK) <= 6 * 60, "{}", seconds(&CHECK));
    }

    #[test]
    fn a_time_is_in_minutes() {
        assert_eq!(minutes(125), "2:05 min");
        assert!(cpu_seconds() >= 0.0);
    }
}
