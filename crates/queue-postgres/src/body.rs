//! A body that is being read, a row at a time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use posthaste_queue::{Body, Error, MessageId};
use tokio::task::JoinHandle;

use crate::database::{Database, Failed, raw};

/// Reads a body out of a [`PostgresQueue`](crate::PostgresQueue).
pub struct PostgresBody {
    database: Arc<Database>,
    message: MessageId,
    at: u64,
    len: u64,
    /// The piece at `at`, once it was asked for.
    reading: Option<JoinHandle<Result<Option<Vec<u8>>, Failed>>>,
}

impl fmt::Debug for PostgresBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBody").field("message", &self.message).field("at", &self.at).finish_non_exhaustive()
    }
}

impl PostgresBody {
    pub(crate) fn new(database: Arc<Database>, message: MessageId, len: u64) -> Self {
        Self { database, message, at: 0, len, reading: None }
    }

    /// Checks a piece that was read.
    fn piece(&self, read: Result<Option<Vec<u8>>, Failed>) -> Result<Bytes, Error> {
        let damaged = |reason| Error::Damaged { message: self.message, reason };
        let chunk = match read {
            Ok(chunk) => chunk.filter(|chunk| !chunk.is_empty()),
            Err(Failed::Damaged(why)) => return Err(damaged(why)),
            Err(other) => return Err(other.into()),
        };
        let at = self.at;
        let chunk = chunk.ok_or_else(|| damaged(format!("there is no chunk at {at}; remove the message").into()))?;
        if at.saturating_add(chunk.len() as u64) > self.len {
            return Err(damaged("it is longer than it was; remove the message".into()));
        }
        Ok(chunk.into())
    }

    fn read(&self) -> JoinHandle<Result<Option<Vec<u8>>, Failed>> {
        let (id, at) = (raw(self.message), i64::try_from(self.at).unwrap_or(i64::MAX));
        self.database.spawn(move |client| async move {
            let row = client.query_opt("SELECT octets FROM chunks WHERE message = $1 AND at = $2", &[&id, &at]).await;
            (client, row.and_then(|row| row.map(|row| row.try_get(0)).transpose()))
        })
    }
}

impl Stream for PostgresBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.at >= self.len {
            return Poll::Ready(None);
        }
        let mut reading = self.reading.take().unwrap_or_else(|| self.read());
        let Poll::Ready(done) = Pin::new(&mut reading).poll(context) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        let read = done.unwrap_or_else(|_| Err(Failed::Store(self.database.ended().unwrap_or(Error::Closed))));
        let piece = self.piece(read);
        // After an error the stream ends.
        self.at = piece.as_ref().map_or(self.len, |piece| self.at.saturating_add(piece.len() as u64));
        Poll::Ready(Some(piece.map_err(io::Error::from)))
    }
}

impl Body for PostgresBody {
    fn len(&self) -> u64 {
        self.len
    }
}
