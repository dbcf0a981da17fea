//! Clients that a DNS block list names (RFC 5782).

use std::{
    fmt::{self, Display, Write as _},
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::time::timeout;
use tracing::debug;

use super::{fixed, is_in};
use crate::{
    Context, Layer, NetworkSet, Refusal, refusal,
    wire::{ForwardPath, Rcpt},
};

/// Refuses the recipients of clients that a DNS block list names: `550 5.7.1`.
///
/// A closure looks up the addresses of a name. With a resolver of posthaste-client it is
/// `async move { resolver.addresses(&name).await.map(|answer| answer.records) }`.
///
/// ```
/// use posthaste_server::layers::BlockList;
/// # async fn layer() -> Result<(), Box<dyn std::error::Error>> {
/// let list = BlockList::new("bl.example.net", |name| async move {
///     // The dot at the end keeps search domains away.
///     let addresses = tokio::net::lookup_host((name + ".", 0)).await?;
///     Ok::<_, std::io::Error>(addresses.map(|address| address.ip()).collect::<Vec<_>>())
/// });
/// // A list that does not work, or has come to name every address, is found at the start.
/// list.test().await?;
/// # Ok(()) }
/// ```
///
/// The list is asked at the first RCPT of a connection, once. So clients that log in are not looked
/// up, and the log has the sender and recipient. Mail to the postmaster is taken, from where a
/// client that is listed by mistake can ask (RFC 5321 section 4.5.1). An error, a timeout or an
/// answer that is none of the [`codes`](Self::codes) lets the client pass.
///
/// The resolver has the cache; the layer keeps two bytes for each connection. Of several lists, add
/// each.
#[derive(Clone)]
#[non_exhaustive]
pub struct BlockList {
    /// How long a look-up may take. Default 5 seconds. Beyond it, the client passes. At most half
    /// of the time for a [verdict](crate::Handler) counts.
    pub timeout: Duration,
    /// The answers that refuse a client. Default `127.0.0.0/8` (RFC 5782 section 2.1), so that a
    /// resolver which invents answers refuses no mail. `127.0.0.1` and `127.255.255.0/24` never
    /// count: lists answer so when they do not answer.
    pub codes: NetworkSet,
    /// The networks that are not looked up. Default: loopback, private and link-local ones, which
    /// no list has.
    pub except: NetworkSet,
    zone: Arc<str>,
    lookup: Arc<Lookup>,
    /// `None`: this client has not been looked up.
    is_listed: Option<bool>,
}

type Lookup = dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, String>> + Send>> + Send + Sync;

/// A block list that does not work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockListError {
    /// The address that every list names is not listed.
    #[error("the block list {0} does not name 127.0.0.2: look up `2.0.0.127.{0}` through the same resolver")]
    NamesNothing(Arc<str>),
    /// The address that no list names is listed.
    #[error("the block list {0} names 127.0.0.1, and so perhaps every address: it may have been given up")]
    NamesAll(Arc<str>),
}

impl BlockList {
    /// The list at this domain, with a closure that looks up the addresses of a name.
    pub fn new<F, A, I, E>(zone: &str, lookup: F) -> Self
    where
        F: Fn(String) -> A + Send + Sync + 'static,
        A: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = IpAddr>,
        E: Display,
    {
        let lookup = move |name| {
            let answer = lookup(name);
            let answer = async { answer.await.map(Vec::from_iter).map_err(|error| error.to_string()) };
            Box::pin(answer) as Pin<Box<dyn Future<Output = _> + Send>>
        };
        Self {
            timeout: Duration::from_secs(5),
            codes: fixed("127.0.0.0/8"),
            except: fixed(SPECIAL),
            zone: zone.into(),
            lookup: Arc::new(lookup),
            is_listed: None,
        }
    }

    /// Looks up the entries for tests, `127.0.0.2` and `127.0.0.1` (RFC 5782 section 5). Dropping
    /// the future ends the look-ups.
    ///
    /// # Errors
    /// [`BlockListError`] when the list does not name the first, or names the second.
    pub async fn test(&self) -> Result<(), BlockListError> {
        if !self.names(Ipv4Addr::new(127, 0, 0, 2).into(), self.timeout).await {
            return Err(BlockListError::NamesNothing(Arc::clone(&self.zone)));
        }
        if self.names(Ipv4Addr::LOCALHOST.into(), self.timeout).await {
            return Err(BlockListError::NamesAll(Arc::clone(&self.zone)));
        }
        Ok(())
    }

    async fn names(&self, address: IpAddr, limit: Duration) -> bool {
        match timeout(limit, (self.lookup)(name(address, &self.zone))).await {
            Ok(Ok(answers)) => answers.into_iter().any(|answer| self.codes.contains(answer) && !is_no_answer(answer)),
            // A name that does not exist is an error of many resolvers.
            Ok(Err(error)) => {
                debug!(list = %self.zone, %address, %error, "address not listed");
                false
            }
            Err(_) => {
                debug!(list = %self.zone, %address, "block list did not answer in time, client passed");
                false
            }
        }
    }
}

impl Layer for BlockList {
    async fn rcpt(&mut self, cx: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
        if cx.peer.identity.is_some() || is_in(&self.except, cx) || is_postmaster(rcpt) {
            return Ok(());
        }
        let address = cx.peer.address.ip_or_loopback().to_canonical();
        let limit = self.timeout.min(cx.settings.timeouts.verdict / 2);
        let is_listed = match self.is_listed {
            Some(is_listed) => is_listed,
            None => *self.is_listed.insert(self.names(address, limit).await),
        };
        if is_listed { Err(refusal!("550 5.7.1 {} is listed by {}", address, self.zone)) } else { Ok(()) }
    }
}

impl fmt::Debug for BlockList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockList").field("zone", &self.zone).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// The name that a list has for an address: its octets or nibbles in reverse (RFC 5782 sections 2.1
/// and 2.4).
fn name(address: IpAddr, zone: &str) -> String {
    let mut name = String::new();
    let mut label = |label: fmt::Arguments<'_>| {
        // Writing to a `String` does not fail.
        let _ = name.write_fmt(label);
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().iter().rev().for_each(|octet| label(format_args!("{octet}."))),
        IpAddr::V6(v6) => {
            v6.octets().iter().rev().for_each(|octet| label(format_args!("{:x}.{:x}.", octet & 15, octet >> 4)));
        }
    }
    name + zone
}

/// Lists answer with these when a resolver may not ask them.
fn is_no_answer(answer: IpAddr) -> bool {
    answer == Ipv4Addr::LOCALHOST || matches!(answer, IpAddr::V4(v4) if v4.octets().starts_with(&[127, 255, 255]))
}

fn is_postmaster(rcpt: &Rcpt) -> bool {
    match &rcpt.forward_path {
        ForwardPath::Postmaster => true,
        ForwardPath::Mailbox(mailbox) => mailbox.local_part().eq_ignore_ascii_case("postmaster"),
    }
}

/// Loopback, private (RFC 1918, RFC 4193), shared (RFC 6598) and link-local networks.
const SPECIAL: &str = "127.0.0.0/8, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 169.254.0.0/16, \
                       ::1, fc00::/7, fe80::/10";
