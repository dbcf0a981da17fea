//! The checkpoint of the log: the queue as of some place in the log, in a B-tree on the disk.
//!
//! It can be rebuilt from the log at any time, so its damage loses nothing. Only this folder knows
//! redb.

mod check;
mod error;
mod renew;
mod rows;
mod snapshot;
mod storage;

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

pub(super) use self::error::Error;
use self::renew::Filling;
pub(super) use self::rows::Meta;
use self::rows::{decode_message, encode_message};
pub(super) use self::snapshot::Snapshot;
use self::snapshot::negated;
use self::storage::Storage;
use crate::MessageId;
use crate::index::{Frozen, Message, Moment, Totals};
use crate::log::disk::names;
use crate::log::disk::vfs::{Vfs, VfsFile};
use crate::log::format::place::Living;
use crate::log::format::place::Stored;

/// Key, negated priority, owner, due, message, delivery.
type ReadyKey = (&'static str, i16, &'static str, i64, u64, u32);
/// Due, message, delivery.
type WaitingKey = (i64, u64, u32);
/// The first three of a [`ReadyKey`].
type WaitingClass = (&'static str, i16, &'static str);

const MESSAGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
const READY: TableDefinition<'_, ReadyKey, ()> = TableDefinition::new("ready");
const WAITING: TableDefinition<'_, WaitingKey, WaitingClass> = TableDefinition::new("waiting");
/// Messages whose body has a file of its own.
const BODIES: TableDefinition<'_, u64, ()> = TableDefinition::new("bodies");
/// For each segment: its live bytes, and whether it must stay.
const SEGMENTS: TableDefinition<'_, u64, (u64, bool)> = TableDefinition::new("segments");
const META: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("meta");

/// The open file.
pub(super) struct Checkpoint {
    vfs: Arc<dyn Vfs>,
    path: Arc<Path>,
    file: Arc<dyn VfsFile>,
    database: Database,
    cache: usize,
    /// See [`renew`].
    filling: Filling,
}

/// The content of a checkpoint.
pub(super) struct Work {
    pub(super) frozen: Frozen<Stored>,
    pub(super) segments: Vec<Living>,
    pub(super) meta: Meta,
}

/// A checkpoint that was written.
pub(super) struct Written {
    /// A waiting row became a ready one.
    pub(super) is_promoted: bool,
    pub(super) snapshot: Snapshot,
    /// The last checkpoint, unless it is the same file. The index reads it until it has the
    /// snapshot.
    pub(super) old: Option<Box<dyn Send>>,
}

impl Checkpoint {
    /// Opens the checkpoint in this folder, if there is one, and reads its meta row. Looks through
    /// all of it for damage.
    pub(super) fn open(vfs: &Arc<dyn Vfs>, dir: &Path, cache: usize) -> Result<Option<(Self, Meta)>, Error> {
        let path: Arc<Path> = names::index(dir).into();
        if !vfs.exists(&path)? {
            return Ok(None);
        }
        let file = vfs.open(&path)?;
        let opened = || {
            let database = open(&file, cache)?;
            let filling = Filling::of(&database.begin_read()?)?;
            let checkpoint = Self { vfs: Arc::clone(vfs), path, file: Arc::clone(&file), database, cache, filling };
            let meta = checkpoint.meta()?;
            Ok(Some((checkpoint, meta)))
        };
        // redb reports a damaged file by an error where it can, and by a panic where it cannot.
        let damaged = |_| Err(Error::content(&"it is damaged"));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(opened)).unwrap_or_else(damaged)
    }

    /// Creates the checkpoint of an empty queue, under another name until it is complete.
    pub(super) fn create(vfs: &Arc<dyn Vfs>, dir: &Path, cache: usize, now: Moment, wall: u64) -> Result<Self, Error> {
        let path: Arc<Path> = names::index(dir).into();
        let file = begin(&**vfs, &path)?;
        let database = open(&file, cache)?;
        let filling = Filling::default();
        let mut checkpoint = Self { vfs: Arc::clone(vfs), path, file, database, cache, filling };
        let totals = Totals::default();
        let (frozen, segments) = (Frozen { changes: Vec::new(), now, totals }, Vec::new());
        let meta = Meta { position: (0, 0), tag: 0, now, wall, next_id: 0, totals };
        checkpoint.write_after(Moment::MIN, &Work { frozen, segments, meta })?;
        vfs.rename(&names::unfinished_index(dir), &checkpoint.path)?;
        vfs.sync_dir(dir)?;
        Ok(checkpoint)
    }

    /// The place in the log that it is of, and its times and counts.
    pub(super) fn meta(&self) -> Result<Meta, Error> {
        let table = self.database.begin_read()?.open_table(META)?;
        let row = table.get(0)?.ok_or_else(|| Error::content(&"it has no meta row"))?;
        Meta::decode(row.value()).map_err(|error| Error::content(&error))
    }

    /// The live bytes of each segment.
    pub(super) fn living(&self) -> Result<Vec<Living>, Error> {
        let table = self.database.begin_read()?.open_table(SEGMENTS)?;
        let mut segments = Vec::new();
        for row in table.iter()? {
            let (sequence, value) = row?;
            let (octets, pinned) = value.value();
            segments.push(Living { sequence: sequence.value(), octets, pinned });
        }
        Ok(segments)
    }

    /// Calls `show` for each message whose body has a file of its own.
    pub(super) fn each_body(&self, mut show: impl FnMut(MessageId)) -> Result<(), Error> {
        let table = self.database.begin_read()?.open_table(BODIES)?;
        for row in table.iter()? {
            show(MessageId::from_u64(row?.0.value()));
        }
        Ok(())
    }

    /// Calls `show` for each message with its place.
    pub(super) fn each_message(&self, mut show: impl FnMut(MessageId, Stored)) -> Result<(), Error> {
        let table = self.database.begin_read()?.open_table(MESSAGES)?;
        for row in table.iter()? {
            let (id, message) = row?;
            let message = decode_message(message.value()).map_err(|error| Error::content(&error))?;
            show(MessageId::from_u64(id.value()), message.stored);
        }
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        Snapshot::new(&self.database.begin_read()?, Arc::clone(&self.path))
    }

    /// Writes the next checkpoint, durably. Returns `true` if a waiting row became a ready one.
    pub(super) fn write(&mut self, work: &Work) -> Result<bool, Error> {
        self.write_after(self.meta()?.now, work)
    }

    /// [Writes](Self::write) the next checkpoint, and copies the file into a shorter one if that is
    /// worth it.
    ///
    /// # Errors
    /// After [`Error::Full`] it can be [reopened](Self::reopen), and is the last checkpoint. After
    /// any other error it cannot be used.
    pub(super) fn write_and_renew(&mut self, work: &Work) -> Result<Written, Error> {
        let is_promoted = self.write(work)?;
        let old = self.renew_if_worth_it()?.map(|old| Box::new(old) as Box<dyn Send>);
        Ok(Written { is_promoted, snapshot: self.snapshot()?, old })
    }

    /// `before`: the moment of the last checkpoint.
    fn write_after(&mut self, before: Moment, work: &Work) -> Result<bool, Error> {
        let transaction = begin_write(&self.database)?;
        let mut filling = self.filling;
        write_messages(&transaction, &work.frozen, before, &mut filling)?;
        let promoted = promote(&transaction, work.frozen.now)?;
        let mut segments = transaction.open_table(SEGMENTS)?;
        segments.retain(|_, _| false)?;
        for each in &work.segments {
            segments.insert(each.sequence, (each.octets, each.pinned))?;
        }
        drop(segments);
        transaction.open_table(META)?.insert(0, &*work.meta.encode())?;
        transaction.commit()?;
        self.filling = filling;
        Ok(promoted)
    }

    /// Opens the file again, as of the last checkpoint. redb asks for that after a failure.
    pub(super) fn reopen(self) -> Result<Self, Error> {
        let Self { vfs, path, file, database, cache, filling } = self;
        // The file itself stays open: there may be no descriptor to open it again.
        drop(database);
        let database = open(&file, cache)?;
        Ok(Self { vfs, path, file, database, cache, filling })
    }

    /// The length of the file in bytes.
    pub(super) fn len(&self) -> Result<u64, Error> {
        Ok(self.file.len()?)
    }
}

fn open(file: &Arc<dyn VfsFile>, cache: usize) -> Result<Database, Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(cache).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(Storage::new(Arc::clone(file)))?)
}

/// Creates an empty file under the name of an unfinished checkpoint.
fn begin(vfs: &dyn Vfs, path: &Path) -> Result<Arc<dyn VfsFile>, Error> {
    let unfinished = path.with_file_name(names::UNFINISHED_INDEX);
    if vfs.exists(&unfinished)? {
        vfs.remove(&unfinished)?;
    }
    Ok(vfs.create(&unfinished)?)
}

fn begin_write(database: &Database) -> Result<WriteTransaction, Error> {
    let mut transaction = database.begin_write()?;
    // Safe against a crash whatever the bytes are, which strangers choose. Opening need not walk
    // through the file.
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// `before`: the moment that divides ready from waiting in the last checkpoint.
fn write_messages(
    transaction: &WriteTransaction,
    frozen: &Frozen<Stored>,
    before: Moment,
    filling: &mut Filling,
) -> Result<(), Error> {
    let mut messages = transaction.open_table(MESSAGES)?;
    let mut ready = transaction.open_table(READY)?;
    let mut waiting = transaction.open_table(WAITING)?;
    let mut bodies = transaction.open_table(BODIES)?;
    for (id, message) in &frozen.changes {
        let id = id.as_u64();
        let new = message.as_deref().map(encode_message);
        let old = match &new {
            Some(new) => messages.insert(id, &**new)?,
            None => messages.remove(id)?,
        };
        filling.replaced(old.as_ref().map(|old| old.value().len()), new.as_ref().map(Vec::len));
        let old = old.map(|old| decode_message(old.value())).transpose().map_err(|error| Error::content(&error))?;
        if let Some(old) = &old {
            for row in Row::of(old, id) {
                filling.replaced(Some(row.len()), None);
                if row.due <= before {
                    ready.remove(row.ready())?;
                } else {
                    waiting.remove(row.waiting())?;
                }
            }
        }
        for row in message.iter().flat_map(|message| Row::of(message, id)) {
            filling.replaced(None, Some(row.len()));
            if row.due <= frozen.now {
                ready.insert(row.ready(), ())?;
            } else {
                waiting.insert(row.waiting(), row.class)?;
            }
        }
        let has_file = |message: &Message<Stored>| message.stored.inline.is_none();
        match message {
            Some(message) if has_file(message) => {
                bodies.insert(id, ())?;
            }
            _ if old.as_ref().is_some_and(has_file) => {
                bodies.remove(id)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes waiting rows that are due ready ones. Returns `true` if there were any.
fn promote(transaction: &WriteTransaction, now: Moment) -> Result<bool, Error> {
    let mut ready = transaction.open_table(READY)?;
    let mut waiting = transaction.open_table(WAITING)?;
    let mut promoted = false;
    let after_now = (now.saturating_add(1), 0, 0);
    for row in waiting.extract_from_if(..after_now, |_, _| true)? {
        let (at, class) = row?;
        let ((due, id, number), (key, negative, owner)) = (at.value(), class.value());
        ready.insert((key, negative, owner, due, id, number), ())?;
        promoted = true;
    }
    Ok(promoted)
}

/// A delivery's place in a schedule.
struct Row<'a> {
    class: (&'a str, i16, &'a str),
    due: Moment,
    id: u64,
    number: u32,
}

impl<'a> Row<'a> {
    /// The rows of a message. A message on hold has none.
    fn of(message: &'a Message<Stored>, id: u64) -> impl Iterator<Item = Self> {
        let (negative, owner) = (negated(message.priority), message.owner.as_str());
        let deliveries = message.deliveries.iter().filter(|_| !message.held);
        deliveries.map(move |delivery| Row {
            class: (delivery.key.as_str(), negative, owner),
            due: delivery.due,
            id,
            number: delivery.number,
        })
    }

    /// About how many bytes it takes in a schedule.
    fn len(&self) -> usize {
        self.class.0.len() + self.class.2.len() + 24
    }

    fn ready(&self) -> (&'a str, i16, &'a str, i64, u64, u32) {
        (self.class.0, self.class.1, self.class.2, self.due, self.id, self.number)
    }

    fn waiting(&self) -> (i64, u64, u32) {
        (self.due, self.id, self.number)
    }
}
