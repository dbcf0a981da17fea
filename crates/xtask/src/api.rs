//! The public API of each published crate, as a file beside its manifest: a change of it is seen in
//! the diff of the commit that makes it.
//!
//! rustdoc says it as JSON, which is not stable: the compiler at hand is asked to say it all the
//! same, in a wrapper that only rustdoc runs under. The environment of cargo itself stays as it is,
//! because crates whose build scripts look at `RUSTC_BOOTSTRAP` would be built again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::shell::{Failure, Outcome, Run};
use crate::test::Context;

const HELP: &str = "\
The public API of each published crate, one item a line, in crates/CRATE/public-api.txt.

Usage: cargo xtask api [--record]

Without arguments, and as a step of `cargo xtask test`: fails when the API is not as the files say.
With another compiler than the recorded one differences are printed and not judged.

  --record   writes the files: in the commit that changes the API, which is then seen in its diff
";

const FILE: &str = "public-api.txt";
const REMEDY: &str =
    "Undo the change, or run `cargo xtask api --record`, look at the diff and say in CHANGELOG.md what it breaks.";

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let outcome = match arguments {
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["--record"] => Context::new().and_then(|context| record(&context)),
        [] => Context::new().and_then(|context| run(&context)),
        _ => {
            eprintln!("xtask api: the one argument is --record; --help explains it");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The step: what the sources say is what the files say.
pub(crate) fn run(context: &Context) -> Outcome {
    let compiler = compiler()?;
    let mut differences = Vec::new();
    let mut others = 0;
    for api in apis(context)? {
        let recorded = fs::read_to_string(&api.file).unwrap_or_default();
        let (by, recorded) = recorded.split_once('\n').unwrap_or_default();
        if recorded == api.text {
            continue;
        }
        let text = format!("{}:\n{}", api.file.display(), difference(recorded, &api.text));
        if by.is_empty() || by.ends_with(&compiler) {
            differences.push(text);
        } else {
            println!("{text}");
            others += 1;
        }
    }
    if others > 0 {
        println!("  recorded by another compiler than {compiler}: the differences of {others} crates are not judged");
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("{}\nThe public API is not as recorded.", differences.join("\n")), REMEDY))
}

fn record(context: &Context) -> Outcome {
    let compiler = compiler()?;
    for api in apis(context)? {
        let text = format!("# `cargo xtask api --record` wrote this with {compiler}\n{}", api.text);
        fs::write(&api.file, text).map_err(|error| {
            Failure::new(format!("{} cannot be written: {error}.", api.file.display()), "Mend its permissions.")
        })?;
        println!("  wrote {}", api.file.display());
    }
    Ok(())
}

struct Api {
    file: PathBuf,
    /// One item a line.
    text: String,
}

/// What each published crate offers with all of its features.
fn apis(context: &Context) -> Result<Vec<Api>, Failure> {
    let wrapper = wrapper(context).map_err(|error| {
        Failure::new(format!("The wrapper of rustdoc cannot be written: {error}."), "Make room in the target folder.")
    })?;
    // The same packages as the step `docs` selects, so that the two share what they check.
    let command = ["doc", "--release", "--quiet", "--workspace", "--lib", "--no-deps", "--all-features"];
    Run::cargo()
        .dir(&context.root)
        .env("RUSTDOC", &wrapper)
        .env("RUSTDOCFLAGS", "-Zunstable-options --output-format=json")
        .args(command)
        .remedy("Make `cargo doc` work first.")
        .run()?;
    let mut apis = Vec::new();
    for package in context.published() {
        let json = context.target.join("doc").join(format!("{}.json", package.name.replace('-', "_")));
        let api = public_api::Builder::from_rustdoc_json(&json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .omit_auto_derived_impls(true)
            .build();
        let api = api.map_err(|error| {
            let what = format!("{} cannot be read: {error}.", json.display());
            Failure::new(
                what,
                "Use the compiler that the public-api.txt files name, or a newer `public-api` in Cargo.toml.",
            )
        })?;
        let mut text = String::new();
        for item in api.items() {
            text.push_str(&format!("{item}\n"));
        }
        let folder = package.manifest_path.parent().map(|folder| folder.as_std_path()).unwrap_or(&context.root);
        apis.push(Api { file: folder.join(FILE), text });
    }
    Ok(apis)
}

/// A script that lets rustdoc alone use what is not stable.
fn wrapper(context: &Context) -> std::io::Result<PathBuf> {
    let file = context.target.join("xtask").join("rustdoc");
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    fs::write(&file, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(file)
}

/// `rustc 1.95.0`.
fn compiler() -> Result<String, Failure> {
    let (_, version, _) = Run::new("rustc").args(["--version"]).quiet().capture()?;
    Ok(version.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// The lines that went, with a minus, and those that came, with a plus.
fn difference(recorded: &str, now: &str) -> String {
    let without = |these: &str, those: &str, sign: char| {
        let those: std::collections::HashSet<&str> = those.lines().collect();
        let lines = these.lines().filter(move |line| !those.contains(line));
        lines.map(|line| format!("  {sign} {line}\n")).collect::<String>()
    };
    let lines = without(recorded, now, '-') + &without(now, recorded, '+');
    if lines.is_empty() { "  the order of the items\n".into() } else { lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_went_and_what_came() {
        assert_eq!(difference("a\nb\nc\n", "a\nc\nd\n"), "  - b\n  + d\n");
        assert_eq!(difference("a\nb\n", "b\na\n"), "  the order of the items\n");
    }
}
