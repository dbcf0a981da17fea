//! Packages the published crates as `cargo publish` would, unpacks them outside the workspace and
//! runs the examples of each README there, with the default features. The step `features` builds
//! each crate with each feature alone.
//!
//! What is found here and nowhere else: a file that the package lacks, a dependency that only the
//! workspace resolves, an example that a stranger cannot run.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::shell::{Failure, Outcome, Run};
use crate::test::Context;

pub(crate) fn run(context: &Context) -> Outcome {
    let mut command = vec!["package", "--quiet", "--workspace", "--no-verify", "--allow-dirty"];
    for package in context.metadata.workspace_packages() {
        if package.publish.as_ref().is_some_and(Vec::is_empty) {
            command.extend(["--exclude", package.name.as_str()]);
        }
    }
    let remedy = "Each published crate needs what crates.io asks for, and a version beside the path of each sibling.";
    Run::cargo().dir(&context.root).args(command).remedy(remedy).run()?;

    // Always at the same place, so that the target folder does not grow with each run. What is in a
    // package has the time of its packing, which never changes: hence `--touch` below.
    let outside = context.target.join("xtask/packages");
    let remade = fs::remove_dir_all(&outside).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    remade.and_then(|()| fs::create_dir_all(&outside)).map_err(|error| {
        Failure::new(format!("{} cannot be made: {error}.", outside.display()), "Make room, or mend its permissions.")
    })?;
    let mut members = Vec::new();
    let mut patches = String::new();
    for package in context.published() {
        let folder = format!("{}-{}", package.name, package.version);
        let archive = context.target.join("package").join(format!("{folder}.crate"));
        Run::new("tar")
            .dir(&outside)
            .args(["--extract", "--touch", "--gzip", "--file", &archive.to_string_lossy()])
            .run()?;
        prepare(package, &outside.join(&folder))?;
        patches.push_str(&format!("{} = {{ path = {folder:?} }}\n", package.name.as_str()));
        members.push(folder);
    }
    let manifest = format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n\n[patch.crates-io]\n{patches}");
    write(&outside.join("Cargo.toml"), &manifest)?;
    fs::copy(context.root.join("Cargo.lock"), outside.join("Cargo.lock")).map_err(|error| {
        Failure::new(format!("Cargo.lock cannot be copied: {error}."), "Run `cargo generate-lockfile`.")
    })?;

    for package in context.published() {
        let folder = outside.join(format!("{}-{}", package.name, package.version));
        let examples = runnable_examples(&fs::read_to_string(folder.join("README.md")).unwrap_or_default());
        if examples == 0 {
            let remedy = "Show a newcomer one in a ```rust block; `no_run` and `ignore` do not count.";
            return Err(Failure::new(format!("The README of {} has no example that runs.", package.name), remedy));
        }
        run_examples(context, &outside, package.name.as_str(), examples)?;
    }
    Ok(())
}

/// Has rustdoc see the README as documentation of an item of its own, whatever the crate itself
/// includes.
fn prepare(package: &cargo_metadata::Package, folder: &Path) -> Outcome {
    for name in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        if !folder.join(name).is_file() {
            let remedy = format!("Put it beside the manifest of {}.", package.name);
            return Err(Failure::new(format!("The package of {} has no {name}.", package.name), remedy));
        }
    }
    let library = folder.join("src/lib.rs");
    let mut source = fs::read_to_string(&library).map_err(|error| {
        Failure::new(format!("{}: {error}.", library.display()), "The package must contain its sources.")
    })?;
    source.push_str("\n/// The README's examples.\n#[cfg(doctest)]\n#[doc = include_str!(\"../README.md\")]\npub struct ReadmeExamples;\n");
    write(&library, &source)
}

fn run_examples(context: &Context, outside: &Path, package: &str, examples: usize) -> Outcome {
    let command = ["test", "--quiet", "--doc", "--package", package, "--", "ReadmeExamples"];
    let (succeeded, output, errors) =
        Run::cargo().dir(outside).env("CARGO_TARGET_DIR", &context.target).args(command).capture()?;
    let remedy = format!("Mend the README of {package}, or what its package lacks.");
    if !succeeded {
        return Err(Failure::new(
            format!("{output}{errors}\nA README example of {package} fails outside the workspace."),
            remedy,
        ));
    }
    let ran: usize = output.lines().filter_map(passed).sum();
    if ran < examples {
        let what = format!("{output}\nThe README of {package} has {examples} runnable examples, and {ran} ran.");
        return Err(Failure::new(what, remedy));
    }
    println!("    {ran} examples ran");
    Ok(())
}

/// `N` in `test result: ok. N passed; …`.
fn passed(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok()
}

/// How many fenced blocks of the text rustdoc would run.
fn runnable_examples(text: &str) -> usize {
    let mut count = 0;
    let mut inside = false;
    for line in text.lines() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        if !inside {
            let mut words = info.split([',', ' ']).filter(|word| !word.is_empty());
            let first = words.next();
            let excused = |word: &str| word == "no_run" || word.starts_with("ignore") || word == "compile_fail";
            count += usize::from(first == Some("rust") && !words.any(excused));
        }
        inside = !inside;
    }
    count
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| {
        Failure::new(format!("{} cannot be written: {error}.", path.display()), "Make room for temporary files.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_run_are_counted() {
        let text = "```rust\na\n```\n```text\n```\n```rust,no_run\n```\n```rust,should_panic\n```\n```toml\n```rust\n";
        assert_eq!(runnable_examples(text), 2);
        assert_eq!(passed("test result: ok. 3 passed; 0 failed; 0 ignored"), Some(3));
    }
}
