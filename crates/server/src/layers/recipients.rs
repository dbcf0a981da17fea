//! Recipients that exist, or do not.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Context, Layer, Refusal,
    content::after,
    expiring::Expiring,
    refusal,
    wire::{ForwardPath, Mailbox, Rcpt},
};

/// Refuses recipients that do not exist while the client still has the message: `550 5.1.1`.
///
/// A closure says if a mailbox exists, and its answer is kept for a while. Its error is what the
/// client gets, and is not kept: `?` on an [`io::Error`](std::io::Error) makes a 451 of it.
///
/// ```
/// use posthaste_server::layers::Recipients;
/// # use std::{collections::HashSet, sync::Arc};
/// let users: Arc<HashSet<&str>> = Arc::new(["jo@example.net", "kim@example.net"].into());
/// let layer = Recipients::new(move |mailbox| {
///     let users = users.clone();
///     async move { Ok(users.contains(&*mailbox.as_str().to_ascii_lowercase())) }
/// });
/// ```
///
/// The closure is asked about every recipient, also for a client that has logged in: say `true` for
/// domains that are not yours. It is not asked about `<Postmaster>`, which every server takes (RFC
/// 5321 section 4.5.1). Its time is part of the time for the [verdict](crate::Handler) on RCPT, and
/// its future may be dropped.
///
/// The layer keeps at most 100,000 answers, of some 50 bytes each. Beyond it, the quarter that
/// expires first is forgotten and asked about again.
#[derive(Clone)]
#[non_exhaustive]
pub struct Recipients {
    /// How long it is kept that a mailbox exists. Default 5 minutes; zero: not at all.
    pub known_for: Duration,
    /// How long it is kept that a mailbox does not exist. Default 1 minute, so that a new one soon
    /// works; zero: not at all.
    pub unknown_for: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    exists: Box<Exists>,
    /// Hashes what strangers send with a key of this process: 8 bytes each.
    hasher: RandomState,
    answers: Mutex<Expiring<u64, bool>>,
}

type Exists = dyn Fn(Mailbox) -> Pin<Box<dyn Future<Output = Result<bool, Refusal>> + Send>> + Send + Sync;

const MOST: usize = 100_000;

impl Recipients {
    /// A check that asks `exists`.
    pub fn new<F, A>(exists: F) -> Self
    where
        F: Fn(Mailbox) -> A + Send + Sync + 'static,
        A: Future<Output = Result<bool, Refusal>> + Send + 'static,
    {
        let exists: Box<Exists> = Box::new(move |mailbox| Box::pin(exists(mailbox)));
        let answers = Mutex::new(Expiring::new(MOST));
        Self {
            known_for: Duration::from_secs(5 * 60),
            unknown_for: Duration::from_secs(60),
            shared: Arc::new(Shared { exists, hasher: RandomState::new(), answers }),
        }
    }

    async fn exists(&self, mailbox: &Mailbox) -> Result<bool, Refusal> {
        let Shared { exists, hasher, answers } = &*self.shared;
        let key = hasher.hash_one((mailbox.local_part(), mailbox.domain().as_str().to_ascii_lowercase()));
        let kept = |now| answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key, now).map(|(_, known)| *known);
        if let Some(known) = kept(Instant::now()) {
            return Ok(known);
        }
        let known = exists(mailbox.clone()).await?;
        let lifetime = if known { self.known_for } else { self.unknown_for };
        if !lifetime.is_zero() {
            let now = Instant::now();
            answers.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known, after(now, lifetime), now);
        }
        Ok(known)
    }
}

impl Layer for Recipients {
    async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        match &rcpt.forward_path {
            ForwardPath::Postmaster => Ok(()),
            ForwardPath::Mailbox(mailbox) if self.exists(mailbox).await? => Ok(()),
            ForwardPath::Mailbox(mailbox) => Err(refusal!("550 5.1.1 No mailbox {}", mailbox)),
        }
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipients")
            .field("known_for", &self.known_for)
            .field("unknown_for", &self.unknown_for)
            .finish_non_exhaustive()
    }
}
