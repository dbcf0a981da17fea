//! The messages of sources on this day of their warm-up, kept in a file of the queue's folder: a
//! restart must not begin the day again.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use posthaste::{
    client::Resolver,
    queue::Queue,
    relay::{Relay, SourceCount},
};
use tracing::warn;

/// How often it is written, if anything has changed: the messages of that time are not
/// counted after a crash.
const EVERY: Duration = Duration::from_secs(10);
/// The most octets that are read.
const LONGEST: u64 = 1 << 20;

/// The file, and what it has.
#[derive(Debug)]
pub(crate) struct Counts {
    path: PathBuf,
    written: String,
}

impl Counts {
    /// Reads the counts of an earlier run and gives them to the relay. A file that cannot be read
    /// is logged: each day begins again then.
    pub(crate) fn restore<Q: Queue, R: Resolver>(queue: &Path, relay: &Relay<Q, R>) -> Self {
        let path = queue.join("warm-up");
        let written = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "messages of sources not read, their day of warm-up begins again");
                String::new()
            }
        };
        relay.restore_source_counts(written.lines().filter_map(count));
        Self { path, written }
    }

    /// Writes the counts from time to time, as long as it is polled.
    pub(crate) async fn keep<Q: Queue, R: Resolver>(&mut self, relay: &Relay<Q, R>) -> Infallible {
        loop {
            tokio::time::sleep(EVERY).await;
            tokio::task::block_in_place(|| self.write(relay));
        }
    }

    /// Writes the counts if they have changed.
    pub(crate) fn write<Q: Queue, R: Resolver>(&mut self, relay: &Relay<Q, R>) {
        let mut lines: Vec<_> = relay.source_counts().iter().map(line).collect();
        lines.sort_unstable();
        let text = lines.concat();
        if text == self.written {
            return;
        }
        match write(&self.path, &text) {
            Ok(()) => self.written = text,
            Err(error) => warn!(path = %self.path.display(), %error, "messages of sources not written"),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(crate::files::open(path)?, LONGEST), &mut text)?;
    Ok(text)
}

/// All of it or nothing.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// A source: when its warm-up began, in seconds since 1970, the day, its messages, and its name.
fn line(count: &SourceCount) -> String {
    let begins = count.begins.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{} {} {} {}\n", begins.as_secs(), count.day, count.messages, count.source)
}

fn count(line: &str) -> Option<SourceCount> {
    let mut words = line.splitn(4, ' ');
    let begins = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?))?;
    let (day, messages) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(SourceCount { source: words.next()?.to_owned(), begins, day, messages })
}
