//! Mutation tests of the parser: each mutant is the code with one operator, value or body replaced,
//! and some test should fail on it.

use std::process::ExitCode;

use crate::shell::{Failure, Outcome, Run, find_program};
use crate::test::Context;

const HELP: &str = "\
Whether the tests of posthaste-wire notice when its code is changed.

Usage: cargo xtask mutants [--shard I/N] [CARGO-MUTANTS-ARGUMENT]...

Builds and tests one mutant after the other, which takes hours on two cores. It can be stopped at any time: the next run
leaves out the mutants that were caught. `--shard 0/4` to `--shard 3/4` share the work among machines, `--list` prints
the mutants, `--file` and `--re` pick some. What was missed stands in missed.txt below target/mutation.

It needs cargo-mutants: `cargo install cargo-mutants --locked`. Settings are in .cargo/mutants.toml.
";

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let outcome = match arguments {
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        arguments => Context::new().and_then(|context| run(&context, arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask mutants: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(context: &Context, arguments: &[&str]) -> Outcome {
    if find_program("cargo-mutants").is_none() {
        let remedy = "Install it: `cargo install cargo-mutants --locked`; that takes some minutes.";
        return Err(Failure::new("cargo-mutants was not found.", remedy));
    }
    // A folder for each shard: each run replaces what it finds there.
    let shard = arguments.windows(2).find(|pair| pair[0] == "--shard").map_or("all", |pair| pair[1]);
    let output = context.target.join("mutation").join(shard.replace('/', "-of-"));
    std::fs::create_dir_all(&output).map_err(|error| {
        Failure::new(format!("{}: {error}.", output.display()), "Make room, or mend its permissions.")
    })?;
    let remedy =
        "Read missed.txt and timeout.txt there: for each line, write a test or remove code that is not needed.";
    Run::cargo()
        .dir(&context.root)
        .args(["mutants", "--package", "posthaste-wire", "--all-features", "--iterate", "--output"])
        .args([&output])
        .args(arguments)
        .remedy(remedy)
        .run()
}
