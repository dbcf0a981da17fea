//! The one question that a sender asks, and how it is answered.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{MutexGuard, Semaphore},
    time::{Instant, timeout},
};
use tracing::warn;

use super::{
    FETCH_TIMEOUT, FetchError, Found, HttpsFetch, Mode, Policy, PolicyFetch, PolicyId, Problem,
    cache::{Cache, Kept, Slot},
    disk::Disk,
};
use crate::{HostName, ResolveError, Resolver};

/// Looks policies up and keeps them. Its clones share what they keep.
///
/// | what is remembered | for how long |
/// |---|---|
/// | a policy | its `max_age`, at least 5 min and at most a year |
/// | the answer of the DNS, with or without a policy | 5 min, then it is asked again |
/// | a fetch that failed | 5 min, unless the id changes (RFC 8461 section 3.3) |
///
/// A new id in the DNS makes it fetch the new policy. Without a new id it fetches the policy again
/// after a day, or after half of `max_age` if that is less. A policy counts until its end, even if
/// the DNS does not answer, the record is gone or the policy host fails.
///
/// It makes 256 fetches at a time at most; others wait within their minute. It remembers 10,000
/// domains at most and 64 MiB of policies. Beyond that it forgets half: domains
/// without a policy first, then those that were not asked for the longest.
///
/// Futures may be dropped. Of several callers with a domain one asks the DNS and the policy host.
/// The others wait for it, or get the policy that counts already. If the one is dropped, the next
/// asks. A question takes the resolver's longest wait and [`FETCH_TIMEOUT`] at most.
#[derive(Debug)]
pub struct MtaSts<F = HttpsFetch>(Arc<Shared<F>>);

#[derive(Debug)]
struct Shared<F> {
    fetch: F,
    cache: Cache,
    disk: Option<Disk>,
    /// Permits for fetches.
    fetches: Semaphore,
}

/// How long the answer of the DNS counts.
const CHECK: Duration = Duration::from_secs(300);
/// The same before a message is returned.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a fetch that failed is not repeated (RFC 8461 section 3.3).
const FAILURE: Duration = Duration::from_secs(300);
/// The most fetches at a time. Others wait within their own time.
const FETCHES: usize = 256;
/// The longest domain that can have a name of 253 octets with `_mta-sts.` before it.
const MAX_DOMAIN: usize = 244;

impl<F: PolicyFetch> MtaSts<F> {
    /// Keeps policies in memory.
    pub fn new(fetch: F) -> Self {
        Self::with(fetch, Cache::default(), None)
    }

    /// Keeps policies in memory and in a folder, which it makes if it is not there. Blocks while it
    /// reads the folder.
    ///
    /// Without a folder a domain is unprotected after each start until its policy is fetched. No
    /// other process may use the folder. A file that is damaged is removed with a warning, and so
    /// is one that cannot be written: the mail goes on.
    ///
    /// # Errors
    /// The system's, if the folder cannot be made or listed, or a policy cannot be read. No policy
    /// is removed for that.
    pub fn open(fetch: F, folder: impl AsRef<Path>) -> io::Result<Self> {
        let (disk, loaded) = Disk::open(folder.as_ref())?;
        let cache = Cache::default();
        disk.remove(&cache.load(loaded));
        Ok(Self::with(fetch, cache, Some(disk)))
    }

    fn with(fetch: F, cache: Cache, disk: Option<Disk>) -> Self {
        Self(Arc::new(Shared { fetch, cache, disk, fetches: Semaphore::new(FETCHES) }))
    }

    /// What the domain of recipients asks of its senders. An address literal asks nothing.
    pub async fn policy(&self, resolver: &impl Resolver, domain: &str) -> Found {
        self.ask(resolver, domain, CHECK).await
    }

    /// The same, with an answer of the resolver that is at most a minute old. Ask this before a
    /// message is returned because no host is as the policy says (RFC 8461 section 5.1).
    pub async fn refresh(&self, resolver: &impl Resolver, domain: &str) -> Found {
        self.ask(resolver, domain, REFRESH).await
    }

    async fn ask(&self, resolver: &impl Resolver, domain: &str, within: Duration) -> Found {
        let domain = HostName::parse(domain).ok().filter(HostName::is_plain);
        let Some(domain) = domain.map(|domain| domain.as_str().to_ascii_lowercase()) else { return Found::default() };
        if domain.len() > MAX_DOMAIN {
            return Found::default();
        }
        let (slot, forgotten) = self.0.cache.slot(&domain);
        self.remove(forgotten).await;
        if let Some(found) = slot.fresh(within) {
            return found;
        }
        let asking = match slot.asking.try_lock() {
            Ok(asking) => asking,
            Err(_) => match slot.counting().filter(|_| within == CHECK) {
                Some(found) => return found,
                None => slot.asking.lock().await,
            },
        };
        // Another caller may have asked in the meantime.
        match slot.fresh(within) {
            Some(found) => found,
            None => self.renew(resolver, &domain, &slot, asking).await,
        }
    }

    /// Asks the DNS and, if it has to, the policy host.
    async fn renew(&self, resolver: &impl Resolver, domain: &str, slot: &Slot, _asking: MutexGuard<'_, ()>) -> Found {
        let result = match id(resolver, domain).await {
            Ok(Some(id)) if slot.state().needs(&id, FAILURE) => self.fetch(resolver, domain, slot, id).await,
            // A fetch that failed is still the problem.
            Ok(Some(id)) if slot.state().has_failed(&id, FAILURE) => return slot.checked(|_| {}),
            Ok(Some(_)) => Ok(()),
            Ok(None) => Ok(()),
            Err(problem) => Err(problem),
        };
        slot.checked(|state| state.problem = result.err().map(Arc::new))
    }

    async fn fetch(&self, resolver: &impl Resolver, domain: &str, slot: &Slot, id: PolicyId) -> Result<(), Problem> {
        let host = format!("mta-sts.{domain}");
        let fetch = async {
            // The semaphore is never closed.
            let _permit = self.0.fetches.acquire().await;
            self.0.fetch.fetch(resolver, &host).await
        };
        let fetched = timeout(FETCH_TIMEOUT, fetch).await;
        let file = fetched.unwrap_or(Err(FetchError::Timeout)).map_err(Problem::from);
        let policy = file.and_then(|file| Policy::parse(&file).map_err(Problem::from));
        let policy = match policy {
            Ok(policy) => policy,
            Err(problem) => {
                let mut state = slot.state();
                // RFC 8461 section 3.3: the operator hears of it, unless the policy is `none`.
                if state.kept(Instant::now()).is_none_or(|kept| kept.policy.mode() != Mode::None) {
                    warn!(domain, error = %problem, "MTA-STS policy not fetched");
                }
                state.failed = Some((id, Instant::now()));
                return Err(problem);
            }
        };
        if let Some(kept) = Kept::new(policy, id, Duration::ZERO) {
            self.save(domain, &kept).await;
            self.remove(self.0.cache.keep(slot, kept)).await;
        }
        Ok(())
    }

    async fn save(&self, domain: &str, kept: &Kept) {
        let Some(disk) = self.0.disk.clone() else { return };
        let (domain, id, policy) = (domain.to_owned(), kept.id.clone(), Arc::clone(&kept.policy));
        let _ = tokio::task::spawn_blocking(move || disk.save(&domain, &id, &policy)).await;
    }

    async fn remove(&self, domains: Vec<Box<str>>) {
        if let Some(disk) = self.0.disk.clone().filter(|_| !domains.is_empty()) {
            let _ = tokio::task::spawn_blocking(move || disk.remove(&domains)).await;
        }
    }
}

impl<F> Clone for MtaSts<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The id that the DNS names. `None`: the domain publishes no policy.
async fn id(resolver: &impl Resolver, domain: &str) -> Result<Option<PolicyId>, Problem> {
    match resolver.txt(&format!("_mta-sts.{domain}")).await {
        Ok(records) => Ok(PolicyId::find(&records)?),
        Err(ResolveError::NoSuchName) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
