//! `cargo xtask prose`: what can be checked of the rules for English in CONTRIBUTING.md.

mod comments;
mod rules;
mod units;
mod wrap;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::shell::{Failure, Outcome, Run, workspace_root};
use crate::test::Context;

/// Folders and files that the step `prose` holds to the rules, one a line.
const HELD: &str = "crates/xtask/prose.txt";

const HELP: &str = "\
Checks comments (.rs, .toml) and Markdown: width, words that are not used, long sentences in documentation.

Usage: cargo xtask prose [--all | PATH]...
       cargo xtask prose --fix-width [--all | PATH]...

  PATH          a file or folder; without one, what crates/xtask/prose.txt lists
  --all         every file that git knows or would add
  --fix-width   wrap at 100 columns instead of checking: from the first wide line to the end of its
                paragraph or item; code, tables, headings, drawings, links and comments after code stay

A finding is `FILE:LINE: WHAT: REMEDY`. `cargo xtask test --only prose` checks what the list names.
";

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let mut fix = false;
    let mut all = false;
    let mut paths = Vec::new();
    for &argument in arguments {
        match argument {
            "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            "--fix-width" => fix = true,
            "--all" => all = true,
            option if option.starts_with('-') => {
                eprintln!("xtask prose: `{option}` is not understood; --help explains the arguments");
                return ExitCode::from(2);
            }
            path => paths.push(path.trim_start_matches("./").trim_end_matches('/').to_owned()),
        }
    }
    let root = workspace_root();
    let outcome =
        selected(&root, all, paths).and_then(|files| if fix { wrap(&root, &files) } else { check(&root, &files) });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The step: what is on the list.
pub(crate) fn run(context: &Context) -> Outcome {
    check(&context.root, &selected(&context.root, false, vec![])?)
}

/// The files to look at, relative to the root.
fn selected(root: &Path, all: bool, mut paths: Vec<String>) -> Result<Vec<String>, Failure> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let (succeeded, files, error) = Run::new("git").dir(root).args(list).quiet().capture()?;
    if !succeeded {
        return Err(Failure::new(
            format!("git ls-files failed: {error}"),
            "The check needs a clone of the repository.",
        ));
    }
    if paths.is_empty() && !all {
        let held = read(root, HELD)?;
        paths =
            held.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect();
    }
    let is_within = |file: &str, path: &str| {
        path == "." || file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_prose =
        |file: &&str| [".rs", ".md", ".toml"].iter().any(|ending| file.ends_with(ending)) && root.join(file).is_file();
    let known: Vec<&str> = files.lines().filter(is_prose).collect();
    if let Some(path) = paths.iter().find(|path| !known.iter().any(|file| is_within(file, path))) {
        let remedy = format!("Name a path from the root of the repository, and mend {HELD} if it stands there.");
        return Err(Failure::new(format!("There is no prose in `{path}`."), remedy));
    }
    let is_chosen = |file: &&str| all || paths.iter().any(|path| is_within(file, path));
    Ok(known.into_iter().filter(is_chosen).map(str::to_owned).collect())
}

fn check(root: &Path, files: &[String]) -> Outcome {
    let mut count = 0_usize;
    for file in files {
        let source = read(root, file)?;
        for finding in rules::findings(extension(file), &source) {
            println!("{file}:{}: {}: {}", finding.line, finding.what, finding.remedy);
            count += 1;
        }
    }
    if count == 0 {
        println!("  {} files of prose are as the rules say", files.len());
        return Ok(());
    }
    let remedy = "Mend them as each line says; CONTRIBUTING.md has the rules.";
    Err(Failure::new(format!("{count} findings in the prose of {} files.", files.len()), remedy))
}

fn wrap(root: &Path, files: &[String]) -> Outcome {
    let mut changed = 0;
    for file in files {
        let source = read(root, file)?;
        let wrapped = wrap::wrapped(extension(file), &source);
        if wrapped != source {
            fs::write(root.join(file), wrapped).map_err(|error| {
                Failure::new(format!("{file} cannot be written: {error}."), "Mend its permissions.")
            })?;
            println!("  wrapped {file}");
            changed += 1;
        }
    }
    println!("  {changed} of {} files changed", files.len());
    Ok(())
}

fn read(root: &Path, file: &str) -> Result<String, Failure> {
    let remedy = "A file of prose is UTF-8 and readable.";
    fs::read_to_string(root.join(file))
        .map_err(|error| Failure::new(format!("{file} cannot be read: {error}."), remedy))
}

fn extension(file: &str) -> &str {
    file.rsplit('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole tree is the example: wrapping changes no word, and a second run changes nothing.
    #[test]
    fn wrapping_the_tree_changes_no_word() {
        let root = workspace_root();
        let words = |text: &str| -> Vec<String> {
            let unmarked = text.lines().map(|line| {
                let line = line.trim_start();
                ["///", "//!", "//", "#"].iter().find_map(|marker| line.strip_prefix(marker)).unwrap_or(line)
            });
            unmarked.flat_map(str::split_whitespace).map(str::to_owned).collect()
        };
        for file in selected(&root, true, vec![]).expect("the tests run in a clone") {
            let source = read(&root, &file).expect("what git lists is there");
            let once = wrap::wrapped(extension(&file), &source);
            assert_eq!(words(&once), words(&source), "{file}");
            assert_eq!(wrap::wrapped(extension(&file), &once), once, "{file}");
            let wide = rules::findings(extension(&file), &once).into_iter().find(|f| f.remedy.contains("--fix-width"));
            assert_eq!(wide, None, "{file}");
        }
    }
}
