//! Lists of networks that may connect, or may not.

use super::{fixed, is_in};
use crate::{Context, Layer, NetworkSet, Refusal, refusal};

/// Refuses clients by their addresses, in place of the greeting: 554 (RFC 5321 section 3.1).
///
/// ```
/// use posthaste_server::layers::Access;
/// # fn layers() -> Result<(), posthaste_server::NetworkSetError> {
/// // All but these.
/// let mut access = Access::deny("192.0.2.0/24, 2001:db8::/32".parse()?);
/// access.except = "192.0.2.7".parse()?;
/// // These alone.
/// let internal = Access::only("10.0.0.0/8".parse()?);
/// # Ok(()) }
/// ```
///
/// A client on a local socket counts as `127.0.0.1`. A list of millions of networks costs a
/// connection some 20 comparisons.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Access {
    /// The networks whose clients are refused.
    pub denied: NetworkSet,
    /// The networks whose clients are not refused, although they are [denied](Self::denied).
    /// Default: none.
    pub except: NetworkSet,
}

impl Access {
    /// Refuses the clients of these networks.
    pub fn deny(networks: NetworkSet) -> Self {
        Self { denied: networks, except: NetworkSet::default() }
    }

    /// Refuses all clients but those of these networks.
    pub fn only(networks: NetworkSet) -> Self {
        Self { denied: fixed("0.0.0.0/0, ::/0"), except: networks }
    }
}

impl Layer for Access {
    async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
        if is_in(&self.denied, cx) && !is_in(&self.except, cx) {
            return Err(refusal!("554 5.7.1 No SMTP service for {}", cx.peer.address.ip_or_loopback()));
        }
        Ok(())
    }
}
