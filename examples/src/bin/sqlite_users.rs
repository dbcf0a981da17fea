//! A server whose users are in SQLite. Strangers may write to them; they log in and write to all.
//!
//! ```text
//! sqlite3 users.db "CREATE TABLE users (address TEXT PRIMARY KEY, key TEXT NOT NULL)"
//! sqlite3 users.db "INSERT INTO users VALUES ('jo@a.test', '$(echo pencil | cargo run --bin relay -- verifier)')"
//! cargo run --bin sqlite_users -- 127.0.0.1:2525 cert.pem key.pem users.db
//! ```

use std::{error::Error, io, sync::Arc};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, SaslError, ScramKey, ScramUser, Server, Tls,
    accepted, handlers, refusal,
    session::ServerSettings,
    tls::Pem,
    wire::{Mechanism, MechanismSet, Rcpt},
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tokio::{sync::Mutex, task::spawn_blocking};

/// The database. SQLite blocks: each look-up is on a thread for that, one at a time. The others
/// wait without a thread.
#[derive(Clone)]
struct Users(Arc<Mutex<Connection>>);

impl Users {
    /// `None`: there is no such user.
    async fn key(&self, address: String) -> io::Result<Option<ScramKey>> {
        let database = Arc::clone(&self.0).lock_owned().await;
        let found = spawn_blocking(move || {
            let mut select = database.prepare_cached("SELECT key FROM users WHERE address = ?1")?;
            select.query_row([address], |row| row.get::<_, String>(0)).optional()
        });
        let text = found.await?.map_err(io::Error::other)?;
        text.map(|text| text.parse().map_err(io::Error::other)).transpose()
    }
}

impl Handler for Users {
    /// One key serves every mechanism for passwords.
    async fn scram_key(&mut self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // No user may act as another one here.
        if user.authorization_identity.is_some() {
            return Ok(None);
        }
        self.key(user.authentication_identity.clone()).await.map_err(|_| SaslError::Unavailable)
    }

    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        // <Postmaster> has no domain.
        let Some(mailbox) = rcpt.forward_path.mailbox() else { return Ok(()) };
        let address = format!("{}@{}", mailbox.local_part(), mailbox.domain().as_str().to_ascii_lowercase());
        // An error of the database is no answer: `?` makes a 451 of it.
        let known = cx.peer.identity.is_some() || self.key(address).await?.is_some();
        if known { Ok(()) } else { Err(refusal!("550 5.1.1 No such mailbox")) }
    }

    async fn message(&mut self, cx: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(16 << 20).await?;
        let user = cx.peer.identity.as_deref().unwrap_or("a stranger");
        println!("{user} sends {} octets to {} recipients", content.len(), envelope.recipients.len());
        Ok(accepted!("250 2.0.0 Printed"))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key, database] = &arguments[..] else {
        return Err("usage: sqlite_users ADDRESS CERTIFICATE KEY DATABASE".into());
    };
    // Another program writes it, also while this one runs.
    let users = Users(Arc::new(Mutex::new(Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?)));
    let tls = Tls::start_tls(&Pem::file(certificate)?, &Pem::file(key)?)?;
    let listener = Listener::bind(address, settings()?).await?.with_tls(tls);
    println!("listening on {}", listener.local_address()?);
    Server::new(handlers::cloned(users)).listen(listener).serve().await;
    Ok(())
}

/// Users may log in, inside TLS.
fn settings() -> Result<ServerSettings, Box<dyn Error>> {
    let mut settings = ServerSettings::new("localhost".parse()?);
    settings.offers.auth = MechanismSet::of(&[Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain]);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use posthaste::server::test::Client;

    use super::*;

    #[tokio::test]
    async fn users_get_mail_of_strangers_and_write_to_all() {
        let database = Connection::open_in_memory().unwrap();
        let key = ScramKey::derive("pencil", &[7; 16], 4_096).unwrap().to_text();
        database.execute("CREATE TABLE users (address TEXT PRIMARY KEY, key TEXT NOT NULL)", ()).unwrap();
        database
            .execute("INSERT INTO users VALUES ('jo@a.test', ?1), ('amy@a.test', 'no key')", [key.expose()])
            .unwrap();
        let users = Users(Arc::new(Mutex::new(database)));
        let mut client = Client::connect(handlers::cloned(users)).settings(settings().unwrap()).starttls().await;
        client.ehlo().await;
        let to = ["jo@a.test", "no@a.test", "jo@A.test", "x'OR'1'='1@a.test", "amy@a.test", "postmaster"];
        let sent = client.send("you@b.test", to, "Hello\r\n").await;
        sent.expect_each(["250", "550 5.1.1", "250", "550 5.1.1", "451 4.3.0", "250"]);
        client.starttls().await;
        client.ehlo().await;
        client.login("jo@a.test", "pen").await.expect("535");
        client.login("no@a.test", "pencil").await.expect("535");
        client.login("jo@a.test", "pencil").await.expect("235");
        client.send("jo@a.test", ["you@b.test"], "Hello\r\n").await.expect("250 2.0.0 Printed");
    }
}
