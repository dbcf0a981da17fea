//! The socket in the queue's folder through which a running relay answers `relay status`.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use posthaste::client::Resolver;
use posthaste::queue::Queue;
use posthaste::relay::Relay;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
};

use crate::{Failure, config::Config};

/// Answers until it is dropped, which takes the socket away.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    /// The device and the number of the socket: another relay may have one of this name by then.
    inode: (u64, u64),
    task: JoinHandle<()>,
}

const NAME: &str = "control.sock";
/// How long a client may take to read the answer, and how long `relay status` waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clients that are answered at once. Those beyond it wait.
const AT_ONCE: usize = 64;
/// Octets of an answer that are read.
const LONGEST: u64 = 64 << 10;

/// Listens. The queue's lock is held, so a socket that is there is left over.
pub(crate) fn listen<Q: Queue, R: Resolver>(queue: &Path, relay: Relay<Q, R>) -> io::Result<Control> {
    let path = queue.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display())))?;
    // Independent of the process's mask: to connect takes the right to write.
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let found = fs::symlink_metadata(&path)?;
    let task = tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        // The semaphore is never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let relay = relay.clone();
            tokio::spawn(async move {
                let _slot = slot;
                let answer = async { stream.write_all(status(&relay).await.as_bytes()).await };
                let _ = tokio::time::timeout(PATIENCE, answer).await;
            });
        }
    });
    Ok(Control { path, inode: (found.dev(), found.ino()), task })
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let found = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A key and a value a line.
async fn status<Q: Queue, R: Resolver>(relay: &Relay<Q, R>) -> String {
    let stats = relay.queue().stats().await;
    let (totals, overload) = (relay.totals(), relay.overload().state());
    let sites = relay.sites();
    let resting = sites.iter().filter(|site| site.resting.is_some()).count();
    let numbers = [
        ("queued", stats.messages as u64),
        ("deliveries", stats.deliveries as u64),
        ("held", stats.held as u64),
        ("damaged", stats.damaged),
        ("queued_octets", stats.bytes),
        ("oldest_seconds", stats.oldest.map_or(0, |age| age.as_secs())),
        ("fsyncs", stats.fsyncs),
        ("accepted", totals.accepted),
        ("delivered", totals.delivered),
        ("retried", totals.deferred),
        ("failed", totals.failed),
        ("reported", totals.reported),
        ("not_reported", totals.not_reported),
        ("discarded", totals.discarded),
        ("set_aside", totals.set_aside),
        ("sites", sites.len() as u64),
        ("sites_resting", resting as u64),
        ("sources_resting", relay.resting_sources().len() as u64),
        ("overload_rung", overload.rung as u64),
        ("overload_changes", totals.overload),
        ("overload_slowed", overload.slowed),
        ("overload_refused", overload.refused),
        ("overload_closed", overload.closed),
    ];
    let mut text: String = numbers.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
    let cause = overload.cause.map_or_else(String::new, |cause| {
        let watermark = cause.watermarks.mark(overload.rung);
        format!(", {} {} of {watermark}", cause.gauge, cause.value)
    });
    text.push_str(&format!("overload {}{cause}\n", overload.rung));
    text.push_str(&format!("state {}\n", stats.broken.map_or_else(|| "ok".to_owned(), |broken| broken.to_string())));
    text
}

/// `relay status`.
pub(crate) async fn ask(config: &Config) -> Result<(), Failure> {
    let path = config.queue.join(NAME);
    let answer = async {
        let stream = UnixStream::connect(&path).await?;
        let mut text = String::new();
        stream.take(LONGEST).read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let answered = tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let text = answered.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::TimedOut => "it is busy or hangs; see its log",
            io::ErrorKind::PermissionDenied => "ask as the user who runs it",
            _ => "start it with `relay serve`",
        };
        Failure::Run(format!("no relay answers at {}: {error}; {remedy}", path.display()))
    })?;
    crate::print(&text)
}
