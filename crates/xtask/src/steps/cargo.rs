//! The steps that are one cargo command.

use crate::shell::{Outcome, Run};
use crate::test::Context;

/// The package of the programs. Its tests drive the relay as a process and run in `end-to-end`,
/// optimized.
const PROGRAMS: &str = "posthaste-examples";
const BENCHES: &str = "posthaste-benches";

pub(crate) fn format(context: &Context) -> Outcome {
    Run::cargo().dir(&context.root).args(["fmt", "--all", "--check"]).remedy("Run `cargo fmt --all`.").run()
}

pub(crate) fn lint(context: &Context) -> Outcome {
    let command = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    Run::cargo()
        .dir(&context.root)
        .args(command)
        .remedy("Mend each warning; an `allow` needs a reason beside it.")
        .run()
}

pub(crate) fn test(context: &Context) -> Outcome {
    let command = ["test", "--workspace", "--all-features", "--exclude", PROGRAMS];
    Run::cargo().dir(&context.root).args(command).remedy("Repeat one test with `cargo test -p CRATE NAME`.").run()
}

/// These go further in a release build than the step `test` has the time for.
pub(crate) fn exhaustive(context: &Context) -> Outcome {
    for (package, program, tests) in
        [("posthaste-wire", "it", "end_of_data"), ("posthaste-session", "every_sequence", "")]
    {
        let remedy = "The string or the commands that failed stand above.";
        let command = ["test", "--release", "--package", package, "--test", program, tests];
        Run::cargo().dir(&context.root).args(command).remedy(remedy).run()?;
    }
    Ok(())
}

pub(crate) fn benches(context: &Context) -> Outcome {
    // Under `cargo test` criterion runs every benchmark once and measures nothing.
    let command = ["test", "--package", BENCHES, "--benches", "--all-features"];
    Run::cargo().dir(&context.root).args(command).remedy("A benchmark must run as it stands.").run()
}

pub(crate) fn docs(context: &Context) -> Outcome {
    let command = ["doc", "--workspace", "--no-deps", "--all-features"];
    Run::cargo()
        .dir(&context.root)
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(command)
        .remedy("Mend the links and examples that it names.")
        .run()
}

pub(crate) fn end_to_end(context: &Context) -> Outcome {
    // This builds `release/relay` as well, which `examples/tests/adaptor` looks for: a build of its
    // own before it would resolve features without the tests' dependencies, and compile half of
    // everything twice.
    let command = ["test", "--release", "--package", PROGRAMS, "--all-features"];
    let remedy = "Repeat one test with `cargo test --release -p posthaste-examples --test FILE NAME`; a failed test prints the relay's log.";
    Run::cargo().dir(&context.root).args(command).remedy(remedy).run()
}
