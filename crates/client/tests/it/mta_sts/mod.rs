//! Policies of domains: fetched, kept, and applied.

mod cache;
mod disk;
mod hosts;
mod https;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use posthaste_client::{
    Answer, MxRecord, ResolveError, Resolver,
    mta_sts::{FetchError, Found, PolicyFetch},
};

/// RFC 8461 section 3.2, with the hosts of these tests.
pub(crate) const POLICY: &str =
    "version: STSv1\r\nmode: enforce\r\nmx: mx.d.test\r\nmx: *.hosts.test\r\nmax_age: 604800\r\n";

type Txt = Result<Vec<Vec<u8>>, ResolveError>;

/// A zone whose hosts are all on loopback.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    txt: Mutex<Option<Txt>>,
    /// The names whose TXT records were asked for.
    asked: Mutex<Vec<String>>,
    no_addresses: bool,
}

impl Zone {
    /// A domain with a policy of this id.
    pub(crate) fn with(id: &str) -> Self {
        let zone = Self::default();
        zone.publishes(id);
        zone
    }

    fn publishes(&self, id: &str) {
        self.answers(Ok(vec![b"v=spf1 -all".to_vec(), format!("v=STSv1; id={id};").into_bytes()]));
    }

    fn answers(&self, txt: Txt) {
        *self.txt.lock().unwrap() = Some(txt);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Resolver for Zone {
    async fn mx(&self, _: &str) -> Result<Answer<MxRecord>, ResolveError> {
        Ok(Answer::default())
    }

    async fn addresses(&self, _: &str) -> Result<Answer<IpAddr>, ResolveError> {
        if self.no_addresses { Err(ResolveError::NoSuchName) } else { Ok(vec![[127, 0, 0, 1].into()].into()) }
    }

    async fn txt(&self, name: &str) -> Txt {
        self.asked.lock().unwrap().push(name.to_owned());
        self.txt.lock().unwrap().clone().unwrap_or(Err(ResolveError::NoSuchName))
    }
}

/// A policy host without a network. Its clones share everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// `None`: the host fails.
    file: Mutex<Option<Vec<u8>>>,
    hosts: Mutex<Vec<String>>,
    fetches: AtomicUsize,
    takes: Mutex<Duration>,
}

impl Files {
    pub(crate) fn with(file: &str) -> Self {
        let files = Self::default();
        files.set(file);
        files
    }

    fn set(&self, file: &str) {
        *self.0.file.lock().unwrap() = Some(file.into());
    }

    fn fail(&self) {
        *self.0.file.lock().unwrap() = None;
    }

    fn take(&self, time: Duration) {
        *self.0.takes.lock().unwrap() = time;
    }

    fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::Relaxed)
    }
}

impl PolicyFetch for Files {
    async fn fetch(&self, _: &impl Resolver, host: &str) -> Result<Bytes, FetchError> {
        self.0.fetches.fetch_add(1, Ordering::Relaxed);
        self.0.hosts.lock().unwrap().push(host.to_owned());
        let time = *self.0.takes.lock().unwrap();
        tokio::time::sleep(time).await;
        let file = self.0.file.lock().unwrap().clone();
        file.map(Bytes::from).ok_or_else(|| FetchError::Other("no file".to_owned()))
    }
}

/// The age of the policy, and what the problem says.
fn seen(found: &Found) -> (Option<u64>, String) {
    let age = found.policy.as_ref().map(|policy| policy.max_age().as_secs());
    (age, found.problem.as_ref().map(ToString::to_string).unwrap_or_default())
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}
