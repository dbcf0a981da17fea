//! Lists of networks, names and senders that are refused.

use super::{fixed, is_in};
use crate::{
    Context, Layer, NameSet, NetworkSet, Refusal, refusal,
    wire::{EhloName, Mail},
};

/// Refuses clients by lists, each at the first command that shows what is listed.
///
/// ```
/// use posthaste_server::layers::Access;
/// # fn layers() -> Result<(), Box<dyn std::error::Error>> {
/// // All networks but these.
/// let mut access = Access::deny("192.0.2.0/24, 2001:db8::/32".parse()?);
/// access.except = "192.0.2.7".parse()?;
/// // Names in EHLO, and senders.
/// access.hellos = "ylmf-pc, *.dyn.example.net".parse()?;
/// access.senders = "offers@example.com, example.org, *.example.org".parse()?;
/// // These networks alone.
/// let internal = Access::only("10.0.0.0/8".parse()?);
/// # Ok(()) }
/// ```
///
/// A client on a local socket counts as `127.0.0.1`. A list of millions of networks costs a
/// connection some 20 comparisons.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Access {
    /// The networks whose clients are refused: 554 in place of the greeting (RFC 5321 section 3.1).
    /// Default: none.
    pub denied: NetworkSet,
    /// The networks whose clients are not refused, although they are [denied](Self::denied).
    /// Default: none.
    pub except: NetworkSet,
    /// The names that no client may give in EHLO, HELO or LHLO: 550, as RFC 5321 section 4.3.2
    /// has it. Section 7.9 leaves the reason to the site. A client can choose any name, so a list
    /// finds those that take no trouble. Not asked on a listener that demands a login
    /// ([`Offers::demand_auth`](crate::session::server::Offers::demand_auth)): users' hosts have
    /// any name. Default: none.
    pub hellos: NameSet,
    /// The mailboxes and domains that no client may name in MAIL without a login: 550. A sender can
    /// be forged: this keeps mail out, and proves nothing. The null reverse-path cannot be listed,
    /// since reports have it. Default: none.
    pub senders: NameSet,
}

impl Access {
    /// Refuses the clients of these networks.
    pub fn deny(networks: NetworkSet) -> Self {
        Self { denied: networks, ..Self::default() }
    }

    /// Refuses all clients but those of these networks.
    pub fn only(networks: NetworkSet) -> Self {
        Self { denied: fixed("0.0.0.0/0, ::/0"), except: networks, ..Self::default() }
    }
}

impl Layer for Access {
    async fn connect(&mut self, cx: &Context) -> Result<(), Refusal> {
        if is_in(&self.denied, cx) && !is_in(&self.except, cx) {
            return Err(refusal!("554 5.7.1 No SMTP service for {}", cx.peer.address.ip_or_loopback()));
        }
        Ok(())
    }

    async fn hello(&mut self, cx: &Context, name: &EhloName) -> Result<(), Refusal> {
        if !cx.settings.offers.demand_auth && self.hellos.contains_host(name.as_str()) {
            return Err(refusal!("550 5.7.1 No SMTP service under this name"));
        }
        Ok(())
    }

    async fn mail(&mut self, cx: &Context, mail: &Mail) -> Result<(), Refusal> {
        match mail.reverse_path.mailbox() {
            Some(sender) if cx.peer.identity.is_none() && self.senders.contains_mailbox(sender) => {
                Err(refusal!("550 5.7.1 No mail from this sender is taken here"))
            }
            _ => Ok(()),
        }
    }
}
