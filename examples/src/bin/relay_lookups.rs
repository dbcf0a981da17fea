//! An embedded relay that asks SQLite who may log in, which mailboxes exist, and where mail goes.
//! The tables may change while it runs.
//!
//! ```text
//! sqlite3 /tmp/relay/relay.db "CREATE TABLE routes (domain TEXT PRIMARY KEY, host TEXT, port INTEGER);
//!     CREATE TABLE mailboxes (address TEXT PRIMARY KEY, key TEXT); INSERT INTO routes VALUES ('*', 'hop.test', 25);
//!     INSERT INTO mailboxes VALUES ('jo@app.test', '$(echo pencil | cargo run --bin relay -- verifier)')"
//! cargo run --bin relay_lookups -- 127.0.0.1:2525 127.0.0.1:2587 /tmp/relay
//! ```
//!
//! Mail from other hosts comes in on the first address, mail from users on the second. The folder
//! has `cert.pem` and `key.pem` too.

use std::{error::Error, io, path::Path, sync::Arc};

use posthaste::relay::{
    Accounts, Recipients, Relay, RelayOptions, Route, RouteError, RouteQuery, Routes,
    client::{self, SystemResolver, tls::any_certificate},
    queue::log::{LogOptions, LogQueue},
    server::{
        Context, Listener, Refusal, SaslError, ScramKey, ScramUser, Tls, UnknownUsers, refusal,
        tls::Pem,
        wire::{Mailbox, Secret},
    },
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};
use tokio::{sync::Mutex, task::spawn_blocking};

/// The database. SQLite blocks: each look-up is on a thread for that, one at a time.
#[derive(Clone)]
struct Database {
    connection: Arc<Mutex<Connection>>,
    tls: client::Tls,
    secret: [u8; 32],
}

impl Database {
    /// The first row, as `read` has it. `None`: there is none.
    async fn first<T: Send + 'static>(
        &self,
        select: &'static str,
        value: String,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> io::Result<Option<T>> {
        let database = Arc::clone(&self.connection).lock_owned().await;
        let found = spawn_blocking(move || database.prepare_cached(select)?.query_row([value], read).optional());
        found.await?.map_err(io::Error::other)
    }
}

impl Routes for Database {
    async fn find(&self, mail: &RouteQuery<'_>) -> Result<Option<Arc<Route>>, RouteError> {
        let select = "SELECT host, port FROM routes WHERE domain IN (?1, '*') ORDER BY domain = '*' LIMIT 1";
        let found = self.first(select, mail.domain.to_owned(), |row| Ok((row.get(0)?, row.get(1)?))).await?;
        Ok(found.map(|host: (String, u16)| {
            let mut route = Route::hosts([host]);
            route.tls = self.tls.clone();
            Arc::new(route)
        }))
    }
}

impl Recipients for Database {
    async fn check(&self, _: &Context, mailbox: &Mailbox) -> Result<(), Refusal> {
        let domain = mailbox.domain().as_str().to_ascii_lowercase();
        let address = format!("{}@{domain}", mailbox.local_part());
        // An error of the database is no answer: `?` makes a 451 of it.
        let known = self.first("SELECT 1 FROM mailboxes WHERE address = ?1", address, |_| Ok(())).await?;
        if known.is_some() || domain != DOMAIN { Ok(()) } else { Err(refusal!("550 5.1.1 No such mailbox")) }
    }
}

impl Accounts for Database {
    async fn key(&self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // No user may act as another one here.
        let None = user.authorization_identity else { return Ok(None) };
        let (select, name) = ("SELECT key FROM mailboxes WHERE address = ?1", user.authentication_identity.clone());
        let text = self.first(select, name, |row| row.get::<_, String>(0)).await.map_err(|_| SaslError::Unavailable)?;
        text.map(|text| text.parse()).transpose().map_err(|_| SaslError::Unavailable)
    }

    fn unknown_users(&self) -> UnknownUsers {
        UnknownUsers::new(Secret::new(self.secret), 4_096)
    }
}

/// Strangers may write to its mailboxes.
const DOMAIN: &str = "app.test";

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mx, submission, folder] = &arguments[..] else {
        return Err("usage: relay_lookups MX SUBMISSION FOLDER".into());
    };
    let folder = Path::new(folder);
    let connection = Connection::open_with_flags(folder.join("relay.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // A file that outlives a restart has it, in an application.
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let tls = client::Tls::Opportunistic(any_certificate()?);
    let database = Database { connection: Arc::new(Mutex::new(connection)), tls, secret };
    let queue = LogQueue::open(folder.join("queue"), LogOptions::default())?;
    let mut options = RelayOptions::new("relay.app.test".parse()?);
    options.policy.relay_domains.push(DOMAIN.parse()?);
    let builder = Relay::builder(queue, SystemResolver, options).routes(database.clone());
    let relay = builder.recipients(database.clone()).accounts(database).build();
    let tls = Tls::start_tls(&Pem::file(folder.join("cert.pem"))?, &Pem::file(folder.join("key.pem"))?)?;
    let server = relay
        .server()
        .listen(Listener::bind(mx, relay.settings()).await?.with_tls(tls.clone()))
        .listen(Listener::bind(submission, relay.submission()).await?.with_tls(tls));
    server.local_addresses().iter().for_each(|address| println!("listening on {address}"));
    relay.serve(server, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
    Ok(())
}
