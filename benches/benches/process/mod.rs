//! A server in a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The argument in front of the name of a server.
#[allow(dead_code, reason = "not every benchmark asks for it")]
pub(crate) const FLAG: &str = "--serve";

/// A server, which ends when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens: it says its addresses on one line.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Process {
    /// Runs this very program with the name of a server.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn start(name: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args([FLAG, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("its addresses");
        let addresses = line.split_whitespace().map(|address| address.parse().expect("an address"));
        Self { child, addresses: addresses.collect() }
    }

    /// Runs this command, which is no server of this program.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn run(mut command: Command) -> Self {
        Self { child: command.spawn().expect("a process"), addresses: Vec::new() }
    }

    /// Waits for its end.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn wait(mut self) {
        let _ = self.child.wait();
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its first address.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn address(&self) -> SocketAddr {
        *self.addresses.first().expect("a listener")
    }

    /// The id of the process.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its input.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn say(&mut self, line: &str) {
        let mut input = self.child.stdin.as_ref().expect("piped");
        writeln!(input, "{line}").expect("a process that reads");
    }

    /// Its resident memory, in bytes.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn resident(&self) -> usize {
        self.memory("smaps_rollup", "Rss:")
    }

    /// The most resident memory that it has had, in bytes.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn peak(&self) -> usize {
        self.memory("status", "VmHWM:")
    }

    fn memory(&self, file: &str, field: &str) -> usize {
        let path = format!("/proc/{}/{file}", self.child.id());
        let text = fs::read_to_string(path).expect("a system with /proc");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("its memory");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1_024
    }

    /// The processor's time that it has taken, to a few microseconds.
    #[allow(dead_code, reason = "not every benchmark asks for it")]
    pub(crate) fn time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a system with /proc");
        let nanoseconds = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }
}

/// Ends this process, a server, when its parent has ended or is killed.
#[allow(dead_code, reason = "not every benchmark asks for it")]
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
