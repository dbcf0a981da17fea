//! The program `relay`, with too little of something.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::process::Process;

/// What the relay has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    Nothing,
    /// Deliveries that its queue may hold.
    Depth(u64),
    /// Room on its disk, of 64 MiB.
    Disk,
    /// Each of its calls of fsync takes 2 seconds.
    Fsync,
    Descriptors,
    /// Memory, by a cgroup of version 1 or 2.
    Memory,
}

const MEMORY: u64 = 64 << 20;

pub(crate) struct Relay {
    process: Process,
    pub(crate) port: u16,
    lack: Lack,
    /// What holds the relay back until it is dropped.
    trouble: Option<Process>,
    folder: TempDir,
    cgroup: Option<PathBuf>,
}

/// The program beside this one. `None`: it was not built.
pub(crate) fn program() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("this program");
    let program = this.parent()?.parent()?.join("relay");
    program.exists().then_some(program)
}

impl Relay {
    /// Starts it, with a next hop. `Err`: this machine cannot withhold that.
    pub(crate) async fn start(program: &Path, lack: Lack, hop: u16) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let queue = folder.path().join("queue");
        fs::create_dir(&queue).expect("a folder");
        if lack == Lack::Disk {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"]).arg(&queue);
            succeeds(mount).map_err(|error| format!("a small disk needs the rights of root: {error}"))?;
        }
        let port = free_port();
        fs::write(folder.path().join("relay.toml"), configuration(&queue, port, hop, lack)).expect("a file");
        let cgroup = (lack == Lack::Memory).then(cgroup).flatten();
        let mut command = match lack {
            Lack::Descriptors => wrapped("ulimit -n 64", program),
            Lack::Memory => {
                let cgroup = cgroup.as_ref().ok_or("a cgroup with little memory needs the rights of root")?;
                wrapped(&format!("echo $$ > {}/cgroup.procs", cgroup.display()), program)
            }
            _ => Command::new(program),
        };
        command.arg("serve").arg("--config").arg(folder.path().join("relay.toml")).stdin(Stdio::null());
        let log = File::create(folder.path().join("log")).expect("a file");
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let process = Process::run(command);
        let relay = Self { process, port, lack, trouble: None, folder, cgroup };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err(format!("the relay does not listen: {}", relay.log()));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(relay)
    }

    /// Fills the disk, or makes it slow.
    pub(crate) fn trouble(&mut self) {
        match self.lack {
            Lack::Disk => {
                let mut fill = Command::new("dd");
                fill.args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", self.filler().display()));
                // It ends with an error as soon as the disk is full.
                let _ = fill.stderr(Stdio::null()).status();
            }
            Lack::Fsync => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-q", "-e", "trace=fsync,fdatasync", "-e", "signal=none"]);
                strace.args(["-e", "inject=fsync,fdatasync:delay_exit=2000000", "-o", "/dev/null", "-p"]);
                strace.arg(self.process.id().to_string());
                self.trouble = Some(Process::run(strace));
            }
            _ => {}
        }
    }

    /// Takes the trouble away.
    pub(crate) fn relieve(&mut self) {
        if self.lack == Lack::Disk {
            let _ = fs::remove_file(self.filler());
        }
        if let Some(strace) = self.trouble.take() {
            // It lets go of the relay.
            terminate(&strace);
            strace.wait();
        }
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("queue/filler")
    }

    /// What `relay status` says in this line.
    pub(crate) fn status(&self, program: &Path, key: &str) -> Option<String> {
        let mut status = Command::new(program);
        status.arg("status").arg("--config").arg(self.folder.path().join("relay.toml"));
        let said = String::from_utf8(status.output().ok()?.stdout).ok()?;
        said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned)
    }

    pub(crate) fn is_calm(&self, program: &Path) -> bool {
        self.status(program, "overload").is_some_and(|rung| rung == "calm")
    }

    pub(crate) fn peak(&self) -> usize {
        self.process.peak()
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.trouble = None;
        self.process.end();
        if self.lack == Lack::Disk {
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path().join("queue")).status();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

fn terminate(process: &Process) {
    let id = i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a process");
    let _ = kill_process(id, Signal::TERM);
}

fn succeeds(mut command: Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A shell that does this, and then becomes the program.
fn wrapped(first: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{first} && exec \"$0\" \"$@\"")).arg(program);
    command
}

/// Makes a cgroup with little memory, of version 1 or 2. `None`: this machine does not let us.
fn cgroup() -> Option<PathBuf> {
    let name = format!("posthaste-overload-{}", std::process::id());
    let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
    places.into_iter().find_map(|(root, limit)| {
        let path = Path::new(root).join(&name);
        fs::create_dir(&path).ok()?;
        // A folder that is no cgroup has no such file.
        if path.join(limit).exists() && fs::write(path.join(limit), MEMORY.to_string()).is_ok() {
            return Some(path);
        }
        let _ = fs::remove_dir(&path);
        None
    })
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn configuration(queue: &Path, port: u16, hop: u16, lack: Lack) -> String {
    let depth = match lack {
        Lack::Depth(depth) => format!("[overload]\nqueue_depth = {depth}\n"),
        _ => String::new(),
    };
    format!(
        "hostname = \"relay.test\"\nqueue = {queue:?}\nrelay_from = [\"127.0.0.0/8\"]\n\
         [[listener]]\naddress = \"127.0.0.1:{port}\"\nrole = \"mx\"\ntls = \"off\"\n\
         [[route]]\ndomains = [\"*\"]\nto = [\"127.0.0.1:{hop}\"]\ntls = \"off\"\nmailboxes = \"unknown\"\n\
         [delivery]\nretry = [\"1s\"]\n{depth}"
    )
}
