//! Holds the version numbers against the last release: cargo-semver-checks compares with its tag.

use crate::shell::{Failure, Outcome, Run, find_program};
use crate::test::Context;

const INSTALL: &str = "`cargo install cargo-semver-checks --locked` installs it.";

pub(crate) fn run(context: &Context) -> Outcome {
    let last = ["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"];
    let (found, tag, _) = Run::new("git").dir(&context.root).args(last).capture()?;
    let tag = tag.trim();
    if !found || tag.is_empty() {
        println!("  there is no tag `v*` before this commit: nothing to compare with");
        return Ok(());
    }
    if find_program("cargo-semver-checks").is_none() {
        // Building it takes longer than most steps; a machine that decides about merging has it.
        if std::env::var_os("CI").is_some() {
            return Err(Failure::new("cargo-semver-checks is missing.", INSTALL));
        }
        println!("  skipped: cargo-semver-checks is missing. {INSTALL}");
        return Ok(());
    }
    let mut command = vec!["semver-checks", "--baseline-rev", tag];
    for package in context.published() {
        command.extend(["--package", package.name.as_str()]);
    }
    let remedy = "Keep what it names, or raise the version as it says.";
    Run::cargo().dir(&context.root).args(command).remedy(remedy).run()
}
