//! An embedded relay that asks the application who may log in and which mailboxes exist. A map
//! stands where an application has its database.
//!
//! ```text
//! cargo run --bin relay_lookups -- 127.0.0.1:2525 127.0.0.1:2587 smarthost.example.org:25 /tmp/relay
//! ```
//!
//! Mail from other hosts comes in on the first address, mail from users on the second. The folder
//! has `cert.pem` and `key.pem`.

use std::{collections::HashMap, error::Error, path::Path, sync::Arc};

use posthaste::relay::{
    Accounts, Recipients, Relay, RelayOptions, Route, RouteTable,
    client::SystemResolver,
    queue::log::{LogOptions, LogQueue},
    server::{
        Context, Listener, Refusal, SaslError, ScramKey, ScramUser, Tls, UnknownUsers, refusal,
        tls::Pem,
        wire::{Mailbox, Secret},
    },
};

/// The users by their mailboxes, with the keys of their passwords.
#[derive(Clone)]
struct Directory {
    users: Arc<HashMap<String, ScramKey>>,
    secret: [u8; 32],
}

impl Accounts for Directory {
    async fn key(&self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // No user may act as another one here.
        let itself = user.authorization_identity.is_none();
        Ok(self.users.get(&user.authentication_identity).filter(|_| itself).cloned())
    }

    fn unknown_users(&self) -> UnknownUsers {
        UnknownUsers::new(Secret::new(self.secret), ITERATIONS)
    }
}

impl Recipients for Directory {
    async fn check(&self, _: &Context, mailbox: &Mailbox) -> Result<(), Refusal> {
        let ours = mailbox.domain().as_str().eq_ignore_ascii_case(DOMAIN);
        if !ours || self.users.contains_key(mailbox.as_str()) {
            Ok(())
        } else {
            Err(refusal!("550 5.1.1 No such mailbox"))
        }
    }
}

const DOMAIN: &str = "app.test";
const ITERATIONS: u32 = 4_096;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mx, submission, next_hop, folder] = &arguments[..] else {
        return Err("usage: relay_lookups ADDRESS SUBMISSION-ADDRESS HOST:PORT FOLDER".into());
    };
    let (host, port) = next_hop.rsplit_once(':').ok_or("the next hop is HOST:PORT")?;
    let folder = Path::new(folder);
    // A database has both, so that they outlive a restart.
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let jo = ScramKey::derive("pencil", &secret[..16], ITERATIONS)?;
    let directory = Directory { users: Arc::new(HashMap::from([(format!("jo@{DOMAIN}"), jo)])), secret };

    let mut options = RelayOptions::new("relay.app.test".parse()?);
    options.policy.relay_domains.push(DOMAIN.parse()?);
    options.routes = RouteTable::all(Route::hosts([(host, port.parse()?)]));
    let queue = LogQueue::open(folder.join("queue"), LogOptions::default())?;
    let relay =
        Relay::builder(queue, SystemResolver, options).accounts(directory.clone()).recipients(directory).build();

    let tls = Tls::start_tls(&Pem::file(folder.join("cert.pem"))?, &Pem::file(folder.join("key.pem"))?)?;
    let server = relay
        .server()
        .listen(Listener::bind(mx, relay.settings()).await?.with_tls(tls.clone()))
        .listen(Listener::bind(submission, relay.submission()).await?.with_tls(tls));
    server.local_addresses().iter().for_each(|address| println!("listening on {address}"));
    relay.serve(server, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
    Ok(())
}
