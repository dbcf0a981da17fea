//! Message content on its way out.

use std::{future::Future, io};

use bytes::Bytes;

/// Message content that is read piece by piece while it is sent.
pub trait Content: Send {
    /// The next piece, or nothing at the end. Pieces may be of any size but empty; some 64 KiB is a good one.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;

    /// How many octets [`next`](Self::next) will give from here on, when that is known. Content of known length goes to a
    /// server with CHUNKING as one chunk, other content as many. It has to be right: a message that turns out shorter or
    /// longer is not sent, and the conversation is over.
    fn length(&self) -> Option<u64> {
        None
    }
}

/// The whole content at once; taken by the first call.
impl Content for Bytes {
    async fn next(&mut self) -> io::Result<Option<Self>> {
        let all = std::mem::take(self);
        Ok((!all.is_empty()).then_some(all))
    }

    fn length(&self) -> Option<u64> {
        u64::try_from(self.len()).ok()
    }
}

impl<C: Content> Content for &mut C {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        (**self).next().await
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }
}
