//! A body that is being read, a row at a time.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_queue::{Body, Error, MessageId};

use crate::database::{Database, Failed};
use crate::draft::raw;

/// Reads a body out of a [`PostgresQueue`](crate::PostgresQueue).
pub struct PostgresBody {
    pub(crate) database: Arc<Database>,
    pub(crate) message: MessageId,
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl fmt::Debug for PostgresBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBody").field("message", &self.message).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Body for PostgresBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.at >= self.len {
            return Ok(None);
        }
        let (id, at) = (raw(self.message), i64::try_from(self.at).unwrap_or(i64::MAX));
        let read: Result<Option<Vec<u8>>, Failed> = self
            .database
            .with(move |client| async move {
                let row =
                    client.query_opt("SELECT octets FROM chunks WHERE message = $1 AND at = $2", &[&id, &at]).await;
                (client, row.and_then(|row| row.map(|row| row.try_get(0)).transpose()))
            })
            .await;
        let damaged = |reason| Error::Damaged { message: self.message, reason };
        let chunk = match read {
            Ok(chunk) => chunk.filter(|chunk| !chunk.is_empty()),
            Err(Failed::Damaged(why)) => return Err(damaged(why)),
            Err(other) => return Err(other.into()),
        };
        let chunk = chunk.ok_or_else(|| damaged(format!("there is no chunk at {at}; remove the message").into()))?;
        self.at += chunk.len() as u64;
        if self.at > self.len {
            return Err(damaged("it is longer than it was; remove the message".into()));
        }
        Ok(Some(chunk.into()))
    }

    fn len(&self) -> u64 {
        self.len
    }
}
