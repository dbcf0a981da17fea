//! The trait's methods, each a statement or a short transaction.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use posthaste_queue::{
    Alteration, Change, Claim, Claimed, DeliverySummary, Derived, DueClass, Error, Gather, GatherWhen, Lease,
    LeaseError, MessageId, NameError, Outcome, Owner, Page, Priority, PutError, Queue, RoutingKey, Search, Stats,
    Summary, TooLarge,
};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};

use crate::body::PostgresBody;
use crate::database::{CHUNK, Counts, Database, Failed, MAX_BODY, Notice, duration, micros, raw};
use crate::draft::{INSERT, PostgresDraft, Rows};
use crate::keeper;

/// An open queue in PostgreSQL. Any number of them share the queue, in any number of processes.
///
/// Dropping it closes it, and blocks until the leases are given back.
pub struct PostgresQueue {
    database: Arc<Database>,
    counts: Arc<Counts>,
    max_leases: usize,
    /// Claims go one after the other: each counts the leases that are left.
    claiming: tokio::sync::Mutex<()>,
    keeper: Option<JoinHandle<()>>,
}

/// Messages that fulfill a condition, with their deliveries.
macro_rules! summaries {
    ($condition:literal) => {
        concat!(
            "SELECT m.id, m.owner, m.priority, m.envelope, m.body_len, t - m.born, m.held,
                d.number, d.key, d.state, d.attempts, greatest(d.due - t, 0), coalesce(d.leased_until > t, false)
            FROM queue_now() t, (SELECT * FROM messages WHERE ",
            $condition,
            ") m JOIN deliveries d ON d.message = m.id ORDER BY m.id, d.number"
        )
    };
}

impl PostgresQueue {
    /// Opens the queue in the first schema of the connection's search path, and creates its tables
    /// if there are none. Blocks.
    ///
    /// At most `max_leases` deliveries are leased here at once. Beyond it: claims return an empty
    /// list.
    ///
    /// # Errors
    /// [`Error::Broken`], with PostgreSQL's message.
    pub fn open(config: Config, max_leases: usize) -> Result<Self, Error> {
        let (database, keeper) = keeper::start(config)?;
        let (counts, keeper) = (Arc::default(), Some(keeper));
        Ok(Self { database, counts, max_leases, claiming: tokio::sync::Mutex::default(), keeper })
    }

    /// Ends like a killed process: the database is not told. For tests.
    pub fn die(self) {
        // The keeper may have ended by itself.
        drop(self.database.notices.send(Notice::Die));
    }

    async fn rows(&self, statement: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Error> {
        self.database
            .with(move |client| async move {
                let rows = client.query(statement, &borrowed(&values)).await;
                (client, rows)
            })
            .await
    }

    /// The messages that a [statement](summaries) finds.
    async fn summaries(&self, statement: &'static str, value: i64) -> Result<Vec<Summary>, Error> {
        let mut found: Vec<Summary> = Vec::new();
        for row in &self.rows(statement, vec![Box::new(value)]).await? {
            let id = id(read(row, 0)?);
            if found.last().is_none_or(|last| last.id != id) {
                found.push(summary(id, row)?);
            }
            let delivery = delivery(row)?;
            found.last_mut().into_iter().for_each(|last| last.deliveries.push(delivery.clone()));
        }
        Ok(found)
    }

    async fn row(&self, statement: &'static str, values: Vec<Value>) -> Result<Row, Error> {
        self.database
            .with(move |client| async move {
                let row = client.query_one(statement, &borrowed(&values)).await;
                (client, row)
            })
            .await
    }
}

type Value = Box<dyn ToSql + Send + Sync>;

fn borrowed(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}

impl Queue for PostgresQueue {
    type Draft = PostgresDraft;
    type Body = PostgresBody;

    async fn put(&self, size_hint: Option<u64>) -> Result<PostgresDraft, PutError> {
        let (limit, actual) = (MAX_BODY, size_hint.unwrap_or(0));
        if actual > limit {
            return Err(TooLarge::bytes("the body", limit, actual).into());
        }
        let row = self.row("SELECT nextval('ids')", Vec::new()).await?;
        let id = id(read(&row, 0)?);
        Ok(PostgresDraft::new(Arc::clone(&self.database), Arc::clone(&self.counts), id))
    }

    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Claimed>, Error> {
        let me = self.database.me;
        let _one_at_a_time = self.claiming.lock().await;
        // Before it counts: an outcome right after that frees a lease.
        self.counts.may_want_leases.store(true, Relaxed);
        let row = self.row("SELECT leases_of($1)", vec![Box::new(me)]).await?;
        let leased = usize::try_from(read::<i64>(&row, 0)?).unwrap_or(usize::MAX);
        let room = self.max_leases.saturating_sub(leased);
        let keys: Vec<Vec<u8>> = claim.from.iter().map(|class| class.key.as_str().into()).collect();
        let priorities: Vec<i16> = claim.from.iter().map(|class| class.priority.0.into()).collect();
        let owners: Vec<Vec<u8>> = claim.from.iter().map(|class| class.owner.as_str().into()).collect();
        let most = i64::try_from(claim.max.min(room)).unwrap_or(i64::MAX);
        let lease = micros(claim.lease);
        let values: Vec<Value> =
            vec![Box::new(me), Box::new(keys), Box::new(priorities), Box::new(owners), Box::new(most), Box::new(lease)];
        let rows = self.rows("SELECT * FROM claim($1, $2, $3, $4, $5, $6)", values).await?;
        rows.iter().map(claimed).collect()
    }

    async fn body(&self, message: MessageId) -> Result<PostgresBody, Error> {
        let rows = self.rows("SELECT body_len FROM messages WHERE id = $1", vec![Box::new(raw(message))]).await?;
        let len = rows.first().map(|row| read::<i64>(row, 0)).transpose()?.ok_or(Error::NoSuchMessage(message))?;
        Ok(PostgresBody::new(Arc::clone(&self.database), message, count(len)))
    }

    async fn extend(&self, lease: &Lease, lease_for: Duration) -> Result<(), LeaseError> {
        let (message, delivery, generation) = numbers(lease);
        let values: Vec<Value> =
            vec![Box::new(message), Box::new(delivery), Box::new(generation), Box::new(micros(lease_for))];
        let row = self.row("SELECT extend($1, $2, $3, $4)", values).await?;
        if read::<bool>(&row, 0)? { Ok(()) } else { Err(LeaseError::Stale) }
    }

    async fn gather(&self, gather: Gather<'_>) -> Result<Vec<Claimed>, Error> {
        let marks: Vec<Vec<u8>> = gather.marks.iter().map(|mark| mark.to_vec()).collect();
        let moment = match gather.when {
            GatherWhen::Now => 0_i32,
            GatherWhen::AtRest => 1,
            GatherWhen::Alone => 2,
        };
        let (me, message) = (self.database.me, raw(gather.message));
        let values: Vec<Value> =
            vec![Box::new(me), Box::new(message), Box::new(marks), Box::new(moment), Box::new(micros(gather.lease))];
        let rows = self.rows("SELECT * FROM gather($1, $2, $3, $4, $5)", values).await?;
        rows.iter().map(claimed).collect()
    }

    async fn finish_all(
        &self,
        ends: Vec<(Lease, Outcome)>,
        derived: Vec<Derived>,
    ) -> Result<Vec<MessageId>, LeaseError> {
        let message = ends.first().map(|(lease, _)| lease.message()).ok_or(LeaseError::Stale)?;
        ends.iter().try_for_each(|(_, outcome)| outcome.check(&derived))?;
        if ends.iter().any(|(lease, _)| lease.message() != message) {
            return Err(LeaseError::Stale);
        }
        let ends = ends.into_iter().map(|(lease, outcome)| End::of(&lease, outcome)).collect();
        let derived: Vec<_> = derived.into_iter().map(|each| (Rows::of(each.message), each.body.to_vec())).collect();
        let finishing = Arc::new(Finishing { message: raw(message), ends, derived });
        loop {
            let work = Arc::clone(&finishing);
            let (counts, database) = (Arc::clone(&self.counts), Arc::clone(&self.database));
            let done: Result<Option<Vec<MessageId>>, Failed> = self
                .database
                .with(move |mut client| async move {
                    let done = work.write(&mut client).await;
                    if let Ok(Some(ids)) = &done {
                        counts.finished.fetch_add(work.ends.len() as u64, Relaxed);
                        counts.puts.fetch_add(ids.len() as u64, Relaxed);
                        let is_left = work.ends.iter().any(|end| end.state.is_some());
                        if is_left || !ids.is_empty() || counts.may_want_leases.swap(false, Relaxed) {
                            database.bump();
                        }
                    }
                    (client, done)
                })
                .await;
            match done {
                Ok(Some(ids)) => return Ok(ids),
                Ok(None) => return Err(LeaseError::Stale),
                // An outcome is not refused for lack of room: it waits.
                Err(Failed::Full(_)) => {
                    let pause = self.database.runtime.spawn(async { tokio::time::sleep(PAUSE).await });
                    drop(pause.await);
                }
                Err(other) => return Err(Error::from(other).into()),
            }
        }
    }

    async fn due(&self, after: Option<&DueClass>, limit: usize) -> Result<Vec<DueClass>, Error> {
        // No class comes before the one with an empty key, an empty owner and this priority.
        let (key, priority, owner) = after.map_or(("", BEYOND_PRIORITIES, ""), |class| {
            (class.key.as_str(), class.priority.0.into(), class.owner.as_str())
        });
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values: Vec<Value> = vec![
            Box::new(key.as_bytes().to_vec()),
            Box::new(priority),
            Box::new(owner.as_bytes().to_vec()),
            Box::new(limit),
        ];
        let rows = self.rows("SELECT * FROM due_classes($1, $2, $3, $4)", values).await?;
        rows.iter().map(due_class).collect()
    }

    async fn changed(&self, seen: Change) -> Result<Change, Error> {
        self.database.changed(seen).await
    }

    async fn alter(&self, message: MessageId, what: Alteration) -> Result<usize, Error> {
        let octets = |key: RoutingKey| key.as_str().as_bytes().to_vec();
        let (statement, mut values): (_, Vec<Value>) = match what {
            Alteration::Hold => ("SELECT set_held($1, true)", Vec::new()),
            Alteration::Release => ("SELECT set_held($1, false)", Vec::new()),
            Alteration::Reschedule { key, delay } => {
                ("SELECT reschedule($1, $2, $3)", vec![Box::new(key.map(octets)), Box::new(micros(delay))])
            }
            Alteration::Reroute { from, to } => {
                ("SELECT reroute($1, $2, $3)", vec![Box::new(from.map(octets)), Box::new(octets(to))])
            }
        };
        values.insert(0, Box::new(raw(message)));
        let row = self.row(statement, values).await?;
        let concerned: i64 = read::<Option<i64>>(&row, 0)?.ok_or(Error::NoSuchMessage(message))?;
        self.database.bump();
        Ok(usize::try_from(concerned).unwrap_or(usize::MAX))
    }

    async fn remove(&self, message: MessageId) -> Result<(), Error> {
        let row = self.row("SELECT bury($1)", vec![Box::new(raw(message))]).await?;
        if read::<bool>(&row, 0)? { Ok(()) } else { Err(Error::NoSuchMessage(message)) }
    }

    /// Looks at 100 messages in one call.
    async fn search(&self, search: &Search, after: Option<MessageId>, limit: usize) -> Result<Page, Error> {
        let looked_at = self.summaries(summaries!("id > $1 ORDER BY id LIMIT 100"), after.map_or(0, raw)).await?;
        let (mut page, limit) = (Page::default(), limit.max(1));
        let is_all = looked_at.len() < 100;
        for message in looked_at {
            if page.messages.len() == limit {
                return Ok(page);
            }
            page.next = Some(message.id);
            if search.finds(&message) {
                page.messages.push(message);
            }
        }
        if is_all {
            page.next = None;
        }
        Ok(page)
    }

    async fn summary(&self, message: MessageId) -> Result<Summary, Error> {
        let found = self.summaries(summaries!("id = $1"), raw(message)).await?;
        found.into_iter().next().ok_or(Error::NoSuchMessage(message))
    }

    async fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        stats.drafts = self.counts.drafts.load(Relaxed);
        stats.puts = self.counts.puts.load(Relaxed);
        stats.finished = self.counts.finished.load(Relaxed);
        let statement = "SELECT count(*), coalesce(sum(body_len), 0)::bigint, count(*) FILTER (WHERE held),
                max(queue_now() - born), (SELECT count(*) FROM deliveries),
                (SELECT count(*) FROM deliveries WHERE leased_until > (SELECT queue_now())),
                (pg_total_relation_size('chunks') + pg_total_relation_size('messages')
                    + pg_total_relation_size('deliveries'))::bigint
            FROM messages";
        let counted = self.row(statement, Vec::new()).await.and_then(|row| {
            stats.messages = count(read(&row, 0)?);
            stats.bytes = count(read(&row, 1)?);
            stats.held = count(read(&row, 2)?);
            stats.oldest = read::<Option<i64>>(&row, 3)?.map(duration);
            stats.deliveries = count(read(&row, 4)?);
            stats.leased = count(read(&row, 5)?);
            stats.disk = count(read(&row, 6)?);
            Ok(())
        });
        if let Err(Error::Broken(why)) = counted {
            stats.broken = Some(why);
        }
        stats
    }

    async fn close(&self) {
        // The keeper may have ended by itself.
        drop(self.database.notices.send(Notice::Stop));
        self.database.wait_for_end().await;
    }
}

impl Drop for PostgresQueue {
    fn drop(&mut self) {
        // The keeper may have ended by itself. If it panicked, there is nothing to do about it.
        drop(self.database.notices.send(Notice::Stop));
        if let Some(keeper) = self.keeper.take() {
            drop(keeper.join());
        }
    }
}

impl fmt::Debug for PostgresQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresQueue").field("owner", &self.database.me).finish_non_exhaustive()
    }
}

/// Outcomes, with the messages derived from them.
struct Finishing {
    message: i64,
    ends: Vec<End>,
    derived: Vec<(Rows, Vec<u8>)>,
}

/// The outcome of a delivery.
struct End {
    delivery: i32,
    generation: i64,
    /// `None`: it is due as before.
    delay: Option<i64>,
    /// `None`: it is done.
    state: Option<Vec<u8>>,
}

impl End {
    fn of(lease: &Lease, outcome: Outcome) -> Self {
        let (delay, state) = match outcome {
            Outcome::Done => (None, None),
            Outcome::Retry { delay, state } => (Some(micros(delay)), Some(state.to_vec())),
            Outcome::Keep { state } => (None, Some(state.to_vec())),
        };
        let (_, delivery, generation) = numbers(lease);
        Self { delivery, generation, delay, state }
    }
}

impl Finishing {
    /// Writes all in one transaction. `None`: the lease is stale.
    async fn write(&self, client: &mut Client) -> Result<Option<Vec<MessageId>>, tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        let Self { message, ends, derived } = self;
        for End { delivery, generation, delay, state } in ends {
            let values: [&(dyn ToSql + Sync); 5] = [message, delivery, generation, delay, state];
            let row = transaction.query_one("SELECT finish($1, $2, $3, $4, $5)", &values).await?;
            if !row.try_get::<_, bool>(0)? {
                transaction.rollback().await?;
                return Ok(None);
            }
        }
        let mut ids = Vec::new();
        for (Rows { owner, priority, envelope, keys, delays, states }, body) in derived {
            let new: i64 = transaction.query_one("SELECT nextval('ids')", &[]).await?.try_get(0)?;
            let len = i64::try_from(body.len()).unwrap_or(i64::MAX);
            for (turn, part) in body.chunks(CHUNK).enumerate() {
                let at = i64::try_from(turn * CHUNK).unwrap_or(i64::MAX);
                transaction.execute("INSERT INTO chunks VALUES ($1, $2, $3)", &[&new, &at, &part]).await?;
            }
            let values: [&(dyn ToSql + Sync); 10] =
                [&new, owner, priority, envelope, &len, &0_i64, &Vec::<u8>::new(), keys, delays, states];
            transaction.execute(INSERT, &values).await?;
            ids.push(id(new));
        }
        transaction.commit().await?;
        Ok(Some(ids))
    }
}

fn due_class(row: &Row) -> Result<DueClass, Error> {
    Ok(DueClass {
        key: name(row, 0, RoutingKey::new)?,
        priority: priority(read(row, 1)?),
        owner: name(row, 2, Owner::new)?,
    })
}

fn claimed(row: &Row) -> Result<Claimed, Error> {
    let lease = Lease::new(id(read(row, 0)?), number(read(row, 1)?), count(read(row, 2)?));
    Ok(Claimed {
        lease,
        key: name(row, 3, RoutingKey::new)?,
        owner: name(row, 4, Owner::new)?,
        priority: priority(read(row, 5)?),
        envelope: read::<Vec<u8>>(row, 6)?.into(),
        state: read::<Vec<u8>>(row, 7)?.into(),
        body_len: count(read(row, 8)?),
        attempts: number(read(row, 9)?),
        others: u32::try_from(read::<i64>(row, 11)?).unwrap_or(u32::MAX),
        age: duration(read(row, 10)?),
    })
}

fn summary(id: MessageId, row: &Row) -> Result<Summary, Error> {
    Ok(Summary {
        id,
        owner: name(row, 1, Owner::new)?,
        priority: priority(read(row, 2)?),
        envelope: read::<Vec<u8>>(row, 3)?.into(),
        body_len: count(read(row, 4)?),
        age: duration(read(row, 5)?),
        held: read(row, 6)?,
        deliveries: Vec::new(),
    })
}

fn delivery(row: &Row) -> Result<DeliverySummary, Error> {
    Ok(DeliverySummary {
        delivery: number(read(row, 7)?),
        key: name(row, 8, RoutingKey::new)?,
        state: read::<Vec<u8>>(row, 9)?.into(),
        attempts: number(read(row, 10)?),
        due_in: duration(read(row, 11)?),
        leased: read(row, 12)?,
    })
}

fn read<'row, T: tokio_postgres::types::FromSql<'row>>(row: &'row Row, at: usize) -> Result<T, Error> {
    row.try_get(at).map_err(|error| foreign(&error))
}

fn name<T>(row: &Row, at: usize, new: impl FnOnce(&str) -> Result<T, NameError>) -> Result<T, Error> {
    let text = std::str::from_utf8(read(row, at)?).map_err(|error| foreign(&error))?;
    new(text).map_err(|error| foreign(&error))
}

fn foreign(error: &dyn fmt::Display) -> Error {
    let why = format!("PostgreSQL has something else than was written: {error}; restore the database");
    Error::Broken(posthaste_queue::Broken::new(&why))
}

fn numbers(lease: &Lease) -> (i64, i32, i64) {
    let delivery = i32::try_from(lease.delivery()).unwrap_or(-1);
    (raw(lease.message()), delivery, i64::try_from(lease.generation()).unwrap_or(-1))
}

fn id(raw: i64) -> MessageId {
    MessageId::from_u64(count(raw))
}

fn priority(raw: i16) -> Priority {
    Priority(i8::try_from(raw).unwrap_or_default())
}

fn count(raw: i64) -> u64 {
    u64::try_from(raw).unwrap_or(0)
}

fn number(raw: i32) -> u32 {
    u32::try_from(raw).unwrap_or(0)
}

/// Above every priority.
const BEYOND_PRIORITIES: i16 = i8::MAX as i16 + 1;
/// How long an outcome waits before it asks for room again.
const PAUSE: Duration = Duration::from_millis(100);
