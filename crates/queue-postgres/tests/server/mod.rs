//! A PostgreSQL server of the test's own, in a temporary folder with a socket there. It ends with
//! the test.

use std::fs::{self, Permissions};
use std::future::Future;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls};

pub(crate) struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    running: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { folder, programs: programs(), running: None };
        if is_root() {
            // The server refuses to be run by root.
            let nobody = fs::metadata("/proc/self").map(|_| id_of("nobody")).expect("procfs");
            chown(server.folder.path(), Some(nobody), None).expect("chown");
        }
        fs::set_permissions(server.folder.path(), Permissions::from_mode(0o755)).expect("chmod");
        let data = server.data();
        let made = server
            .command("initdb")
            .args(["--no-locale", "--encoding=UTF8", "--auth=trust", "--username=posthaste", "--no-sync"])
            .args(["--data-checksums".as_ref(), "--pgdata".as_ref(), data.as_os_str()])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run();
        server
    }

    /// Stops the server hard, so that unsynced writes are lost, and starts it again.
    #[allow(dead_code, reason = "one of the tests cuts it")]
    pub(crate) fn power_cut(&mut self) {
        self.stop();
        self.run();
    }

    /// How to connect to one of its schemas, which need not exist yet.
    pub(crate) fn config(&self, schema: &str) -> Config {
        let mut config = Config::new();
        config.host_path(self.folder.path()).user("posthaste").dbname("postgres");
        config.options(format!("-c search_path={schema}"));
        config
    }

    /// Runs statements as an operator would.
    pub(crate) fn execute(&self, schema: &str, statements: &str) {
        block_on_tokio(async {
            let client = self.client(schema).await;
            client.batch_execute(statements).await.expect(statements);
        });
    }

    /// A connection that is run on a thread of its own, until the client is dropped.
    pub(crate) async fn client(&self, schema: &str) -> Client {
        let config = self.config(schema);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            block_on_tokio(async {
                let (client, connection) = config.connect(NoTls).await.expect("connect");
                drop(sender.send(client));
                drop(connection.await);
            });
        });
        receiver.await.expect("connect")
    }

    fn run(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let (data, sockets) = (self.data(), self.folder.path().to_owned());
        let mut command = self.command("postgres");
        command.arg("-D").arg(data).arg("-k").arg(&sockets).args(["-h", ""]);
        for setting in ["shared_buffers=16MB", "max_connections=100", "max_wal_size=128MB", "log_min_messages=fatal"] {
            command.args(["-c", setting]);
        }
        self.running = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("postgres"));
        let patience = Instant::now();
        while !block_on_tokio(async { self.config("public").connect(NoTls).await.is_ok() }) {
            let ended = self.running.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let log = || fs::read_to_string(sockets.join("log")).unwrap_or_default();
            assert!(ended.is_none() && patience.elapsed() < Duration::from_secs(60), "postgres: {}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Without a checkpoint, and without waiting for connections.
    fn stop(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        drop(Command::new("kill").args(["-QUIT", &child.id().to_string()]).status());
        drop(child.wait());
    }

    /// A program of the server, run by an ordinary user, and ended with this thread.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        }
        command.args(["--pdeathsig", "QUIT"]).arg(self.programs.join(program)).current_dir(self.folder.path());
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The folder with the newest version's programs, which Debian keeps out of the path.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    let mut all = std::env::split_paths(&path).chain(versions.into_iter().rev());
    let is_there = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file());
    all.find(is_there).expect("PostgreSQL is not there: `cargo xtask test --only install` installs it")
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|ours| ours.uid() == 0)
}

fn id_of(user: &str) -> u32 {
    let output = Command::new("id").args(["-u", user]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

pub(crate) fn block_on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: the engine brings its own runtime.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// The path through which another process finds the server.
#[allow(dead_code, reason = "one of the tests has another process")]
pub(crate) fn sockets(server: &Server) -> &Path {
    server.folder.path()
}
