//! The project's own commands. `cargo xtask test` is the one command that says whether a change is
//! good: continuous integration runs it and nothing else.

mod api;
mod bench;
mod evidence;
mod fuzz;
mod instructions;
mod licenses;
mod mutants;
mod prose;
mod shell;
mod steps;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words = arguments.iter().map(String::as_str);
    match words.next() {
        Some("test") => test::test(&words.collect::<Vec<_>>()),
        Some("check") => test::check(&words.collect::<Vec<_>>()),
        Some("api") => api::main(&words.collect::<Vec<_>>()),
        Some("bench") => bench::main(&words.collect::<Vec<_>>()),
        Some("instructions") => instructions::main(&words.collect::<Vec<_>>()),
        Some("fuzz") => fuzz::main(&words.collect::<Vec<_>>()),
        Some("mutants") => mutants::main(&words.collect::<Vec<_>>()),
        Some("prose") => prose::main(&words.collect::<Vec<_>>()),
        Some("--help" | "-h" | "help") | None => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(other) => evidence::main(other, &words.collect::<Vec<_>>()).unwrap_or_else(|| {
            eprintln!("xtask: there is no command `{other}`; `cargo xtask --help` lists them");
            ExitCode::from(2)
        }),
    }
}

const HELP: &str = "\
The project's own commands.

Usage: cargo xtask <command>

Commands:
  test          install what the tests need, then check, test, document, package and try out everything
                (`cargo xtask test --help` says how to run a part of it)
  check         the quick half: formatting, prose, licenses, clippy, the tests of wire and session
  api           compare the public API of each crate with its record, or renew it
  bench         measure each layer, or with `bench relay` the whole relay beside Postfix
  instructions  count the instructions of the parsers, and compare with the record or renew it
  fuzz          run a fuzz target, with what it finds in a folder that git ignores
  mutants       change the parser in hundreds of places, one at a time, and see whether a test notices
  prose         check the width, the words and the sentences of comments and Markdown, or wrap them
  power-cuts    cut the power of a simulated disk below the queue, 100,000 times
  kills         kill a process whose threads write to the queue, 100 times
  ext4-cuts     cut the power of a real file system below the queue, 200 times (root)
";
