//! A connection in memory: two pipes that are read in any portions and fail at any octet.

use std::collections::VecDeque;

/// How a connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This direction ends, as if its sender had closed it. The other goes on.
    End,
    /// Both directions end. Octets in transit in the other one are lost.
    Reset,
    /// Nothing more arrives, not even the end. Only a clock can tell.
    Silence,
}

/// One direction.
#[derive(Debug, Clone, Default)]
pub struct Pipe {
    waiting: VecDeque<u8>,
    written: usize,
    /// The pipe carries no octet from this one on.
    fails: Option<(Fault, usize)>,
    closed: bool,
}

/// Both directions.
#[derive(Debug, Clone, Default)]
pub struct Duplex {
    /// From the client to the server.
    pub up: Pipe,
    /// From the server to the client.
    pub down: Pipe,
}

impl Duplex {
    /// Carries a reset to the other direction. Call it after every write.
    pub fn settle(&mut self) {
        let is_reset = |pipe: &Pipe| pipe.has_failed() && matches!(pipe.fails, Some((Fault::Reset, _)));
        if is_reset(&self.up) || is_reset(&self.down) {
            for pipe in [&mut self.up, &mut self.down] {
                if !is_reset(pipe) {
                    pipe.fail(Fault::Reset, 0);
                }
            }
        }
    }
}

impl Pipe {
    /// Makes the pipe fail after `more` more octets. A pipe fails once.
    pub fn fail(&mut self, fault: Fault, more: usize) {
        if self.fails.is_none() {
            let read = self.written - self.waiting.len();
            self.fails = Some((fault, read + more));
            self.waiting.truncate(more);
            self.closed |= fault != Fault::Silence && self.has_failed();
        }
    }

    /// Writes octets. Those after the failure are lost.
    pub fn write(&mut self, octets: &[u8]) {
        let room = self.fails.map_or(octets.len(), |(_, at)| at.saturating_sub(self.written));
        self.waiting.extend(octets.iter().take(room));
        self.written += octets.len();
        self.closed |= self.fails.is_some_and(|(fault, _)| fault != Fault::Silence) && self.has_failed();
    }

    /// Ends the stream after what was written. In silence the reader does not learn of it.
    pub fn close(&mut self) {
        self.closed |= !self.has_failed();
    }

    /// Removes at most `most` octets from the front.
    pub fn read(&mut self, most: usize) -> Vec<u8> {
        self.waiting.drain(..most.min(self.waiting.len())).collect()
    }

    /// Octets that have not been read.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Octets that were written, including lost ones.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Returns `true` if everything was read and no more will come.
    pub fn is_at_end(&self) -> bool {
        self.closed && self.waiting.is_empty()
    }

    fn has_failed(&self) -> bool {
        self.fails.is_some_and(|(_, at)| self.written >= at)
    }
}
