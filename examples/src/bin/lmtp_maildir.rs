//! A delivery agent: takes mail by LMTP over a Unix socket and puts it into maildirs.
//!
//! ```text
//! mkdir -p /tmp/mail/jo/{tmp,new,cur}
//! cargo run --bin lmtp_maildir -- /tmp/lmtp.sock /tmp/mail
//! ```

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use posthaste::server::{
    Accepted, Body, Context, Envelope, Handler, Listener, Refusal, Server, Service as _, accepted, handlers,
    layers::Received, refusal, session::ServerSettings, wire::Rcpt,
};
use tokio::{fs, io::AsyncWriteExt as _};

/// A folder with one maildir for each user.
#[derive(Clone)]
struct Maildirs(Arc<Path>);

/// Files that this process has named.
static NAMES: AtomicU64 = AtomicU64::new(0);

impl Handler for Maildirs {
    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        let maildir = self.maildir(rcpt).ok_or(refusal!("550 5.1.1 No such user"))?;
        // An error of the disk is no answer: it becomes a 451.
        if fs::try_exists(maildir.join("new")).await? { Ok(()) } else { Err(refusal!("550 5.1.1 No such user")) }
    }

    /// One decision for each recipient: the full quota of one user does not touch the others.
    async fn deliver(
        &mut self,
        _: &Context,
        envelope: Envelope,
        body: Body<'_>,
    ) -> Result<Vec<Result<Accepted, Refusal>>, Refusal> {
        let mut message = format!("Return-Path: {}\r\n", envelope.mail.reverse_path).into_bytes();
        message.extend_from_slice(&body.collect(16 << 20).await?);
        let mut decisions = Vec::new();
        for rcpt in &envelope.recipients {
            decisions.push(self.keep(rcpt, &message).await.map_err(Refusal::from));
        }
        Ok(decisions)
    }

    async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
        Err(refusal!("554 5.5.1 LMTP only"))
    }
}

impl Maildirs {
    /// The folder of a recipient's local part. `None`: the local part is no name of a folder.
    fn maildir(&self, rcpt: &Rcpt) -> Option<PathBuf> {
        let user = rcpt.forward_path.mailbox()?.unquoted_local_part();
        let is_name = !user.is_empty() && !user.starts_with('.') && !user.contains(['/', '\0']);
        is_name.then(|| self.0.join(&*user))
    }

    async fn keep(&self, rcpt: &Rcpt, message: &[u8]) -> io::Result<Accepted> {
        let maildir = self.maildir(rcpt).ok_or(io::ErrorKind::NotFound)?;
        // Unique although a process in a container gets the same number again.
        let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let (process, number) = (std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        let name = format!("{}.N{}P{process}Q{number}.localhost", time.as_secs(), time.subsec_nanos());
        let (tmp, new) = (maildir.join("tmp").join(&name), maildir.join("new").join(&name));
        let kept = async {
            let mut file = fs::File::create_new(&tmp).await?;
            file.write_all(message).await?;
            // tokio writes later, and `sync_all` does not tell of the last write's error.
            file.flush().await?;
            file.sync_all().await?;
            fs::rename(&tmp, new).await?;
            // The 250 promises that the message is safe: the file's name too is on stable storage.
            fs::File::open(maildir.join("new")).await?.sync_all().await
        };
        let kept = kept.await;
        if kept.is_err() {
            let _ = fs::remove_file(&tmp).await;
        }
        kept.map(|()| accepted!("250 2.0.0 Delivered"))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, root] = &arguments[..] else { return Err("usage: lmtp_maildir SOCKET FOLDER".into()) };
    let root: Arc<Path> = Path::new(root).into();
    let settings = ServerSettings::lmtp("localhost".parse()?);
    // The owner and the group may deliver.
    let listener = Listener::bind_unix(socket, 0o660, settings).await?;
    println!("listening on {socket}");
    let mut received = Received::default();
    // The message goes no further, and tells its reader which address it came to.
    received.recipient = true;
    Server::new(handlers::cloned(Maildirs(root)).layer(received)).listen(listener).serve().await;
    Ok(())
}
