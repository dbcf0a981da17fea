//! The log on the standard error stream. A reader that does not read it blocks nothing else.
//!
//! Lines go through a bounded buffer to a thread of their own. Lines that find no room are dropped
//! and counted, and the count is logged as soon as there is room. (The crate tracing-appender does
//! not log the count, and writes to the same stream itself when it cannot flush.)

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Octets of lines that wait to be written: some thousand lines. Beyond it lines are dropped.
const BUFFER: usize = 1 << 20;
/// How long the end of the program waits for lines that are not written yet.
const FLUSH: Duration = Duration::from_secs(1);
/// The wait after an error other than a reader that has gone.
const PAUSE: Duration = Duration::from_millis(50);

static LOG: OnceLock<Log> = OnceLock::new();

/// The way to the thread that writes. Clones share it.
#[derive(Clone, Default)]
struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A line came, or all are written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    octets: usize,
    dropped: u64,
    /// The thread has a line that is not written yet.
    is_writing: bool,
}

/// Sends what is logged to the standard error stream, and panics as well.
pub(crate) fn start() {
    let log = Log::default();
    let writer = log.clone();
    // Without a thread there is no log, and the relay relays.
    if thread::Builder::new().name("relay-log".to_owned()).spawn(move || writer.run(&mut io::stderr())).is_err() {
        return;
    }
    let _ = LOG.set(log.clone());
    let lines = tracing_subscriber::fmt::layer().with_writer(move || log.clone()).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(levels()).init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("a fault of the program: {panic}")));
}

/// The levels in the environment variable RUST_LOG, such as `debug` or
/// `info,posthaste_relay=debug`. Without it, or if it cannot be read: `info`.
fn levels() -> Targets {
    let info = || Targets::new().with_default(LevelFilter::INFO);
    let Some(text) = std::env::var_os("RUST_LOG").filter(|text| !text.is_empty()) else { return info() };
    text.to_string_lossy().parse().unwrap_or_else(|error| {
        say(&format!("RUST_LOG={text:?} ignored: {error}; write `debug`, or `info,posthaste_relay=debug`"));
        info()
    })
}

/// A line for people, in its place among those of the log if there is one.
pub(crate) fn say(text: &str) {
    match LOG.get() {
        Some(log) => log.push(format!("{text}\n").into_bytes()),
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Waits until everything is written, but not for long.
pub(crate) fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH);
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        if state.octets.saturating_add(line.len()) > BUFFER {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        state.tell_of_dropped();
        state.add(line);
        drop(state);
        self.0.changed.notify_all();
    }

    fn run(&self, to: &mut impl Write) {
        loop {
            let line = self.next();
            let written = write(to, &line);
            let mut state = self.lock();
            state.is_writing = false;
            if written.is_err() {
                state.dropped = state.dropped.saturating_add(1);
            } else if state.lines.is_empty() {
                state.tell_of_dropped();
            }
            drop(state);
            self.0.changed.notify_all();
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.octets = state.octets.saturating_sub(line.len());
                state.is_writing = true;
                return line;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn flush(&self, patience: Duration) {
        let state = self.lock();
        let rest = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(state, patience, rest));
    }
}

impl State {
    fn add(&mut self, line: Vec<u8>) {
        self.octets = self.octets.saturating_add(line.len());
        self.lines.push_back(line);
    }

    /// In its place: after the lines that were kept, before those that follow.
    fn tell_of_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
            self.add(
                format!("{now}  WARN relay: log lines dropped, not read in time dropped={dropped}\n").into_bytes(),
            );
        }
    }
}

/// Writes a line, and waits without a bound.
///
/// # Errors
/// The reader has gone, for now or for good, or there never was one.
fn write(to: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match to.write(line) {
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process has set the stream not to block.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One event is one line, and one call.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_buffer_are_dropped_and_counted_in_their_place() {
        let log = Log::default();
        for _ in 0..3 {
            log.push(vec![b'x'; BUFFER / 2]);
        }
        let kept = log.lock().lines.len();
        assert_eq!((kept, log.lock().dropped), (2, 1));
        log.next();
        log.push(b"later\n".to_vec());
        let told: Vec<_> = log.lock().lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert!(told[1].contains("dropped=1") && told[2] == "later\n", "{}", told[1]);
    }

    #[test]
    fn a_line_is_written_whole_whatever_comes_in_between() {
        struct Slow(Vec<u8>, usize);
        impl Write for Slow {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(io::ErrorKind::Interrupted.into()),
                    1 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => self.0.write(&line[..1]),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut slow = Slow(Vec::new(), 1);
        write(&mut slow, b"whole\n").expect("it is slow, and goes on");
        assert_eq!(slow.0, b"whole\n");
    }
}
