//! The thread that runs an owner's connections, and signals when a delivery becomes due.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use posthaste_queue::{Broken, Error};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{Client, Config};

use crate::database::{Database, Notice, connect, duration};

/// Starts the thread, and returns when the queue is open.
pub(crate) fn start(config: Config) -> Result<(Arc<Database>, JoinHandle<()>), Error> {
    let failed = |why: &dyn std::fmt::Display| Error::Broken(Broken::new(&format!("PostgreSQL: {why}")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    let (opened, is_open) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("posthaste-postgres".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (sender, notices) = mpsc::unbounded_channel();
            match open(config, sender).await {
                Ok((database, client)) => {
                    drop(opened.send(Ok(Arc::clone(&database))));
                    keep(&database, &client, notices).await;
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        // Ends tasks and connections without a message to the server.
        runtime.shutdown_background();
    });
    let thread = thread.map_err(|error| failed(&error))?;
    match is_open.recv() {
        Ok(Ok(database)) => Ok((database, thread)),
        Ok(Err(error)) => Err(failed(&error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string))),
        Err(gone) => Err(failed(&gone)),
    }
}

async fn open(
    config: Config,
    notices: mpsc::UnboundedSender<Notice>,
) -> Result<(Arc<Database>, Client), tokio_postgres::Error> {
    let client = connect(&config, notices.clone()).await?;
    client.batch_execute("SELECT pg_advisory_lock(0)").await?;
    if client.query_opt("SELECT FROM pg_tables WHERE schemaname = current_schema() LIMIT 1", &[]).await?.is_none() {
        client.batch_execute(&format!("BEGIN; {SCHEMA}; COMMIT")).await?;
    }
    client.batch_execute("SELECT pg_advisory_unlock(0)").await?;
    let me: i32 = client.query_one("SELECT nextval('owners')::integer", &[]).await?.try_get(0)?;
    client.execute("SELECT pg_advisory_lock(lock_class(), $1)", &[&me]).await?;
    let channel: String = client.query_one("SELECT quote_ident(current_schema())", &[]).await?.try_get(0)?;
    client.batch_execute(&format!("LISTEN {channel}")).await?;
    client.execute("SELECT sweep($1)", &[&PATIENCE]).await?;
    Ok((Arc::new(Database::new(config, me, notices)), client))
}

async fn keep(database: &Arc<Database>, client: &Client, mut notices: mpsc::UnboundedReceiver<Notice>) {
    let _end = End(database);
    let mut last = i64::MIN;
    loop {
        let pause = match look(client, &mut last).await {
            Ok(Looked::Stirred) => {
                database.bump();
                continue;
            }
            Ok(Looked::Next(pause)) => pause.min(SWEEP),
            Err(error) => return database.end(lost(&error.to_string())),
        };
        match timeout(pause, notices.recv()).await {
            Ok(Some(Notice::Work)) => database.bump(),
            Ok(Some(Notice::Look)) => {}
            Ok(Some(Notice::Lost(why))) => return database.end(lost(&why)),
            Ok(Some(Notice::Stop)) => {
                // If this fails, the leases expire.
                drop(client.execute("SELECT give_back($1)", &[&database.me]).await);
                return database.end(Error::Closed);
            }
            Ok(Some(Notice::Die) | None) => return database.end(Error::Closed),
            Err(_) if pause == SWEEP => {
                if let Err(error) = client.execute("SELECT sweep($1)", &[&PATIENCE]).await {
                    return database.end(lost(&error.to_string()));
                }
            }
            Err(_) => {}
        }
    }
}

/// Ends the engine if the keeper panics, so that no call waits for it.
struct End<'a>(&'a Database);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end(lost("the thread of the connections ended"));
    }
}

enum Looked {
    /// Something has become claimable.
    Stirred,
    /// The time until the next delivery becomes claimable.
    Next(Duration),
}

async fn look(client: &Client, last: &mut i64) -> Result<Looked, tokio_postgres::Error> {
    let next = "SELECT queue_now(), (SELECT min(free_at) FROM deliveries WHERE NOT held AND free_at > $1)";
    let row = client.query_one(next, &[last]).await?;
    let (now, next): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    // If the clock was set back, any delivery may be claimable.
    let is_stirred = next.is_some_and(|next| next <= now) || now < *last;
    *last = now;
    Ok(if is_stirred {
        Looked::Stirred
    } else {
        Looked::Next(next.map_or(SWEEP, |next| duration(next.saturating_sub(now)).max(Duration::from_millis(1))))
    })
}

fn lost(why: &str) -> Error {
    Error::Broken(Broken::new(&format!("PostgreSQL: {why}; see that the server is well, and open the queue again")))
}

const SCHEMA: &str = include_str!("schema.sql");
/// The interval of removing what is no longer needed, and the longest time between two looks at
/// what is due. The function `claim` of the schema relies on it.
const SWEEP: Duration = Duration::from_secs(60);
/// How long a body can be read after its message is gone, in microseconds: ten minutes.
const PATIENCE: i64 = 600_000_000;
