//! The content of a queued message.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use posthaste_queue::Body;

use crate::message::whole_len;

/// The content of a queued message: a stream of its pieces, from our signatures on. An error ends
/// it: see [`Body`].
#[derive(Debug)]
pub struct QueuedContent<B> {
    front: Bytes,
    body: B,
    octets: u64,
}

impl<B: Body> QueuedContent<B> {
    pub(super) fn new(front: Bytes, body: B) -> Self {
        let octets = whole_len(&front, body.len());
        Self { front, body, octets }
    }

    /// The octets of the whole content.
    pub const fn octets(&self) -> u64 {
        self.octets
    }
}

impl<B: Body> Stream for QueuedContent<B> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.front.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.front))));
        }
        Pin::new(&mut self.body).poll_next(context)
    }
}
