//! A progress bar on the terminal, after the first second.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use posthaste_queue::log::inspect::{Progress, Stage};

/// Drawn on standard error if that is a terminal, until this is dropped.
pub(crate) struct Bar {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    pub(crate) fn new(progress: &Arc<Progress>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let progress = Arc::clone(progress);
        let thread = thread::spawn(move || {
            if stopped.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new(0);
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let (stage, done, total) = progress.look();
                let (name, template) = match stage {
                    Stage::Opening => ("opening", "{spinner} {msg} {elapsed}"),
                    Stage::Log => ("reading the log", OCTETS),
                    Stage::Comparing => ("comparing log and index", "{bar:40} {pos}/{len} messages  {msg}  {eta} left"),
                    Stage::Bodies => ("reading bodies", OCTETS),
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style);
                }
                bar.set_message(name);
                bar.set_length(total);
                bar.set_position(done);
            }
            bar.finish_and_clear();
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

const OCTETS: &str = "{bar:40} {bytes}/{total_bytes}  {msg}  {eta} left";
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);
