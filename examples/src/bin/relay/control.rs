//! The socket beside the queue through which a running relay is asked how it is.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use posthaste_client::Resolver;
use posthaste_queue::Queue;
use posthaste_relay::Relay;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use crate::{Failure, config::Config};

/// Answers until it is dropped, which takes the socket away.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
}

const NAME: &str = "control.sock";
/// Whoever asks has so long to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens. The queue's lock is held, so a socket that is there is left over.
pub(crate) fn listen<Q: Queue, R: Resolver>(queue: &Path, relay: Relay<Q, R>) -> io::Result<Control> {
    let path = queue.join(NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", path.display())))?;
    let task = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let text = status(&relay).await;
            let _ = tokio::time::timeout(PATIENCE, stream.write_all(text.as_bytes())).await;
        }
    });
    Ok(Control { path, task })
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A key and a value a line.
async fn status<Q: Queue, R: Resolver>(relay: &Relay<Q, R>) -> String {
    let stats = relay.queue().stats().await;
    let totals = relay.totals();
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
    ];
    let mut text: String = numbers.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
    text.push_str(&format!("state {}\n", stats.broken.map_or_else(|| "ok".to_owned(), |broken| broken.to_string())));
    text
}

/// `relay status`.
pub(crate) async fn ask(config: &Config) -> Result<(), Failure> {
    let path = config.queue.join(NAME);
    let answer = async {
        let mut stream = UnixStream::connect(&path).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let answered = tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let text = answered.map_err(|error| {
        Failure::Run(format!("no relay answers at {}: {error}; start it with `relay serve`", path.display()))
    })?;
    print!("{text}");
    Ok(())
}
