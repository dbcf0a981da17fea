//! Receiving a message: in memory while it is small and memory is free, then in a file of its own.

use std::fmt;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::index::Message;
use crate::log::disk::vfs::{Room, VfsFile, is_for_now, refusal};
use crate::log::disk::watermark;
use crate::log::format::frame::Kind;
use crate::log::format::record::{self, Record, encode_image};
use crate::log::write::lanes::{Job, PutJob, outlived};
use crate::log::write::segment::NewRecord;
use crate::log::write::shared::Shared;
use crate::log::write::slot::DraftSlot;
use crate::log::write::sync::{Syncer, Unsynced};
use crate::{Broken, Draft, Error, MessageId, NewMessage, PutError, TooLarge, limits};

/// A message that a [`LogQueue`](crate::log::LogQueue) is receiving.
///
/// Writing a piece of a large message to its file blocks the caller's thread, usually for
/// microseconds. The queue's own threads wait for stable storage.
pub struct LogDraft {
    shared: Arc<Shared>,
    syncer: Syncer,
    id: MessageId,
    slot: DraftSlot,
    buffer: Vec<u8>,
    file: Option<Arc<dyn VfsFile>>,
    len: u64,
    checked_at: u64,
    crc: crc32fast::Hasher,
    failed: Option<PutError>,
}

impl LogDraft {
    pub(in crate::log) fn new(shared: &Arc<Shared>, syncer: Syncer, slot: DraftSlot, id: MessageId) -> Self {
        Self {
            shared: Arc::clone(shared),
            syncer,
            id,
            slot,
            buffer: Vec::new(),
            file: None,
            len: 0,
            checked_at: 0,
            crc: crc32fast::Hasher::new(),
            failed: None,
        }
    }

    /// Fails if the store has stopped, or has gone on since the draft began.
    fn check(&self) -> Result<(), Error> {
        match self.shared.core.ended() {
            Some(why) => Err(why),
            None if self.shared.lanes.life() != self.slot.life => Err(outlived()),
            None => Ok(()),
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), PutError> {
        let limit = self.shared.options.max_body;
        let len = self.len.saturating_add(chunk.len() as u64);
        if len > limit {
            return Err(TooLarge::bytes("the body", limit, len).into());
        }
        self.check()?;
        let fits = self.file.is_none()
            && len <= self.shared.options.inline_body as u64
            && self.slot.grow(&mut self.buffer, chunk.len());
        if fits {
            self.buffer.extend_from_slice(chunk);
        } else {
            self.spill(chunk)?;
        }
        self.crc.update(chunk);
        self.len = len;
        Ok(())
    }

    fn spill(&mut self, chunk: &[u8]) -> Result<(), PutError> {
        if self.len >= self.checked_at {
            self.shared.check_disk()?;
            self.checked_at = self.len.saturating_add(CHECK_DISK_EVERY);
        }
        let path = self.shared.body_path(self.id);
        let file = match &self.file {
            Some(file) => file,
            None => {
                let file =
                    self.shared.vfs.create_for_caller(&path).map_err(|error| self.shared.io_error(&path, &error))?;
                self.slot.own(Arc::clone(&self.shared.vfs), path.clone());
                let buffer = mem::take(&mut self.buffer);
                file.write_at(&buffer, 0).map_err(|error| self.shared.io_error(&path, &error))?;
                drop(buffer);
                self.slot.charge(0);
                self.file.insert(file)
            }
        };
        file.write_at(chunk, self.len).map_err(|error| self.shared.io_error(&path, &error))
    }

    /// Encodes the record. Returns it with the message as it will be read back.
    fn encode(&mut self, message: NewMessage) -> Result<PutParts, PutError> {
        let now = self.shared.now();
        let message = Message::new(message, now.moment, self.len, ());
        let mut payload = Vec::with_capacity(message.cost().saturating_add(self.buffer.len()));
        let crc = mem::take(&mut self.crc).finalize();
        encode_image(&mut payload, now, self.id, &message, crc, self.file.is_some());
        payload.extend_from_slice(&mem::take(&mut self.buffer));
        self.slot.charge(payload.len());
        match record::decode(Kind::Message, &payload, now.wall, now) {
            Ok(Record::Message(image)) => Ok((NewRecord::new(Kind::Message, payload, now), image)),
            _ => Err(PutError::Broken(Broken::new(
                "the record of a message could not be decoded and was not written; report this as a bug",
            ))),
        }
    }
}

type PutParts = (NewRecord, record::Image);

impl Draft for LogDraft {
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
        self.take(&chunk).inspect_err(|error| self.failed = Some(error.clone()))
    }

    async fn commit(mut self, message: NewMessage) -> Result<MessageId, PutError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        limits::check(&message)?;
        let (entry, image) = self.encode(message)?;
        let Self { shared, syncer, slot, file, .. } = self;
        let (answer, answered) = oneshot::channel();
        let put = Box::new(PutJob { entry, image, slot, answer });
        match file {
            Some(file) => syncer.submit(&shared, Unsynced { file, put }),
            None => shared.submit(Job::Put(put)),
        }
        answered.await.unwrap_or_else(|_| Err(shared.gone().into()))
    }
}

impl Shared {
    /// What a failed write of a body's file means.
    fn io_error(&self, path: &std::path::Path, error: &std::io::Error) -> PutError {
        if is_for_now(error) {
            return PutError::Full(refusal(path, error));
        }
        let why = format!("{} could not be written: {error}; check the disk", path.display());
        self.fail(&why);
        PutError::Broken(Broken::new(&why))
    }

    /// Checks that the disk has room for a new message of `more` bytes.
    pub(in crate::log) fn admit(&self, more: u64) -> Result<(), PutError> {
        let admitted = self.watermark.admit(self.room()?, self.options.disk_reserve, more);
        admitted.map_err(PutError::Full)
    }

    /// Checks that the disk has room for more of a message that has begun.
    fn check_disk(&self) -> Result<(), PutError> {
        watermark::is_free(self.room()?, self.options.disk_reserve, 0, false).map_err(PutError::Full)
    }

    /// How near the disk is to the bytes and to the files that are kept back, in percent. A disk
    /// that does not answer is a matter of the next put.
    pub(in crate::log) fn pressures(&self) -> (u64, u64) {
        let room = self.vfs.room(&self.dir);
        room.map_or((0, 0), |room| watermark::pressures(room, self.options.disk_reserve))
    }

    fn room(&self) -> Result<Room, PutError> {
        self.vfs.room(&self.dir).map_err(|error| self.io_error(&self.dir, &error))
    }
}

impl fmt::Debug for LogDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogDraft").field("id", &self.id).field("len", &self.len).finish_non_exhaustive()
    }
}

const CHECK_DISK_EVERY: u64 = 1 << 20;
