//! A message that is being received: in memory up to 64 KiB, in rows beyond that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use posthaste_queue::{Draft, MessageId, NewMessage, PutError, TooLarge};

use crate::database::{CHUNK, Counts, Database, MAX_BODY, micros, raw};

/// A message that a [`PostgresQueue`](crate::PostgresQueue) is receiving.
pub struct PostgresDraft {
    database: Arc<Database>,
    counts: Arc<Counts>,
    id: MessageId,
    /// Bytes that are not in the database yet.
    rest: BytesMut,
    /// The number of bytes in the database.
    spilled: u64,
    len: u64,
    failed: Option<PutError>,
    is_committed: bool,
}

/// A message as the parameters of `insert_message`.
pub(crate) struct Rows {
    pub(crate) owner: Vec<u8>,
    pub(crate) priority: i16,
    pub(crate) envelope: Vec<u8>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) delays: Vec<i64>,
    pub(crate) states: Vec<Vec<u8>>,
}

pub(crate) const INSERT: &str = "SELECT insert_message($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

impl PostgresDraft {
    pub(crate) fn new(database: Arc<Database>, counts: Arc<Counts>, id: MessageId) -> Self {
        counts.drafts.fetch_add(1, Relaxed);
        Self { database, counts, id, rest: BytesMut::new(), spilled: 0, len: 0, failed: None, is_committed: false }
    }

    async fn add(&mut self, mut chunk: Bytes) -> Result<(), PutError> {
        let actual = self.len.saturating_add(chunk.len() as u64);
        if actual > MAX_BODY {
            return Err(TooLarge::bytes("the body", MAX_BODY, actual).into());
        }
        self.len = actual;
        while self.rest.len() + chunk.len() > CHUNK {
            self.rest.extend_from_slice(&chunk.split_to((CHUNK - self.rest.len()).min(chunk.len())));
            let (id, me, at) = (raw(self.id), self.database.me, place(self.spilled));
            let part = self.rest.split().to_vec();
            self.spilled += part.len() as u64;
            self.database
                .with(move |client| async move {
                    let done = client.execute("SELECT spill($1, $2, $3, $4)", &[&id, &me, &at, &part]).await;
                    (client, done)
                })
                .await
                .map(|_: u64| ())
                .map_err(|error: PutError| error)?;
        }
        self.rest.extend_from_slice(&chunk);
        Ok(())
    }
}

impl Draft for PostgresDraft {
    fn id(&self) -> MessageId {
        self.id
    }

    fn len(&self) -> u64 {
        self.len
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), PutError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let added = self.add(chunk).await;
        self.failed = added.clone().err();
        added
    }

    async fn commit(mut self, message: NewMessage) -> Result<MessageId, PutError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        message.check()?;
        let (id, len, at) = (raw(self.id), place(self.len), place(self.spilled));
        let (rows, part) = (Rows::of(message), self.rest.split().to_vec());
        // From here on the database decides: a draft that has become a message is not dropped.
        self.is_committed = true;
        let counts = Arc::clone(&self.counts);
        let database = Arc::clone(&self.database);
        let committed: Result<u64, PutError> = self
            .database
            .with(move |client| async move {
                let Rows { owner, priority, envelope, keys, delays, states } = &rows;
                let values: [&(dyn tokio_postgres::types::ToSql + Sync); 10] =
                    [&id, owner, priority, envelope, &len, &at, &part, keys, delays, states];
                let done = client.execute(INSERT, &values).await;
                if done.is_ok() {
                    counts.puts.fetch_add(1, Relaxed);
                    database.bump();
                }
                (client, done)
            })
            .await;
        if let Err(error) = committed {
            self.is_committed = false;
            return Err(error);
        }
        Ok(self.id)
    }
}

impl Drop for PostgresDraft {
    fn drop(&mut self) {
        self.counts.drafts.fetch_sub(1, Relaxed);
        if self.spilled > 0 && !self.is_committed && self.database.ended().is_none() {
            let (database, id) = (Arc::clone(&self.database), raw(self.id));
            let runtime = database.runtime.clone();
            // If this fails, the rows are removed once this owner is gone.
            drop(runtime.spawn(async move {
                let dropped: Result<u64, PutError> = database
                    .with(move |client| async move {
                        let done = client.execute("SELECT drop_draft($1)", &[&id]).await;
                        (client, done)
                    })
                    .await;
                drop(dropped);
            }));
        }
    }
}

impl fmt::Debug for PostgresDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresDraft").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Rows {
    pub(crate) fn of(message: NewMessage) -> Self {
        let NewMessage { owner, priority, envelope, deliveries } = message;
        Self {
            owner: owner.as_str().into(),
            priority: priority.0.into(),
            envelope: envelope.into(),
            keys: deliveries.iter().map(|each| each.key.as_str().into()).collect(),
            delays: deliveries.iter().map(|each| micros(each.delay)).collect(),
            states: deliveries.into_iter().map(|each| each.state.into()).collect(),
        }
    }
}

fn place(octets: u64) -> i64 {
    i64::try_from(octets).unwrap_or(i64::MAX)
}
