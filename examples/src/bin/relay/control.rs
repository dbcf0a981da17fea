//! The socket in the queue's folder through which a running relay answers its operators' commands:
//! the [API](crate::api), one request for each connection. Who may open the socket may do
//! everything.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use posthaste::client::Resolver;
use posthaste::queue::Queue;
use posthaste::relay::Relay;
use tokio::{net::UnixListener, sync::Semaphore, task::JoinHandle};

use crate::api;

/// Answers until it is dropped, which takes the socket away.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    /// The device and the number of the socket: another relay may have one of this name by then.
    inode: (u64, u64),
    task: JoinHandle<()>,
}

/// The name of the socket.
pub(crate) const NAME: &str = "control.sock";
/// How long a client may take to send the header of its request.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request and its answer may take. A sum over a million messages takes seconds.
const LONGEST: Duration = Duration::from_secs(120);
/// Clients that are answered at once. Those beyond it wait.
const AT_ONCE: usize = 64;

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
        let router = TowerToHyperService::new(api::router(relay));
        // The semaphore is never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let router = router.clone();
            tokio::spawn(async move {
                let _slot = slot;
                let mut http = http1::Builder::new();
                http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                let answer = http.serve_connection(TokioIo::new(stream), router);
                let _ = tokio::time::timeout(LONGEST, answer).await;
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
pub(crate) async fn status<Q: Queue, R: Resolver>(relay: &Relay<Q, R>) -> String {
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
