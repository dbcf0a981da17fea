//! An example program as a process.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::PATIENCE;

/// A program that listens and prints lines. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts a program of this package: `env!("CARGO_BIN_EXE_receive")`.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Self {
        Self::with_input(program, arguments, "")
    }

    /// As [`start`](Self::start), with this text as its standard input.
    pub(crate) fn with_input<A: AsRef<OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        // It ends when this is dropped. A program that does not read it may have closed it.
        let _ = child.stdin.take().expect("asked for above").write_all(input.as_bytes());
        let output = BufReader::new(child.stdout.take().expect("asked for above"));
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next line of its output.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program prints another line")
    }

    /// The address that it says it listens on.
    pub(crate) fn address(&self) -> String {
        let line = self.line();
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("`listening on ..` was to come: {line}")).to_owned()
    }

    /// The port of that address.
    pub(crate) fn port(&self) -> u16 {
        let address: std::net::SocketAddr = self.address().parse().expect("an address and a port");
        address.port()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
