//! How many instructions the parsers take, counted by valgrind: unlike times, counts are the same
//! on a busy machine and on another one, so that a test can hold them.
//!
//! callgrind is driven directly, over a program of our own. Harnesses that do the same want a
//! runner that has to be built on every new machine, for minutes, and the limits would still be
//! ours to keep.
//!
//! memchr and the C library choose their routines by what the processor has. A program under
//! valgrind sees AVX2 at the most, so that every machine that has AVX2 counts alike. On others, and
//! with another compiler than the recorded one, counts are printed and not judged. Growth is judged
//! everywhere.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use toml::{Table, Value};

use crate::shell::{Failure, Outcome, Run, find_program};
use crate::test::Context;

const HELP: &str = "\
How many instructions the parsers take, counted by valgrind.

Usage: cargo xtask instructions [--record]

Without arguments, and as a step of `cargo xtask test`: compares the counts with benches/instructions.toml, and makes
sure that no parser takes more than 12 times as long for ten times the octets, up to 1 MB.

  --record   writes the counts into benches/instructions.toml: after a change that makes something faster, or slower
             for a good reason that the commit names, and with a new compiler
";
/// The programs of the benches package that are counted.
const ITEMS: &str = "instructions";
const GROWTH: &str = "growth";
const RECORD: &str = "benches/instructions.toml";
/// How much more ten times the octets may cost. Where time grows with the square of the input it
/// is 100.
const MOST_GROWTH: f64 = 12.0;
/// A count below this part of its record deserves to be held there.
const WORTH_RECORDING: f64 = 0.9;

pub(crate) fn main(arguments: &[&str]) -> ExitCode {
    let outcome = match arguments {
        [] => Context::new().and_then(|context| run(&context)),
        ["--record"] => Context::new().and_then(|context| record(&context)),
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(Failure::new(format!("`{}` is not understood.", other.join(" ")), "`--help` explains it.")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask instructions: {failure}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn run(context: &Context) -> Outcome {
    build(context)?;
    compare(&Record::read(context)?, &count(context, ITEMS, &[])?)?;
    grow(context)
}

/// Holds the counts against the record.
fn compare(record: &Record, counts: &[Count]) -> Outcome {
    let reasons = [
        (record.rustc != rustc()?).then(|| format!("they were recorded with {}", record.rustc)),
        (!has_avx2()).then(|| "this machine has no AVX2".to_owned()),
    ];
    let excuse = reasons.into_iter().flatten().next();
    let mut problems = Vec::new();
    let mut faster = 0;
    println!("  {:38}{:>12}{:>12}", "instructions an item", "counted", "recorded");
    for Count { name, instructions } in counts {
        let Some(recorded) = record.instructions.get(name).and_then(Value::as_float) else {
            println!("  {name:38}{instructions:>12.1}{:>12}", "-");
            problems.push(format!("{name} is not recorded."));
            continue;
        };
        let change = (instructions / recorded - 1.0) * 100.0;
        println!("  {name:38}{instructions:>12.1}{recorded:>12.1}{change:>+8.1} %");
        faster += usize::from(*instructions < recorded * WORTH_RECORDING);
        let limit = recorded * (1.0 + record.tolerance_percent / 100.0);
        if *instructions > limit {
            problems.push(format!("{name} takes {instructions:.1} instructions, and {limit:.1} is the limit."));
        }
    }
    let gone = record.instructions.keys().filter(|name| counts.iter().all(|count| count.name != **name));
    problems.extend(gone.map(|name| format!("{name} is recorded and is not counted any more.")));
    if let Some(excuse) = excuse {
        println!("  The counts are not judged: {excuse}.");
        return Ok(());
    }
    if faster > 0 {
        println!("  {faster} counts are far below the record. `cargo xtask instructions --record` holds them there.");
    }
    if problems.is_empty() {
        return Ok(());
    }
    let remedy =
        "Make it as fast as it was; or `cargo xtask instructions --record`, and say in the commit why it costs more.";
    Err(Failure::new(problems.join("\n"), remedy))
}

/// Makes sure that time grows as the input does. The small sizes come first: what grows with the
/// square of the input is found there, and would take hours at the last one.
fn grow(context: &Context) -> Outcome {
    let mut before = count(context, GROWTH, &["10000"])?;
    for (octets, size) in [("100000", "100 KB"), ("1000000", "1 MB")] {
        let counts = count(context, GROWTH, &[octets])?;
        let ratios = counts.iter().zip(&before).map(|(now, before)| (now.instructions / before.instructions, now));
        let (mut worst, mut problems) = (0.0, Vec::new());
        for (ratio, Count { name, .. }) in ratios {
            worst = f64::max(worst, ratio);
            if ratio > MOST_GROWTH {
                problems.push(format!("{size} of `{name}` take {ratio:.1} times the instructions of a tenth of it."));
            }
        }
        if !problems.is_empty() {
            let remedy = "The parser reads octets more than once: benches/src/bin/growth.rs has the input.";
            return Err(Failure::new(problems.join("\n"), remedy));
        }
        println!("  {} shapes: {size} cost at most {worst:.1} times a tenth of it", counts.len());
        before = counts;
    }
    Ok(())
}

fn record(context: &Context) -> Outcome {
    if !has_avx2() {
        return Err(Failure::new("This machine has no AVX2.", "Record on one that has: the others count differently."));
    }
    build(context)?;
    let counts = count(context, ITEMS, &[])?;
    let tolerance = Record::read(context).map_or(DEFAULT_TOLERANCE_PERCENT, |record| record.tolerance_percent);
    let mut text = format!(
        "# Instructions an item, as `cargo xtask instructions --record` counts them; `cargo xtask test` fails when one is\n\
         # exceeded by more than the tolerance.\n\
         rustc = {:?}\ntolerance_percent = {tolerance:?}\n\n[instructions]\n",
        rustc()?
    );
    for Count { name, instructions } in &counts {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:?} = {instructions:.1}");
    }
    let path = context.root.join(RECORD);
    fs::write(&path, text)
        .map_err(|error| Failure::new(format!("{}: {error}.", path.display()), "Make it writable."))?;
    println!("  {} counts are recorded in {RECORD}", counts.len());
    Ok(())
}

struct Record {
    rustc: String,
    tolerance_percent: f64,
    instructions: Table,
}

/// Room for what the compiler inlines here because of a change there, and for another version of
/// the C library.
const DEFAULT_TOLERANCE_PERCENT: f64 = 5.0;

impl Record {
    fn read(context: &Context) -> Result<Self, Failure> {
        let remedy = "`cargo xtask instructions --record` writes it.";
        let text = fs::read_to_string(context.root.join(RECORD))
            .map_err(|error| Failure::new(format!("{RECORD}: {error}."), remedy))?;
        Self::parse(&text).ok_or_else(|| {
            Failure::new(format!("{RECORD} lacks rustc, tolerance_percent or [instructions], or is no TOML."), remedy)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let table: Table = text.parse().ok()?;
        Some(Self {
            rustc: table.get("rustc")?.as_str()?.into(),
            tolerance_percent: table.get("tolerance_percent")?.as_float()?,
            instructions: table.get("instructions")?.as_table()?.clone(),
        })
    }
}

struct Count {
    name: String,
    /// Of one item.
    instructions: f64,
}

fn build(context: &Context) -> Outcome {
    let command = ["build", "--quiet", "--profile", "bench", "--package", "posthaste-benches", "--bins"];
    Run::cargo().dir(&context.root).args(command).run()
}

/// Runs the program under callgrind. Its lines name the counts: a name, a tab, the number of items.
fn count(context: &Context, program: &str, arguments: &[&str]) -> Result<Vec<Count>, Failure> {
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::new(format!("No temporary folder: {error}."), "Make room in it."))?;
    let valgrind = find_program("valgrind")
        .ok_or_else(|| Failure::new("valgrind was not found.", "Install it: `apt-get install valgrind`."))?;
    // Cargo puts the bench profile where it puts the release profile.
    let program = context.target.join("release").join(program);
    // Counts in the function `counted` alone, and writes `counts.1`, `counts.2` and so on whenever
    // it returns.
    let options = [
        "--tool=callgrind",
        "--toggle-collect=posthaste_benches::counted",
        "--dump-after=posthaste_benches::counted",
        "--callgrind-out-file=counts",
    ];
    let run = Run::new(valgrind).dir(folder.path()).args(options).args([&program]).args(arguments);
    let (succeeded, names, errors) = run.capture()?;
    if !succeeded {
        return Err(Failure::new(errors, "Repeat the command by hand."));
    }
    let counts: Option<Vec<Count>> = names
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let (name, items) = line.split_once('\t')?;
            let counts = fs::read_to_string(folder.path().join(format!("counts.{}", index + 1))).ok()?;
            let total: f64 = counts.lines().find_map(|line| line.strip_prefix("summary: "))?.trim().parse().ok()?;
            // To the tenth that the record holds.
            let instructions = (total / items.parse::<f64>().ok()? * 10.0).round() / 10.0;
            (total > 0.0).then_some(Count { name: name.into(), instructions })
        })
        .collect();
    counts.ok_or_else(|| {
        let what = "callgrind has not counted every line that the program printed.";
        Failure::new(
            what,
            "Compare the names of functions in its output with the options of crates/xtask/src/instructions.rs.",
        )
    })
}

/// The compiler that built the program, as it calls itself.
fn rustc() -> Result<String, Failure> {
    let (_, version, _) =
        Run::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).args(["--version"]).quiet().capture()?;
    Ok(version.trim().to_owned())
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = "rustc = 'another'\ntolerance_percent = 3.0\n[instructions]\n\"QUIT\" = 100.0\n";

    fn verdict(rustc: String, counts: &[(&str, f64)]) -> Outcome {
        let record = Record { rustc, ..Record::parse(RECORDED).unwrap() };
        let counts =
            counts.iter().map(|(name, instructions)| Count { name: (*name).into(), instructions: *instructions });
        compare(&record, &counts.collect::<Vec<_>>())
    }

    #[test]
    fn a_count_may_exceed_its_record_by_the_tolerance() {
        let this = rustc().unwrap();
        assert!(verdict(this.clone(), &[("QUIT", 102.9)]).is_ok());
        assert!(verdict(this.clone(), &[("QUIT", 50.0)]).is_ok());
        if has_avx2() {
            assert!(verdict(this.clone(), &[("QUIT", 103.1)]).unwrap_err().what.contains("103.0 is the limit"));
            assert!(verdict(this.clone(), &[("QUIT", 100.0), ("NOOP", 1.0)]).is_err());
            assert!(verdict(this, &[]).is_err());
        }
    }

    #[test]
    fn counts_of_another_compiler_are_not_judged() {
        assert!(verdict("another".into(), &[("QUIT", 200.0)]).is_ok());
    }
}
