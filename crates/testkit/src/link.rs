//! A connection in memory: two pipes that can be read in any portions and cut at any octet.

use std::collections::VecDeque;

/// One direction.
#[derive(Debug, Clone, Default)]
pub struct Pipe {
    waiting: VecDeque<u8>,
    written: usize,
    cut_at: Option<usize>,
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

impl Pipe {
    /// Loses everything from that octet of the stream on, and ends the stream there.
    pub fn cut_at(&mut self, octet: usize) {
        self.cut_at = Some(octet);
    }

    /// Writes; what lies behind a cut is lost.
    pub fn write(&mut self, octets: &[u8]) {
        let room = self.cut_at.map_or(octets.len(), |cut| cut.saturating_sub(self.written));
        self.waiting.extend(octets.iter().take(room));
        self.written += octets.len();
        self.closed |= self.cut_at.is_some_and(|cut| self.written >= cut);
    }

    /// Ends the stream behind what was written.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Takes at most that many octets off the front.
    pub fn read(&mut self, most: usize) -> Vec<u8> {
        self.waiting.drain(..most.min(self.waiting.len())).collect()
    }

    /// Octets that have not been read.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether everything was read and nothing more will come.
    pub fn is_at_end(&self) -> bool {
        self.closed && self.waiting.is_empty()
    }
}
