//! Mail into maildirs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::UNIX_EPOCH,
};

use posthaste_server::{
    Refusal, accepted, refusal,
    wire::{ForwardPath, Mailbox},
};
use tokio::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::AsyncWriteExt as _,
};

use super::{Agent, AgentLetter, Decision, TemplateError, template::Template};

/// Puts mail into maildirs: each message is a file of its own, which readers see when it is whole
/// and on stable storage.
///
/// A path such as `/var/mail/{domain}/{local}` names the maildir of a mailbox. The domain is in
/// lower case and A-labels, the local-part in lower case. A mailbox whose folder would be
/// elsewhere, or cannot be, is refused with 550: with `/` in its local-part, with a dot at its
/// beginning, or with more than 255 octets. The folders before the first placeholder must be there.
/// Those below are made, with `tmp`, `new` and `cur`, for any mailbox that mail comes to: let
/// [`Recipients`](crate::Recipients) know the mailboxes. The folders belong to the user of this
/// process, and no other user may read them.
///
/// A message is written in `tmp`, synced, and moved to `new`, which is synced too. The file begins
/// with `Return-Path` and `Delivered-To`, and is otherwise as the message came, with CRLF. After a
/// crash the relay delivers it again: it may be there twice, and is never lost. A file that a crash
/// has left in `tmp` is a reader's to remove, after 36 hours.
///
/// A full disk is `452 4.3.1`, a full quota `452 4.2.2`: they are tried again later, and so is
/// every other error of the disk, which the log names.
///
/// ```
/// use posthaste_relay::{Route, agent::Maildir};
/// let mailboxes = Route::agent("mailboxes", Maildir::new("/var/mail/{domain}/{local}")?);
/// # Ok::<(), posthaste_relay::agent::TemplateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Maildir {
    template: Template,
}

/// Files that this process has named.
static NAMES: AtomicU64 = AtomicU64::new(0);

impl Maildir {
    /// Puts mail into the maildirs that this path names, with `{domain}` and `{local}`.
    ///
    /// # Errors
    /// The path is not absolute, has `.` or `..`, or another placeholder.
    pub fn new(path: &str) -> Result<Self, TemplateError> {
        Ok(Self { template: Template::parse(path)? })
    }

    /// The folder that must be there: the part of the path before the first placeholder.
    pub fn root(&self) -> &Path {
        self.template.root()
    }

    async fn keep(&self, letter: &AgentLetter<'_>, path: &ForwardPath) -> Decision {
        let mailbox = path.mailbox().ok_or(refusal!("550 5.1.1 There is no such mailbox"))?;
        let folders = self.template.folders(mailbox)?;
        match self.write(letter, mailbox, &folders).await {
            Ok(()) => Ok(accepted!("250 2.0.0 Delivered")),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::QuotaExceeded => refusal!("452 4.2.2 The mailbox is full").with_cause(error),
                io::ErrorKind::InvalidFilename => {
                    refusal!("550 5.1.1 That mailbox cannot exist here: its path is too long").with_cause(error)
                }
                _ => error.into(),
            }),
        }
    }

    async fn write(&self, letter: &AgentLetter<'_>, mailbox: &Mailbox, folders: &[String]) -> io::Result<()> {
        let mut maildir = self.root().to_owned();
        maildir.extend(folders);
        let name = unique();
        let (tmp, new) = (maildir.join("tmp").join(&name), maildir.join("new"));
        let file = match create(&tmp).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make(folders).await?;
                create(&tmp).await?
            }
            created => created?,
        };
        let mut unfinished = Unfinished(tmp);
        let sender = &letter.envelope.mail.reverse_path;
        let head = format!("Return-Path: {sender}\r\nDelivered-To: {mailbox}\r\n");
        write_all(file, letter, &head).await?;
        fs::rename(&unfinished.0, new.join(&name)).await?;
        unfinished.0.clear();
        sync(&new).await
    }

    /// Makes the folders of a maildir, each on stable storage.
    async fn make(&self, folders: &[String]) -> io::Result<()> {
        let mut folder = self.root().to_owned();
        for name in folders {
            make_one(&folder, name).await?;
            folder.push(name);
        }
        for name in ["tmp", "new", "cur"] {
            make_one(&folder, name).await?;
        }
        Ok(())
    }
}

impl Agent for Maildir {
    async fn deliver(&self, letter: &AgentLetter<'_>) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(letter.envelope.recipients.len());
        for rcpt in &letter.envelope.recipients {
            decisions.push(self.keep(letter, &rcpt.forward_path).await);
        }
        decisions
    }

    fn takes(&self, mailbox: &Mailbox) -> Result<(), Refusal> {
        self.template.folders(mailbox).map(drop)
    }
}

/// A file that is not a message yet. Dropping it removes the file: the delivery failed, or its time
/// was over.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A name that no other file has, although a process in a container gets the same number again, and
/// hosts may share the folder.
fn unique() -> String {
    let time = UNIX_EPOCH.elapsed().unwrap_or_default();
    let (process, number) = (std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
    let random = fastrand::u64(..);
    format!("{}.M{}P{process}Q{number}R{random:016x}.posthaste", time.as_secs(), time.subsec_micros())
}

async fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path).await
}

async fn write_all(mut file: File, letter: &AgentLetter<'_>, head: &str) -> io::Result<()> {
    file.write_all(head.as_bytes()).await?;
    let mut content = letter.content().await?;
    while let Some(piece) = content.chunk().await? {
        file.write_all(&piece).await?;
    }
    // tokio writes later, and `sync_all` does not tell of the last write's error.
    file.flush().await?;
    file.sync_all().await
}

async fn make_one(parent: &Path, name: &str) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    builder.mode(0o700);
    match builder.create(parent.join(name)).await {
        Ok(()) => sync(parent).await,
        // Another delivery may have made it, and not synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sync(parent).await,
        Err(error) => Err(error),
    }
}

/// Syncs the names in a folder.
async fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
}
