//! A store-and-forward SMTP relay: mail in over SMTP, kept in a durable queue, out over SMTP.

mod api;
mod ask;
mod config;
mod control;
mod demo;
mod files;
mod leads;
mod limits;
mod log;
mod queue;
mod reload;
mod secret;
mod serve;
mod usage;
mod warm_up;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use config::Config;

/// Gives memory that clients have filled back to the system within seconds, even if the relay is
/// idle.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A store-and-forward SMTP relay.
///
/// Without a configuration it listens on 127.0.0.1:2525 and takes no mail: the configuration says
/// who may send where. examples/relay.toml is one with comments.
#[derive(Debug, Parser)]
#[command(name = "relay", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the relay does, on loopback: a few thousand messages through an on-disk queue to
    /// two next hops that refuse some and defer others. Half-way the first one is killed. Exits 0
    /// only if every message was delivered or reported.
    Demo(demo::Options),
    /// Run the relay until SIGTERM, SIGINT or SIGQUIT. What is left in the queue is delivered after
    /// the next start.
    ///
    /// The first of these signals begins a drain: clients and deliveries have 30 seconds to end.
    /// The second ends the relay at once. SIGHUP reads the configuration again, and all files that
    /// it names. If one has a mistake, all that is in use stays, and the log says what is wrong.
    /// What needs a restart stays as it is, everything else counts, and the log names both. SIGUSR1
    /// and SIGUSR2 only write a line to the log.
    #[command(after_help = EXITS)]
    Serve {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a configuration and the files that it names, and start nothing. Every mistake is named
    /// at once. Exits 2 if the relay would not start with it, and 0 if there are warnings at most.
    /// Prints the routes, and the DNS records of the keys that sign mail.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        question: leads::Question,
    },
    /// Read a password, one line from standard input, and print what to write for an account's
    /// `verifier`. No client can log in with it. But a person who reads it can try passwords out,
    /// and pretend to be this relay.
    Verifier {
        /// Iterations of PBKDF2, from 4096 to 1000000. Each login takes their time, and so does
        /// each guess of an attacker who has the verifier. Use the same number for all accounts:
        /// otherwise clients can find out which names have an account.
        #[arg(long, value_name = "NUMBER", default_value_t = 4_096)]
        iterations: u32,
    },
    /// Look at the mail that waits in the running relay, and change it.
    Queue(queue::Options),
    /// Ask the running relay for its state. Prints one key and value a line.
    Status {
        /// The configuration that it runs with.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

const EXITS: &str = "\
Exit codes:
  0    ended by a signal, and drained; conversations that did not end in 30 seconds were dropped, and their clients try again
  1    could not start, or the queue had stopped before the end; acknowledged mail is on the disk
  2    the configuration or the command line has a mistake, and nothing was started
  130  ended by a second signal, without draining; acknowledged mail is safe";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let descriptors = limits::raise_descriptors();
    let serves = matches!(arguments.command, Command::Serve { .. });
    // Before the threads of the runtime: there may be no room for them.
    let obstacle = || usage::MemoryLimits::find(None).obstacle().or_else(|| limits::obstacle(descriptors));
    if let Some(obstacle) = serves.then(obstacle).flatten() {
        eprintln!("relay: {obstacle}");
        return ExitCode::FAILURE;
    }
    let mut runtime = match arguments.command {
        Command::Serve { .. } | Command::Demo(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("relay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The resolver may need to know it, where a configuration is checked.
    let entered = runtime.enter();
    let result = match arguments.command {
        Command::Demo(options) => runtime.block_on(demo::run(options)),
        Command::Serve { config } => {
            with(config.clone(), |read| runtime.block_on(serve::run(config, read, descriptors)))
        }
        Command::Check { config, question } => with(config, |config| check(config, &question, descriptors)),
        Command::Verifier { iterations } => print_verifier(iterations),
        Command::Queue(options) => {
            with(options.config.clone(), |config| runtime.block_on(queue::run(&options, &config)))
        }
        Command::Status { config } => {
            with(config, |config| runtime.block_on(async { print(&ask::Ask(&config).text("/status").await?) }))
        }
    };
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(text)) => {
            log::say(&text);
            ExitCode::from(2)
        }
        Err(Failure::Run(text)) => {
            log::say(&format!("relay: {text}"));
            ExitCode::FAILURE
        }
        Err(Failure::NotThere) => ExitCode::from(3),
    };
    drop(entered);
    // Does not wait for threads that wait for a disk or a terminal.
    runtime.shutdown_background();
    log::flush();
    code
}

/// Prints an answer. A reader that has closed is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(Failure::run),
    }
}

/// Why the program ends with anything but success.
#[derive(Debug)]
enum Failure {
    /// The configuration is wrong: exit 2, and nothing was started.
    Configuration(String),
    /// Something failed: exit 1.
    Run(String),
    /// What was asked for is not in the queue, as was said: exit 3.
    NotThere,
}

impl Failure {
    fn run(error: impl std::fmt::Display) -> Self {
        Self::Run(error.to_string())
    }
}

fn check(mut config: Config, question: &leads::Question, descriptors: Option<u64>) -> Result<(), Failure> {
    config.warnings.extend(limits::shortage(&config, descriptors));
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    if let Err(problem) = serve::resolver(&config) {
        return Err(Failure::Configuration(format!("{}: servers: {problem}", config.name)));
    }
    if let Some(answer) = question.answer(&config)? {
        return print(&answer);
    }
    let also = match config.warnings.len() {
        0 => String::new(),
        1 => ", and one warning".to_owned(),
        warnings => format!(", and {warnings} warnings"),
    };
    let records: String = config.dkim_records.iter().map(|record| format!("{record}\n")).collect();
    let publish = if records.is_empty() { "" } else { "\nThe public keys for DKIM, as zone files have them:\n" };
    // It is about this machine, and no mistake of the configuration.
    let memory = usage::MemoryLimits::find(config.memory_limit);
    let memory = memory.obstacle().or_else(|| limits::obstacle(descriptors)).or_else(|| memory.shortage());
    let machine = memory.map_or_else(String::new, |shortage| format!("This machine: {shortage}.\n"));
    let routes: String = config.routes.iter().map(|route| format!("  {route}\n")).collect();
    let routes = format!("\nThe routes, in order:\n{routes}");
    print(&format!("{}: no mistake found{also}\n{machine}{routes}{publish}{records}", config.name))
}

fn print_verifier(iterations: u32) -> Result<(), Failure> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::run)?;
    let password = line.trim_end_matches(['\r', '\n']);
    let text = secret::verifier(password, iterations).map_err(Failure::run)?.map_err(Failure::run)?;
    print(&format!("{}\n", text.expose()))
}

fn with(path: Option<PathBuf>, run: impl FnOnce(Config) -> Result<(), Failure>) -> Result<(), Failure> {
    run(Config::load(path.as_deref()).map_err(|found| Failure::Configuration(found.into_lines().join("\n")))?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_version_names_the_program_and_not_its_package() {
        assert_eq!(Arguments::command().render_version(), concat!("relay ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}
