//! Builds the fuzz targets with the toolchain at hand and replays the committed corpora through
//! them.
//!
//! Instrumented fuzzing needs nightly and cargo-fuzz (fuzz/README.md). A target that is given files
//! runs each of them once, which needs neither: an input that once failed stays mended.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Failure, Outcome, Run};
use crate::test::Context;

pub(crate) fn run(context: &Context) -> Outcome {
    let folder = context.root.join("fuzz");
    let target = &context.target;
    // The versions that the workspace has been tested with; cargo adds libfuzzer-sys.
    fs::copy(context.root.join("Cargo.lock"), folder.join("Cargo.lock")).map_err(|error| {
        Failure::new(format!("fuzz/Cargo.lock cannot be written: {error}."), "Mend its permissions.")
    })?;
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.to_string_lossy();
    Run::cargo()
        .args(["build", "--quiet", "--bins", "--manifest-path", &manifest])
        .env("CARGO_TARGET_DIR", target)
        .remedy("libfuzzer-sys needs a C++ compiler: `cargo xtask test --only install`.")
        .run()?;
    let targets = targets(&folder)?;
    let mut corpora = entries(&folder.join("corpus"));
    corpora.retain(|corpus| corpus.is_dir());
    for corpus in &corpora {
        let name = corpus.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !targets.contains(&name) {
            return Err(Failure::new(
                format!("{} has no fuzz target.", corpus.display()),
                "Name it after its target, or remove it.",
            ));
        }
    }
    for name in targets {
        let files = entries(&folder.join("corpus").join(&name));
        if files.is_empty() {
            return Err(Failure::new(
                format!("The fuzz target {name} has no corpus."),
                format!("Put seeds into fuzz/corpus/{name}."),
            ));
        }
        // A limit of its own keeps one slow or greedy input from hiding among thousands.
        let artifacts = format!("-artifact_prefix={}/", target.display());
        let mut command = vec!["-timeout=10".into(), "-rss_limit_mb=1024".into(), artifacts.into()];
        let count = files.len();
        command.extend(files.into_iter().map(PathBuf::into_os_string));
        let remedy = format!(
            "The last `Running:` line names the input; repeat it with `{} FILE`.",
            target.join("debug").join(&name).display()
        );
        println!("  {name}: replaying {count} inputs");
        replay(&target.join("debug").join(&name), command, &remedy)?;
    }
    Ok(())
}

fn replay(program: &Path, arguments: Vec<std::ffi::OsString>, remedy: &str) -> Outcome {
    let (succeeded, _, log) = Run::new(program).args(arguments).env("RUST_BACKTRACE", "0").quiet().capture()?;
    if succeeded {
        return Ok(());
    }
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(Failure::new(format!("A committed input fails:\n{}", tail.join("\n")), remedy))
}

/// The names of the targets: each is one file in `fuzz_targets`.
pub(crate) fn targets(folder: &Path) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = entries(&folder.join("fuzz_targets"))
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    if names.is_empty() {
        return Err(Failure::new("fuzz/fuzz_targets is empty.", "Every target is one file there."));
    }
    Ok(names)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}
