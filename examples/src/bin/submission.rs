//! Takes mail from users who log in, inside TLS only: by SCRAM-SHA-256, PLAIN or LOGIN.
//!
//! ```text
//! echo "jo $(echo pencil | cargo run --bin relay -- verifier)" > users
//! cargo run --bin submission -- 127.0.0.1:2587 cert.pem key.pem users
//! ```

use std::{collections::HashMap, error::Error, sync::Arc};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, SaslError, ScramKey, ScramUser, Server, Tls,
    accepted,
    session::ServerSettings,
    tls::Pem,
    wire::{Mechanism, MechanismSet},
};

/// The keys of the users by their names. No password is kept.
#[derive(Clone)]
struct Submission(Arc<HashMap<String, ScramKey>>);

impl Handler for Submission {
    /// One key serves all four mechanisms.
    async fn scram_key(&mut self, _: &Context, user: &ScramUser) -> Result<Option<ScramKey>, SaslError> {
        // No user may act as another one here.
        let itself = user.authorization_identity.is_none();
        Ok(self.0.get(&user.authentication_identity).filter(|_| itself).cloned())
    }

    async fn message(&mut self, cx: &Context, envelope: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
        let content = body.collect(16 << 20).await?;
        let user = cx.peer.identity.as_deref().unwrap_or_default();
        println!("{user} sends {} octets to {} recipients", content.len(), envelope.recipients.len());
        Ok(accepted!("250 2.0.0 Printed"))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key, users] = &arguments[..] else {
        return Err("usage: submission ADDRESS CERTIFICATE KEY USERS".into());
    };
    let mut keys = HashMap::new();
    for line in std::fs::read_to_string(users)?.lines() {
        let (name, verifier) = line.split_once(' ').ok_or("a line of the users is `NAME VERIFIER`")?;
        keys.insert(name.to_owned(), verifier.parse()?);
    }
    let service = Submission(Arc::new(keys));

    let mut settings = ServerSettings::new("localhost".parse()?);
    settings.offers.auth =
        MechanismSet::of(&[Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]);
    settings.offers.demand_auth = true;
    let tls = Tls::start_tls(&Pem::file(certificate)?, &Pem::file(key)?)?;
    let listener = Listener::bind(address, settings).await?.with_tls(tls);
    println!("listening on {}", listener.local_address()?);
    Server::new(move |_| std::future::ready(Ok(service.clone()))).listen(listener).serve().await;
    Ok(())
}
