//! Inspects the folder of a queue that no process has open: lists, shows, verifies, repairs.
//!
//! `cargo run --release -p posthaste-queue --example inspect -- --help`

#[cfg(unix)]
mod args;
#[cfg(unix)]
mod bar;
#[cfg(unix)]
mod print;
#[cfg(unix)]
pub(crate) mod run;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    let (out, err) = (std::io::stdout(), std::io::stderr());
    run::run(std::env::args_os(), &mut std::io::BufWriter::new(out.lock()), &mut err.lock()).into()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("the durable engine needs a Unix disk");
}
