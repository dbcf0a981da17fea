//! What a server under test writes to its log.

use std::{
    cell::RefCell,
    io::Write,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::{MakeWriter, writer::OptionalWriter};

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static OF_THIS_THREAD: RefCell<Option<(Level, Log)>> = const { RefCell::new(None) };
}

/// Writes each event to the log of the thread that it comes from.
///
/// One subscriber serves the process. With one for each test, an event that first happens on a
/// thread without a subscriber can be switched off for all threads.
struct ByThread;

impl<'a> MakeWriter<'a> for ByThread {
    type Writer = OptionalWriter<Log>;

    fn make_writer(&'a self) -> Self::Writer {
        OptionalWriter::none()
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        OF_THIS_THREAD.with_borrow(|log| match log {
            Some((level, log)) if event.level() <= level => OptionalWriter::some(log.clone()),
            _ => OptionalWriter::none(),
        })
    }
}

/// Ends the recording when it is dropped.
pub(crate) struct Listening;

impl Drop for Listening {
    fn drop(&mut self) {
        OF_THIS_THREAD.set(None);
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Records this thread, the runtime's only one, until the returned value is dropped.
    pub(crate) fn listen(&self, level: Level) -> Listening {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(ByThread).init();
        });
        OF_THIS_THREAD.set(Some((level, self.clone())));
        Listening
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits for a line with these words.
    pub(crate) async fn line(&self, with: &str) -> String {
        let waits = async {
            loop {
                match self.lines(with).pop() {
                    Some(line) => return line,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let line = tokio::time::timeout(Duration::from_secs(20), waits).await;
        line.unwrap_or_else(|_| panic!("{with:?} is not in the log: {}", self.text()))
    }

    pub(crate) fn lines(&self, with: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}
