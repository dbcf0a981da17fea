//! Running other programs: every command is printed before it runs, so that a failed step can be
//! repeated by hand.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a step failed, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.what, self.remedy)
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// A command line that is printed when it runs and whose failure carries a remedy.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    remedy: String,
    quiet: bool,
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self {
            command,
            remedy: "Read the output above, and repeat the command by hand while mending it.".into(),
            quiet: false,
        }
    }

    /// Does not print the command line: for one with hundreds of arguments.
    pub(crate) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The cargo that runs this program.
    pub(crate) fn cargo() -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Runs it with its output going to the terminal.
    pub(crate) fn run(mut self) -> Outcome {
        self.announce();
        let status = self.command.status().map_err(|error| self.not_started(&error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("`{self}` failed ({status})."), self.remedy))
    }

    /// Runs it and keeps what it printed: (succeeded, standard output, standard error).
    pub(crate) fn capture(mut self) -> Result<(bool, String, String), Failure> {
        self.announce();
        let output = self.command.output().map_err(|error| self.not_started(&error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }

    fn announce(&self) {
        if !self.quiet {
            println!("  $ {self}");
        }
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("`{self}` could not be started: {error}."), "Install the program, or put it on PATH.")
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                write!(f, "{}={:?} ", name.to_string_lossy(), value.to_string_lossy())?;
            }
        }
        write!(f, "{}", Path::new(self.command.get_program()).file_name().unwrap_or_default().to_string_lossy())?;
        for argument in self.command.get_args() {
            let argument = argument.to_string_lossy();
            if argument.is_empty() || argument.contains([' ', '\'', '"', ';']) {
                write!(f, " '{argument}'")?;
            } else {
                write!(f, " {argument}")?;
            }
        }
        Ok(())
    }
}

/// Where a program is: on PATH, or in the folders for administration that an ordinary user's PATH
/// lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// The folder of the workspace.
pub(crate) fn workspace_root() -> PathBuf {
    // `cargo run` says where the manifest is now; two clones that share a target folder may share
    // this program.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    // `crates/xtask` has two ancestors inside the workspace, so the second parent exists.
    Path::new(&manifest).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}
