//! The octets of a message, counted on their way.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;

use crate::{Body, BodyError};

/// How many octets of a body were read.
#[derive(Debug, Clone, Default)]
pub(super) struct Octets(Arc<AtomicU64>);

impl Octets {
    /// The body, whose octets are counted from now on.
    pub(super) fn of(body: Body<'_>) -> (Self, Body<'_>) {
        let octets = Self::default();
        (octets.clone(), body.with_pieces(|body| Counted { body, octets }))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

struct Counted<'b> {
    body: Body<'b>,
    octets: Octets,
}

impl Stream for Counted<'_> {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = ready!(Pin::new(&mut self.body).poll_next(task));
        if let Some(Ok(piece)) = &polled {
            self.octets.0.fetch_add(u64::try_from(piece.len()).unwrap_or(u64::MAX), Relaxed);
        }
        Poll::Ready(polled)
    }
}
