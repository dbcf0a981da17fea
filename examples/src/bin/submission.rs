//! Takes mail from users who log in, inside TLS only: by SCRAM-SHA-256, PLAIN or LOGIN.
//!
//! ```text
//! echo "jo $(echo pencil | cargo run --bin relay -- verifier)" > users
//! cargo run --bin submission -- 127.0.0.1:2587 cert.pem key.pem users
//! ```

use std::{collections::HashMap, error::Error, sync::Arc};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, SaslError, ScramKey, ScramUser, Server, Tls,
    accepted, handlers, session::ServerSettings, tls::Pem,
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
    let service = Submission(Arc::new(keys(&std::fs::read_to_string(users)?)?));
    let tls = Tls::start_tls(&Pem::file(certificate)?, &Pem::file(key)?)?;
    let listener = Listener::bind(address, settings()?).await?.with_tls(tls);
    println!("listening on {}", listener.local_address()?);
    Server::new(handlers::cloned(service)).listen(listener).serve().await;
    Ok(())
}

/// The keys in a file of users.
fn keys(users: &str) -> Result<HashMap<String, ScramKey>, Box<dyn Error>> {
    let mut keys = HashMap::new();
    for line in users.lines() {
        let (name, verifier) = line.split_once(' ').ok_or("a line of the users is `NAME VERIFIER`")?;
        keys.insert(name.to_owned(), verifier.parse()?);
    }
    Ok(keys)
}

fn settings() -> Result<ServerSettings, Box<dyn Error>> {
    Ok(ServerSettings::submission("localhost".parse()?))
}

/// Tests of a service need neither a port nor a certificate.
#[cfg(test)]
mod tests {
    use posthaste::server::{Credentials, test::Client, wire::Mechanism};

    use super::*;

    /// A client of the service, before STARTTLS. The user is `jo` with the password `pencil`.
    async fn client() -> Client {
        let users = "jo SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                     WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";
        let service = Submission(Arc::new(keys(users).expect("a file of users")));
        let settings = settings().expect("the name is a domain");
        let mut client = Client::connect(handlers::cloned(service)).settings(settings).starttls().await;
        client.ehlo().await;
        client
    }

    #[tokio::test(start_paused = true)]
    async fn users_log_in_by_every_mechanism() {
        for mechanism in settings().expect("the name is a domain").offers.auth.iter() {
            for (user, password, code) in [("jo", "pen", "535"), ("amy", "pencil", "535"), ("jo", "pencil", "235")] {
                let mut client = client().await;
                client.starttls().await;
                client.ehlo().await;
                client.login_by(mechanism, Credentials::new(user, password)).await.expect(code);
                let code = if code == "235" { "250 2.0.0 Printed" } else { "530" };
                client.send("jo@a.test", ["you@b.test"], "Subject: x\r\n\r\nHello\r\n").await.expect(code);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_tls_there_is_no_login() {
        let mut client = client().await;
        assert!(!client.transcript().contains("AUTH"), "{}", client.transcript());
        client.login_by(Mechanism::Plain, Credentials::new("jo", "pencil")).await.expect("538");
        client.says("MAIL FROM:<jo@a.test>").await.expect("530");
    }
}
