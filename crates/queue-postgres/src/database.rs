//! Connections, and what their errors mean.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use posthaste_queue::{Broken, Change, Error, Full, MAX_DELAY, MessageId, PutError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// What an owner's handle, drafts, bodies and keeper share.
pub(crate) struct Database {
    pub(crate) config: Config,
    /// Runs the connections, and the work that goes on after a caller has dropped its future.
    pub(crate) runtime: Handle,
    /// This owner's number.
    pub(crate) me: i32,
    pub(crate) notices: mpsc::UnboundedSender<Notice>,
    idle: Mutex<Vec<Client>>,
    /// The bound on connections that work at once.
    turns: Semaphore,
    news: watch::Sender<News>,
}

struct News {
    count: u64,
    ended: Option<Error>,
}

impl Database {
    pub(crate) fn new(config: Config, me: i32, notices: mpsc::UnboundedSender<Notice>) -> Self {
        let (idle, turns) = (Mutex::default(), Semaphore::new(CONNECTIONS));
        let news = watch::Sender::new(News { count: 1, ended: None });
        Self { config, runtime: Handle::current(), me, notices, idle, turns, news }
    }

    /// Runs `work` to its end on a connection of its own, even if the caller no longer waits.
    pub(crate) async fn with<T, E, F>(self: &Arc<Self>, work: impl FnOnce(Client) -> F + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + From<Failed>,
        F: Future<Output = (Client, Result<T, tokio_postgres::Error>)> + Send,
    {
        if let Some(why) = self.ended() {
            return Err(why.into());
        }
        match self.spawn(work).await {
            Ok(done) => done.map_err(|failed| match failed {
                Failed::Store(error) => error.into(),
                other => other.into(),
            }),
            Err(_) => Err(self.ended().unwrap_or(Error::Closed).into()),
        }
    }

    /// Begins what [`with`](Self::with) waits for.
    pub(crate) fn spawn<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Client) -> F + Send + 'static,
    ) -> JoinHandle<Result<T, Failed>>
    where
        T: Send + 'static,
        F: Future<Output = (Client, Result<T, tokio_postgres::Error>)> + Send,
    {
        let database = Arc::clone(self);
        self.runtime.spawn(async move {
            let turn = database.turns.acquire().await;
            let idle = database.idle().pop();
            let client = match idle {
                Some(client) => client,
                None => match connect(&database.config, database.notices.clone()).await {
                    Ok(client) => client,
                    Err(error) => return Err(database.judge(&error)),
                },
            };
            let (client, done) = work(client).await;
            if !client.is_closed() {
                database.idle().push(client);
            }
            drop(turn);
            done.map_err(|error| database.judge(&error))
        })
    }

    /// Classifies an error. Ends the engine if it cannot go on.
    fn judge(&self, error: &tokio_postgres::Error) -> Failed {
        let told = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        match error.code() {
            Some(&SqlState::DISK_FULL) => Failed::Full(format!("PostgreSQL: {told}").into()),
            Some(&SqlState::DATA_CORRUPTED) => Failed::Damaged(format!("PostgreSQL: {told}").into()),
            _ => {
                let why = format!("PostgreSQL: {told}; see that the server is well, and open the queue again");
                self.end(Error::Broken(Broken::new(&why)));
                Failed::Store(self.ended().unwrap_or(Error::Closed))
            }
        }
    }

    /// Counts that a delivery may have become claimable.
    pub(crate) fn bump(&self) {
        self.news.send_modify(|news| news.count += 1);
    }

    /// Ends the engine. The first reason stays.
    pub(crate) fn end(&self, why: Error) {
        self.news.send_modify(|news| {
            news.ended.get_or_insert(why);
        });
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        self.news.borrow().ended.clone()
    }

    pub(crate) async fn changed(&self, seen: Change) -> Result<Change, Error> {
        let mut news = self.news.subscribe();
        let news = news.wait_for(|news| news.ended.is_some() || news.count > seen.as_u64()).await;
        let news = news.map_err(|_| Error::Closed)?;
        news.ended.clone().map_or(Ok(Change::from_u64(news.count)), Err)
    }

    /// Returns when the keeper has given back what this owner leased, or has failed.
    pub(crate) async fn wait_for_end(&self) {
        // The sender lives in `self`.
        drop(self.news.subscribe().wait_for(|news| news.ended.is_some()).await);
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper is told.
pub(crate) enum Notice {
    /// Another owner made a delivery claimable.
    Work,
    /// A test has moved the clock.
    Look,
    /// A connection is lost.
    Lost(String),
    /// The queue is closed: give the leases back.
    Stop,
    /// Stop at once, as a killed process.
    Die,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) drafts: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) finished: AtomicU64,
    /// A claim since the last outcome may have been cut short by the bound on leases.
    pub(crate) may_want_leases: AtomicBool,
}

/// An operation failed, in a way that may concern it alone.
pub(crate) enum Failed {
    Full(Arc<str>),
    Damaged(Arc<str>),
    Store(Error),
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error) => error,
            Failed::Full(why) | Failed::Damaged(why) => Self::Broken(Broken::new(&why)),
        }
    }
}

impl From<Failed> for PutError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Full(why) => Self::Full(Full::NoSpace(why)),
            other => Error::from(other).into(),
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Connects, and runs the connection in the background. Notifications and its end become notices.
pub(crate) async fn connect(
    config: &Config,
    notices: mpsc::UnboundedSender<Notice>,
) -> Result<Client, tokio_postgres::Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    Handle::current().spawn(async move {
        loop {
            let notice = match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(told))) if told.payload() == "clock" => Notice::Look,
                Some(Ok(AsyncMessage::Notification(_))) => Notice::Work,
                Some(Ok(_)) => continue,
                Some(Err(error)) => Notice::Lost(error.to_string()),
                None => return,
            };
            let is_lost = matches!(notice, Notice::Lost(_));
            if notices.send(notice).is_err() || is_lost {
                return;
            }
        }
    });
    Ok(client)
}

pub(crate) fn raw(id: MessageId) -> i64 {
    i64::try_from(id.as_u64()).unwrap_or(-1)
}

/// In microseconds, cut to the longest delay.
pub(crate) fn micros(delay: Duration) -> i64 {
    i64::try_from(delay.min(MAX_DELAY).as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

const CONNECTIONS: usize = 8;
/// The largest size of a row of a body in bytes.
pub(crate) const CHUNK: usize = 64 << 10;
/// The largest body in bytes: 256 MiB.
pub(crate) const MAX_BODY: u64 = 256 << 20;
