//! The steps that are one cargo command, or two of a kind.
//!
//! Cargo builds a dependency again for every set of features that the selected packages ask of it.
//! Steps that could share a build therefore select the same packages, and narrow down by targets.
//! What needs the relay's C libraries checked is checked as a release: `end-to-end` and README's
//! first command need them optimized, and they take minutes.

use cargo_metadata::TargetKind;

use crate::shell::{Outcome, Run};
use crate::test::Context;

/// The package of the programs. Its tests drive the relay as a process and run in `end-to-end`,
/// optimized.
const PROGRAMS: &str = "posthaste-examples";
const BENCHES: &str = "posthaste-benches";

/// What is built without optimization.
const LIBRARIES: &[&str] = &["--workspace", "--all-features", "--exclude", PROGRAMS];
/// What is built with it.
const OPTIMIZED: &[&str] = &[
    "--release",
    "--package",
    PROGRAMS,
    "--package",
    "posthaste-wire",
    "--package",
    "posthaste-session",
    "--all-features",
];

pub(crate) fn format(context: &Context) -> Outcome {
    Run::cargo().dir(&context.root).args(["fmt", "--all", "--check"]).remedy("Run `cargo fmt --all`.").run()
}

pub(crate) fn lint(context: &Context) -> Outcome {
    let command = ["clippy", "--release", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    Run::cargo()
        .dir(&context.root)
        .args(command)
        .remedy("Mend each warning; an `allow` needs a reason beside it.")
        .run()
}

pub(crate) fn test(context: &Context) -> Outcome {
    // Most tests wait for threads, timers and sockets most of the time: twice as many at once as
    // two processors would run by themselves.
    let threads = std::env::var_os("RUST_TEST_THREADS").unwrap_or_else(|| "4".into());
    Run::cargo()
        .dir(&context.root)
        .env("RUST_TEST_THREADS", threads)
        .args(["test"])
        .args(LIBRARIES)
        .remedy("Repeat one test with `cargo test -p CRATE NAME`.")
        .run()
}

/// Unit tests, and the integration tests that need neither a socket nor a disk, of the crates that
/// every other one stands on.
pub(crate) fn quick(context: &Context) -> Outcome {
    let command = ["test", "--package", "posthaste-wire", "--package", "posthaste-session", "--all-features"];
    Run::cargo()
        .dir(&context.root)
        .args(command)
        .args(["--lib", "--tests"])
        .remedy("Repeat one test with `cargo test -p CRATE NAME`.")
        .run()
}

/// These go further in a release build than the step `test` has the time for.
pub(crate) fn exhaustive(context: &Context) -> Outcome {
    Run::cargo()
        .dir(&context.root)
        .args(["test"])
        .args(OPTIMIZED)
        .args(["--test", "it", "--", "end_of_data", "every_sequence"])
        .remedy("The string or the commands that failed stand above.")
        .run()
}

pub(crate) fn benches(context: &Context) -> Outcome {
    // Under `cargo test` criterion runs every benchmark once and measures nothing.
    Run::cargo()
        .dir(&context.root)
        .args(["test"])
        .args(LIBRARIES)
        .args(targets(context, BENCHES, &TargetKind::Bench, "--bench"))
        .remedy("A benchmark must run as it stands.")
        .run()
}

pub(crate) fn docs(context: &Context) -> Outcome {
    let command = ["doc", "--release", "--workspace", "--no-deps", "--all-features"];
    Run::cargo()
        .dir(&context.root)
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(command)
        .remedy("Mend the links and examples that it names.")
        .run()
}

pub(crate) fn end_to_end(context: &Context) -> Outcome {
    // This builds `release/relay` as well, which `examples/tests/adaptor` looks for.
    let remedy = "Repeat one test with `cargo test --release -p posthaste-examples --test FILE NAME`; a failed test prints the relay's log.";
    Run::cargo()
        .dir(&context.root)
        .args(["test"])
        .args(OPTIMIZED)
        .args(["--bins"])
        .args(targets(context, PROGRAMS, &TargetKind::Test, "--test"))
        .remedy(remedy)
        .run()?;
    // The examples of the front page are documentation of this package.
    Run::cargo().dir(&context.root).args(["test"]).args(OPTIMIZED).args(["--doc"]).remedy("Mend the README.").run()
}

/// The option for each target of this kind that the package has.
fn targets(context: &Context, package: &str, kind: &TargetKind, option: &str) -> Vec<String> {
    let packages = context.metadata.workspace_packages();
    let targets = packages.iter().filter(|p| p.name.as_str() == package).flat_map(|p| &p.targets);
    let named = targets.filter(|target| target.kind.contains(kind));
    named.flat_map(|target| [option.to_owned(), target.name.clone()]).collect()
}
